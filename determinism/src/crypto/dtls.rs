//! DTLS sessions for WebRTC peers that are not nodes of ours: the simulator's browsers. (Nodes bring their own provider,
//! with their own ideas of retransmission.)

use super::{Error, certificate, dimpl_provider};
use crate::os;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use str0m::config::DtlsVersion;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion};

/// dimpl with [`dimpl_provider`], one configuration for all sessions of the process: making one runs a self-test of the
/// library. The datagrams' size is dimpl's own, 1,150 bytes.
///
/// Takes nothing from the run in which it is first called.
///
/// # Errors
/// If the self-test fails.
pub fn dtls_provider() -> Result<&'static dyn DtlsProvider, Error> {
    static MADE: OnceLock<Result<Provider, Error>> = OnceLock::new();
    match MADE.get_or_init(|| os::fresh([0; 32], config).map(|config| Provider { config })) {
        Ok(provider) => Ok(provider),
        Err(e) => Err(e.clone()),
    }
}

/// A configuration for WebRTC, where ICE has proven the return path before the first record.
pub(super) fn config() -> Result<Arc<dimpl::Config>, Error> {
    let config =
        dimpl::Config::builder().with_crypto_provider(dimpl_provider()).use_server_cookie(false).build();
    config.map(Arc::new).map_err(|e| Error::new("the self-test of the cryptographic library", e))
}

#[derive(Debug)]
struct Provider {
    config: Arc<dimpl::Config>,
}

impl DtlsProvider for Provider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok()?;
        certificate(seed).ok()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let (config, cert) = (self.config.clone(), cert.clone());
        let dtls = match version {
            DtlsVersion::Dtls12 => dimpl::Dtls::new_12(config, cert, now),
            DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, cert, now),
            DtlsVersion::Auto => dimpl::Dtls::new_auto(config, cert, now),
            other => return Err(CryptoError::Other(format!("{other} is not known here"))),
        };
        Ok(Box::new(Session(dtls)))
    }
}

struct Session(dimpl::Dtls);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}

impl DtlsInstance for Session {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buf)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
