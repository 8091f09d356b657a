//! `headwater bench pairings`: how many questions for a node a manager answers, and how long each waits.
//!
//! Questions are due at fixed times, whether or not the answers before have come, and a wait counts from when its question
//! was due: a manager that falls behind shows in the waits instead of slowing the generator down.

use crate::args::Pairings;
use crate::failure::Failure;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Streams that are asked for in turn.
const STREAMS: u64 = 10_000;
/// An answer that does not come within this has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one thread saw.
#[derive(Debug, Default)]
struct Seen {
    /// Microseconds from when a question was due to the end of its answer.
    waits: Vec<u32>,
    /// Answers by status; 0: none came.
    statuses: BTreeMap<u16, u64>,
    /// Why the first of those did not come.
    trouble: Option<String>,
}

/// Where the manager is.
#[derive(Clone, Debug)]
struct Target {
    addr: SocketAddr,
    host: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    fn parse(url: &str) -> Result<Target, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it needs http:// or https:// in front")?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            other => return Err(format!("{other} is neither http nor https")),
        };
        let host = rest.trim_end_matches('/').to_owned();
        let with_port = if host.contains(':') {
            host.clone()
        } else {
            format!("{host}:{}", if secure { 443 } else { 80 })
        };
        let addr = with_port.to_socket_addrs().map_err(|e| e.to_string())?.next();
        let addr = addr.ok_or_else(|| format!("{host} has no address"))?;
        Ok(Target { addr, host, tls: secure.then(tls).transpose()? })
    }

    fn connect(&self) -> io::Result<Line> {
        let tcp = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let Some(config) = &self.tls else { return Ok(Line::Plain(tcp)) };
        let name = ServerName::IpAddress(self.addr.ip().into());
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Line::Tls(Box::new(StreamOwned::new(session, tcp))))
    }
}

enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    fn stream(&mut self) -> &mut dyn ReadWrite {
        match self {
            Line::Plain(tcp) => tcp,
            Line::Tls(tls) => tls.as_mut(),
        }
    }

    /// Sends a request and reads its answer to the end. Answers the status.
    fn ask(&mut self, request: &[u8], buffer: &mut Vec<u8>) -> io::Result<u16> {
        let stream = self.stream();
        stream.write_all(request)?;
        stream.flush()?;
        buffer.clear();
        let mut chunk = [0; 4096];
        loop {
            let n = stream.read(&mut chunk)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer.extend_from_slice(&chunk[..n]);
            let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if buffer.len() >= end + 4 + length.unwrap_or(0) {
                let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
                return status.ok_or_else(|| io::Error::other("the answer has no status"));
            }
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A TLS client that takes any certificate: what is measured is the handshake, not the trust.
fn tls() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    // Each handshake is to be a whole one.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks the questions `first`, `first + step`, … at their times.
fn asks(args: &Pairings, target: &Target, start: Instant, first: u64, step: u64) -> Seen {
    let mut seen = Seen::default();
    let mut line = None;
    let mut buffer = Vec::new();
    let (_keep, clock) = mpsc::channel::<()>();
    let all = args.rate.saturating_mul(args.seconds);
    for n in (first..all).step_by(step as usize) {
        let due = start + Duration::from_nanos(n.saturating_mul(1_000_000_000) / args.rate);
        // Nobody ever says anything there: a wait until the question is due.
        let _ = clock.recv_timeout(due.saturating_duration_since(Instant::now()));
        let request = format!(
            "GET /streammanager/api/4.0/event/bench/s{}?action=broadcast HTTP/1.1\r\nHost: {}\r\n\r\n",
            n % STREAMS,
            target.host
        );
        if args.new_connections {
            line = None;
        }
        let answered = match &mut line {
            Some(line) => Ok(line),
            None => target.connect().map(|l| line.insert(l)),
        }
        .and_then(|line| line.ask(request.as_bytes(), &mut buffer));
        let status = answered.unwrap_or_else(|e| {
            line = None;
            seen.trouble.get_or_insert(e.to_string());
            0
        });
        *seen.statuses.entry(status).or_default() += 1;
        seen.waits.push(due.elapsed().as_micros().try_into().unwrap_or(u32::MAX));
    }
    seen
}

/// Runs it and answers what to print.
///
/// # Errors
/// The address cannot be used, or a question was not answered with a node.
pub(crate) fn run(args: &Pairings) -> Result<String, Failure> {
    let target =
        Target::parse(&args.url).map_err(|e| Failure::Running(format!("--url {}: {e}", args.url)))?;
    let start = Instant::now() + Duration::from_millis(200);
    let threads = args.connections.clamp(1, 1_024);
    let seen: Vec<Seen> = thread::scope(|scope| {
        let target = &target;
        let all: Vec<_> =
            (0..threads).map(|t| scope.spawn(move || asks(args, target, start, t, threads))).collect();
        all.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    let took = start.elapsed().as_secs_f64();
    let mut waits: Vec<u32> = seen.iter().flat_map(|s| s.waits.iter().copied()).collect();
    waits.sort_unstable();
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    for (status, n) in seen.iter().flat_map(|s| &s.statuses) {
        *statuses.entry(*status).or_default() += n;
    }
    let at = |permille: usize| {
        let index = (waits.len() * permille / 1_000).min(waits.len().saturating_sub(1));
        waits.get(index).map_or(0.0, |us| f64::from(*us) / 1_000.0)
    };
    let good = statuses.get(&200).copied().unwrap_or(0);
    let mut out = format!(
        "{good} pairings in {took:.2} s: {:.0} a second of {} asked for, {}\n\
         wait  p50 {:.2} ms  p90 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  longest {:.2} ms\n",
        good as f64 / took,
        args.rate,
        if args.new_connections { "each on a new connection" } else { "on connections that are kept" },
        at(500),
        at(900),
        at(990),
        at(999),
        at(1_000),
    );
    let bad: u64 = statuses.iter().filter(|(s, _)| **s != 200).map(|(_, n)| n).sum();
    if bad > 0 {
        let _ = writeln!(out, "{bad} were not answered with a node, by status (0: no answer): {statuses:?}");
        if let Some(why) = seen.iter().find_map(|s| s.trouble.as_ref()) {
            let _ = writeln!(out, "the first that was not answered: {why}");
        }
        return Err(Failure::Running(out.trim_end().to_owned()));
    }
    Ok(out)
}
