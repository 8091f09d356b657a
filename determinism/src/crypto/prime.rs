//! What str0m and dimpl remember of the clock when they first look at it, seen through what they say later.

use super::{Error, certificate, dtls, dtls_provider, str0m_provider};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::{Input, Output, Rtc};

/// str0m's moment that never comes: a hundred years after the first look at the clock. Makes it look, if it has not.
pub(crate) fn far_future(now: Instant) -> Result<Instant, Error> {
    let failed = |e| Error::new("a WebRTC session", e);
    let provider = str0m_provider(dtls_provider()?);
    let mut rtc = Rtc::builder()
        .set_crypto_provider(Arc::new(provider))
        .set_dtls_cert(certificate([0; 32])?)
        .enable_bwe(None)
        .build(now);
    rtc.handle_input(Input::Timeout(now)).map_err(failed)?;
    rtc.disconnect();
    loop {
        if let Output::Timeout(at) = rtc.poll_output().map_err(failed)? {
            return Ok(at);
        }
    }
}

/// The time of day, as dimpl puts it into the random bytes of a hello (RFC 5246, section 7.4.1.2), counted from the Unix
/// epoch. Makes dimpl look at the clock, if it has not.
pub(crate) fn hello_time(now: Instant) -> Result<Duration, Error> {
    /// Where the random bytes stand: after the headers of record (13 bytes) and handshake (12), and the version (2).
    const RANDOM: usize = 27;
    let failed = |e| Error::new("a DTLS handshake", e);
    let mut client = dimpl::Dtls::new_12(dtls::config()?, certificate([0; 32])?, now);
    client.set_active(true);
    client.handle_timeout(now).map_err(failed)?;
    let mut buf = vec![0; 2_048];
    loop {
        match client.poll_output(&mut buf) {
            dimpl::Output::Packet(hello) => {
                let time = hello.get(RANDOM..).and_then(|r| r.first_chunk::<4>());
                let time = time.ok_or_else(|| Error::new("a DTLS handshake", "the hello is too short"))?;
                return Ok(Duration::from_secs(u64::from(u32::from_be_bytes(*time))));
            }
            dimpl::Output::Timeout(_) => return Err(Error::new("a DTLS handshake", "it does not begin")),
            _ => {}
        }
    }
}
