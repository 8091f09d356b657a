//! Abuses of the ports of media, and of that of QUIC, by datagrams.

use super::rtmp::noise;
use super::{Evil, Target};
use crate::world::actors::Out;
use bytes::Bytes;
use proto_core::rand::Rng;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Whether a kind works by datagrams.
pub(super) fn is(kind: Evil) -> bool {
    use Evil as E;
    matches!(
        kind,
        E::UdpGarbage
            | E::StunAnonymous
            | E::StunWrong
            | E::StunForged
            | E::DtlsGarbage
            | E::DtlsForged
            | E::RtpFlood
            | E::RtpForged
            | E::Replay
            | E::ReplayElsewhere
            | E::RtspPortFlood
            | E::QuicGarbage
    )
}

/// The next datagram of a kind. `overheard`: datagrams of others on their way to the node, the newest last.
pub(super) fn datagram(
    kind: Evil,
    target: &Target,
    rng: &mut Rng,
    nth: u64,
    overheard: &VecDeque<(SocketAddr, Bytes)>,
) -> Option<Out> {
    let to = target.udp;
    let mine = |bytes: Vec<u8>| Some(Out::Datagram { port: 40_000, to, bytes: bytes.into() });
    let any = (!overheard.is_empty()).then(|| &overheard[rng.below(overheard.len() as u32) as usize]);
    let forged = |bytes: Bytes| any.map(|(from, _)| Out::Forged { from: *from, to, bytes });
    match kind {
        Evil::UdpGarbage => {
            let len = [0, 1, 3, 19, 20, 200, 1_200, 1_472, 9_000][nth as usize % 9];
            mine(noise(rng, len))
        }
        Evil::RtspPortFlood => {
            let to = SocketAddr::new(to.ip(), target.rtsp_udp.port() + (nth % 8) as u16);
            Some(Out::Datagram { port: 40_000, to, bytes: rtp(rng, nth, overheard).into() })
        }
        Evil::QuicGarbage => {
            Some(Out::Datagram { port: 40_000, to: target.link, bytes: no_quic(rng, nth).into() })
        }
        Evil::StunAnonymous => {
            let class: u16 = [0x0001, 0x0011, 0x0101, 0x0111, 0x0003][nth as usize % 5];
            mine(stun(rng, class, &[]))
        }
        Evil::StunWrong => mine(wrong_check(rng, overheard, nth)),
        Evil::StunForged => {
            let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, rng.below(9) as u8 + 1)), 5_000);
            Some(Out::Forged { from, to, bytes: stun(rng, 1, &[]).into() })
        }
        Evil::DtlsGarbage => mine(dtls(rng, nth)),
        Evil::DtlsForged => forged(dtls(rng, nth).into()),
        Evil::RtpFlood => mine(rtp(rng, nth, overheard)),
        Evil::RtpForged => forged(rtp(rng, nth, overheard).into()),
        Evil::Replay => any.map(|(from, bytes)| Out::Forged { from: *from, to, bytes: bytes.clone() }),
        // A check with the right password is an address's proof, whoever sends it (RFC 8445, 19.4.1): whoever reads
        // the wire can move a session that way. Media that was not asked for does not move anything.
        _ => any
            .filter(|(_, bytes)| bytes.first().is_some_and(|b| *b >= 20))
            .map(|(_, bytes)| Out::Datagram { port: 40_001, to, bytes: bytes.clone() }),
    }
}

/// What looks like QUIC (RFC 9000, 17) and is none: nothing at all, noise behind heads of every type, versions that nobody
/// speaks, first packets that are too small, cut short, or cannot be opened.
fn no_quic(rng: &mut Rng, nth: u64) -> Vec<u8> {
    let len = [0, 1, 40, 1_199, 1_200, 1_472, 9_000][nth as usize / 8 % 7];
    let mut out = noise(rng, len);
    let version: u32 = if nth.is_multiple_of(3) { rng.u32() } else { 1 };
    let head = match nth % 8 {
        // Initial, 0-RTT, Handshake, Retry: each with ids of eight bytes.
        n @ 0..=3 => {
            let ids = noise(rng, 8);
            let id = |n: usize| [&[8][..], &ids[..8 - n.min(8)], &vec![n as u8; n.min(8)]].concat();
            [&[0xc0 | (n as u8) << 4][..], &version.to_be_bytes(), &id(0), &id(8), &[0], &[0x44, 0x60]]
                .concat()
        }
        // Of a connection that nobody has.
        4 => vec![0x40],
        // A list of versions, which only a server says.
        5 => vec![0x80, 0, 0, 0, 0, 8],
        // Ids that are longer than there may be.
        6 => [&[0xc0][..], &1u32.to_be_bytes(), &[255]].concat(),
        _ => Vec::new(),
    };
    let head = &head[..head.len().min(out.len())];
    out[..head.len()].copy_from_slice(head);
    out
}

/// A STUN message (RFC 8489, 5) with attributes.
fn stun(rng: &mut Rng, class: u16, attributes: &[u8]) -> Vec<u8> {
    let mut out = class.to_be_bytes().to_vec();
    out.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    out.extend(noise(rng, 12));
    out.extend_from_slice(attributes);
    out
}

/// A check for a user that does not exist, or (where one was overheard) for one that does, without its password.
fn wrong_check(rng: &mut Rng, overheard: &VecDeque<(SocketAddr, Bytes)>, nth: u64) -> Vec<u8> {
    let check = overheard.iter().rev().find(|(_, b)| b.starts_with(&[0, 1]));
    if let Some((_, bytes)) = check.filter(|_| nth.is_multiple_of(2)) {
        let mut bytes = bytes.to_vec();
        // Somewhere behind the header.
        let at = 20 + rng.below(bytes.len().saturating_sub(20).max(1) as u32) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << rng.below(8);
        }
        return bytes;
    }
    let user = format!("{}:{}", rng.token(16), rng.token(7));
    let mut attributes = vec![0, 6, 0, user.len() as u8];
    attributes.extend_from_slice(user.as_bytes());
    attributes.extend_from_slice(&[0, 8, 0, 20]);
    attributes.extend(noise(rng, 20));
    stun(rng, 1, &attributes)
}

/// A DTLS 1.2 record (RFC 6347, 4.1) in the clear: an alert, a broken hello, or of a kind that nobody knows.
fn dtls(rng: &mut Rng, nth: u64) -> Vec<u8> {
    let (kind, body) = match nth % 4 {
        // A fatal handshake_failure, and close_notify.
        0 => (21, vec![2, 40]),
        1 => (21, vec![1, 0]),
        2 => (22, noise(rng, 200)),
        _ => (20 + rng.below(8) as u8, noise(rng, 60)),
    };
    let mut out = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, (nth % 250) as u8];
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}

/// RTP or RTCP with the look of what was overheard, and a wrong tag.
fn rtp(rng: &mut Rng, nth: u64, overheard: &VecDeque<(SocketAddr, Bytes)>) -> Vec<u8> {
    let media = overheard.iter().rev().find(|(_, b)| b.first().is_some_and(|b| (128..192).contains(b)));
    let mut out = match media {
        Some((_, bytes)) => bytes.to_vec(),
        None => [vec![0x80, 109], noise(rng, 300)].concat(),
    };
    let len = out.len();
    match nth % 4 {
        0 => out.truncate(len.min(13)),
        1 => out[len - 1] ^= 0x55,
        2 => out[2] ^= 0x40,
        _ => {
            // A receiver report, as far as its type goes.
            out[1] = 201;
        }
    }
    out
}
