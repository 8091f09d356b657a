//! DTLS for WebRTC: one configuration for all sessions of a node, and a handshake that unauthenticated datagrams
//! cannot end.
//!
//! str0m's own provider builds a configuration per session, and each build runs a self-test of the whole
//! cryptographic provider, which costs more than the handshake itself.

mod ciphers;
mod settled;

pub(super) use settled::{Said, Settled};

use crate::error::Reason;
use ciphers::{Register, Tail, tail};
use dimpl::Dtls;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use str0m::config::{DtlsCert, DtlsVersion};
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

/// First retransmission of a handshake flight. dimpl's own second is longer than a viewer waits for a picture.
const FLIGHT_RTO: Duration = Duration::from_millis(300);
/// The largest DTLS datagram that we send: within every path's MTU.
const DTLS_MTU: usize = 1_150;

/// Who this node is towards WebRTC peers, and the cryptography that it uses: one certificate for all sessions.
/// Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    certificate: DtlsCert,
    provider: &'static Provider,
    crypto: Arc<CryptoProvider>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// Makes a certificate and checks the cryptographic library. For drivers, once per process: it draws from the
    /// operating system, and what is shared by all sessions stays allocated until the process ends.
    ///
    /// # Errors
    /// If the library's self-test or the making of the certificate fails.
    pub fn generate() -> Result<Identity, Reason> {
        let stock = str0m::crypto::from_feature_flags();
        let certificate = stock.dtls_provider.generate_certificate().ok_or_else(|| {
            Reason::local("no_certificate", "the certificate for WebRTC could not be made; WebRTC cannot run")
        })?;
        Identity::new(certificate)
    }

    /// As [`Identity::generate`], with a certificate that exists already.
    ///
    /// # Errors
    /// If the library's self-test fails.
    pub fn new(certificate: DtlsCert) -> Result<Identity, Reason> {
        let dtls = dimpl::crypto::aws_lc_rs::default_provider();
        Identity::with_crypto(certificate, dtls, str0m::crypto::from_feature_flags())
    }

    /// As [`Identity::new`], with other cryptography: `dtls` for handshakes, and all but the DTLS provider of `other`
    /// for the rest. For drivers that must be able to replay what a node did.
    ///
    /// # Errors
    /// If the self-test of `dtls` fails.
    pub fn with_crypto(
        certificate: DtlsCert,
        dtls: dimpl::crypto::CryptoProvider,
        other: CryptoProvider,
    ) -> Result<Identity, Reason> {
        let register: &'static Register = Box::leak(Box::default());
        let cipher_suites = ciphers::entered(dtls.cipher_suites, register);
        let config = dimpl::Config::builder()
            .with_crypto_provider(dimpl::crypto::CryptoProvider { cipher_suites, ..dtls })
            // ICE has proven the return path before the first DTLS record is looked at.
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_RTO)
            .flight_retries(6)
            .mtu(DTLS_MTU)
            .build()
            .map_err(|e| {
                Reason::local(
                    "crypto_self_test",
                    format!("the cryptographic library failed its self-test ({e}); WebRTC cannot run"),
                )
            })?;
        let makes_certificates = other.dtls_provider;
        // str0m takes providers as static references; one small allocation per identity is the price.
        let provider: &'static Provider = Box::leak(Box::new(Provider {
            config: Arc::new(config),
            taps: Mutex::default(),
            register,
            makes_certificates,
        }));
        let crypto = CryptoProvider { dtls_provider: provider, ..other };
        Ok(Identity { certificate, provider, crypto: Arc::new(crypto) })
    }

    /// Another identity with the same cryptography, and at no cost: nothing is tested or allocated for good. For
    /// drivers with many nodes.
    #[must_use]
    pub fn with_certificate(&self, certificate: DtlsCert) -> Identity {
        Identity { certificate, provider: self.provider, crypto: self.crypto.clone() }
    }

    pub(super) fn certificate(&self) -> DtlsCert {
        self.certificate.clone()
    }

    /// Begins one handshake, by str0m, whose keys can be taken from the tap: `begin` gets the certificate for it.
    pub(super) fn tapped<T>(&self, begin: impl FnOnce(DtlsCert) -> T) -> (T, Tap) {
        let tap = Tap::default();
        let mut certificate = self.certificate.clone();
        let number = {
            let mut taps = lock(&self.provider.taps);
            taps.next = taps.next.wrapping_add(1);
            let number = taps.next;
            taps.waiting.insert(number, tap.clone());
            number
        };
        certificate.private_key.extend_from_slice(MARK);
        certificate.private_key.extend_from_slice(&number.to_be_bytes());
        let begun = begin(certificate);
        lock(&self.provider.taps).waiting.remove(&number);
        (begun, tap)
    }

    /// Begins a handshake; `active`: with our first flight, where the peer waits for it.
    ///
    /// # Errors
    /// If the first flight cannot be made.
    pub(super) fn handshake(&self, active: bool, now: Instant) -> Result<Session, Reason> {
        let mut session =
            Session::new(self.provider.config.clone(), self.certificate(), now, None, self.provider.register);
        session.set_active(active);
        session
            .handle_timeout(now)
            .map_err(|e| Reason::local("dtls", format!("DTLS cannot be begun: {e}")))?;
        Ok(session)
    }

    pub(super) fn crypto(&self) -> &Arc<CryptoProvider> {
        &self.crypto
    }
}

/// What a handshake agrees on for SRTP: the keying material of both sides (RFC 5764, 4.2), the profile, and whether our
/// half of it is the client's.
pub(super) struct Exported {
    pub(super) material: Vec<u8>,
    pub(super) profile: SrtpProfile,
    pub(super) client: bool,
}

/// Where a handshake that str0m conducts leaves its keys, for a session that opens media itself.
#[derive(Clone, Default)]
pub(super) struct Tap(Arc<Mutex<Option<Exported>>>);

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap(..)")
    }
}

impl Tap {
    /// The keys, once. They are there as soon as the handshake stands, whoever the peer turns out to be.
    pub(super) fn take(&self) -> Option<Exported> {
        lock(&self.0).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Taps that wait for the handshake that str0m is about to begin. str0m hands nothing of a session through to its provider
/// but the certificate, so the tap's number stands behind the private key, where only the provider looks.
#[derive(Debug, Default)]
struct Taps {
    waiting: BTreeMap<u64, Tap>,
    next: u64,
}

/// In front of a tap's number.
const MARK: &[u8; 8] = b"tap no. ";

impl Taps {
    /// The tap whose number stands behind a key, and the key without it.
    fn of<'a>(&mut self, key: &'a [u8]) -> (&'a [u8], Option<Tap>) {
        let marked = key
            .split_last_chunk::<8>()
            .and_then(|(rest, number)| Some((rest.strip_suffix(MARK)?, u64::from_be_bytes(*number))));
        match marked {
            Some((key, number)) => (key, self.waiting.remove(&number)),
            None => (key, None),
        }
    }
}

#[derive(Debug)]
struct Provider {
    config: Arc<dimpl::Config>,
    taps: Mutex<Taps>,
    register: &'static Register,
    makes_certificates: &'static dyn DtlsProvider,
}

impl DtlsProvider for Provider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.makes_certificates.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let (key, tap) = lock(&self.taps).of(&cert.private_key);
        let cert = DtlsCert { certificate: cert.certificate.clone(), private_key: key.to_vec() };
        Ok(Box::new(Session::new(self.config.clone(), cert, now, tap, self.register)))
    }
}

/// One handshake and what follows it. Errors before the handshake has ended are forgiven: nothing that arrives by
/// then is authenticated, so anybody could have sent it. The limit on a handshake's time ends a hopeless one.
pub(super) struct Session {
    config: Arc<dimpl::Config>,
    certificate: DtlsCert,
    dtls: Dtls,
    active: Option<bool>,
    now: Instant,
    connected: bool,
    closing: bool,
    tap: Option<Tap>,
    register: &'static Register,
    /// How the last datagrams ended, sent and received.
    ends: [Option<Tail>; 2],
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Session {
    fn new(
        config: Arc<dimpl::Config>,
        certificate: DtlsCert,
        now: Instant,
        tap: Option<Tap>,
        register: &'static Register,
    ) -> Session {
        let dtls = Dtls::new_12(config.clone(), certificate.clone(), now);
        let (active, connected, closing, ends) = (None, false, false, [None; 2]);
        Session { config, certificate, dtls, active, now, connected, closing, tap, register, ends }
    }

    /// What is left of a handshake that stands, of which `flight` were our last words, if we had them; the rest may be
    /// dropped. `None`: it does not stand, or its last datagrams ended with something else than their last words.
    pub(super) fn settled(&self, flight: Vec<Vec<u8>>) -> Option<Settled> {
        let [Some(sent), Some(received)] = self.ends else { return None };
        if !self.connected || self.closing {
            return None;
        }
        let (ours, theirs) = (self.register.take(sent)?, self.register.take(received)?);
        Some(Settled::new(ours, theirs, flight))
    }

    fn forgive(&mut self, result: Result<(), DtlsImplError>) -> Result<(), DtlsImplError> {
        match result {
            Err(_) if !self.connected && !self.closing => {
                if self.dtls.is_closed() || self.dtls.is_closing() {
                    self.restart()?;
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Begins the handshake anew; the peer's retransmissions carry it on.
    fn restart(&mut self) -> Result<(), DtlsImplError> {
        self.dtls = Dtls::new_12(self.config.clone(), self.certificate.clone(), self.now);
        if let Some(active) = self.active {
            self.dtls.set_active(active);
        }
        self.dtls.handle_timeout(self.now)
    }
}

impl DtlsInstance for Session {
    fn set_active(&mut self, active: bool) {
        self.active = Some(active);
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        let result = self.dtls.handle_packet(packet);
        if result.is_ok() {
            self.ends[1] = tail(packet).or(self.ends[1]);
        }
        self.forgive(result)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let client = self.dtls.is_active();
        let output = self.dtls.poll_output(buf);
        self.connected |= matches!(output, DtlsOutput::Connected);
        if let DtlsOutput::Packet(packet) = &output {
            self.ends[0] = tail(packet);
        }
        if let (DtlsOutput::KeyingMaterial(material, profile), Some(tap)) = (&output, &self.tap) {
            let exported = Exported { material: material.to_vec(), profile: *profile, client };
            *lock(&tap.0) = Some(exported);
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        match self.dtls.handle_timeout(now) {
            // A flight ran out of retries: a stalled handshake is begun anew for as long as the session may try.
            Err(_) if !self.connected && !self.closing => self.restart(),
            other => other,
        }
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.closing = true;
        self.dtls.close()
    }
}
