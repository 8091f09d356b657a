//! Publishing by RTSP: ANNOUNCE, SETUP, RECORD, and packets over the connection or as datagrams.

use super::packets::{EPOCH, Rtcp, Rtp, aac, read_rtcp, sender_report};
use super::talk::{Answer, Got, Talk, parameter, two};
use crate::world::actors::publisher::{Attempt, Due, PublisherConfig, Said, Wire};
use crate::world::actors::webrtc::rtp::packetise;
use crate::world::actors::{Conn, In, Out};
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Sender's reports go out so often.
const REPORTS: Duration = Duration::from_secs(5);
/// A publisher whose connection is so far behind leaves pictures out.
const BEHIND: usize = 256 * 1024;
/// How often it follows a server elsewhere before it gives up.
const TURNS: u32 = 3;

/// What it announces: pictures and sound as `media::configs` has them.
const SECTIONS: &str = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LAHtoFBmQ=,aM48gA==;profile-level-id=42C01E\r\n\
    a=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n\
    a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190\r\n\
    a=control:streamid=1\r\n";

/// One track.
#[derive(Debug)]
struct Lane {
    kind: u8,
    rate: u64,
    ssrc: u32,
    seq: u16,
    first: u32,
    packets: u32,
    octets: u32,
    /// Our ports, the server's.
    ports: Option<((u16, u16), (SocketAddr, SocketAddr))>,
}

/// One connection of a publisher by RTSP.
pub struct RtspRecord {
    attempt: Attempt,
    config: PublisherConfig,
    conn: Conn,
    at: SocketAddr,
    turns: u32,
    talk: Talk,
    lanes: [Lane; 2],
    start: Option<Time>,
    report: Option<Time>,
    /// Pictures are left out until a key frame.
    behind: bool,
    key_wanted: bool,
    over: bool,
    said: VecDeque<Said>,
}

impl RtspRecord {
    fn url(&self) -> String {
        format!("rtsp://{}/{}", self.at, self.attempt.stream)
    }

    fn ports(&self, lane: usize) -> (u16, u16) {
        let rtp = 30_000 + 4 * (self.attempt.number % 2_000) as u16 + 2 * lane as u16;
        (rtp, rtp + 1)
    }

    fn fault(&mut self, text: String) {
        let text = format!("publishing {} by RTSP at {}: {text}", self.attempt.stream, self.at);
        self.said.push_back(Said::Do(Out::Violation("S3", text)));
    }

    fn end(&mut self, why: String, at_once: bool) {
        if !std::mem::replace(&mut self.over, true) {
            self.said.push_back(Said::Do(Out::Close(self.conn, at_once)));
            self.said.push_back(Said::Ended(why));
        }
    }

    fn announce(&mut self, now: Time) {
        let name = &self.attempt.stream;
        let body =
            format!("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns={name}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n{SECTIONS}");
        let url = self.url();
        self.talk.ask("ANNOUNCE", &url, &[("Content-Type", "application/sdp")], &body, now);
    }

    fn set_up(&mut self, lane: usize, now: Time) {
        let (a, b) = self.ports(lane);
        let transport = if self.config.udp {
            format!("RTP/AVP/UDP;unicast;client_port={a}-{b};mode=record")
        } else {
            format!("RTP/AVP/TCP;unicast;interleaved={}-{};mode=record", 2 * lane, 2 * lane + 1)
        };
        let url = format!("{}/streamid={lane}", self.url());
        self.talk.ask("SETUP", &url, &[("Transport", &transport)], "", now);
    }

    fn answer(&mut self, method: &str, answer: &Answer, now: Time) {
        let url = self.url();
        match (method, answer.status) {
            (_, 301 | 302) => {
                let location = answer.header("Location").unwrap_or_default();
                match elsewhere(location, &self.attempt.stream) {
                    None => self.fault(format!("{method} sends it on to {location:?}")),
                    Some(to) if self.turns < TURNS => self.turn(to),
                    Some(to) => self.end(format!("{method} sent it on once too often: {to}"), false),
                }
            }
            ("GET_PARAMETER", 200) => {}
            ("TEARDOWN", _) => self.end("left".to_owned(), false),
            (_, status) if status != 200 => self.end(format!("{method}: {status} {}", answer.phrase), false),
            ("OPTIONS", _) => self.announce(now),
            ("ANNOUNCE", _) => self.set_up(0, now),
            ("SETUP", _) => {
                let session = answer.header("Session").and_then(|s| s.split(';').next());
                if session.is_none() {
                    return self.fault("SETUP is answered without a session".to_owned());
                }
                self.talk.session = session.map(str::to_owned);
                let lane = usize::from(self.lanes[0].kind != 0);
                let transport = answer.header("Transport").unwrap_or_default().to_owned();
                if let Err(text) = self.agreed(lane, &transport) {
                    return self.fault(text);
                }
                match lane {
                    0 => self.set_up(1, now),
                    _ => self.talk.ask("RECORD", &url, &[("Range", "npt=0.000-")], "", now),
                }
            }
            ("RECORD", _) => {
                self.start = Some(now);
                self.report = Some(now);
                self.talk.keep_alive(&url, now);
                self.said.push_back(Said::Ready);
            }
            (other, _) => self.fault(format!("an answer to {other}")),
        }
    }

    fn agreed(&mut self, lane: usize, transport: &str) -> Result<(), String> {
        let ours = self.ports(lane);
        let wrong = || format!("SETUP is answered with the transport {transport:?}");
        let l = &mut self.lanes[lane];
        if self.config.udp {
            let (a, b) = parameter(transport, "server_port").and_then(two).ok_or_else(wrong)?;
            let on = |port: u16| SocketAddr::new(self.at.ip(), port);
            l.ports = Some((ours, (on(a), on(b))));
        } else if parameter(transport, "interleaved").and_then(two) != Some((2 * lane, 2 * lane + 1)) {
            return Err(wrong());
        }
        l.kind = 96 + lane as u8;
        Ok(())
    }

    /// Goes to another server.
    fn turn(&mut self, to: SocketAddr) {
        self.said.push_back(Said::Do(Out::Close(self.conn, false)));
        self.turns += 1;
        self.conn += 1;
        self.at = to;
        self.talk = Talk::default();
        self.lanes.iter_mut().for_each(|l| l.kind = 0);
        self.said.push_back(Said::Do(Out::Dial(self.conn, to)));
    }

    fn put(&mut self, lane: usize, rtcp: bool, packet: &[u8]) {
        match self.lanes[lane].ports {
            Some((ours, theirs)) => {
                let (port, to) = if rtcp { (ours.1, theirs.1) } else { (ours.0, theirs.0) };
                let bytes = bytes::Bytes::copy_from_slice(packet);
                self.said.push_back(Said::Do(Out::Datagram { port, to, bytes }));
            }
            None => self.talk.packet(2 * lane as u8 + u8::from(rtcp), packet),
        }
    }

    fn reports(&mut self, now: Time) {
        let Some(start) = self.start else { return };
        self.report = Some(now + REPORTS);
        for lane in 0..2 {
            let l = &self.lanes[lane];
            let ppm = if lane == 1 { i128::from(self.config.sound_ppm) } else { 0 };
            let nanos = now.since(start).as_nanos() as i128;
            let ticks = nanos * i128::from(l.rate) * (1_000_000 + ppm) / 1_000_000_000_000_000;
            let stamp = l.first.wrapping_add(ticks as u32);
            let report = sender_report(l.ssrc, EPOCH + now.as_nanos(), stamp, l.packets, l.octets);
            self.put(lane, true, &report);
        }
    }

    fn rtcp(&mut self, packet: &[u8]) {
        match read_rtcp(packet) {
            Ok(all) => self.key_wanted |= all.contains(&Rtcp::KeyFrame) && !self.config.stubborn,
            Err(text) => self.fault(text),
        }
    }

    fn bytes(&mut self, bytes: &[u8], now: Time) {
        self.talk.received(bytes);
        while !self.over {
            match self.talk.next() {
                Ok(Some(Got::Answer(method, answer))) => self.answer(method, &answer, now),
                Ok(Some(Got::Packet(1 | 3, packet))) => self.rtcp(&packet),
                Ok(Some(Got::Packet(channel, _))) => {
                    self.fault(format!("a packet on channel {channel} comes to a publisher"));
                }
                Ok(Some(Got::Request(..))) => {}
                Ok(None) => return,
                Err(text) => {
                    self.fault(text);
                    self.end("what the server said cannot be read".to_owned(), true);
                }
            }
        }
    }
}

/// Where an address such as `rtsp://10.0.0.1:8554/live/a` leads. `None`: it names another stream than the one that was asked for,
/// or lost what stood behind its name.
pub(super) fn elsewhere(url: &str, stream: &str) -> Option<SocketAddr> {
    let rest = url.strip_prefix("rtsp://").or_else(|| url.strip_prefix("rtsps://"))?;
    let (server, name) = rest.split_once('/')?;
    server.parse().ok().filter(|_| name == stream)
}

impl Wire for RtspRecord {
    fn begin(attempt: Attempt, config: &PublisherConfig, _now: Time) -> RtspRecord {
        let mut rng = attempt.rng.fork("rtsp", 0);
        let mut lane = |rate| Lane {
            kind: 0,
            rate,
            ssrc: rng.u32(),
            seq: rng.u32() as u16,
            first: config.stamp.unwrap_or(rng.u32()),
            packets: 0,
            octets: 0,
            ports: None,
        };
        let at = attempt.to;
        RtspRecord {
            lanes: [lane(90_000), lane(48_000)],
            said: VecDeque::from([Said::Do(Out::Dial(0, at))]),
            attempt,
            config: config.clone(),
            conn: 0,
            at,
            turns: 0,
            talk: Talk::default(),
            start: None,
            report: None,
            behind: false,
            key_wanted: false,
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
            In::Finished(conn) if *conn == self.conn => {
                self.end("the server closed the connection".to_owned(), false);
            }
            In::Closed(conn, why) if *conn == self.conn => self.end((*why).to_owned(), true),
            In::Datagram { port, from, bytes } => {
                let rtcp =
                    |l: &Lane| l.ports.is_some_and(|(ours, theirs)| ours.1 == *port && theirs.1 == *from);
                if self.lanes.iter().any(rtcp) {
                    self.rtcp(bytes);
                }
            }
            In::Tick => {
                if self.report.is_some_and(|at| at <= now) {
                    self.reports(now);
                }
                if !self.talk.tick(now) {
                    self.end("the server does not answer".to_owned(), true);
                }
            }
            _ => {}
        }
    }

    fn send(&mut self, due: &Due, _now: Time) {
        let picture = due.label.track == 'v';
        self.behind |= self.talk.backlog() > BEHIND;
        if self.behind {
            if !(picture && due.label.key && self.talk.backlog() < BEHIND / 2) {
                return;
            }
            self.behind = false;
        }
        let (lane, payloads) = if picture {
            (0, packetise(&due.label.slice(due.len), due.label.key, due.label.dress))
        } else {
            (1, vec![aac(&due.label.write(due.len))])
        };
        let last = payloads.len() - 1;
        for (n, payload) in payloads.into_iter().enumerate() {
            let l = &mut self.lanes[lane];
            // Sound counts its samples; pictures have the time at which they were taken.
            let ticks = if picture { due.time as u64 * 9 / 100_000 } else { due.label.seq * 1_024 };
            let (seq, stamp) = (l.seq, l.first.wrapping_add(ticks as u32));
            l.seq = l.seq.wrapping_add(1);
            l.packets += 1;
            l.octets = l.octets.wrapping_add(payload.len() as u32);
            let packet = Rtp { kind: l.kind, marker: n == last, seq, stamp, ssrc: l.ssrc, payload };
            self.put(lane, false, &packet.write());
        }
    }

    fn finish(&mut self, now: Time) {
        if self.talk.session.is_some() {
            let url = self.url();
            (self.start, self.report) = (None, None);
            return self.talk.ask("TEARDOWN", &url, &[], "", now);
        }
        self.end("left".to_owned(), true);
    }

    fn abort(&mut self) {
        self.said.push_back(Said::Do(Out::Close(self.conn, true)));
    }

    fn poll(&mut self) -> Option<Said> {
        if let Some(said) = self.said.pop_front() {
            return Some(said);
        }
        if self.over { None } else { self.talk.send(self.conn).map(Said::Do) }
    }

    fn wake(&self) -> Option<Time> {
        [self.talk.wake(), self.report].into_iter().flatten().min()
    }

    fn wants_key(&mut self) -> bool {
        std::mem::take(&mut self.key_wanted) || self.behind && self.talk.backlog() < BEHIND / 2
    }
}
