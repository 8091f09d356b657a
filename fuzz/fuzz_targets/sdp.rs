//! SDP offers, through our own reader and through str0m: every offer is answered or refused in words, none panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::rtc::{Endpoint, EndpointConfig, Identity, Input, Offer, SessionId};
use proto_core::time::Time;
use std::cell::RefCell;
use std::time::Instant;

thread_local! {
    static ENDPOINT: RefCell<Endpoint> = RefCell::new(
        Endpoint::new(EndpointConfig {
            limits: Limits::default(),
            rng: Rng::new([1; 32]),
            start: Instant::now(),
            identity: Identity::generate().expect("an identity"),
            stun: true,
            loop_index: 0,
        })
        .expect("an endpoint"),
    );
}

fuzz_target!(|data: &[u8]| {
    let Ok(sdp) = std::str::from_utf8(data) else { return };
    ENDPOINT.with_borrow_mut(|endpoint| {
        let limits = Limits::default();
        let candidates = ["192.0.2.1:8189".parse().expect("an address")];
        let offer = Offer { sdp, from: [192, 0, 2, 7].into(), candidates: &candidates };
        let close = |endpoint: &mut Endpoint, session: SessionId, answer: &str| {
            assert!(answer.starts_with("v=0\r\n") && answer.contains("a=ice-lite"));
            let reason = proto_core::error::Reason::local("fuzz", "over");
            endpoint.handle(Input::Close { session, reason }, Time::ZERO);
        };
        if let Ok((session, answer)) = endpoint.publish(offer, Time::ZERO) {
            close(endpoint, session, &answer);
        }
        if let Ok(playing) = endpoint.play(offer, &[], Time::ZERO) {
            close(endpoint, playing.session, &playing.answer);
        }
        // The same text as an answer to an offer of ours, which takes long to make and is made only for what can be read as
        // an answer; and as a fragment.
        let nobody = SessionId(u64::MAX);
        let gone = endpoint.restart(nobody, "", "", &[], Time::ZERO).expect_err("there is no such session");
        let read = endpoint.answer(nobody, sdp, Time::ZERO).expect_err("there is no such session");
        if read.code == gone.code
            && let Ok(playing) = endpoint.offer([192, 0, 2, 7].into(), &candidates, &[], true, Time::ZERO)
        {
            let _ = endpoint.answer(playing.session, sdp, Time::ZERO);
            close(endpoint, playing.session, &playing.answer);
        }
        let _ = proto_core::rtc::sdp::fragment(sdp, &limits);
        while endpoint.poll().is_some() {}
        assert_eq!(endpoint.sessions(), (0, 0));
        // A panic inside str0m is caught at the session's boundary; here it is a finding.
        assert_eq!(endpoint.drops().panics, 0);
    });
});
