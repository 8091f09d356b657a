//! RTP packets: the demultiplexer agrees with a parser of its own, and payloads of any kind do not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::media::payload::{Depay, Format};
use proto_core::media::reorder::{Popped, Reorder};
use proto_core::time::Time;
use proto_core::wire::opus::OpusPacket;
use proto_core::wire::rtp::{Multiplexed, TimestampUnwrapper};
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    let mut reorder = Reorder::new(Duration::from_millis(50), 16);
    let mut depay = Depay::new(&Format::H264, 4_000, 64);
    let mut unwrapper = TimestampUnwrapper::default();
    let mut rest = data;
    let mut now = Time::ZERO;
    let (mut taken, mut out) = (0u64, 0u64);
    while let Some((&len, tail)) = rest.split_first() {
        let (packet, tail) = tail.split_at(usize::from(len).min(tail.len()));
        rest = tail;
        now += Duration::from_millis(u64::from(len & 31));
        let kind = Multiplexed::of(packet);
        let Ok(rtp) = rtp_rs::RtpReader::new(packet) else { continue };
        assert!(matches!(kind, Some(Multiplexed::Rtp | Multiplexed::Rtcp)), "{kind:?}");
        unwrapper.unwrap(rtp.timestamp());
        if let Some(opus) = OpusPacket::parse(rtp.payload()) {
            assert!(opus.duration <= Duration::from_millis(120));
        }
        let seq = u64::from(u16::from(rtp.sequence_number()));
        let item = (rtp.payload().to_vec(), rtp.timestamp(), rtp.mark());
        taken += u64::from(reorder.insert(seq, item, now) == proto_core::media::reorder::Inserted::Kept);
        while let Some(popped) = reorder.pop(now) {
            match popped {
                Popped::Lost(_) => depay.lost(),
                Popped::Packet((payload, timestamp, marker)) => {
                    out += 1;
                    depay.push(&payload, timestamp, marker, |unit| assert!(!unit.payload.is_empty()));
                }
            }
        }
        assert!(reorder.len() <= 17);
        assert!(out <= taken);
    }
});
