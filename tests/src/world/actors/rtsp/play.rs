//! Playing by RTSP: DESCRIBE, SETUP, PLAY, and packets over the connection or as datagrams, checked as they come.

use super::packets::{Rtcp, Rtp, read_aac, read_rtcp, receiver_report};
use super::publish::elsewhere;
use super::talk::{Answer, Got, Talk, parameter, two};
use crate::world::actors::player::{Heard, PlayerConfig, Source};
use crate::world::actors::publisher::Attempt;
use crate::world::actors::webrtc::reorder::{Next, Reorder};
use crate::world::actors::webrtc::rtp::{Depacketiser, Picture, Read};
use crate::world::actors::webrtc::sync::{Sync, Timeline, by_clock};
use crate::world::actors::{Conn, In, Out};
use crate::world::media::{Label, MADE_OF_AAC, Order, PICTURE, REORDERS, sound_at};
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// A player that gets no datagram for so long after PLAY gives datagrams up.
const NOTHING: Duration = Duration::from_secs(4);
/// Receiver's reports go out so often.
const REPORTS: Duration = Duration::from_secs(5);
/// Ways through address translators are kept open so often.
const PUNCH: Duration = Duration::from_secs(10);
/// Between two wishes for a key frame.
const KEY_PAUSE: Duration = Duration::from_millis(500);
/// Missing packets are waited for so long.
const WAIT: Duration = Duration::from_millis(150);
/// Sound and picture may be so far apart (S4).
const APART: Duration = Duration::from_millis(40);
/// So many pictures are compared with each other, where they need not come in the order in which they are shown.
const LATEST: usize = 8;
/// How often it follows a server elsewhere before it gives up.
const TURNS: u32 = 3;

/// The codec of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    H264,
    Aac,
    Opus,
}

/// One track.
#[derive(Debug)]
struct Lane {
    codec: Codec,
    kind: u8,
    control: String,
    ssrc: Option<u32>,
    /// Our ports, the server's.
    ports: Option<((u16, u16), (SocketAddr, SocketAddr))>,
    /// What `RTP-Info` says of the first packet.
    first: Option<(u16, u32)>,
    /// The newest sequence number, counted on.
    seq: Option<u64>,
    reorder: Reorder<Rtp>,
    lost: bool,
    clock: Timeline,
    /// The newest timestamp, and how it is counted on.
    stamp: Option<(u32, u64)>,
    /// The session and number of the newest frame.
    newest: Option<(u64, u64)>,
    /// The latest pictures of a publisher that does not code them in the order in which they are shown: session, number in that
    /// order, timestamp.
    latest: VecDeque<(u64, u64, u64)>,
}

/// One connection of a player by RTSP.
pub struct RtspPlay {
    attempt: Attempt,
    udp: bool,
    sound_ppm: i32,
    conn: Conn,
    at: SocketAddr,
    turns: u32,
    talk: Talk,
    base: String,
    lanes: Vec<Lane>,
    agreed: usize,
    playing: Option<Time>,
    heard_any: bool,
    pictures: Depacketiser,
    needs_key: bool,
    key_asked: Option<Time>,
    sync: Sync,
    /// The farthest that sound and picture were apart.
    pub apart: Duration,
    /// Packets that did not come.
    pub lost: u64,
    report: Option<Time>,
    punch: Option<Time>,
    over: bool,
    heard: VecDeque<Heard>,
}

impl RtspPlay {
    /// Whether its media comes as datagrams.
    pub fn is_udp(&self) -> bool {
        self.lanes.iter().any(|l| l.ports.is_some())
    }

    /// Where its connection leads: elsewhere than it was told if a server sent it on.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    fn url(&self) -> String {
        format!("rtsp://{}/{}", self.at, self.attempt.stream)
    }

    fn fault(&mut self, invariant: &'static str, text: impl Into<String>) {
        self.heard.push_back(Heard::Wrong(invariant, format!("by RTSP: {}", text.into())));
    }

    fn end(&mut self, why: &str, at_once: bool) {
        if !std::mem::replace(&mut self.over, true) {
            self.heard.push_back(Heard::Do(Out::Close(self.conn, at_once)));
            self.heard.push_back(Heard::Ended(why.to_owned()));
        }
    }

    fn ports(&self, lane: usize) -> (u16, u16) {
        let rtp = 40_000 + 4 * (self.attempt.number % 2_000) as u16 + 2 * lane as u16;
        (rtp, rtp + 1)
    }

    /// Goes to another server.
    fn turn(&mut self, to: SocketAddr) {
        self.heard.push_back(Heard::Do(Out::Close(self.conn, false)));
        self.turns += 1;
        self.conn += 1;
        self.at = to;
        self.talk = Talk::default();
        self.lanes.clear();
        self.agreed = 0;
        self.playing = None;
        self.pictures = Depacketiser::default();
        self.needs_key = true;
        self.sync = Sync::default();
        (self.report, self.punch, self.heard_any) = (None, None, false);
        self.heard.push_back(Heard::Anew);
        self.heard.push_back(Heard::Do(Out::Dial(self.conn, to)));
    }

    fn answer(&mut self, method: &str, answer: &Answer, now: Time) {
        let url = self.url();
        if method != "GET_PARAMETER" || answer.status != 200 {
            self.heard.push_back(Heard::Status(format!("{method} {} {}", answer.status, answer.phrase)));
        }
        match (method, answer.status) {
            (_, 301 | 302) => {
                let location = answer.header("Location").unwrap_or_default();
                match elsewhere(location, &self.attempt.stream) {
                    None => self.fault("S3", format!("{method} sends it on to {location:?}")),
                    Some(to) if self.turns < TURNS => self.turn(to),
                    Some(_) => self.end("sent on once too often", false),
                }
            }
            ("GET_PARAMETER", 200) => {}
            ("TEARDOWN", _) => self.end("left", false),
            // No ports are free: as ffmpeg does, the rest goes over the connection.
            ("SETUP", 461) if self.udp && self.agreed == 0 => {
                self.udp = false;
                self.set_up(now);
            }
            (_, status) if status != 200 => self.end(&format!("{method}: {status} {}", answer.phrase), false),
            ("OPTIONS", _) => self.talk.ask("DESCRIBE", &url, &[("Accept", "application/sdp")], "", now),
            ("DESCRIBE", _) => {
                self.base = answer.header("Content-Base").unwrap_or_default().to_owned();
                match self.described(&answer.body) {
                    Ok(()) => self.set_up(now),
                    Err(text) => {
                        self.fault("S3", text);
                        self.end("what is described cannot be played", false);
                    }
                }
            }
            ("SETUP", _) => {
                let session = answer.header("Session").and_then(|s| s.split(';').next());
                self.talk.session = session.map(str::to_owned);
                let transport = answer.header("Transport").unwrap_or_default().to_owned();
                if self.agree(&transport).is_none() {
                    return self.fault("S3", format!("SETUP is answered with the transport {transport:?}"));
                }
                self.agreed += 1;
                if self.agreed < self.lanes.len() {
                    return self.set_up(now);
                }
                self.punch(now);
                self.talk.ask("PLAY", &url, &[("Range", "npt=now-")], "", now);
            }
            ("PLAY", _) => {
                let info = answer.header("RTP-Info").unwrap_or_default().to_owned();
                for (lane, part) in self.lanes.iter_mut().zip(info.split(',')) {
                    let number = |name| parameter(part, name);
                    lane.first = number("seq")
                        .and_then(|s| s.parse().ok())
                        .zip(number("rtptime").and_then(|s| s.parse().ok()));
                }
                if self.lanes.iter().any(|l| l.first.is_none()) {
                    self.fault("S3", format!("PLAY is answered with {info:?}"));
                }
                self.playing = Some(now);
                self.report = Some(now + REPORTS);
                self.talk.keep_alive(&url, now);
                self.heard.push_back(Heard::Playing);
            }
            (other, _) => self.fault("S3", format!("an answer to {other}")),
        }
    }

    /// Reads a description (RFC 4566; RFC 6184, 8.2; RFC 3640, 4.1; RFC 7587, 7).
    fn described(&mut self, sdp: &str) -> Result<(), String> {
        let sections = sdp.split("\r\nm=").skip(1);
        for section in sections {
            let line = |name: &str| section.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
            let head = section.lines().next().unwrap_or_default();
            let kind = head
                .rsplit(' ')
                .next()
                .and_then(|k| k.parse().ok())
                .ok_or_else(|| format!("a section {head:?}"))?;
            let (map, fmtp) = (line("a=rtpmap:"), line("a=fmtp:"));
            let map = map.split_once(' ').map_or("", |(_, m)| m);
            // Three frames are a whole number of nanoseconds.
            let million = 1_000_000;
            let three = i128::from(sound_at(3)) * million / (million + i128::from(self.sound_ppm));
            let sound = Duration::from_nanos(three as u64) / 3;
            // Pictures that are not coded in the order in which they are shown.
            let reorders = fmtp.contains("Z01AHu2CgzI=,aM48gA==");
            let (codec, rate, each) = match map {
                "H264/90000"
                    if fmtp.contains("packetization-mode=1")
                        && (fmtp.contains("Z0LAHtoFBmQ=,aM48gA==") || reorders) =>
                {
                    (Codec::H264, 90_000, Duration::from_nanos(PICTURE as u64))
                }
                "mpeg4-generic/48000/2" | "MPEG4-GENERIC/48000/2" if fmtp.contains("config=1190") => {
                    (Codec::Aac, 48_000, sound)
                }
                "opus/48000/2" => (Codec::Opus, 48_000, Duration::from_millis(20)),
                _ => return Err(format!("a track {head:?} of {map:?} with {fmtp:?}")),
            };
            let track = if codec == Codec::H264 { 'v' } else { 'a' };
            self.heard.push_back(Heard::Config(track, if reorders { REORDERS } else { 0 }));
            self.lanes.push(Lane {
                codec,
                kind,
                control: line("a=control:").to_owned(),
                ssrc: None,
                ports: None,
                first: None,
                seq: None,
                reorder: Reorder::new(WAIT),
                lost: false,
                clock: Timeline::new(rate, each),
                stamp: None,
                newest: None,
                latest: VecDeque::new(),
            });
        }
        if self.lanes.is_empty() { Err(format!("a description without tracks: {sdp:?}")) } else { Ok(()) }
    }

    fn set_up(&mut self, now: Time) {
        let n = self.agreed;
        let Some(lane) = self.lanes.get(n) else { return };
        let url = format!("{}{}", self.base, lane.control);
        let (a, b) = self.ports(n);
        let transport = if self.udp {
            format!("RTP/AVP;unicast;client_port={a}-{b}")
        } else {
            format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * n, 2 * n + 1)
        };
        self.talk.ask("SETUP", &url, &[("Transport", &transport)], "", now);
    }

    fn agree(&mut self, transport: &str) -> Option<()> {
        let (n, ours) = (self.agreed, self.ports(self.agreed));
        let (udp, ip) = (self.udp, self.at.ip());
        let lane = self.lanes.get_mut(n)?;
        lane.ssrc = parameter(transport, "ssrc").and_then(|s| u32::from_str_radix(s, 16).ok());
        if udp {
            let (a, b) = parameter(transport, "server_port").and_then(two)?;
            lane.ports = Some((ours, (SocketAddr::new(ip, a), SocketAddr::new(ip, b))));
        } else if parameter(transport, "interleaved").and_then(two) != Some((2 * n, 2 * n + 1)) {
            return None;
        }
        Some(())
    }

    fn datagram(&mut self, port: u16, to: SocketAddr, bytes: Vec<u8>) {
        self.heard.push_back(Heard::Do(Out::Datagram { port, to, bytes: bytes.into() }));
    }

    /// Opens ways through address translators and keeps them open, as ffmpeg does: a packet that means nothing.
    fn punch(&mut self, now: Time) {
        let lanes: Vec<_> = self.lanes.iter().filter_map(|l| l.ports).collect();
        self.punch = (!lanes.is_empty()).then_some(now + PUNCH);
        for (ours, theirs) in lanes {
            let nothing = Rtp { kind: 0, marker: false, seq: 0, stamp: 0, ssrc: 0, payload: Vec::new() };
            self.datagram(ours.0, theirs.0, nothing.write());
            self.datagram(ours.1, theirs.1, receiver_report(7, None));
        }
    }

    fn reports(&mut self, key: bool) {
        for n in 0..self.lanes.len() {
            let lane = &self.lanes[n];
            let key_of = lane.ssrc.filter(|_| key && lane.codec == Codec::H264);
            let (report, ports) = (receiver_report(7, key_of), lane.ports);
            match ports {
                Some((ours, theirs)) => self.datagram(ours.1, theirs.1, report),
                None => self.talk.packet(2 * n as u8 + 1, &report),
            }
        }
    }

    fn rtcp(&mut self, lane: usize, packet: &[u8]) {
        let found = match read_rtcp(packet) {
            Ok(found) => found,
            Err(text) => return self.fault("S3", text),
        };
        for report in found {
            match report {
                Rtcp::Sender(ssrc, at, stamp) => {
                    let l = &mut self.lanes[lane];
                    if l.ssrc.is_some_and(|s| s != ssrc) {
                        self.fault("S3", "the report of another stream");
                    } else {
                        l.clock.report(stamp, at);
                    }
                }
                Rtcp::KeyFrame => self.fault("S3", "a player is asked for a key frame"),
                Rtcp::Bye => {}
            }
        }
    }

    fn rtp(&mut self, lane: usize, packet: &[u8], now: Time) {
        let packet = match Rtp::read(packet) {
            Ok(packet) => packet,
            Err(text) => return self.fault("S3", text),
        };
        self.heard_any = true;
        let l = &mut self.lanes[lane];
        if packet.kind != l.kind || l.ssrc.is_some_and(|s| s != packet.ssrc) {
            let text = format!("a packet of another stream: {packet:?}");
            return self.fault("S3", text);
        }
        l.ssrc = Some(packet.ssrc);
        let seq = match l.seq {
            None => 1 << 32 | u64::from(packet.seq),
            Some(newest) => {
                newest.wrapping_add_signed(i64::from(packet.seq.wrapping_sub(newest as u16) as i16))
            }
        };
        let over_tcp = l.ports.is_none();
        if over_tcp {
            let expected = l.seq.map_or(l.first.map(|f| f.0), |newest| Some((newest + 1) as u16));
            if expected.is_some_and(|e| e != packet.seq) {
                let text =
                    format!("packet {} comes over the connection where {expected:?} is due", packet.seq);
                self.fault("S4", text);
                return;
            }
        }
        let l = &mut self.lanes[lane];
        l.seq = l.seq.max(Some(seq));
        l.reorder.insert(seq, packet, now);
    }

    /// Takes what is in its turn.
    fn play(&mut self, now: Time) {
        for lane in 0..self.lanes.len() {
            while let Some(next) = self.lanes[lane].reorder.pop(now) {
                match next {
                    Next::Missing(n) => {
                        self.lost += n;
                        self.lanes[lane].lost = true;
                        if self.lanes[lane].codec == Codec::H264 {
                            self.pictures.lost();
                            self.needs_key = true;
                        }
                    }
                    Next::Packet(p) if self.lanes[lane].codec == Codec::H264 => {
                        match self.pictures.push(&p.payload, p.stamp, p.marker) {
                            Read::More => {}
                            Read::Whole(picture) => self.picture(lane, picture),
                            Read::Broken { why, lost } => self.broken(lane, why, lost),
                        }
                    }
                    Next::Packet(p) => self.sound(lane, &p),
                }
            }
        }
        let pause = self.key_asked.is_some_and(|at| now.since(at) < KEY_PAUSE);
        let lost = self.lanes.iter().any(|l| l.codec == Codec::H264 && l.lost);
        if self.needs_key && lost && !pause && self.playing.is_some() {
            self.key_asked = Some(now);
            self.reports(true);
        }
    }

    fn broken(&mut self, lane: usize, why: String, lost: bool) {
        // Datagrams may be lost before the first that comes.
        if lost || self.is_udp() && self.lanes[lane].stamp.is_none() {
            self.needs_key = true;
            self.lanes[lane].lost = true;
        } else {
            self.fault("S3", format!("a broken picture: {why}"));
        }
    }

    fn picture(&mut self, lane: usize, picture: Picture) {
        let label = match picture.slice.get(3..).map(Label::read) {
            Some(Ok(label)) => label,
            Some(Err(text)) => return self.fault("S3", format!("a picture at {}: {text}", picture.stamp)),
            None => return self.fault("S3", "a slice of no length"),
        };
        if label.key != picture.key {
            self.fault("S3", format!("{label:?} comes in a slice of the other kind"));
        }
        if picture.sets.is_some_and(|dress| dress != label.dress) {
            self.fault("S4", format!("a picture under other parameter sets ({:?}): {label:?}", picture.sets));
        }
        if picture.key && picture.sets.is_none() && (picture.follows || !self.is_udp()) {
            self.fault("S4", format!("a key frame without parameter sets in front: {label:?}"));
        }
        if self.needs_key && !picture.key {
            if !self.lanes[lane].lost && !self.is_udp() {
                self.fault("S4", format!("the first picture is no key frame: {label:?}"));
            }
            self.lanes[lane].lost = true;
            return;
        }
        self.needs_key = false;
        self.lanes[lane].lost = false;
        if let Some(dress) = picture.sets {
            self.heard.push_back(Heard::Config('v', dress));
        }
        self.frame(lane, 'v', picture.stamp, label);
    }

    fn sound(&mut self, lane: usize, p: &Rtp) {
        let frames = match self.lanes[lane].codec {
            Codec::Opus => {
                // RFC 6716, 3.1, as far as the world's publishers go.
                let long = match p.payload.first().map(|toc| (*toc, toc >> 3)) {
                    // What it was made of has 1,024 samples a frame.
                    Some((MADE_OF_AAC, _)) => Duration::from_nanos(sound_at(1) as u64),
                    Some((_, 30)) => Duration::from_millis(10),
                    Some((_, 10)) => Duration::from_millis(40),
                    Some((_, 11)) => Duration::from_millis(60),
                    _ => Duration::from_millis(20),
                };
                self.lanes[lane].clock.sampled_each(by_clock(long, self.sound_ppm));
                p.payload.get(1..).map(|b| vec![b]).ok_or_else(|| "an empty packet of sound".to_owned())
            }
            _ => read_aac(&p.payload),
        };
        match frames.and_then(|all| all.into_iter().map(Label::read).collect::<Result<Vec<_>, _>>()) {
            Err(text) => self.fault("S3", format!("sound at {}: {text}", p.stamp)),
            Ok(labels) => {
                for (n, label) in labels.into_iter().enumerate() {
                    self.frame(lane, 'a', p.stamp.wrapping_add(1_024 * n as u32), label);
                }
            }
        }
    }

    fn frame(&mut self, lane: usize, track: char, stamp: u32, label: Label) {
        let l = &mut self.lanes[lane];
        let counted = match l.stamp {
            None => 1 << 32,
            Some((before, counted)) => {
                counted.wrapping_add_signed(i64::from(stamp.wrapping_sub(before) as i32))
            }
        };
        if l.codec == Codec::Aac
            && let (Some((before, _)), Some(newest)) = (l.stamp, l.newest)
            && newest == (label.session, label.seq.wrapping_sub(1))
        {
            // What a bridge made of Opus stands as far apart as that.
            let long = match stamp.wrapping_sub(before) {
                ticks @ (480 | 960 | 1_920 | 2_880) => Duration::from_millis(u64::from(ticks / 48)),
                _ => Duration::from_nanos(sound_at(1) as u64),
            };
            l.clock.sampled_each(by_clock(long, self.sound_ppm));
        }
        l.newest = Some((label.session, label.seq));
        l.stamp = Some((stamp, counted));
        // By RTP there is only the time at which a picture is shown, and pictures need not come in that order.
        let shown = label.seq + u64::from(label.place.shown);
        let ordered = track != 'v' || label.place.order == Order::Shown;
        let (_, back) = l.clock.frame(stamp, label.session, shown);
        let wrong = |(session, before, at): &(u64, u64, u64)| {
            *session == label.session && (*before < shown) != (*at < counted)
        };
        let misplaced = !ordered && l.latest.iter().any(wrong);
        let highest = l.latest.iter().map(|(.., at)| *at).max().filter(|_| !ordered);
        if !ordered {
            l.latest.push_back((label.session, shown, counted));
            l.latest.drain(..l.latest.len().saturating_sub(LATEST));
        }
        let counted = counted.max(highest.unwrap_or_default());
        if misplaced {
            self.fault("S4", format!("a picture at another place than where it is shown: {label:?}"));
        }
        if back && ordered {
            self.fault("S4", format!("a timestamp that is not later than the one before: {label:?}"));
        }
        self.apart();
        self.heard.push_back(Heard::Frame(track, counted, label));
    }

    fn apart(&mut self) {
        let Some(video) = self.lanes.iter().position(|l| l.codec == Codec::H264) else { return };
        let (before, after) = self.lanes.split_at_mut(video);
        let Some((picture, rest)) = after.split_first_mut() else { return };
        let Some(sound) = before.iter_mut().chain(rest).next() else { return };
        if let Some(apart) = self.sync.measure(&mut picture.clock, &mut sound.clock) {
            self.apart = self.apart.max(apart);
            if apart > APART {
                self.fault("S4", format!("sound and picture are apart by {apart:?}"));
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8], now: Time) {
        self.talk.received(bytes);
        while !self.over {
            match self.talk.next() {
                Ok(Some(Got::Answer(method, answer))) => self.answer(method, &answer, now),
                Ok(Some(Got::Packet(channel, packet))) => {
                    let lane = usize::from(channel / 2);
                    if lane >= self.agreed || self.is_udp() {
                        self.fault("S3", format!("a packet on channel {channel}, which was not set up"));
                    } else if channel % 2 == 0 {
                        self.rtp(lane, &packet, now);
                    } else {
                        self.rtcp(lane, &packet);
                    }
                }
                Ok(Some(Got::Request(method, location))) => {
                    let location = location.unwrap_or_default();
                    match elsewhere(&location, &self.attempt.stream) {
                        Some(to) if method == "REDIRECT" && self.turns < TURNS => self.turn(to),
                        Some(_) => self.end(&format!("the server says {method}"), false),
                        None => self.fault("S3", format!("{method} to {location:?}")),
                    }
                }
                Ok(None) => return,
                Err(text) => {
                    self.fault("S3", text);
                    self.end("what the server said cannot be read", true);
                }
            }
        }
    }

    fn due(&mut self, now: Time) {
        if self.over {
            return;
        }
        if self.report.is_some_and(|at| at <= now) {
            self.report = Some(now + REPORTS);
            self.reports(false);
        }
        if self.punch.is_some_and(|at| at <= now) {
            self.punch(now);
        }
        if self.in_vain().is_some_and(|at| at <= now) {
            self.end("no datagram came", true);
        }
        if !self.talk.tick(now) {
            self.end("the server does not answer", true);
        }
    }

    /// When it gives datagrams up.
    fn in_vain(&self) -> Option<Time> {
        self.playing.filter(|_| self.is_udp() && !self.heard_any).map(|since| since + NOTHING)
    }
}

impl Source for RtspPlay {
    fn begin(attempt: Attempt, config: &PlayerConfig, _now: Time) -> RtspPlay {
        let at = attempt.to;
        RtspPlay {
            // Whoever got nothing by datagrams asks for the connection next, and the other way round.
            udp: config.udp && attempt.number % 2 == 1,
            sound_ppm: config.sound_ppm,
            heard: VecDeque::from([Heard::Do(Out::Dial(0, at))]),
            attempt,
            conn: 0,
            at,
            turns: 0,
            talk: Talk::default(),
            base: String::new(),
            lanes: Vec::new(),
            agreed: 0,
            playing: None,
            heard_any: false,
            pictures: Depacketiser::default(),
            needs_key: true,
            key_asked: None,
            sync: Sync::default(),
            apart: Duration::ZERO,
            lost: 0,
            report: None,
            punch: None,
            over: false,
        }
    }

    fn on(&mut self, input: &In<'_>, now: Time) {
        match input {
            In::Connected(conn) if *conn == self.conn => {
                let url = self.url();
                self.talk.ask("OPTIONS", &url, &[], "", now);
            }
            In::Writable(conn, free) if *conn == self.conn => self.talk.writable(*free),
            In::Received(conn, bytes) if *conn == self.conn => self.bytes(bytes, now),
            In::Finished(conn) if *conn == self.conn => self.end("the server closed the connection", false),
            In::Closed(conn, why) if *conn == self.conn => self.end(why, true),
            In::Datagram { port, from, bytes } => {
                let of = self.lanes.iter().enumerate().find_map(|(n, l)| {
                    let (ours, theirs) = l.ports?;
                    let rtcp = ours.1 == *port && theirs.1 == *from;
                    (rtcp || ours.0 == *port && theirs.0 == *from).then_some((n, rtcp))
                });
                match of {
                    Some((lane, true)) => self.rtcp(lane, bytes),
                    Some((lane, false)) => self.rtp(lane, bytes, now),
                    None => {}
                }
            }
            In::Tick => self.due(now),
            _ => {}
        }
        if !self.over {
            self.play(now);
        }
    }

    fn finish(&mut self, now: Time) {
        if self.talk.session.is_some() && !self.over {
            let url = self.url();
            return self.talk.ask("TEARDOWN", &url, &[], "", now);
        }
        self.end("left", true);
    }

    fn abort(&mut self) {
        self.heard.push_back(Heard::Do(Out::Close(self.conn, true)));
    }

    fn poll(&mut self) -> Option<Heard> {
        if let Some(heard) = self.heard.pop_front() {
            return Some(heard);
        }
        if self.over { None } else { self.talk.send(self.conn).map(Heard::Do) }
    }

    fn wake(&self) -> Option<Time> {
        let lanes = self.lanes.iter().filter_map(|l| l.reorder.wake());
        lanes.chain([self.talk.wake(), self.report, self.punch, self.in_vain()].into_iter().flatten()).min()
    }
}
