#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

use super::certificate::Cover;
use super::*;
use crate::limits::Limits;
use crate::time::Time;
use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use std::io::{Read as _, Write as _};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Certificate and key for these names, as PEM.
fn made(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn certified(names: &[&str]) -> Certified {
    let (chain, key) = made(names);
    Certified::from_pem(("c.pem", chain.as_bytes()), ("k.pem", key.as_bytes()), &provider()).unwrap()
}

fn identity() -> Identity {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    Identity::new(provider(), own.der().to_vec(), key.serialize_der())
}

fn acceptor(certificates: Vec<Certified>) -> Acceptor {
    let clock = Arc::new(Clock::default());
    clock.set(WallTime(1_800_000_000_000_000_000));
    Acceptor::new(&identity(), certificates, &clock).unwrap()
}

/// Trusts everybody, and remembers whom.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn client(host: &'static str, change: impl FnOnce(&mut ClientConfig)) -> ClientConnection {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(Clock::default()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    change(&mut config);
    ClientConnection::new(Arc::new(config), ServerName::try_from(host).unwrap()).unwrap()
}

/// Carries what both say until both are silent, the client's bytes in pieces of `cut`. Answers what the server got.
fn carry(client: &mut ClientConnection, server: &mut Session, cut: usize) -> Result<Fed, Reason> {
    carry_back(client, server, cut).map(|(got, _)| got)
}

/// As [`carry`], and what the client got.
fn carry_back(
    client: &mut ClientConnection,
    server: &mut Session,
    cut: usize,
) -> Result<(Fed, Vec<u8>), Reason> {
    let (mut got, mut back) = (Fed::default(), Vec::new());
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        for piece in bytes.chunks(cut) {
            let fed = server.feed(piece)?;
            got.plain.extend(fed.plain);
            got.finished |= fed.finished;
        }
        let mut quiet = bytes.is_empty();
        server.seal();
        while let Some(bytes) = server.pop() {
            quiet = false;
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                client.read_tls(&mut bytes).unwrap();
                let state =
                    client.process_new_packets().map_err(|e| Reason::peer("client", e.to_string()))?;
                let at = back.len();
                back.resize(at + state.plaintext_bytes_to_read(), 0);
                client.reader().read_exact(&mut back[at..]).unwrap();
            }
        }
        if quiet {
            return Ok((got, back));
        }
    }
}

use crate::error::Reason;

fn session(acceptor: &Acceptor) -> Session {
    let mut session = Session::new(acceptor.http(), &Limits::default(), Time::ZERO).unwrap();
    session.set_credit(1 << 20);
    session
}

#[test]
fn bytes_pass_both_ways_however_they_are_cut_and_the_end_is_told() {
    let acceptor = acceptor(vec![certified(&["localhost"])]);
    for cut in [1, 3, 100, 1 << 20] {
        let (mut client, mut server) = (client("localhost", |_| {}), session(&acceptor));
        assert!(server.deadline().is_some());
        assert_eq!(carry(&mut client, &mut server, cut).unwrap(), Fed::default());
        assert!(server.deadline().is_none(), "the handshake is over");
        let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        client.writer().write_all(&long[..40_000]).unwrap();
        server.send(Bytes::from(long[..50_000].to_vec()));
        server.send(Bytes::from(long[50_000..].to_vec()));
        let (got, back) = carry_back(&mut client, &mut server, cut).unwrap();
        assert!(got.plain == long[..40_000] && !got.finished);
        assert!(back == long);
        client.send_close_notify();
        assert!(carry(&mut client, &mut server, cut).unwrap().finished);
        server.close();
        carry(&mut client, &mut server, cut).unwrap();
        assert_eq!(client.reader().read(&mut [0; 9]).unwrap(), 0, "the end was told, not cut");
    }
}

#[test]
fn the_name_chooses_the_certificate() {
    let all = [&["a.example", "*.b.example"][..], &["x.b.example"], &["c.example"]].map(certified);
    let acceptor = acceptor(all.to_vec());
    for (host, which) in [
        ("a.example", 0),
        ("A.Example", 0),
        ("x.b.example", 1),
        ("y.b.example", 0),
        ("c.example", 2),
        ("other.example", 0),
    ] {
        let (mut client, mut server) = (client(host, |_| {}), session(&acceptor));
        carry(&mut client, &mut server, 1 << 20).unwrap();
        let shown = client.peer_certificates().unwrap()[0].clone();
        assert_eq!(shown, all[which].key().cert[0], "{host}");
    }
    assert_eq!(all[0].covers("y.b.example"), Some(Cover::Wildcard));
    assert_eq!(all[0].covers("b.example"), None);
    assert_eq!(all[0].covers("y.y.b.example"), None);
}

#[test]
fn http_is_agreed_on_and_nothing_else() {
    let acceptor = acceptor(vec![certified(&["localhost"])]);
    let offers = |offer: &[&str]| {
        let offer = offer.iter().map(|o| o.as_bytes().to_vec()).collect();
        let mut client = client("localhost", |c| c.alpn_protocols = offer);
        let done = carry(&mut client, &mut session(&acceptor), 1 << 20);
        done.map(|_| client.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(offers(&["h2", "http/1.1"]).unwrap().as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(offers(&[]).unwrap(), None);
    let refused = offers(&["h2"]).unwrap_err();
    assert!(refused.code == "tls_failed" && refused.text.contains("HTTP/1.1"), "{refused}");
}

#[test]
fn what_is_no_tls_is_told_as_such_and_an_alert_waits() {
    let acceptor = acceptor(vec![certified(&["localhost"])]);
    for bytes in [&[0x16, 3, 1, 0, 4, 9, 9, 9, 9][..], &[0x16; 600], b"\x16garbage that is no record at all"]
    {
        let mut server = session(&acceptor);
        let reason = server.feed(bytes).unwrap_err();
        assert!(matches!(reason.code, "tls_not" | "tls_failed"), "{reason}");
    }
    let server = session(&acceptor);
    assert!(server.expire(Time::from_millis(9_999)).is_ok());
    assert_eq!(server.expire(Time::from_millis(10_000)).unwrap_err().code, "tls_timeout");
    for (byte, who) in [
        (0x16, First::Tls),
        (b'G', First::Http),
        (0, First::Stun),
        (1, First::Stun),
        (3, First::Rtmp),
        (200, First::Other),
    ] {
        assert_eq!(first(byte), who);
    }
}

#[test]
fn a_client_that_does_not_trust_us_is_understood() {
    let acceptor = acceptor(vec![certified(&["localhost"])]);
    let mut server = session(&acceptor);
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let _ = carry(&mut client, &mut server, 1 << 20);
    let reason = carry(&mut client, &mut server, 1 << 20).unwrap_err();
    assert!(reason.code == "tls_alert" && reason.text.contains("tls.certificates"), "{reason}");
}

#[test]
fn what_is_wrong_with_files_is_said_with_the_remedy() {
    let (chain, key) = made(&["a.example"]);
    let (_, other) = made(&["b.example"]);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cut = &chain[..chain.len() - 30];
    let damaged = chain.replace("MII", "M*I");
    for (c, k, words) in [
        (chain.as_str(), "", "k.pem holds no private key"),
        ("", key.as_str(), "c.pem holds no certificate"),
        (&chain, &chain, "k.pem holds no private key"),
        (&key, &key, "c.pem holds no certificate"),
        (&chain, &other, "the private key in k.pem is not that of the first certificate in c.pem"),
        (&chain, encrypted, "openssl pkey"),
        (cut, &key, "c.pem cannot be read as PEM"),
        (&damaged, &key, "c.pem cannot be read as PEM: the base64 is damaged"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            "the first certificate in c.pem cannot be read",
        ),
    ] {
        let got = Certified::from_pem(("c.pem", c.as_bytes()), ("k.pem", k.as_bytes()), &provider());
        let text = got.map(|_| ()).unwrap_err();
        assert!(text.contains(words), "{text}");
    }
    // Key and chain in one file, in either order.
    for both in [format!("{chain}{key}"), format!("{key}{chain}")] {
        let both = ("one.pem", both.as_bytes());
        let certified = Certified::from_pem(both, both, &provider()).unwrap();
        assert_eq!(certified.names(), ["a.example"]);
        assert!(certified.expires() > 1_800_000_000);
    }
}

/// Carries what our client and our server say until both are silent. Answers what the server got, or why the client ended.
fn carry_ours(client: &mut Session, server: &mut Session) -> Result<Vec<u8>, Reason> {
    client.set_credit(1 << 20);
    server.set_credit(1 << 20);
    let mut got = Vec::new();
    loop {
        let mut quiet = true;
        client.seal();
        while let Some(bytes) = client.pop() {
            quiet = false;
            if let Ok(fed) = server.feed(&bytes) {
                got.extend(fed.plain);
            }
        }
        server.seal();
        while let Some(bytes) = server.pop() {
            quiet = false;
            client.feed(&bytes)?;
        }
        if quiet {
            return Ok(got);
        }
    }
}

#[test]
fn our_client_trusts_whom_it_is_told_to() {
    let (chain, key) = made(&["cam.example"]);
    let own = Certified::from_pem(("c.pem", chain.as_bytes()), ("k.pem", key.as_bytes()), &provider());
    let acceptor = acceptor(vec![own.unwrap()]);
    let clock = Arc::new(Clock::default());
    clock.set(WallTime(1_800_000_000_000_000_000));
    let (other, _) = made(&["cam.example"]);
    for (authority, host, wanted) in [
        (&chain, "cam.example", Ok(())),
        (&chain, "other.example", Err("not for")),
        (&other, "cam.example", Err("tls.authorities")),
    ] {
        let connector = Connector::new(&identity(), "ca.pem", authority.as_bytes(), &clock).unwrap();
        let limits = Limits::default();
        let mut server = Session::new(acceptor.plain(), &limits, Time::ZERO).unwrap();
        let mut client = Session::client(connector.config(), host, &limits, Time::ZERO).unwrap();
        client.send(Bytes::from_static(b"OPTIONS"));
        match (carry_ours(&mut client, &mut server), wanted) {
            (Ok(got), Ok(())) => assert_eq!(got, b"OPTIONS"),
            (Err(reason), Err(word)) => {
                assert!(reason.code == "tls_untrusted" && reason.text.contains(word), "{reason}");
            }
            (got, wanted) => panic!("{host}: {got:?}, not {wanted:?}"),
        }
    }
    let none = Connector::new(&identity(), "ca.pem", b"nothing", &clock).unwrap_err();
    assert!(none.contains("ca.pem holds no certificate"), "{none}");
}
