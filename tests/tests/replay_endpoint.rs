//! Our WebRTC endpoint with the cryptography of simulation and recording: a session replays bit for bit.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use determinism::{crypto, os};
use proto_core::io::SocketId;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::rtc::{Endpoint, EndpointConfig, Identity, Input, Offer, Output, PeerEvent};
use proto_core::time::Time;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Input as RtcInput, Output as RtcOutput, Rtc};

/// The cryptography that all nodes of a process share, made in a run of its own: it must take nothing from the run
/// that is the first to want it.
fn identity(seed: [u8; 32]) -> Identity {
    static SHARED: OnceLock<Identity> = OnceLock::new();
    let certificate = crypto::certificate(seed).unwrap();
    let shared = SHARED.get_or_init(|| {
        let make = || {
            let other = crypto::str0m_provider(crypto::dtls_provider().unwrap());
            Identity::with_crypto(crypto::certificate([0; 32]).unwrap(), crypto::dimpl_provider(), other)
        };
        os::run([0; 32], make).unwrap().unwrap()
    });
    shared.with_certificate(certificate)
}

fn browser(seed: [u8; 32], address: SocketAddr, start: Instant) -> Rtc {
    let provider = crypto::str0m_provider(crypto::dtls_provider().unwrap());
    let mut rtc = Rtc::builder()
        .set_crypto_provider(Arc::new(provider))
        .set_dtls_cert(crypto::certificate(seed).unwrap())
        .set_rtp_mode(true)
        .build(start);
    rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
    rtc
}

/// Publishes for some seconds; the hash of every datagram with its time, and how many RTP packets the server took.
fn publish(seed: u8) -> (String, u64) {
    let (server, client): (SocketAddr, SocketAddr) =
        ("192.0.2.1:8189".parse().unwrap(), "198.51.100.7:40000".parse().unwrap());
    let start = Instant::now();
    let mut endpoint = Endpoint::new(EndpointConfig {
        limits: Limits::default(),
        rng: Rng::new([seed; 32]),
        start,
        identity: identity([seed; 32]),
        stun: true,
        loop_index: 0,
    })
    .unwrap();
    endpoint.handle(Input::UdpOpened { socket: SocketId(1), max_segments: 16 }, Time::ZERO);

    let mut rtc = browser([seed ^ 0xff; 32], client, start);
    let mut changes = rtc.sdp_api();
    let mid = changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
    let (offer, pending) = changes.apply().unwrap();
    let (sdp, candidates) = (offer.to_sdp_string(), [server]);
    let offer = Offer { sdp: &sdp, from: client.ip(), candidates: &candidates };
    let (_, answer) = endpoint.publish(offer, Time::ZERO).unwrap();
    rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();

    let mut log = Sha256::new().chain_update(&sdp).chain_update(&answer);
    let mut flying: BTreeMap<(Time, u64), (bool, Vec<u8>)> = BTreeMap::new();
    let (mut now, mut count, mut written, mut frames) = (Time::ZERO, 0, 0u64, 0);
    while now < Time::from_millis(5_000) {
        let mut fly = |to_server: bool, bytes: &[u8], now: Time| {
            count += 1;
            log.update(now.as_nanos().to_be_bytes());
            log.update([u8::from(to_server)]);
            log.update(bytes);
            // One in 16 is lost: which, is in its number.
            if Sha256::digest([&[seed], &u64::to_be_bytes(count)[..]].concat())[0] >= 16 {
                flying.insert((now + Duration::from_millis(10), count), (to_server, bytes.to_vec()));
            }
        };
        while let Some(output) = endpoint.poll() {
            match output {
                Output::Event(_, event) => frames += u64::from(matches!(event, PeerEvent::Media(_))),
                Output::Datagrams(batch) => {
                    for t in &batch.items {
                        batch.buf[t.start..t.start + t.len]
                            .chunks(t.segment_size)
                            .for_each(|b| fly(false, b, now));
                    }
                    endpoint.handle(Input::Recycle(batch), now);
                }
                Output::Stream { .. } | Output::StreamProven { .. } | Output::CloseStream { .. } => {
                    unreachable!("nobody comes over TCP")
                }
            }
        }
        let timer = loop {
            match rtc.poll_output().unwrap() {
                RtcOutput::Timeout(at) => break at,
                RtcOutput::Transmit(t) => fly(true, &t.contents, now),
                RtcOutput::Event(_) => {}
            }
        };
        let write_at = Time::from_millis(2_000 + written * 20);
        let timer = Time::from_nanos(timer.saturating_duration_since(start).as_nanos() as u64).max(now);
        let arrival = flying.first_key_value().map(|((at, _), _)| *at);
        let tick = endpoint.deadline().map(|d| d.at.max(now));
        now = [Some(write_at), Some(timer), arrival, tick].into_iter().flatten().min().unwrap();
        let at = start + Duration::from_nanos(now.as_nanos());
        if arrival == Some(now) {
            let (_, (to_server, bytes)) = flying.pop_first().unwrap();
            if to_server {
                let socket = SocketId(1);
                let stride = bytes.len();
                endpoint.handle(
                    Input::Datagram { socket, local: server, remote: client, stride, bytes: &bytes },
                    now,
                );
            } else if let Ok(receive) = Receive::new(Protocol::Udp, server, client, &bytes) {
                rtc.handle_input(RtcInput::Receive(at, receive)).unwrap();
            }
        } else if tick == Some(now) {
            endpoint.handle(Input::Tick, now);
        } else {
            if write_at == now {
                let pt = rtc.media(mid).unwrap().remote_pts()[0];
                let packet = RtpWrite::new(pt, written.into(), written as u32 * 960, at, [0xfcu8, 1, 2, 3]);
                rtc.direct_api().stream_tx_by_mid(mid, None).unwrap().write_rtp(packet);
                written += 1;
            }
            rtc.handle_input(RtcInput::Timeout(at)).unwrap();
        }
    }
    (log.finalize().iter().map(|b| format!("{b:02x}")).collect(), frames)
}

#[test]
fn a_session_of_the_endpoint_replays_bit_for_bit() {
    let trace = |seed| os::run([seed; 32], move || publish(seed)).unwrap();
    let first = trace(1);
    assert!(first.1 > 100, "{} frames", first.1);
    assert_eq!(trace(1), first);
    assert_ne!(trace(2).0, first.0);
}
