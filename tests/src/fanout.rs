//! The fan-out to WebRTC viewers by itself, without sockets: endpoint and hub are the real ones, with the cryptography that
//! ships; clients are str0m's. What it allocates can be counted (`determinism::os::count`), what it costs can be timed.

use bytes::Bytes;
use determinism::os::count::counted;
use proto_core::cluster::Epoch;
use proto_core::hub::{CodecSet, Hub, HubEvent, SourceId, StreamId, SubscriberId};
use proto_core::io::SocketId;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use proto_core::media::key::StreamKey;
use proto_core::media::track::{CodecParams, TrackId};
use proto_core::rand::Rng;
use proto_core::rtc::{Endpoint, EndpointConfig, Identity, Input, Offer, Output, PeerEvent, SessionId};
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input as RtcInput, Output as RtcOutput, Rtc};

const SERVER: &str = "192.0.2.1:8189";
const SOURCE: SourceId = SourceId(1);
const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x8d, 0x68];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
/// Pictures of the size of 2 Mbit/s at 30 a second.
pub const PICTURE: usize = 8_333;

struct Client {
    rtc: Rtc,
    address: SocketAddr,
    connected: bool,
}

/// A stream, its viewers, and what carries it to them.
#[allow(missing_debug_implementations)]
pub struct FanOut {
    start: Instant,
    now: Time,
    endpoint: Endpoint,
    hub: Hub,
    stream: StreamId,
    clients: BTreeMap<SocketAddr, Client>,
    viewers: BTreeMap<SubscriberId, SessionId>,
    /// Packets that left.
    pub packets: u64,
    /// Frames that came.
    pub frames: u64,
}

fn config(params: CodecParams, track: TrackId) -> Ingest {
    Ingest::Config { track, params }
}

impl FanOut {
    /// A stream without viewers.
    pub fn start() -> FanOut {
        let start = Instant::now();
        // The ring is full after a second, so that what is held later is held by viewers.
        // Viewers are not asked for their consent again: they would have to answer, and that is not the fan-out.
        let limits = Limits {
            rtc_handshakes_per_ip: 1_000,
            rtc_consent_ms: u64::from(u32::MAX),
            ring_ms: 1_000,
            ..Limits::default()
        };
        let mut hub = Hub::new(&limits);
        let mut endpoint = Endpoint::new(EndpointConfig {
            limits,
            rng: Rng::new([5; 32]),
            start,
            identity: Identity::generate().unwrap(),
            stun: true,
            loop_index: 0,
        })
        .unwrap();
        endpoint.handle(Input::UdpOpened { socket: SocketId(1), max_segments: 64 }, Time::ZERO);
        let key = StreamKey::parse("live/one").unwrap();
        let stream = hub.publish(&key, Epoch::default(), SOURCE, Time::ZERO).unwrap();
        let (sps, pps) = (vec![Bytes::from_static(SPS)], vec![Bytes::from_static(PPS)]);
        let video = CodecParams::H264 { sps, pps, size: None, reorders: false };
        hub.ingest(stream, SOURCE, config(video, TrackId::VIDEO), Time::ZERO);
        hub.ingest(stream, SOURCE, config(CodecParams::Opus { channels: 2 }, TrackId::AUDIO), Time::ZERO);
        FanOut {
            start,
            now: Time::ZERO,
            endpoint,
            hub,
            stream,
            clients: BTreeMap::new(),
            viewers: BTreeMap::new(),
            packets: 0,
            frames: 0,
        }
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now.as_nanos())
    }

    /// Another viewer: ICE, DTLS, and its place at the stream.
    pub fn join(&mut self) {
        let n = self.clients.len();
        let address: SocketAddr = format!("198.51.100.7:{}", 10_000 + n).parse().unwrap();
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(self.instant());
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let mut changes = rtc.sdp_api();
        changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        let (sdp, candidates) = (offer.to_sdp_string(), [SERVER.parse().unwrap()]);
        let tracks = self.hub.tracks(self.stream);
        let (endpoint, now) = (&mut self.endpoint, self.now);
        let offer = Offer { sdp: &sdp, from: address.ip(), candidates: &candidates };
        let playing = counted(|| endpoint.play(offer, &tracks, now)).unwrap();
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&playing.answer).unwrap()).unwrap();
        self.clients.insert(address, Client { rtc, address, connected: false });
        let mut connected = false;
        for _ in 0..400 {
            self.now += Duration::from_millis(5);
            let at = self.instant();
            self.clients.get_mut(&address).unwrap().rtc.handle_input(RtcInput::Timeout(at)).unwrap();
            connected |= self.exchange(address, playing.session);
            if connected && self.clients[&address].connected {
                break;
            }
        }
        assert!(connected, "viewer {n} connects");
        let (hub, endpoint) = (&mut self.hub, &mut self.endpoint);
        let now = self.now;
        let subscriber = counted(|| hub.subscribe(self.stream, CodecSet::ALL, now)).unwrap();
        for (track, config) in tracks {
            let delivery = proto_core::hub::delivery::Delivery::Config { track, config };
            counted(|| endpoint.handle(Input::Deliver { session: playing.session, delivery }, now));
        }
        self.viewers.insert(subscriber, playing.session);
        self.carry();
    }

    /// Lets a client and the endpoint talk until both are silent. Whether the endpoint said that the path stands.
    fn exchange(&mut self, address: SocketAddr, session: SessionId) -> bool {
        let (mut connected, mut quiet) = (false, false);
        while !std::mem::replace(&mut quiet, true) {
            let client = self.clients.get_mut(&address).unwrap();
            loop {
                match client.rtc.poll_output().unwrap() {
                    RtcOutput::Timeout(_) => break,
                    RtcOutput::Transmit(t) => {
                        let bytes: Vec<u8> = t.contents.into();
                        let (endpoint, now) = (&mut self.endpoint, self.now);
                        counted(|| {
                            let local = SERVER.parse().unwrap();
                            let (socket, stride, bytes) = (SocketId(1), bytes.len(), &bytes[..]);
                            let remote = client.address;
                            endpoint.handle(Input::Datagram { socket, local, remote, stride, bytes }, now);
                        });
                        quiet = false;
                    }
                    RtcOutput::Event(Event::Connected) => client.connected = true,
                    RtcOutput::Event(_) => {}
                }
            }
            counted(|| self.endpoint.handle(Input::Tick, self.now));
            while let Some(output) = counted(|| self.endpoint.poll()) {
                match output {
                    Output::Event(id, event) => {
                        connected |= id == session && matches!(event, PeerEvent::Connected { .. });
                    }
                    Output::Datagrams(batch) => {
                        for t in &batch.items {
                            let Some(client) = self.clients.get_mut(&t.dst) else { continue };
                            for bytes in batch.buf[t.start..t.start + t.len].chunks(t.segment_size) {
                                let from = SERVER.parse().unwrap();
                                let receive = Receive::new(Protocol::Udp, from, t.dst, bytes).unwrap();
                                let at = self.start + Duration::from_nanos(self.now.as_nanos());
                                client.rtc.handle_input(RtcInput::Receive(at, receive)).unwrap();
                            }
                        }
                        quiet = false;
                        counted(|| self.endpoint.handle(Input::Recycle(batch), self.now));
                    }
                    Output::Stream { .. } | Output::StreamProven { .. } | Output::CloseStream { .. } => {
                        unreachable!("nobody comes over TCP")
                    }
                }
            }
        }
        connected
    }

    /// Gives viewers what the hub has for them, and sends it.
    fn carry(&mut self) {
        let (hub, endpoint, viewers, now) = (&mut self.hub, &mut self.endpoint, &self.viewers, self.now);
        let packets = &mut self.packets;
        counted(|| {
            endpoint.handle(Input::Tick, now);
            while let Some(event) = hub.poll_event() {
                let HubEvent::Ready(subscriber) = event else { continue };
                while let Some(delivery) = hub.next(subscriber, now) {
                    endpoint.handle(Input::Deliver { session: viewers[&subscriber], delivery }, now);
                }
            }
            loop {
                while let Some(output) = endpoint.poll() {
                    if let Output::Datagrams(batch) = output {
                        *packets +=
                            batch.items.iter().map(|t| t.len.div_ceil(t.segment_size) as u64).sum::<u64>();
                        endpoint.handle(Input::Recycle(batch), now);
                    }
                }
                if endpoint.deadline().is_none_or(|d| d.at > now) {
                    break;
                }
                endpoint.handle(Input::Tick, now);
            }
        });
    }

    /// A frame of so many bytes comes, and goes to all viewers.
    pub fn frame(&mut self, kind: FrameKind, len: usize) {
        let payload = counted(|| {
            let mut payload = vec![7; len];
            if kind != FrameKind::Audio {
                payload[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
                payload[4] = if kind == FrameKind::Key { 0x65 } else { 0x41 };
                payload[5] = 0x88;
            }
            Bytes::from(payload)
        });
        let pts = self.now.as_nanos() as i64;
        let media = NewFrame {
            track: if kind == FrameKind::Audio { TrackId::AUDIO } else { TrackId::VIDEO },
            dts: pts,
            pts,
            kind,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload,
        };
        let (hub, stream, now) = (&mut self.hub, self.stream, self.now);
        counted(|| hub.ingest(stream, SOURCE, Ingest::Frame(media), now));
        self.frames += 1;
        self.carry();
    }

    /// So many pictures at 30 a second with sound, a key frame first and every two seconds.
    pub fn play(&mut self, pictures: usize) {
        for n in 0..pictures {
            let kind = if n % 60 == 0 { FrameKind::Key } else { FrameKind::Delta };
            self.frame(FrameKind::Audio, 160);
            self.now += Duration::from_millis(13);
            self.frame(FrameKind::Audio, 160);
            self.now += Duration::from_millis(20);
            self.frame(kind, PICTURE);
        }
    }
}
