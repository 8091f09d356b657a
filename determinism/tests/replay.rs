//! Two WebRTC peers, an attacked network and virtual time: the same seed gives the same bytes at the same times, twice
//! in a process, in another process, and in another build. The last is for the eye: `--nocapture` shows the hashes,
//!
//! ```text
//! for b in "" --release; do cargo test -q $b -p determinism --test replay -- --nocapture | grep trace; done
//! ```
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use determinism::{crypto, os};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::bwe::Bitrate;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

/// Set by this test for the process that it starts: the seed whose hash that is to print.
const CHILD: &str = "DETERMINISM_TEST_SEED";

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trace {
    hash: String,
    sent: usize,
    lost: usize,
    received: usize,
    stats: usize,
    connected: usize,
}

struct Peer {
    rtc: Rtc,
    address: SocketAddr,
    deadline: Instant,
}

struct World {
    seed: [u8; 32],
    start: Instant,
    now: Instant,
    peers: [Peer; 2],
    flying: BTreeMap<(Instant, usize), (usize, Vec<u8>)>,
    log: Sha256,
    trace: Trace,
}

impl World {
    fn new(seed: [u8; 32]) -> World {
        let start = Instant::now();
        let peers = [("192.0.2.1:5000", 1), ("198.51.100.2:6000", 2)].map(|(address, n)| {
            let address = address.parse().unwrap();
            let mut own = seed;
            own[31] = n;
            let mut rtc = Rtc::builder()
                .set_crypto_provider(Arc::new(crypto::str0m_provider(crypto::dtls_provider().unwrap())))
                .set_dtls_cert(crypto::certificate(own).unwrap())
                .set_stats_interval(Some(Duration::from_millis(500)))
                .enable_bwe(Some(Bitrate::kbps(800)))
                .set_rtp_mode(true)
                .build(start);
            rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
            Peer { rtc, address, deadline: start }
        });
        let trace = Trace { hash: String::new(), sent: 0, lost: 0, received: 0, stats: 0, connected: 0 };
        World { seed, start, now: start, peers, flying: BTreeMap::new(), log: Sha256::new(), trace }
    }

    /// The first peer offers two pictures and a sound.
    fn negotiate(&mut self) -> Vec<Mid> {
        let [a, b] = &mut self.peers;
        let mut changes = a.rtc.sdp_api();
        let mids = [MediaKind::Video, MediaKind::Video, MediaKind::Audio]
            .map(|kind| changes.add_media(kind, Direction::SendOnly, None, None, None));
        let (offer, pending) = changes.apply().unwrap();
        self.log.update(offer.to_sdp_string());
        let answer = b.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        self.log.update(&answer);
        a.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
        mids.to_vec()
    }

    /// A number that belongs to one thing of this run, whatever else happens.
    fn draw(&self, of: &str, n: usize) -> u64 {
        let hash = Sha256::new().chain_update(self.seed).chain_update(of).chain_update(n.to_be_bytes());
        u64::from_be_bytes(*hash.finalize().first_chunk().unwrap())
    }

    fn fly(&mut self, to: usize, mut bytes: Vec<u8>) {
        let n = self.trace.sent;
        self.trace.sent += 1;
        self.log.update((self.now - self.start).as_nanos().to_be_bytes());
        self.log.update([to as u8]);
        self.log.update(&bytes);
        if self.draw("lost", n) % 100 < 5 {
            self.trace.lost += 1;
            return;
        }
        if self.draw("corrupt", n) % 100 < 2 {
            let at = self.draw("where", n) as usize % bytes.len();
            bytes[at] ^= 1 << (self.draw("bit", n) % 8);
        }
        let delay = Duration::from_micros(10_000 + self.draw("delay", n) % 20_000);
        self.flying.insert((self.now + delay, n), (to, bytes));
    }

    fn settle(&mut self) {
        for from in 0..2 {
            loop {
                match self.peers[from].rtc.poll_output().unwrap() {
                    Output::Timeout(at) => {
                        self.peers[from].deadline = at;
                        break;
                    }
                    Output::Transmit(t) => self.fly(1 - from, t.contents.to_vec()),
                    Output::Event(event) => {
                        self.log.update(format!("{event:?}"));
                        match event {
                            Event::Connected => self.trace.connected += 1,
                            Event::RtpPacket(_) => self.trace.received += 1,
                            Event::MediaEgressStats(_) | Event::MediaIngressStats(_) => self.trace.stats += 1,
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    fn run_until(&mut self, end: Instant) {
        self.settle();
        loop {
            let timer = if self.peers[0].deadline <= self.peers[1].deadline { 0 } else { 1 };
            let timer_at = self.peers[timer].deadline.max(self.now);
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let next = arrival.map_or(timer_at, |at| at.min(timer_at));
            if next > end {
                break;
            }
            self.now = next;
            if arrival == Some(next) {
                let (_, (to, bytes)) = self.flying.pop_first().unwrap();
                let (source, own) = (self.peers[1 - to].address, self.peers[to].address);
                // A datagram of which nothing can be made goes no further, as in a real server.
                if let Ok(receive) = Receive::new(Protocol::Udp, source, own, &bytes) {
                    let result = self.peers[to].rtc.handle_input(Input::Receive(next, receive));
                    self.log.update(format!("{result:?}"));
                }
            } else {
                self.peers[timer].rtc.handle_input(Input::Timeout(next)).unwrap();
            }
            self.settle();
        }
        self.now = end;
    }

    fn write(&mut self, mid: Mid, n: u32) {
        let (now, peer) = (self.now, &mut self.peers[0]);
        let pt = peer.rtc.media(mid).unwrap().remote_pts()[0];
        let mut api = peer.rtc.direct_api();
        let payload = vec![n as u8; 200];
        let packet = RtpWrite::new(pt, u64::from(1_000 + n).into(), n * 3_000, now, payload);
        api.stream_tx_by_mid(mid, None).unwrap().write_rtp(packet.nackable(true));
        peer.rtc.handle_input(Input::Timeout(now)).unwrap();
    }
}

fn trace(seed: u8) -> Trace {
    let run = move || {
        let mut world = World::new([seed; 32]);
        let mids = world.negotiate();
        world.run_until(world.start + Duration::from_secs(3));
        for n in 0..200 {
            for &mid in &mids {
                world.write(mid, n);
            }
            world.run_until(world.now + Duration::from_millis(20));
        }
        let mut trace = world.trace;
        trace.hash = world.log.finalize().iter().map(|b| format!("{b:02x}")).collect();
        trace
    };
    os::run([seed; 32], run).unwrap()
}

/// The hash of a seed, from a process of its own.
fn hash_elsewhere(seed: u8) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_run_replays_bit_for_bit", "--nocapture"]).env(CHILD, seed.to_string());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|l| l.split_once(&format!("trace of seed {seed}: ")));
    line.unwrap_or_else(|| panic!("{text}")).1.to_owned()
}

#[test]
fn a_run_replays_bit_for_bit() {
    if let Ok(seed) = std::env::var(CHILD) {
        println!("trace of seed {seed}: {}", trace(seed.parse().unwrap()).hash);
        return;
    }
    let first = trace(1);
    println!("trace of seed 1: {}", first.hash);
    assert!(first.connected == 2 && first.lost > 20 && first.stats > 20, "{first:?}");
    assert!((540..=600).contains(&first.received), "nearly all packets arrive, resent if need be: {first:?}");
    assert_eq!(trace(1), first, "in the same process");
    assert_eq!(hash_elsewhere(1), first.hash, "in another process");
    let other = trace(2);
    println!("trace of seed 2: {}", other.hash);
    assert_ne!(other.hash, first.hash, "of another seed");
    assert_eq!(hash_elsewhere(2), other.hash, "also of that, which is the other process's first");
}
