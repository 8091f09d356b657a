//! The trace of a node: a fingerprint of everything that went in and came out, equal exactly where two runs are.
//!
//! The algorithm is XXH64 (Yann Collet, "xxHash fast digest algorithm", version 0.1.1, section "XXH64 algorithm
//! description"), used as a chain: each value is hashed with the result so far as the seed. It is the same on every
//! build, platform and toolchain, and it is no protection against anybody who wants two traces to look alike.

use crate::bridge::{BridgeJob, BridgeWork, Bridged, Packet};
use crate::error::{Fault, Reason};
use crate::io::{Answer, Batch, ConnId, Input, Level, LogLine, Output, Service, Work};
use std::net::{IpAddr, SocketAddr};

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

const fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

const fn merge(hash: u64, lane: u64) -> u64 {
    (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
}

const fn mix_word(hash: u64, word: u64) -> u64 {
    (hash ^ round(0, word)).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
}

const fn avalanche(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

/// XXH64 of `bytes` under `seed`.
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, tail) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() {
        seed.wrapping_add(PRIME_5)
    } else {
        let mut lanes = [
            seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
            seed.wrapping_add(PRIME_2),
            seed,
            seed.wrapping_sub(PRIME_1),
        ];
        for stripe in stripes {
            let (words, _) = stripe.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        let [a, b, c, d] = lanes;
        let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7));
        let sum = sum.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
        lanes.into_iter().fold(sum, merge)
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let (words, mut tail) = tail.as_chunks::<8>();
    for word in words {
        hash = mix_word(hash, u64::from_le_bytes(*word));
    }
    if let Some((word, rest)) = tail.split_first_chunk::<4>() {
        let word = u64::from(u32::from_le_bytes(*word)).wrapping_mul(PRIME_1);
        hash = (hash ^ word).rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        tail = rest;
    }
    for byte in tail {
        hash = (hash ^ u64::from(*byte).wrapping_mul(PRIME_5)).rotate_left(11).wrapping_mul(PRIME_1);
    }
    avalanche(hash)
}

/// The fingerprint of a sequence of values. Where one value ends and the next begins is part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// The digest of nothing.
    pub const fn new() -> Digest {
        Digest(0)
    }

    /// Takes in bytes, of any number, as one value.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0 = xxh64(bytes, self.0);
    }

    /// Takes in a number: the same as its eight bytes, little end first.
    pub const fn u64(&mut self, n: u64) {
        self.0 = avalanche(mix_word(self.0.wrapping_add(PRIME_5).wrapping_add(8), n));
    }

    /// Takes in a text.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// The digest of everything that was taken in so far.
    pub const fn value(&self) -> u64 {
        self.0
    }

    fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(v4) => self.bytes(&v4.octets()),
            IpAddr::V6(v6) => self.bytes(&v6.octets()),
        }
    }

    fn addr(&mut self, addr: SocketAddr) {
        self.ip(addr.ip());
        self.u64(u64::from(addr.port()));
        if let SocketAddr::V6(v6) = addr {
            self.u64(u64::from(v6.flowinfo()) << 32 | u64::from(v6.scope_id()));
        }
    }

    fn packets(&mut self, packets: &[Packet]) {
        self.u64(packets.len() as u64);
        for Packet { pts, data } in packets {
            self.u64(*pts as u64);
            self.bytes(data);
        }
    }

    fn conn(&mut self, conn: ConnId) {
        self.u64(conn.0);
    }

    fn reason(&mut self, reason: &Reason) {
        let Reason { fault, code, text } = reason;
        self.u64(match fault {
            Fault::Peer => 0,
            Fault::Local => 1,
            Fault::Limit => 2,
        });
        self.str(code);
        self.str(text);
    }

    pub(crate) fn batch(&mut self, batch: &Batch) {
        let Batch { socket, buf, items } = batch;
        self.u64(u64::from(socket.0));
        self.bytes(buf);
        self.u64(items.len() as u64);
        for item in items {
            self.option(item.src, Digest::ip);
            self.addr(item.dst);
            self.u64(item.start as u64);
            self.u64(item.len as u64);
            self.u64(item.segment_size as u64);
        }
    }

    fn option<T>(&mut self, value: Option<T>, take: impl FnOnce(&mut Digest, T)) {
        self.u64(u64::from(value.is_some()));
        if let Some(value) = value {
            take(self, value);
        }
    }
}

impl Input<'_> {
    /// Takes every field of this input into `d`.
    pub fn digest(&self, d: &mut Digest) {
        match self {
            Input::Tick => d.u64(0),
            Input::Busy { permille } => {
                d.u64(1);
                d.u64(u64::from(*permille));
            }
            Input::WallClock(wall) => {
                d.u64(2);
                d.u64(wall.0);
            }
            Input::HostAddresses(addresses) => {
                d.u64(3);
                d.u64(addresses.len() as u64);
                addresses.iter().for_each(|ip| d.ip(*ip));
            }
            Input::Accepted { conn, service, local, remote } => {
                d.u64(4);
                d.conn(*conn);
                d.u64(match service {
                    Service::Http => 0,
                    Service::Rtmp => 1,
                    Service::Link => 2,
                    Service::Https => 3,
                    Service::Rtmps => 4,
                    Service::Rtsp => 5,
                    Service::Rtsps => 6,
                    Service::IceTcp => 7,
                    Service::Door => 8,
                });
                d.addr(*local);
                d.addr(*remote);
            }
            Input::Connected { conn, local, remote } => {
                d.u64(5);
                d.conn(*conn);
                d.addr(*local);
                d.addr(*remote);
            }
            Input::Received { conn, bytes } => {
                d.u64(6);
                d.conn(*conn);
                d.bytes(bytes);
            }
            Input::Writable { conn, free } => {
                d.u64(7);
                d.conn(*conn);
                d.u64(*free as u64);
            }
            Input::PeerFinished { conn } => {
                d.u64(8);
                d.conn(*conn);
            }
            Input::Closed { conn, reason } => {
                d.u64(9);
                d.conn(*conn);
                d.reason(reason);
            }
            Input::UdpOpened { socket, local, max_segments } => {
                d.u64(10);
                d.u64(u64::from(socket.0));
                d.addr(*local);
                d.u64(*max_segments as u64);
            }
            Input::UdpFailed { socket, reason } => {
                d.u64(11);
                d.u64(u64::from(socket.0));
                d.reason(reason);
            }
            Input::Datagram { socket, local, remote, stride, bytes } => {
                d.u64(12);
                d.u64(u64::from(socket.0));
                d.addr(*local);
                d.addr(*remote);
                d.u64(*stride as u64);
                d.bytes(bytes);
            }
            Input::Sent { batch, refused } => {
                d.u64(13);
                d.batch(batch);
                d.u64(*refused as u64);
            }
            Input::Answer { ask, answer: Answer::Resolved(found) } => {
                d.u64(14);
                d.u64(ask.0);
                match found {
                    Ok(found) => {
                        d.u64(found.len() as u64);
                        found.iter().for_each(|addr| d.addr(*addr));
                    }
                    Err(why) => {
                        d.u64(u64::MAX);
                        d.str(why);
                    }
                }
            }
            Input::Answer { ask, answer: Answer::File(found) } => {
                d.u64(17);
                d.u64(ask.0);
                match found {
                    Ok(bytes) => {
                        d.u64(1);
                        d.bytes(bytes);
                    }
                    Err(why) => {
                        d.u64(0);
                        d.str(why);
                    }
                }
            }
            Input::Drain => d.u64(15),
            Input::Answer { ask, answer: Answer::Checked(right) } => {
                d.u64(19);
                d.u64(ask.0);
                match right {
                    Ok(right) => d.u64(u64::from(*right)),
                    Err(why) => {
                        d.u64(2);
                        d.str(why);
                    }
                }
            }
            Input::Answer { ask, answer: Answer::Bridged(done) } => {
                d.u64(18);
                d.u64(ask.0);
                let Bridged { made, packets, undecodable, failed } = done;
                d.option(made.as_ref(), |d, made| {
                    d.bytes(&made.config);
                    d.u64(u64::from(made.rate));
                    d.u64(u64::from(made.channels));
                });
                d.packets(packets);
                d.u64(*undecodable);
                d.option(failed.as_deref(), Digest::str);
            }
        }
    }
}

impl Output {
    /// Takes every field of this output into `d`.
    pub fn digest(&self, d: &mut Digest) {
        // Numbers that no input has, so that the two cannot be taken for each other.
        match self {
            Output::Dial { conn, to } => {
                d.u64(100);
                d.conn(*conn);
                d.addr(*to);
            }
            Output::Send { conn, bytes } => {
                d.u64(101);
                d.conn(*conn);
                d.bytes(bytes);
            }
            Output::Close { conn, now } => {
                d.u64(102);
                d.conn(*conn);
                d.u64(u64::from(*now));
            }
            Output::Reading { conn, on } => {
                d.u64(103);
                d.conn(*conn);
                d.u64(u64::from(*on));
            }
            Output::LetIn { conn } => {
                d.u64(114);
                d.conn(*conn);
            }
            Output::OpenUdp { socket, bind } => {
                d.u64(104);
                d.u64(u64::from(socket.0));
                d.addr(*bind);
            }
            Output::CloseUdp { socket } => {
                d.u64(105);
                d.u64(u64::from(socket.0));
            }
            Output::Datagrams(batch) => {
                d.u64(106);
                d.batch(batch);
            }
            Output::Ask { ask, work: Work::ReadFile { path } } => {
                d.u64(112);
                d.u64(ask.0);
                d.str(path);
            }
            Output::Ask { ask, work: Work::Check(check) } => {
                d.u64(113);
                d.u64(ask.0);
                d.str(check.hash.reveal());
                d.str(check.password.reveal());
            }
            Output::Ask { ask, work: Work::Resolve { host, port } } => {
                d.u64(107);
                d.u64(ask.0);
                d.str(host);
                d.u64(u64::from(*port));
            }
            Output::Ask { ask, work: Work::Bridge(BridgeWork { bridge, job }) } => {
                d.u64(111);
                d.u64(ask.0);
                d.u64(bridge.0);
                match job {
                    BridgeJob::Open { from, to } => {
                        d.u64(0);
                        d.str(&format!("{from:?}"));
                        d.str(to.name());
                    }
                    BridgeJob::Convert(packets) => {
                        d.u64(1);
                        d.packets(packets);
                    }
                    BridgeJob::Close => d.u64(2),
                    BridgeJob::KeyFrame => d.u64(3),
                    BridgeJob::Abandon => d.u64(4),
                }
            }
            Output::Log(line) => {
                d.u64(108);
                let LogLine { level, target, session, stream, text } = line;
                d.u64(match level {
                    Level::Error => 0,
                    Level::Warn => 1,
                    Level::Info => 2,
                    Level::Debug => 3,
                });
                d.str(target);
                d.option(session.as_deref(), Digest::str);
                d.option(stream.as_deref(), Digest::str);
                d.str(text);
            }
            Output::Fatal(reason) => {
                d.u64(109);
                d.reason(reason);
            }
            Output::Drained => d.u64(110),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
