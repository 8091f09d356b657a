//! Any configuration, any packets at any times: no panic gets out of a workshop, and times rise.
#![no_main]

use arbitrary::Arbitrary;
use audio_bridge::Workshop;
use libfuzzer_sys::fuzz_target;
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Packet};
use proto_core::media::track::{Codec, CodecParams};

/// What follows from the packets before does so within a few; each is a frame that is resampled and encoded.
const PACKETS: usize = 12;

#[derive(Arbitrary, Debug)]
struct Case {
    asc: Option<[u8; 4]>,
    packets: Vec<(i32, Vec<u8>)>,
}

fuzz_target!(|case: Case| {
    let (from, to) = match case.asc {
        Some(asc) => {
            let asc = asc.to_vec().into();
            (CodecParams::Aac { asc, rate: 48_000, channels: 2 }, Codec::Opus)
        }
        None => (CodecParams::Opus { channels: 2 }, Codec::Aac),
    };
    let mut shop = Workshop::default();
    let bridge = BridgeId(1);
    if shop.work(BridgeWork { bridge, job: BridgeJob::Open { from, to } }).failed.is_some() {
        return;
    }
    // The loudest way to a panic is a session boundary that caught one: it must not have been needed.
    let packets = case.packets.into_iter().take(PACKETS);
    let sound =
        packets.map(|(ms, data)| Packet { pts: i64::from(ms) * 1_000_000, data: data.into() }).collect();
    let done = shop.work(BridgeWork { bridge, job: BridgeJob::Convert(sound) });
    assert!(done.packets.windows(2).all(|p| p[0].pts < p[1].pts));
});
