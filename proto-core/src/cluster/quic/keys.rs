//! What quinn-proto wants to know that is secret or random, all of it from the node's generator and key.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::rate::RateFactory;
use crate::error::Reason;
use crate::rand::Rng;
use crate::tls;
use hmac::{Hmac, KeyInit, Mac};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, NoneTokenLog,
    NoneTokenStore, ServerConfig, TimeSource, TransportConfig, ValidationTokenConfig, VarInt,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme, version};
use sha2::Sha256;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The protocol's name in the TLS handshake (RFC 7301).
const ALPN: &[u8] = b"headwater-link/1";
/// The name that certificates are asked for; nobody looks at it.
pub(super) const SERVER_NAME: &str = "node.headwater.invalid";
/// Bytes of our connection ids.
const ID_BYTES: usize = 8;
/// Bytes that a peer may have under way before it proved the key.
pub(super) const WINDOW_BEFORE: u32 = 64 << 10;
/// Bytes after its first datagram that are kept of who waits for a turn with time for its handshake.
const HELLO: u64 = 4 << 10;
/// Nothing at all was heard: the library forgets the connection. The link on it looks much earlier.
const IDLE: Duration = Duration::from_secs(15);
/// What a round trip is taken for until it was measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// A key of HMAC-SHA256 (RFC 2104).
#[derive(Clone)]
pub(super) struct Key([u8; 64]);

impl Key {
    pub(super) fn new(key: [u8; 32]) -> Key {
        let mut block = [0; 64];
        for (slot, byte) in block.iter_mut().zip(key) {
            *slot = byte;
        }
        Key(block)
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&self.0.into());
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl HmacKey for Key {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        for (slot, byte) in out.iter_mut().zip(self.mac(&[data]).finalize().into_bytes()) {
            *slot = byte;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.mac(&[data]).verify_slice(signature).map_err(|_| CryptoError)
    }
}

impl HandshakeTokenKey for Key {
    fn aead_from_hkdf(&self, random: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Key::new(self.mac(&[b"token", random]).finalize().into_bytes().into()))
    }
}

/// Retry tokens are authentic, not secret: they tell a client its own address and the time (RFC 9000 section 8.1.4 asks
/// for integrity).
impl AeadKey for Key {
    fn seal(&self, data: &mut Vec<u8>, extra: &[u8]) -> Result<(), CryptoError> {
        let tag = self.mac(&[data, extra]).finalize().into_bytes();
        data.extend_from_slice(&tag);
        Ok(())
    }

    fn open<'a>(&self, data: &'a mut [u8], extra: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let at = data.len().checked_sub(32).ok_or(CryptoError)?;
        let (data, tag) = data.split_at_mut_checked(at).ok_or(CryptoError)?;
        self.mac(&[data, extra]).verify_slice(tag).map_err(|_| CryptoError)?;
        Ok(data)
    }
}

/// Connection ids out of the node's generator.
struct Ids(Rng);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.bytes::<ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The node's own time for the age of Retry tokens, which are good in this run of the node only.
#[derive(Debug, Default)]
pub(super) struct Clock(pub(super) AtomicU64);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Takes any certificate: whom the connection goes to is proved by the shared key over a value that only the two ends of
/// this TLS connection have (RFC 9266), so whoever stands between has no proof to pass on.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
        ]
    }
}

#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// How connections are made, in both directions.
pub(super) struct Configs {
    pub(super) endpoint: Arc<EndpointConfig>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: ClientConfig,
}

/// What a connection may do, and how it is sped.
fn transport(stock: bool) -> TransportConfig {
    let mut t = TransportConfig::default();
    t.max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(WINDOW_BEFORE))
        .stream_receive_window(VarInt::from_u32(8 << 20))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(None)
        .datagram_receive_buffer_size(None)
        .allow_spin(false);
    if !stock {
        t.congestion_controller_factory(Arc::new(RateFactory));
    }
    t
}

impl Configs {
    /// `reset` is a secret that stays the same when the node starts anew; `handshakes` may wait for their turn at once; `stock`: with the library's congestion
    /// control, for comparison.
    ///
    /// # Errors
    /// If the cryptographic library cannot do QUIC.
    pub(super) fn new(
        identity: &tls::Identity,
        rng: &Rng,
        reset: [u8; 32],
        clock: &Arc<Clock>,
        handshakes: usize,
        stock: bool,
    ) -> Result<Configs, Reason> {
        let cannot =
            |what: String| Reason::local("quic_tls", format!("QUIC between nodes is not possible: {what}"));
        let tls = |e: rustls::Error| cannot(e.to_string());
        let suite = |e: quinn_proto::crypto::rustls::NoInitialCipherSuite| cannot(e.to_string());
        let provider = identity.provider().clone();
        let tls_clock = Arc::new(tls::Clock::default());

        let own = identity.own().map_err(cannot)?.key().clone();
        let mut server = rustls::ServerConfig::builder_with_details(provider.clone(), tls_clock.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Own(own)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;

        let mut client = rustls::ClientConfig::builder_with_details(provider, tls_clock)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();

        let transport = Arc::new(transport(stock));
        let token_key = Arc::new(Key::new(rng.fork("tokens", 0).bytes()));
        let mut server_config =
            ServerConfig::new(Arc::new(QuicServerConfig::try_from(server).map_err(suite)?), token_key);
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0).log(Arc::new(NoneTokenLog));
        server_config
            .transport_config(transport.clone())
            .validation_token_config(tokens)
            .time_source(clock.clone())
            .migration(false)
            .max_incoming(handshakes.max(1))
            .incoming_buffer_size(HELLO)
            .incoming_buffer_size_total(HELLO.saturating_mul(handshakes as u64));

        let mut client_config =
            ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).map_err(suite)?));
        let (ids, drawn) = (rng.fork("first ids", 0), AtomicU64::new(0));
        client_config
            .transport_config(transport)
            .token_store(Arc::new(NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || {
                let n = drawn.fetch_add(1, Ordering::Relaxed);
                ConnectionId::new(&ids.fork("id", n).bytes::<20>())
            }));

        let mut endpoint = EndpointConfig::new(Arc::new(Key::new(reset)));
        let ids = rng.fork("ids", 0);
        endpoint
            .supported_versions(vec![1])
            .cid_generator(move || Box::new(Ids(ids.clone())))
            .rng_seed(Some(rng.fork("library", 0).bytes()));
        Ok(Configs { endpoint: Arc::new(endpoint), server: Arc::new(server_config), client: client_config })
    }
}
