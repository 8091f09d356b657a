//! A process that used WebRTC before it asked for interposition is told so: what the libraries remember of the clock
//! cannot be taken back. A file of its own, and so a process of its own.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use determinism::{crypto, os};
use std::time::Instant;
use str0m::config::DtlsVersion;
use str0m::crypto::dtls::DtlsOutput;
use str0m::{Input, Output, Rtc};

#[test]
fn libraries_that_remember_the_real_clock_are_named() {
    let now = Instant::now();
    let mut rtc = Rtc::new(now);
    rtc.handle_input(Input::Timeout(now)).unwrap();
    rtc.disconnect();
    assert!(matches!(rtc.poll_output(), Ok(Output::Timeout(_))));

    let provider = crypto::dtls_provider().unwrap();
    let certificate = crypto::certificate([1; 32]).unwrap();
    let mut dtls = provider.new_dtls(&certificate, now, DtlsVersion::Dtls12, None).unwrap();
    dtls.set_active(true);
    dtls.handle_timeout(now).unwrap();
    assert!(matches!(dtls.poll_output(&mut [0; 2_048]), DtlsOutput::Packet(_)));

    let refused = os::check().unwrap_err();
    assert_eq!(refused.what().len(), 2, "{refused}");
    for library in ["str0m", "dimpl"] {
        assert!(refused.what().iter().any(|what| what.contains(library)), "{refused}");
    }
    assert_eq!(os::run([1; 32], || ()), Err(refused));
}
