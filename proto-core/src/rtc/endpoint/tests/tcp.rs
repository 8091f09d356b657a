//! Peers that come over TCP (RFC 6544): both ways, behind, and on another connection.

use super::*;
use crate::rtc::frames::{self, Frames};
use str0m::net::TcpType;

/// A browser's TCP connection.
pub(super) struct Line {
    pub(super) conn: ConnId,
    reader: Frames,
    /// What the browser's side takes is read at once.
    reads: bool,
    proven: bool,
    closed: bool,
    /// Bytes that came out.
    bytes: usize,
}

impl Line {
    fn new(n: u64) -> Line {
        let reader = Frames::new(&Limits::default(), Time::ZERO);
        Line { conn: ConnId::accepted(n), reader, reads: true, proven: false, closed: false, bytes: 0 }
    }
}

/// What the driver takes at a time.
const ROOM: usize = 64 << 10;

impl World {
    /// What the endpoint says about the browser's connection.
    pub(super) fn on_the_line(&mut self, said: Output) {
        let (now, line) = (self.now, self.tcp.as_mut().expect("nobody came over TCP"));
        match said {
            Output::Stream { conn, bytes } => {
                assert_eq!(conn, line.conn);
                line.bytes += bytes.len();
                line.reader.handle(frames::Input::Received(&bytes), now);
                let reads = line.reads;
                while let Some(frames::Output::Datagram(datagram)) = self.tcp.as_mut().unwrap().reader.poll()
                {
                    self.fly(addr(SERVER), addr(CLIENT), datagram.to_vec());
                }
                if reads {
                    self.endpoint.handle(Input::Room { conn, free: ROOM }, now);
                }
            }
            Output::StreamProven { .. } => line.proven = true,
            Output::CloseStream { .. } => line.closed = true,
            Output::Datagrams(_) | Output::Event(..) => unreachable!(),
        }
    }

    fn over_tcp(direction: Direction, whole: bool) -> (World, SessionId) {
        let candidate =
            Candidate::builder().tcp().host(addr(CLIENT)).tcptype(TcpType::Active).build().unwrap();
        let (mut w, offer) = World::with(Limits::default(), direction, true, candidate);
        w.endpoint.offer_tcp(vec![addr(SERVER).port()]);
        if whole {
            w.endpoint.use_whole_viewers();
        }
        let server = [addr(SERVER)];
        let offer = from(&offer, &server);
        let (id, answer) = match direction {
            Direction::SendOnly => w.endpoint.publish(offer, w.now).unwrap(),
            _ => w.endpoint.play(offer, &tracks(), w.now).map(|p| (p.session, p.answer)).unwrap(),
        };
        let wanted = " tcp ";
        let lines = answer.lines().filter(|l| l.starts_with("a=candidate:") && l.contains(wanted));
        assert_eq!(lines.filter(|l| l.contains(" typ host tcptype passive")).count(), 1, "{answer}");
        w.browser.answer(&answer);
        w.line(1);
        (w, id)
    }

    fn line(&mut self, n: u64) {
        let line = Line::new(n);
        self.endpoint.handle(Input::Room { conn: line.conn, free: ROOM }, self.now);
        self.tcp = Some(line);
    }
}

fn show(w: &mut World, session: SessionId, from: u64, frames: u64) {
    for (track, config) in tracks() {
        w.deliver(session, &Delivery::Config { track, config });
    }
    for n in from..from + frames {
        let pts = 33_000_000 * n as i64;
        let kind = if n % 15 == 0 { FrameKind::Key } else { FrameKind::Delta };
        let payload = picture(kind == FrameKind::Key, 5_000, n as u8 | 1);
        w.deliver(session, &delivery(2 * n, kind, payload, pts));
        w.deliver(session, &delivery(2 * n + 1, FrameKind::Audio, sound(n as u32), pts));
        w.run(Duration::from_millis(33));
    }
    w.run(Duration::from_secs(1));
}

#[test]
fn a_publisher_over_tcp_is_heard() {
    let (mut w, session) = World::over_tcp(Direction::SendOnly, false);
    w.connect();
    let sent = w.publish(30, 15);
    w.run(Duration::from_millis(500));
    let got: Vec<Bytes> = w.frames(TrackId::VIDEO).into_iter().map(|f| f.payload).collect();
    assert_eq!(got, sent);
    let line = w.tcp.as_ref().unwrap();
    assert!(line.proven && w.sent_to.is_empty(), "nothing leaves by UDP");
    w.endpoint.handle(Input::Close { session, reason: Reason::local("over", "it is over") }, w.now);
    w.run(Duration::from_millis(200));
    assert!(w.tcp.as_ref().unwrap().closed && w.browser.closed);
    assert!(w.endpoint.verify().is_ok());
}

#[test]
fn viewers_over_tcp_see_every_picture_and_the_end() {
    for whole in [false, true] {
        let (mut w, session) = World::over_tcp(Direction::RecvOnly, whole);
        w.connect();
        show(&mut w, session, 0, 40);
        assert_eq!(w.shown().len(), 40, "whole: {whole}");
        assert!(w.tcp.as_ref().unwrap().proven && w.sent_to.is_empty());
        w.endpoint.handle(Input::Close { session, reason: Reason::local("over", "it is over") }, w.now);
        w.run(Duration::from_millis(200));
        assert!(w.tcp.as_ref().unwrap().closed && w.browser.closed);
        assert!(w.endpoint.verify().is_ok());
    }
}

#[test]
fn who_does_not_read_costs_a_bounded_row_and_goes_on_with_a_key_frame() {
    for whole in [false, true] {
        let (mut w, session) = World::over_tcp(Direction::RecvOnly, whole);
        w.connect();
        show(&mut w, session, 0, 15);
        // Less than consent takes to run out; the checks themselves come the other way.
        w.tcp.as_mut().unwrap().reads = false;
        let before = w.tcp.as_ref().unwrap().bytes;
        show(&mut w, session, 15, 240);
        let line = w.tcp.as_mut().unwrap();
        assert!(line.bytes - before <= ROOM, "no more than the driver said that it takes");
        line.reads = true;
        let conn = line.conn;
        w.endpoint.handle(Input::Room { conn, free: ROOM }, w.now);
        show(&mut w, session, 255, 60);
        let shown = w.shown();
        let fill = |u: &Unit| *u.payload.last().unwrap();
        let last: Vec<u8> = shown.iter().rev().take(45).rev().map(fill).collect();
        let wanted: Vec<u8> = (270..315u64).map(|n| n as u8 | 1).collect();
        assert_eq!(last, wanted, "whole: {whole}");
        assert!(shown.len() < 15 + 240, "what was too late was left out: {}", shown.len());
        assert!(w.endpoint.verify().is_ok() && w.end().is_none());
    }
}

#[test]
fn a_peer_whose_connection_broke_comes_back_on_another() {
    for whole in [false, true] {
        let (mut w, session) = World::over_tcp(Direction::RecvOnly, whole);
        w.connect();
        show(&mut w, session, 0, 15);
        let conn = w.tcp.as_ref().unwrap().conn;
        w.endpoint.handle(Input::Gone { conn }, w.now);
        w.endpoint.verify().unwrap();
        w.line(2);
        w.run(Duration::from_secs(6));
        show(&mut w, session, 15, 30);
        assert_eq!(w.shown().iter().rev().take(30).count(), 30);
        assert!(w.tcp.as_ref().unwrap().proven, "whole: {whole}");
        assert!(w.end().is_none() && w.tcp.as_ref().unwrap().bytes > 100_000);
    }
}
