//! Session descriptions, the formats that they offer, RTP and RTCP: nothing panics, and bounds hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::rtsp::formats::offered;
use proto_core::wire::rtcp_reports as rtcp;
use proto_core::wire::rtp::Packet;
use proto_core::wire::sdp::{Bounds, Description};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(d) = Description::parse(text, Bounds { lines: 512, sections: 32, formats: 64 })
    {
        assert!(d.sections.len() <= 32);
        for section in &d.sections {
            let _ = offered(section);
        }
    }
    assert!(rtcp::parse(data).len() <= 32);
    if let Some(p) = Packet::parse(data) {
        assert!(p.payload.len() <= data.len());
    }
});
