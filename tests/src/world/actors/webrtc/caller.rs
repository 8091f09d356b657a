//! One WebRTC call after another over HTTP signalling (WHIP, RFC 9725, and WHEP): offer, answer, media, DELETE; and what
//! can be seen from outside of S9.

use super::dialect::{CHANNEL, Dialect, Step};
use super::http::{Http, Response};
use super::peer::{Identity, Peer, Rtp, Said, Setup, is_media};
use super::tcp::Tcp;
use crate::world::actors::{In, Notes, Out};
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use str0m::media::Direction;

/// The UDP port of a client's first call; each further call has the next.
const FIRST_PORT: u16 = 40_000;
/// A call that does not stand by then is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where a client begins: all that the world hands it.
pub(super) struct Seat {
    pub(super) to: SocketAddr,
    pub(super) stream: String,
    pub(super) number: u64,
    pub(super) rng: Rng,
    pub(super) base: Instant,
    pub(super) identity: Identity,
    pub(super) by: Signalling,
    /// Media goes over TCP.
    pub(super) tcp: bool,
    /// It does not offer to say which packets came.
    pub(super) mute: bool,
}

/// How calls are signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalling {
    /// WHIP and WHEP.
    Http,
    /// The stream-manager dialect, at the node.
    Socket,
    /// The stream-manager dialect, through the manager, which chooses the node.
    Managed,
}

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// When the offer was made.
    pub began: Time,
    /// The status of the answer.
    pub status: Option<u16>,
    /// What the node had to say: the body of a refusal, or notices.
    pub told: String,
    /// When ICE and DTLS stood.
    pub connected: Option<Time>,
    /// Whether the node took the section of sound.
    pub sound: bool,
    /// The status of the answer to its DELETE.
    pub deleted: Option<u16>,
    /// When and why it ended.
    pub ended: Option<(Time, String)>,
}

/// What the caller says to the client that it is part of.
pub(super) enum News {
    Connected,
    Packet(Rtp),
    KeyFrameWanted,
    Report(str0m::media::Mid, u32, i128),
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Post,
    Delete,
}

pub(super) struct Caller {
    pub(super) seat: Seat,
    publishes: bool,
    ip: IpAddr,
    http: Http,
    /// The signalling of the present call, where it is the dialect's.
    dialect: Option<Dialect>,
    /// Messages that came over data channels.
    pub(super) over_channel: u64,
    /// Where media of the present call may come from, besides the node that was called.
    media_from: BTreeSet<IpAddr>,
    /// A publisher's offer, until the node has said that the name is free.
    offer: Option<String>,
    asked: Asked,
    /// Whom its present call is with.
    called: SocketAddr,
    resource: Option<String>,
    pub(super) peer: Option<Peer>,
    tcp: Tcp,
    pub(super) calls: Vec<Call>,
    /// The ports of earlier calls that were sent from.
    old_ports: BTreeSet<u16>,
    sent: bool,
    next_port: u16,
    /// Nothing came for so long: the call is dead.
    silence: Duration,
    /// It calls again so long after its call ended, for whatever reason.
    again: Option<Duration>,
    /// When it calls next.
    redial: Option<Time>,
    pub(super) out: VecDeque<Out>,
    pub(super) news: VecDeque<News>,
    pub(super) notes: Notes,
}

impl Caller {
    /// One that calls at once.
    pub(super) fn new(
        seat: Seat,
        publishes: bool,
        silence: Duration,
        again: Option<Duration>,
        now: Time,
    ) -> Caller {
        Caller {
            called: seat.to,
            seat,
            publishes,
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            http: Http::new(),
            dialect: None,
            over_channel: 0,
            media_from: BTreeSet::new(),
            offer: None,
            asked: Asked::Nothing,
            resource: None,
            peer: None,
            tcp: Tcp::default(),
            calls: Vec::new(),
            old_ports: BTreeSet::new(),
            sent: false,
            next_port: FIRST_PORT,
            silence,
            again,
            redial: Some(now),
            out: VecDeque::new(),
            news: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    fn name(&self) -> String {
        let what = match (self.seat.by, self.publishes) {
            (Signalling::Http, true) => "WHIP publisher",
            (Signalling::Http, false) => "WHEP player",
            (_, true) => "publisher by websocket",
            (_, false) => "player by websocket",
        };
        format!("{what} of {} at {}", self.seat.stream, self.seat.to)
    }

    pub(super) fn fault(&mut self, invariant: &'static str, text: String) {
        let text = format!("a {}: {text}", self.name());
        self.out.push_back(Out::Violation(invariant, text));
    }

    pub(super) fn connected(&self) -> bool {
        self.peer.as_ref().is_some_and(|p| p.connected)
    }

    /// Whom it calls, and since when, while that call does not stand yet.
    pub(super) fn calls_since(&self) -> Option<(SocketAddr, Time)> {
        self.peer.as_ref().filter(|p| !p.connected)?;
        Some((self.called, self.calls.last()?.began))
    }

    /// Calls anew now; the present call is dropped without a word.
    pub(super) fn connect(&mut self, now: Time) {
        self.redial = Some(now);
    }

    /// Whether a call is due; then the present one is dropped without a word.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        let due = self.redial.is_some_and(|at| at <= now);
        if due {
            self.drop_call(now);
            self.redial = None;
        }
        due
    }

    /// Why its last call ended, if it ended.
    pub(super) fn ended(&self) -> Option<&str> {
        self.calls.last()?.ended.as_ref().map(|(_, why)| why.as_str())
    }

    /// Whether it has ended and will not call again by itself.
    pub(super) fn is_over(&self) -> bool {
        self.ended().is_some() && self.redial.is_none()
    }

    /// It does not come back by itself.
    fn for_good(&mut self) {
        (self.again, self.redial) = (None, None);
    }

    /// With whom it talks, and since when it calls, while that call stands.
    pub(super) fn talks_since(&self) -> Option<(SocketAddr, Time)> {
        self.peer.as_ref().filter(|p| p.connected)?;
        Some((self.called, self.calls.last()?.began))
    }

    /// Makes a call; one that stands is dropped without a word.
    pub(super) fn call(&mut self, now: Time) {
        self.drop_call(now);
        let count = self.calls.len() as u64;
        let mut rng = self.seat.rng.fork("call", count);
        let local = SocketAddr::new(self.ip, self.next_port);
        self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        let direction = if self.publishes { Direction::SendOnly } else { Direction::RecvOnly };
        let (identity, base) = (&self.seat.identity.clone(), self.seat.base);
        self.calls.push(Call { began: now, ..Call::default() });
        let channel = (self.seat.by != Signalling::Http).then_some(CHANNEL);
        let tcp = self.seat.tcp;
        let setup = Setup { identity, rng: &mut rng, local, base, direction, tcp, channel };
        if channel.is_some() {
            return self.call_by_socket(setup, now);
        }
        match Peer::new(setup, now) {
            Err(e) => self.fault("S3", format!("no offer can be made: {e}")),
            Ok((peer, mut offer)) => {
                if self.seat.mute {
                    let arrivals = |l: &&str| !l.contains("transport-cc") && !l.contains("transport-wide-cc");
                    offer = offer.split_inclusive("\r\n").filter(arrivals).collect();
                }
                self.peer = Some(peer);
                let kind = if self.publishes { "whip" } else { "whep" };
                let path = format!("/{kind}/{}", self.seat.stream);
                self.asked = Asked::Post;
                if std::mem::replace(&mut self.called, self.seat.to) != self.seat.to {
                    // The connection that stands leads to the node before.
                    self.http.give_up(&mut self.out);
                }
                self.http.ask(self.seat.to, "POST", &path, Some(&offer), &mut self.out);
            }
        }
    }

    fn call_by_socket(&mut self, setup: Setup<'_>, now: Time) {
        let made = match self.publishes {
            true => Peer::new(setup, now).map(|(peer, offer)| (peer, Some(offer))),
            false => Peer::waiting(setup, now).map(|peer| (peer, None)),
        };
        match made {
            Err(e) => self.fault("S3", format!("no call can be made: {e}")),
            Ok((peer, offer)) => {
                self.peer = Some(peer);
                self.offer = offer;
                self.called = self.seat.to;
                self.media_from.clear();
                let managed = self.seat.by == Signalling::Managed;
                let nth = self.seat.number << 16 | self.calls.len() as u64;
                let dialect = Dialect::new(self.seat.to, &self.seat.stream, self.publishes, managed, nth);
                self.dialect = Some(dialect);
                self.signal(now);
            }
        }
    }

    /// Does what the dialect says.
    fn signal(&mut self, now: Time) {
        loop {
            let Some(dialect) = &mut self.dialect else { return };
            while let Some(out) = dialect.poll() {
                self.out.push_back(out);
            }
            let Some(step) = dialect.steps.pop_front() else { return };
            let Some(peer) = &mut self.peer else { continue };
            match step {
                Step::MakeOffer => {
                    if let Some(offer) = self.offer.take() {
                        dialect.offer(&offer, now);
                    }
                }
                Step::Answered(sdp) => {
                    self.comes_from(&sdp);
                    let Some(peer) = &mut self.peer else { continue };
                    let taken = peer.answer(&sdp, now);
                    self.agreed(taken, now);
                }
                Step::Offered(sdp) => {
                    self.comes_from(&sdp);
                    let (Some(peer), Some(dialect)) = (&mut self.peer, &mut self.dialect) else { continue };
                    let answer = peer.offered(&sdp, CHANNEL, now);
                    if let Ok(answer) = &answer {
                        dialect.answer(answer, now);
                    }
                    self.agreed(answer.map(drop), now);
                }
                Step::Say(text) => {
                    let taken = peer.say(&text, now);
                    self.notes.add(|| format!("says {text} over the data channel: {taken}"));
                }
                Step::Over(why) => {
                    self.let_go();
                    self.end(&why, now);
                }
            }
        }
    }

    /// Learns from the node's description where media comes from: the manager gave the call to whom it wanted.
    fn comes_from(&mut self, sdp: &str) {
        self.media_from.extend(candidates(sdp));
        if let Some(node) = self.media_from.first() {
            self.called.set_ip(*node);
        }
    }

    /// The descriptions are exchanged.
    fn agreed(&mut self, taken: Result<(), String>, now: Time) {
        let (Some(call), Some(peer)) = (self.calls.last_mut(), &self.peer) else { return };
        call.status = Some(200);
        call.sound = peer.takes(peer.audio);
        if let Err(e) = taken {
            self.fault("S3", format!("the node's description makes no sense: {e}"));
            self.end("the description makes no sense", now);
        }
    }

    /// Gives up the signalling of the present call, without a word.
    fn let_go(&mut self) {
        if let Some(dialect) = &mut self.dialect {
            dialect.drop();
            while let Some(out) = dialect.poll() {
                self.out.push_back(out);
            }
        }
        self.dialect = None;
    }

    /// Whether its present call has gone over to the data channel.
    pub(super) fn has_switched(&self) -> bool {
        self.dialect.as_ref().is_some_and(|d| !d.needs_socket())
    }

    /// A viewer goes on with another stream in its call, where there is a word for that.
    pub(super) fn switch(&mut self, stream: &str, now: Time) {
        if let Some(dialect) = &mut self.dialect {
            dialect.switch(stream, now);
            self.signal(now);
        }
    }

    /// What came of the last switch.
    pub(super) fn called(&self) -> Option<&Result<String, String>> {
        self.dialect.as_ref().and_then(|d| d.called.as_ref())
    }

    /// A publisher says that it sends nothing for a while, or goes on, where there is a word for that.
    pub(super) fn mute(&mut self, muted: bool, now: Time) {
        if let Some(dialect) = &mut self.dialect {
            dialect.mute(muted, now);
            self.signal(now);
        }
    }

    /// The path of the present call's resource.
    pub(super) fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// Forgets the present call without a word to anybody.
    pub(super) fn drop_call(&mut self, now: Time) {
        self.end("dropped", now);
        self.resource = None;
        self.let_go();
    }

    /// Ends the call with a DELETE of its resource, or with the dialect's goodbye; media stops at once, and it does not
    /// come back by itself.
    pub(super) fn leave(&mut self, now: Time) {
        self.for_good();
        if let Some(dialect) = &mut self.dialect {
            let by_socket = dialect.leave(now);
            self.signal(now);
            if !by_socket && let Some(peer) = &mut self.peer {
                peer.close(now);
                self.pump(now);
            }
            return self.end("left", now);
        }
        self.end("left", now);
        match self.resource.take() {
            Some(path) => {
                self.asked = Asked::Delete;
                self.http.ask(self.seat.to, "DELETE", &path, None, &mut self.out);
            }
            None => {
                self.asked = Asked::Nothing;
                self.http.give_up(&mut self.out);
            }
        }
    }

    /// Ends the call as a browser does whose page is closed: by DTLS, without a DELETE. It does not come back by itself.
    pub(super) fn hang_up(&mut self, now: Time) {
        self.for_good();
        if let Some(peer) = &mut self.peer {
            peer.close(now);
        }
        self.pump(now);
        self.end("hung up", now);
        self.let_go();
        self.resource = None;
        self.http.close(false, &mut self.out);
    }

    fn end(&mut self, why: &str, now: Time) {
        let Some(peer) = self.peer.take() else { return };
        self.tcp.close(&mut self.out);
        if std::mem::take(&mut self.sent) {
            self.old_ports.insert(peer.port());
        }
        let name = self.name();
        if let Some(call) = self.calls.last_mut().filter(|c| c.ended.is_none()) {
            call.ended = Some((now, why.to_owned()));
            self.notes.add(|| format!("{name} ended: {why}"));
        }
        self.redial = self.redial.or(self.again.map(|d| now + d));
        self.news.push_back(News::Ended);
    }

    pub(super) fn on(&mut self, input: &In<'_>, now: Time) {
        if let Some(datagrams) = self.tcp.on(input, &mut self.out) {
            for (from, bytes) in datagrams {
                if let Some(peer) = &mut self.peer {
                    peer.datagram(from, &bytes, now);
                }
            }
            return self.pump(now);
        }
        match input {
            In::Address(ip) => {
                // In another network the connection is as good as gone; a browser closes it by itself.
                if self.ip != *ip && self.seat.by == Signalling::Http {
                    self.http.moved(self.seat.to, &mut self.out);
                } else if self.ip != *ip && self.dialect.as_ref().is_some_and(Dialect::needs_socket) {
                    self.let_go();
                    self.end("the websocket went with the network", now);
                }
                self.ip = *ip;
            }
            In::Datagram { port, from, bytes } => self.datagram(*port, *from, bytes, now),
            In::Tick => {
                self.tick(now);
                self.tell_dialect(input, now);
            }
            _ if self.seat.by != Signalling::Http => self.tell_dialect(input, now),
            _ => {
                let answer = self.http.on(input, self.seat.to, &mut self.out);
                if let Some(answer) = answer {
                    self.answered(answer, now);
                }
            }
        }
        self.pump(now);
    }

    fn tell_dialect(&mut self, input: &In<'_>, now: Time) {
        if let Some(dialect) = &mut self.dialect {
            dialect.on(input, now);
            self.signal(now);
        }
    }

    fn datagram(&mut self, port: u16, from: SocketAddr, bytes: &[u8], now: Time) {
        match &mut self.peer {
            Some(peer) if peer.port() == port => {
                if from.ip() == self.called.ip() || self.media_from.contains(&from.ip()) {
                    peer.datagram(from, bytes, now);
                } else {
                    self.fault("S9", format!("a datagram of {} bytes from {from}", bytes.len()));
                }
            }
            // For how long media may go on to a port of an earlier call is judged where it leaves (`check/datagrams`):
            // links hold it back for any time.
            _ if is_media(bytes) && !self.old_ports.contains(&port) => {
                self.fault("S9", format!("{from} sends media to port {port}, from which nothing ever came"));
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Time) {
        let Some(peer) = &mut self.peer else { return };
        if peer.wake().is_some_and(|at| at <= now) {
            peer.tick(now);
        }
        let silent = peer.connected && now.since(peer.heard) >= self.silence;
        let slow = !peer.connected && self.calls.last().is_some_and(|c| now.since(c.began) >= PATIENCE);
        if silent || slow {
            self.http.give_up(&mut self.out);
            self.resource = None;
            self.let_go();
            self.end(if silent { "nothing came for long" } else { "it did not connect in time" }, now);
        }
    }

    fn answered(&mut self, answer: Result<Response, String>, now: Time) {
        let asked = std::mem::replace(&mut self.asked, Asked::Nothing);
        let Some(call) = self.calls.last_mut() else { return };
        if asked == Asked::Delete {
            call.deleted = answer.ok().map(|r| r.status);
            return;
        }
        let (Asked::Post, Some(peer)) = (asked, &mut self.peer) else { return };
        let ended = match answer {
            Err(e) => Some(format!("no answer: {e}")),
            Ok(response) if response.status == 201 => {
                call.status = Some(201);
                call.told = response.get("headwater-notice").unwrap_or_default().to_owned();
                self.resource = response.get("location").map(str::to_owned);
                let taken = peer.answer(&response.body, now);
                call.sound = peer.takes(peer.audio);
                taken.err().map(|e| format!("the answer makes no sense: {e}"))
            }
            Ok(response) => {
                call.status = Some(response.status);
                call.told = response.body.trim().to_owned();
                Some(format!("refused with {}: {}", response.status, call.told))
            }
        };
        if let Some(why) = ended {
            self.end(&why, now);
        }
    }

    /// Carries out what the peer said.
    pub(super) fn pump(&mut self, now: Time) {
        loop {
            let Some(peer) = &mut self.peer else { return };
            if self.seat.tcp {
                peer.out.drain(..).for_each(|(to, bytes)| self.tcp.send(to, &bytes, &mut self.out));
            } else if !peer.out.is_empty() {
                self.sent = true;
                let port = peer.port();
                let datagrams = peer.out.drain(..).map(|(to, bytes)| Out::Datagram { port, to, bytes });
                self.out.extend(datagrams);
            }
            match peer.said.pop_front() {
                None => return,
                Some(Said::Connected) => {
                    let name = self.name();
                    self.notes.add(|| format!("{name} is connected"));
                    if let Some(call) = self.calls.last_mut() {
                        call.connected = Some(now);
                    }
                    self.news.push_back(News::Connected);
                }
                Some(Said::Packet(packet)) => self.news.push_back(News::Packet(packet)),
                Some(Said::KeyFrameWanted) => self.news.push_back(News::KeyFrameWanted),
                Some(Said::Report(mid, stamp, ntp)) => self.news.push_back(News::Report(mid, stamp, ntp)),
                Some(Said::Text(text)) => {
                    self.notes.add(|| format!("hears {text} over the data channel"));
                    if let Some(dialect) = &mut self.dialect {
                        self.over_channel += 1;
                        dialect.text(&text, now);
                        self.signal(now);
                    }
                }
                Some(Said::Violation(invariant, text)) => self.fault(invariant, text),
                Some(Said::Closed(why)) => self.end(&why, now),
            }
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let dialect = self.dialect.as_ref().and_then(Dialect::wake);
        let Some(peer) = &self.peer else { return [self.redial, dialect].into_iter().flatten().min() };
        let end = match peer.connected {
            true => Some(peer.heard + self.silence),
            false => self.calls.last().map(|c| c.began + PATIENCE),
        };
        [peer.wake(), dialect, end, self.redial].into_iter().flatten().min()
    }
}

/// The addresses of the candidates in a description.
fn candidates(sdp: &str) -> impl Iterator<Item = IpAddr> {
    let lines = sdp.lines().filter_map(|l| l.strip_prefix("a=candidate:"));
    lines.filter_map(|l| l.split(' ').nth(4)?.parse().ok())
}
