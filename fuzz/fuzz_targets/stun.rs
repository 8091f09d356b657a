//! STUN headers: what is found lies within the datagram and has the form that routing relies on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::rtp::Multiplexed;
use proto_core::wire::stun::BindingRequest;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = BindingRequest::parse(data) {
        assert_eq!(Multiplexed::of(data), Some(Multiplexed::Stun));
        assert!(!request.local_ufrag.contains(':'));
        assert!(request.local_ufrag.len() + request.remote_ufrag.len() < data.len());
    }
});
