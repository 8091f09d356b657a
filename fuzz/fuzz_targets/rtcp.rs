//! RTCP: whatever comes, reading it ends, and what is read is bounded by what came; what a receiver writes is read again, and
//! fits a datagram.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::rtcp::{Packet, packets};
use proto_core::wire::{rtcp_feedback, twcc};

fuzz_target!(|data: &[u8]| {
    let mut items = 0;
    for packet in packets(data) {
        items += match packet {
            Ok(Packet::Reports(reports) | Packet::Sender(_, reports)) => reports.iter().count(),
            Ok(Packet::Nack { missing, .. }) => missing.iter().count(),
            Ok(Packet::FullIntra(sources)) => sources.iter().count(),
            Ok(Packet::Extended { blocks, .. }) => blocks.iter().count(),
            // Two bytes tell of up to 8191 packets, and no feedback of more than it has numbers.
            Ok(Packet::Arrivals(feedback)) => {
                assert!(feedback.iter().count() <= usize::from(u16::MAX));
                1
            }
            _ => 1,
        };
    }
    // An entry of a NACK names 17 packets at most, in four bytes.
    assert!(items <= data.len() / 4 * 17 + 1);

    let mut lost: Vec<u16> =
        data.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]]) & 0x7fff).collect();
    lost.sort_unstable();
    lost.dedup();
    let mut out = Vec::new();
    let asked = rtcp_feedback::put_nack(&mut out, 1, 2, &lost, 200);
    let read: Vec<u16> = packets(&out)
        .flatten()
        .filter_map(|p| if let Packet::Nack { missing, .. } = p { Some(missing) } else { None })
        .flat_map(|m| m.iter().collect::<Vec<_>>())
        .collect();
    assert_eq!(read, lost[..asked]);

    // Times that jump about, and gaps.
    let arrivals: Vec<Option<u64>> = data
        .iter()
        .scan(1 << 40, |at, b| {
            *at = (*at + (u64::from(*b) << (b % 24))).saturating_sub(1 << 20);
            Some((b % 3 > 0).then_some(*at))
        })
        .collect();
    out.clear();
    assert!(twcc::put_feedback(&mut out, (1, 2), 0, 0, &arrivals) <= arrivals.len() && out.len() <= 1_300);
    assert!(packets(&out).all(|p| matches!(p, Ok(Packet::Arrivals(_)))));
});
