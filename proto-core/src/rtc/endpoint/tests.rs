//! A browser of a second str0m agent (full ICE, controlling), an in-memory network and virtual time.

mod lean;

use super::*;
use crate::cluster::Epoch;
use crate::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings, Rotation};
use crate::media::h264::h264_params;
use crate::media::payload::{Depay, Format, PAYLOAD_BYTES, Unit, packetise};
use crate::media::reorder::{Popped, Reorder};
use crate::media::track::{CodecParams, Origin};
use crate::wire::h264::put_nal;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input as RtcInput, Output as RtcOutput, Rtc};

mod answers;
mod loss;
mod offers;
mod races;
mod settled;
mod tcp;

const SERVER: &str = "192.0.2.1:8189";
const CLIENT: &str = "198.51.100.7:40000";
const DELAY: Duration = Duration::from_millis(10);
const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x8d, 0x68];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

// The libraries want an `Instant` to start from; nothing waits on it.
#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    Instant::now()
}

struct Browser {
    rtc: Rtc,
    address: SocketAddr,
    deadline: Instant,
    connected: bool,
    closed: bool,
    packets: Vec<RtpPacket>,
    key_requests: usize,
    texts: Vec<String>,
    channel: Option<str0m::channel::ChannelId>,
    video: Mid,
    audio: Option<Mid>,
    pending: Option<SdpPendingOffer>,
    seq: BTreeMap<Mid, u64>,
}

impl Browser {
    fn new(start: Instant, direction: Direction, audio: bool, candidate: Candidate) -> (Browser, String) {
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(start);
        rtc.add_local_candidate(candidate);
        let mut changes = rtc.sdp_api();
        let video = changes.add_media(MediaKind::Video, direction, None, None, None);
        let audio = audio.then(|| changes.add_media(MediaKind::Audio, direction, None, None, None));
        let (offer, pending) = changes.apply().unwrap();
        let browser = Browser {
            rtc,
            address: addr(CLIENT),
            deadline: start,
            connected: false,
            closed: false,
            packets: Vec::new(),
            key_requests: 0,
            texts: Vec::new(),
            channel: None,
            video,
            audio,
            pending: Some(pending),
            seq: BTreeMap::new(),
        };
        (browser, offer.to_sdp_string())
    }

    fn answer(&mut self, sdp: &str) {
        let answer = SdpAnswer::from_sdp_string(sdp).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
    }

    fn pt(&self, mid: Mid) -> Pt {
        self.rtc.media(mid).unwrap().remote_pts()[0]
    }

    fn drain(&mut self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            match self.rtc.poll_output().unwrap() {
                RtcOutput::Timeout(t) => {
                    self.deadline = t;
                    return out;
                }
                RtcOutput::Transmit(t) => out.push((self.address, t.destination, t.contents.into())),
                RtcOutput::Event(Event::Connected) => self.connected = true,
                RtcOutput::Event(Event::Closed) => self.closed = true,
                RtcOutput::Event(Event::RtpPacket(p)) => self.packets.push(p),
                RtcOutput::Event(Event::KeyframeRequest(_)) => self.key_requests += 1,
                RtcOutput::Event(Event::ChannelOpen(id, _)) => self.channel = Some(id),
                RtcOutput::Event(Event::ChannelData(d)) => {
                    self.texts.push(String::from_utf8(d.data).unwrap());
                }
                RtcOutput::Event(_) => {}
            }
        }
    }
}

/// Where a datagram goes, its bytes, how many went that way before: whether it arrives.
type Filter = Box<dyn FnMut(bool, &[u8], u64) -> bool>;

struct World {
    start: Instant,
    now: Time,
    endpoint: Endpoint,
    browser: Browser,
    flying: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    count: u64,
    delay: Duration,
    filter: Filter,
    events: Vec<(Time, SessionId, PeerEvent)>,
    sent_to: BTreeMap<SocketAddr, usize>,
    sources: Vec<Option<IpAddr>>,
    /// The browser's TCP connection, if it comes that way.
    tcp: Option<tcp::Line>,
}

fn endpoint(start: Instant, limits: Limits) -> Endpoint {
    let config = EndpointConfig {
        limits,
        rng: Rng::new([5; 32]),
        start,
        identity: Identity::generate().unwrap(),
        stun: true,
        loop_index: 3,
    };
    let mut endpoint = Endpoint::new(config).unwrap();
    endpoint.handle(Input::UdpOpened { socket: SocketId(1), max_segments: 16 }, Time::ZERO);
    endpoint
}

impl World {
    fn new(limits: Limits, direction: Direction, audio: bool) -> (World, String) {
        World::with(limits, direction, audio, Candidate::host(addr(CLIENT), "udp").unwrap())
    }

    fn with(limits: Limits, direction: Direction, audio: bool, candidate: Candidate) -> (World, String) {
        let start = base();
        let (browser, offer) = Browser::new(start, direction, audio, candidate);
        let world = World {
            start,
            now: Time::ZERO,
            endpoint: endpoint(start, limits),
            browser,
            flying: BTreeMap::new(),
            count: 0,
            delay: DELAY,
            filter: Box::new(|_, _, _| true),
            events: Vec::new(),
            sent_to: BTreeMap::new(),
            sources: Vec::new(),
            tcp: None,
        };
        (world, offer)
    }

    fn publisher() -> (World, SessionId) {
        let (mut w, offer) = World::new(Limits::default(), Direction::SendOnly, true);
        let (id, answer) = w.endpoint.publish(from(&offer, &[addr(SERVER)]), w.now).unwrap();
        w.browser.answer(&answer);
        (w, id)
    }

    fn viewer() -> (World, SessionId) {
        let (mut w, offer) = World::new(Limits::default(), Direction::RecvOnly, true);
        let playing = w.endpoint.play(from(&offer, &[addr(SERVER)]), &tracks(), w.now).unwrap();
        assert_eq!(playing.no_sound, None);
        w.browser.answer(&playing.answer);
        (w, playing.session)
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now.as_nanos())
    }

    fn fly(&mut self, src: SocketAddr, dst: SocketAddr, bytes: Vec<u8>) {
        self.count += 1;
        if (self.filter)(dst == addr(SERVER), &bytes, self.count) {
            self.flying.insert((self.now + self.delay, self.count), (src, dst, bytes));
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Event(id, event) => self.events.push((self.now, id, event)),
                Output::Datagrams(batch) => {
                    for t in &batch.items {
                        self.sources.push(t.src);
                        for bytes in batch.buf[t.start..t.start + t.len].chunks(t.segment_size) {
                            *self.sent_to.entry(t.dst).or_default() += bytes.len();
                            self.fly(addr(SERVER), t.dst, bytes.to_vec());
                        }
                    }
                    self.endpoint.handle(Input::Recycle(batch), self.now);
                }
                other => self.on_the_line(other),
            }
        }
        for (src, dst, bytes) in self.browser.drain() {
            self.fly(src, dst, bytes);
        }
    }

    fn arrive(&mut self, remote: SocketAddr, bytes: &[u8]) {
        if let Some(line) = &self.tcp {
            let input = Input::Framed { conn: line.conn, local: addr(SERVER), remote, bytes };
            return self.endpoint.handle(input, self.now);
        }
        let input =
            Input::Datagram { socket: SocketId(1), local: addr(SERVER), remote, stride: bytes.len(), bytes };
        self.endpoint.handle(input, self.now);
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        loop {
            let browser = self.browser.deadline.saturating_duration_since(self.start);
            let browser = Time::from_nanos(browser.as_nanos() as u64).max(self.now);
            let flying = self.flying.first_key_value().map(|((at, _), _)| *at);
            let server = self.endpoint.deadline().map(|d| d.at.max(self.now));
            let next = [Some(browser), flying, server].into_iter().flatten().min().unwrap();
            if next > end {
                break;
            }
            self.now = next;
            if flying == Some(next) {
                let (_, (src, dst, bytes)) = self.flying.pop_first().unwrap();
                if dst == addr(SERVER) {
                    self.arrive(src, &bytes);
                } else if dst == self.browser.address {
                    // Behind its translator the browser knows itself by one address only.
                    let how = if self.tcp.is_some() { Protocol::Tcp } else { Protocol::Udp };
                    let receive = Receive::new(how, src, addr(CLIENT), &bytes).unwrap();
                    self.browser.rtc.handle_input(RtcInput::Receive(self.instant(), receive)).unwrap();
                }
            } else if server == Some(next) {
                self.endpoint.handle(Input::Tick, next);
            } else {
                let at = self.instant();
                self.browser.rtc.handle_input(RtcInput::Timeout(at)).unwrap();
            }
            self.settle();
        }
        self.now = end;
    }

    fn connect(&mut self) {
        self.run(Duration::from_secs(2));
        assert!(self.browser.connected);
        assert!(self.events.iter().any(|(_, _, e)| matches!(e, PeerEvent::Connected { .. })));
    }

    fn write(&mut self, mid: Mid, timestamp: u32, payloads: &[Bytes], video: bool) {
        let (pt, at) = (self.browser.pt(mid), self.instant());
        let seq = self.browser.seq.entry(mid).or_insert(1000);
        let mut api = self.browser.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).unwrap();
        for (i, p) in payloads.iter().enumerate() {
            let packet = RtpWrite::new(pt, (*seq).into(), timestamp, at, p.as_ref());
            stream.write_rtp(packet.marker(video && i + 1 == payloads.len()).nackable(video));
            *seq += 1;
        }
        self.browser.rtc.handle_input(RtcInput::Timeout(at)).unwrap();
    }

    /// Publishes `count` pictures at 30 a second, a key frame each `gop`, and sound with each.
    fn publish(&mut self, count: u32, gop: u32) -> Vec<Bytes> {
        let mut sent = Vec::new();
        for n in 0..count {
            let key = n % gop == 0;
            let frame = picture(key, 3_000 + (n as usize * 37) % 2_000, n as u8);
            let payloads = payloads(&frame, key);
            self.write(self.browser.video, 7_000 + n * 3_000, &payloads, true);
            if let Some(audio) = self.browser.audio {
                self.write(audio, 9_000 + n * 1_600, &[sound(n)], false);
            }
            sent.push(frame);
            self.run(Duration::from_nanos(33_333_333));
        }
        sent
    }

    fn frames(&self, track: TrackId) -> Vec<NewFrame> {
        self.events
            .iter()
            .filter_map(|(_, _, e)| match e {
                PeerEvent::Media(Ingest::Frame(f)) if f.track == track => Some(f.clone()),
                _ => None,
            })
            .collect()
    }

    fn end(&self) -> Option<&Reason> {
        self.events.iter().find_map(|(_, _, e)| match e {
            PeerEvent::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    fn deliver(&mut self, session: SessionId, delivery: &Delivery) {
        self.endpoint.handle(Input::Deliver { session, delivery: delivery.clone() }, self.now);
    }

    /// What the browser can show of what it received.
    fn shown(&mut self) -> Vec<Unit> {
        let mut reorder = Reorder::new(Duration::from_millis(200), 4096);
        let mut depay = Depay::new(&Format::H264, 4 << 20, 4096);
        let mut out = Vec::new();
        for p in &self.browser.packets {
            if p.marker_or_payload_is_video() {
                reorder.insert(*p.seq_no, p, Time::ZERO);
            }
        }
        while let Some(popped) = reorder.pop(Time::from_millis(10_000)) {
            match popped {
                Popped::Lost(_) => depay.lost(),
                Popped::Packet(p) => {
                    depay.push(&p.payload, p.header.timestamp, p.header.marker, |u| out.push(u));
                }
            }
        }
        out
    }
}

trait IsVideo {
    fn marker_or_payload_is_video(&self) -> bool;
}

impl IsVideo for RtpPacket {
    fn marker_or_payload_is_video(&self) -> bool {
        self.payload.first() != Some(&SOUND_TOC)
    }
}

static SETS: [Bytes; 2] = [Bytes::from_static(SPS), Bytes::from_static(PPS)];

fn avc() -> CodecParams {
    h264_params(vec![SETS[0].clone()], vec![SETS[1].clone()])
}

/// A picture cut up, a key frame with its parameter sets.
fn payloads(picture: &Bytes, key: bool) -> Vec<Bytes> {
    let frame = NewFrame {
        track: TrackId::VIDEO,
        dts: 0,
        pts: 0,
        kind: if key { FrameKind::Key } else { FrameKind::Delta },
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: picture.clone(),
    };
    packetise(&Format::H264, &avc(), &frame, PAYLOAD_BYTES)
}
/// CELT, 20 ms, stereo: no H.264 payload begins with this byte (type 28 with NRI 7 does not exist).
const SOUND_TOC: u8 = 31 << 3 | 4;

fn sound(n: u32) -> Bytes {
    Bytes::from(vec![SOUND_TOC, n as u8, 1, 2, 3])
}

fn picture(key: bool, len: usize, fill: u8) -> Bytes {
    let mut nal = vec![fill; len];
    nal[0] = if key { 0x65 } else { 0x41 };
    nal[1] = 0x88;
    let mut out = BytesMut::new();
    put_nal(&mut out, &nal);
    out.freeze()
}

fn from<'a>(sdp: &'a str, candidates: &'a [SocketAddr]) -> Offer<'a> {
    Offer { sdp, from: addr(CLIENT).ip(), candidates }
}

fn config(params: CodecParams) -> Arc<CodecConfig> {
    Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest })
}

fn h264() -> Arc<CodecConfig> {
    let (sps, pps) = (vec![SETS[0].clone()], vec![SETS[1].clone()]);
    config(CodecParams::H264 { sps, pps, size: None, reorders: false })
}

fn tracks() -> Vec<(TrackId, Arc<CodecConfig>)> {
    vec![(TrackId::VIDEO, h264()), (TrackId::AUDIO, config(CodecParams::Opus { channels: 2 }))]
}

fn delivery(seq: u64, kind: FrameKind, payload: Bytes, pts: i64) -> Delivery {
    let track = if kind == FrameKind::Audio { TrackId::AUDIO } else { TrackId::VIDEO };
    let media = NewFrame {
        track,
        dts: pts,
        pts,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload,
    };
    let frame =
        Frame { seq, epoch: Epoch::default(), config_version: 1, media, renderings: Renderings::default() };
    Delivery::Frame { frame: Arc::new(frame), dts: pts, pts, cached: false }
}

fn is_media(bytes: &[u8]) -> bool {
    Multiplexed::of(bytes) == Some(Multiplexed::Rtp)
}

#[test]
fn what_is_published_by_whip_comes_out_as_frames() {
    let (mut w, _) = World::publisher();
    w.connect();
    let sent = w.publish(40, 15);
    w.run(Duration::from_millis(500));
    let video = w.frames(TrackId::VIDEO);
    assert_eq!(video.iter().map(|f| f.payload.clone()).collect::<Vec<_>>(), sent);
    let keys: Vec<usize> = (0..video.len()).filter(|n| video[*n].kind == FrameKind::Key).collect();
    assert_eq!(keys, [0, 15, 30]);
    for pair in video.windows(2) {
        let step = pair[1].pts - pair[0].pts;
        assert!((30_000_000..36_000_000).contains(&step), "{step}");
    }
    let audio = w.frames(TrackId::AUDIO);
    assert_eq!(audio.len(), 40);
    assert_eq!(audio[39].payload, sound(39));
    let skew = audio[39].pts - video[39].pts;
    assert!(skew.abs() < 40_000_000, "{skew}");
    let configs: Vec<CodecParams> = w
        .events
        .iter()
        .filter_map(|(_, _, e)| match e {
            PeerEvent::Media(Ingest::Config { params, .. }) => Some(params.clone()),
            _ => None,
        })
        .collect();
    assert!(configs.contains(&h264().params) && configs.contains(&CodecParams::Opus { channels: 2 }));
    assert_eq!(configs.len(), 2);
    assert_eq!(w.endpoint.sessions(), (1, 0));
    assert!(w.sources.iter().all(|s| *s == Some(addr(SERVER).ip())));
}

#[test]
fn lost_and_swapped_packets_are_recovered_by_retransmission() {
    let (mut w, _) = World::publisher();
    w.connect();
    let mut media = 0u32;
    let dropped = std::rc::Rc::new(std::cell::Cell::new(0));
    let counter = dropped.clone();
    w.filter = Box::new(move |to_server, bytes, _| {
        media += u32::from(to_server && is_media(bytes));
        let drop = to_server && is_media(bytes) && media % 11 == 5;
        counter.set(counter.get() + u32::from(drop));
        !drop
    });
    let sent = w.publish(60, 30);
    assert!(dropped.get() > 20, "{}", dropped.get());
    w.filter = Box::new(|_, _, _| true);
    w.publish(10, 30);
    w.run(Duration::from_secs(1));
    let got: Vec<Bytes> = w.frames(TrackId::VIDEO).into_iter().map(|f| f.payload).collect();
    assert_eq!(got[..60], sent[..], "every picture, in order, bit-exactly");
}

#[test]
fn what_cannot_be_recovered_costs_pictures_up_to_the_next_key_frame_which_is_asked_for() {
    let (mut w, _) = World::publisher();
    w.connect();
    w.publish(10, 100);
    // One picture and all its retransmissions vanish.
    let until = w.now + Duration::from_millis(30);
    w.filter = Box::new(|to_server, bytes, _| !(to_server && is_media(bytes)));
    w.write(w.browser.video, 7_000 + 10 * 3_000, &[Bytes::from_static(&[0x41, 0x88, 1])], true);
    w.run(until.since(w.now));
    // Its repair stream is cut off for good: an RTX packet carries the lost number first.
    w.filter = Box::new(|to_server, bytes, _| !(to_server && is_media(bytes) && bytes.len() < 60));
    assert_eq!(w.browser.key_requests, 0);
    for n in 11..40u32 {
        let payloads = payloads(&picture(false, 3_000, n as u8), false);
        w.write(w.browser.video, 7_000 + n * 3_000, &payloads, true);
        w.run(Duration::from_millis(33));
    }
    assert!((1..=3).contains(&w.browser.key_requests), "{}", w.browser.key_requests);
    let before = w.frames(TrackId::VIDEO).len();
    assert_eq!(before, 10, "nothing after the loss can be decoded");
    let key = picture(true, 2_000, 9);
    let payloads = payloads(&key, true);
    w.filter = Box::new(|_, _, _| true);
    w.write(w.browser.video, 7_000 + 41 * 3_000, &payloads, true);
    w.run(Duration::from_secs(1));
    let after = w.frames(TrackId::VIDEO);
    assert_eq!(after.last().map(|f| (f.kind, f.payload.clone())), Some((FrameKind::Key, key)));
}

#[test]
fn key_frames_are_asked_for_at_most_as_often_as_the_limit_says() {
    let (mut w, id) = World::publisher();
    w.connect();
    w.publish(5, 100);
    for _ in 0..100 {
        w.endpoint.handle(Input::RequestKeyFrame { session: id, track: None }, w.now);
        w.run(Duration::from_millis(20));
    }
    assert!((3..=5).contains(&w.browser.key_requests), "{} in 2 s", w.browser.key_requests);
}

#[test]
fn a_viewer_gets_the_same_pictures_even_over_a_lossy_path() {
    let (mut w, id) = World::viewer();
    w.connect();
    let mut media = 0u32;
    w.filter = Box::new(move |to_server, bytes, _| {
        media += u32::from(!to_server && is_media(bytes));
        to_server || !is_media(bytes) || media % 13 != 7
    });
    let mut sent = Vec::new();
    for n in 0..45u64 {
        let key = n % 30 == 0;
        let frame = picture(key, 2_500 + n as usize, n as u8);
        let kind = if key { FrameKind::Key } else { FrameKind::Delta };
        let pts = n as i64 * 33_333_333 - 500_000_000;
        w.deliver(id, &delivery(n * 2, kind, frame.clone(), pts));
        w.deliver(id, &delivery(n * 2 + 1, FrameKind::Audio, sound(n as u32), pts));
        sent.push(frame);
        w.run(Duration::from_millis(33));
    }
    w.run(Duration::from_secs(1));
    let shown = w.shown();
    assert_eq!(shown.iter().map(|u| u.payload.clone()).collect::<Vec<_>>(), sent);
    assert_eq!(shown[0].params, Some(avc()));
    let step = shown[1].timestamp.wrapping_sub(shown[0].timestamp);
    assert!((2_999..=3_001).contains(&step), "{step}");
    assert!(w.browser.packets.iter().any(|p| p.payload[..] == sound(44)[..]));
    let tallest = w.browser.packets.iter().map(|p| p.payload.len()).max();
    assert!(tallest.is_some_and(|t| t <= PAYLOAD_BYTES && t > PAYLOAD_BYTES / 2), "{tallest:?}");
}

#[test]
fn a_viewer_who_joins_late_begins_with_a_key_frame_and_may_ask_for_one() {
    let (mut w, id) = World::viewer();
    // Before the session stands, and before a key frame, nothing is sent.
    w.deliver(id, &delivery(1, FrameKind::Key, picture(true, 900, 1), 0));
    w.connect();
    w.deliver(id, &delivery(2, FrameKind::Delta, picture(false, 900, 2), 1));
    // The cached group, in one burst with squeezed times, as the hub sends it.
    let burst: Vec<Bytes> = (0..20).map(|n| picture(n == 0, 2_000, n)).collect();
    for (n, frame) in burst.iter().enumerate() {
        let kind = if n == 0 { FrameKind::Key } else { FrameKind::Delta };
        w.deliver(id, &delivery(3 + n as u64, kind, frame.clone(), 10 + n as i64 * 1_000_000));
    }
    w.run(Duration::from_millis(300));
    assert_eq!(w.shown().into_iter().map(|u| u.payload).collect::<Vec<_>>(), burst);
    let mid = w.browser.video;
    let mut api = w.browser.rtc.direct_api();
    api.stream_rx_by_mid(mid, None).unwrap().request_keyframe(KeyframeRequestKind::Pli);
    let at = w.instant();
    w.browser.rtc.handle_input(RtcInput::Timeout(at)).unwrap();
    w.run(Duration::from_millis(500));
    assert!(w.events.iter().any(|(_, _, e)| *e == PeerEvent::KeyFrameWanted));
}

#[test]
fn all_viewers_share_one_rendering() {
    let (mut w, id) = World::viewer();
    w.connect();
    let d = delivery(1, FrameKind::Key, picture(true, 5_000, 1), 0);
    w.deliver(id, &d);
    let Delivery::Frame { frame, .. } = &d else { panic!("a frame") };
    let first = frame.renderings.rtp.get().unwrap().0[1].as_ptr();
    w.deliver(id, &d);
    assert_eq!(frame.renderings.rtp.get().unwrap().0[1].as_ptr(), first);
}

#[test]
fn strangers_get_silence_and_are_counted() {
    let (mut w, _) = World::publisher();
    let stranger = addr("203.0.113.9:5");
    // A check with a user name that exists, without the password; one that does not exist; anonymous; garbage.
    let checks: Vec<Vec<u8>> = w.browser_checks();
    let check = checks.first().expect("the browser checks");
    let mut forged = check.clone();
    let tail = forged.len() - 20;
    forged[tail] ^= 1;
    w.arrive(stranger, &forged);
    let mut unknown = check.clone();
    let at = unknown.windows(4).position(|v| v[..2] == [0, 6]).unwrap() + 4;
    unknown[at] ^= 1;
    w.arrive(stranger, &unknown);
    let half = [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[0; 12], &[0, 6, 0, 3], b"a:b\0"].concat();
    w.arrive(stranger, &half);
    w.arrive(stranger, &[22; 200]);
    w.arrive(stranger, &[128; 200]);
    w.arrive(stranger, &[255; 200]);
    w.arrive(stranger, &[]);
    w.settle();
    assert_eq!(w.sent_to.get(&stranger), None);
    let d = w.endpoint.drops();
    assert_eq!(
        (d.unauthentic, d.unknown_user, d.not_a_check, d.unknown_path, d.unknown_protocol),
        (1, 1, 1, 2, 1)
    );
    w.connect();
    // And afterwards: right session, wrong address.
    w.arrive(stranger, &[128; 200]);
    w.arrive(stranger, &[21; 20]);
    w.settle();
    assert_eq!(w.sent_to.get(&stranger), None);
    assert_eq!(w.endpoint.drops().unknown_path, 4);
}

impl World {
    /// The first ICE checks of the browser, caught before they fly.
    fn browser_checks(&mut self) -> Vec<Vec<u8>> {
        let at = self.instant();
        self.browser.rtc.handle_input(RtcInput::Timeout(at)).unwrap();
        let mut checks = Vec::new();
        for _ in 0..5 {
            checks.extend(self.browser.drain().into_iter().map(|(_, _, bytes)| bytes));
            self.now += Duration::from_millis(50);
            let at = self.instant();
            self.browser.rtc.handle_input(RtcInput::Timeout(at)).unwrap();
        }
        checks
    }
}

#[test]
fn plaintext_alerts_and_garbage_do_not_end_a_handshake() {
    let (mut w, _) = World::publisher();
    // From the browser's own address, which is the worst case: a fatal alert before each of its DTLS datagrams.
    w.run(Duration::from_millis(60));
    for _ in 0..60 {
        w.arrive(addr(CLIENT), &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40]);
        w.arrive(addr(CLIENT), &[&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 2, 0, 30][..], &[9; 30]].concat());
        w.run(Duration::from_millis(20));
    }
    w.connect();
    assert_eq!(w.end(), None);
}

#[test]
fn a_peer_that_never_connects_is_dropped_and_told_why() {
    let (mut w, _) = World::publisher();
    w.filter = Box::new(|_, _, _| false);
    w.run(Duration::from_secs(11));
    assert_eq!(w.end().map(|r| r.code), Some("handshake_timeout"));
    assert_eq!(w.endpoint.sessions(), (0, 0));
    assert_eq!(w.endpoint.deadline(), None, "nothing is left behind");
}

#[test]
fn a_silent_session_ends_after_the_consent_time_and_a_live_one_does_not() {
    let (mut w, _) = World::viewer();
    w.connect();
    w.run(Duration::from_secs(100));
    assert_eq!(w.end(), None);
    let cut = w.now;
    w.filter = Box::new(|_, _, _| false);
    w.run(Duration::from_secs(45));
    assert_eq!(w.end().map(|r| r.code), Some("silent"));
    let at = w.events.iter().find(|(_, _, e)| matches!(e, PeerEvent::Closed(_))).unwrap().0;
    assert!(at.since(cut) <= Duration::from_secs(30), "{:?}", at.since(cut));
    assert_eq!(w.endpoint.sessions(), (0, 0));
}

#[test]
fn closing_says_goodbye_and_a_goodbye_closes() {
    let (mut w, id) = World::viewer();
    w.connect();
    let reason = Reason::local("draining", "this node is shutting down");
    w.endpoint.handle(Input::Close { session: id, reason: reason.clone() }, w.now);
    w.run(Duration::from_millis(100));
    assert_eq!(w.end(), Some(&reason));
    assert!(w.browser.closed);

    let (mut w, _) = World::viewer();
    w.connect();
    w.browser.rtc.close().unwrap();
    w.run(Duration::from_millis(100));
    assert_eq!(w.end().map(|r| r.code), Some("peer_closed"));
}

#[test]
fn a_defect_in_one_session_costs_that_session_only() {
    let (mut w, id) = World::publisher();
    w.connect();
    let (_, offer) = World::new(Limits::default(), Direction::RecvOnly, false);
    let other = w.endpoint.play(from(&offer, &[addr(SERVER)]), &tracks(), w.now).unwrap().session;
    match &mut w.endpoint.sessions.get_mut(&id).unwrap().talk {
        Talk::Whole(peer) => peer.explode = true,
        Talk::Lean(viewer) => viewer.explode = true,
    }
    w.publish(1, 1);
    assert_eq!(w.end().map(|r| r.code), Some("panic"));
    assert_eq!(w.endpoint.drops().panics, 1);
    assert_eq!(w.endpoint.sessions(), (1, 1));
    assert!(w.endpoint.sessions.contains_key(&other));
}

#[test]
fn behind_nat_the_asked_address_answers() {
    let (mut w, offer) = World::new(Limits::default(), Direction::SendOnly, false);
    // The offered candidate is public; the datagrams arrive at a private address.
    let public = addr("203.0.113.77:9999");
    let (_, answer) = w.endpoint.publish(from(&offer, &[public]), w.now).unwrap();
    assert!(answer.contains("203.0.113.77 9999 typ host"), "{answer}");
    w.browser.answer(&answer.replace("203.0.113.77 9999", "192.0.2.1 8189"));
    w.connect();
    assert!(w.sources.iter().all(|s| *s == Some(addr(SERVER).ip())));
}

/// A translator that forgets its mapping, or a telephone that goes from one network to another and back.
#[test]
fn a_peer_whose_address_changes_is_followed_there_and_back() {
    let (mut w, id) = World::viewer();
    w.connect();
    for (n, at) in ["203.0.113.8:50001", CLIENT, "203.0.113.8:50001", "203.0.113.9:7"].iter().enumerate() {
        w.browser.address = addr(at);
        w.run(Duration::from_secs(6));
        let before = w.browser.packets.len();
        let d = delivery(n as u64 + 1, FrameKind::Key, picture(true, 2_000, 1), n as i64 * 1_000_000);
        w.deliver(id, &d);
        w.run(Duration::from_millis(100));
        assert!(w.browser.packets.len() >= before + 3, "nothing comes to {at}");
    }
    assert_eq!(w.end(), None);
}

#[test]
fn unfinished_handshakes_are_limited_and_the_limit_is_named() {
    let limits = Limits { rtc_handshakes_per_ip: 2, rtc_handshakes: 3, rtc_sessions: 4, ..Limits::default() };
    let (mut w, offer) = World::new(limits, Direction::SendOnly, false);
    let candidates = [addr(SERVER)];
    let mut open = |ip: &str| {
        let offer = Offer { sdp: &offer, from: ip.parse().unwrap(), candidates: &candidates };
        w.endpoint.publish(offer, Time::ZERO).map(|(id, _)| id)
    };
    let first = open("10.0.0.1").unwrap();
    open("10.0.0.1").unwrap();
    assert!(open("10.0.0.1").unwrap_err().text.contains("rtc_handshakes_per_ip"));
    open("10.0.0.2").unwrap();
    assert!(open("10.0.0.3").unwrap_err().text.contains("limits.rtc_handshakes"));
    let reason = Reason::local("test", "over");
    w.endpoint.handle(Input::Close { session: first, reason }, Time::ZERO);
    assert_eq!(w.endpoint.sessions(), (2, 2));
}

#[test]
fn a_flood_of_handshake_datagrams_takes_its_share_of_a_turn_only() {
    let (mut w, _) = World::publisher();
    w.run(Duration::from_millis(45));
    assert!(!w.endpoint.by_path.is_empty(), "the browser's checks have arrived");
    let junk = [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 2, 0, 30][..], &[9; 30]].concat();
    for _ in 0..1_000 {
        w.arrive(addr(CLIENT), &junk);
    }
    assert!(w.endpoint.drops().handshake_queue >= 1_000 - 512 - 20);
    assert_eq!(w.endpoint.deadline().map(|d| d.why), Some("handshakes"));
    w.connect();
}
