//! What drives a misbehaving client: scripts over TCP connections, datagrams in their rhythm, or a false node.

use super::node::FalseNode;
use super::quic::{self, FalseQuic};
use super::{Evil, Target, http, node, rtmp, rtsp, secure, udp};
use crate::world::actors::{Client, Conn, In, Notes, Out, Standing};
use bytes::Bytes;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// One thing that a script does.
#[derive(Debug)]
pub(super) enum Step {
    /// Sends bytes, as fast as they are taken.
    Send(Bytes),
    /// Waits so many milliseconds.
    Wait(u64),
    /// Waits until so many bytes came in all.
    Heard(usize),
    /// Stops reading.
    Deaf,
    /// Closes after what was sent.
    Finish,
    /// Closes at once.
    Reset,
    /// Neither sends nor gets anything from now on, and tells nobody.
    Vanish,
}

/// What one connection does.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) to: SocketAddr,
    pub(super) steps: VecDeque<Step>,
}

impl Script {
    pub(super) fn new(to: SocketAddr, steps: impl IntoIterator<Item = Step>) -> Script {
        Script { to, steps: steps.into_iter().collect() }
    }
}

/// How a client goes about its abuse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Connections at the same time.
    pub(super) lanes: u32,
    /// Milliseconds from the end of one to the next.
    pub(super) pause: u64,
    /// How a connection's script is made.
    pub(super) script: fn(Evil, &Target, &mut Rng, u64) -> Script,
}

/// One connection at a time.
#[derive(Debug, Default)]
struct Lane {
    steps: VecDeque<Step>,
    dial: Option<Time>,
    until: Option<Time>,
    open: bool,
    credit: usize,
    heard: usize,
}

enum Way {
    Tcp { pace: Pace, lanes: Vec<Lane>, dialled: u64 },
    Udp { next: Time, sent: u64, overheard: VecDeque<(SocketAddr, Bytes)> },
    Node(Box<FalseNode>),
    Quic(Box<FalseQuic>),
    Over,
}

/// A misbehaving client.
pub struct Abuser {
    kind: Evil,
    target: Target,
    rng: Rng,
    way: Way,
    out: VecDeque<Out>,
    notes: Notes,
}

/// How a kind goes about it that works over TCP and speaks by a script; none: it is of another sort.
pub(super) fn pace(kind: Evil) -> Option<Pace> {
    rtmp::pace(kind).or(rtsp::pace(kind)).or(http::pace(kind)).or(secure::pace(kind)).or(node::pace(kind))
}

/// Between two datagrams.
const EVERY: Duration = Duration::from_millis(4);
/// Datagrams of others that are remembered.
const OVERHEARD: usize = 64;

impl Abuser {
    pub(super) fn new(kind: Evil, target: Target, rng: Rng, now: Time) -> Abuser {
        let mut out = VecDeque::new();
        let way = if let Some(pace) = pace(kind) {
            let lane = |n| Lane { dial: Some(now + Duration::from_millis(n * 7)), ..Lane::default() };
            Way::Tcp { pace, lanes: (0..u64::from(pace.lanes)).map(lane).collect(), dialled: 0 }
        } else if udp::is(kind) {
            out.push_back(Out::Tap(target.udp));
            Way::Udp { next: now, sent: 0, overheard: VecDeque::new() }
        } else if quic::is(kind) {
            Way::Quic(Box::new(FalseQuic::new(kind, target.clone(), rng.fork("quic", 0), now)))
        } else {
            Way::Node(Box::new(FalseNode::new(kind, target.clone(), rng.fork("node", 0), now)))
        };
        Abuser { kind, target, rng, way, out, notes: Notes::default() }
    }

    /// What it does.
    pub fn kind(&self) -> Evil {
        self.kind
    }

    /// Stops for good.
    pub(super) fn relent(&mut self, _now: Time) {
        match std::mem::replace(&mut self.way, Way::Over) {
            Way::Tcp { lanes, .. } => {
                for (n, _) in lanes.iter().enumerate().filter(|(_, l)| l.dial.is_none()) {
                    self.out.push_back(Out::Close(n as Conn, true));
                }
            }
            Way::Node(_) => self.out.push_back(Out::Close(0, true)),
            Way::Udp { .. } | Way::Quic(_) | Way::Over => {}
        }
        self.notes.add(|| "relents".to_owned());
    }

    /// Does what is due on one connection.
    fn go(&mut self, n: usize, now: Time) {
        let Way::Tcp { pace, lanes, dialled } = &mut self.way else { return };
        let pause = Duration::from_millis(pace.pause);
        let Some(lane) = lanes.get_mut(n) else { return };
        let conn = n as Conn;
        if lane.dial.is_some_and(|at| at <= now) {
            let Script { to, steps } = (pace.script)(self.kind, &self.target, &mut self.rng, *dialled);
            *dialled += 1;
            *lane = Lane { steps, ..Lane::default() };
            self.out.push_back(Out::Dial(conn, to));
            return;
        }
        while lane.open && lane.until.is_none_or(|at| at <= now) {
            lane.until = None;
            match lane.steps.pop_front() {
                None => return,
                Some(Step::Send(mut bytes)) => {
                    let take = bytes.len().min(lane.credit);
                    lane.credit -= take;
                    if take > 0 {
                        self.out.push_back(Out::Send(conn, bytes.split_to(take)));
                    }
                    if !bytes.is_empty() {
                        lane.steps.push_front(Step::Send(bytes));
                        return;
                    }
                }
                Some(Step::Wait(ms)) => lane.until = Some(now + Duration::from_millis(ms)),
                Some(Step::Heard(bytes)) if lane.heard < bytes => {
                    lane.steps.push_front(Step::Heard(bytes));
                    return;
                }
                Some(Step::Heard(_)) => {}
                Some(Step::Deaf) => self.out.push_back(Out::Reading(conn, false)),
                Some(Step::Vanish) => self.out.push_back(Out::Vanish),
                Some(step @ (Step::Finish | Step::Reset)) => {
                    self.out.push_back(Out::Close(conn, matches!(step, Step::Reset)));
                    *lane = Lane { dial: Some(now + pause), ..Lane::default() };
                }
            }
        }
    }

    fn lane(&mut self, conn: Conn) -> Option<&mut Lane> {
        match &mut self.way {
            Way::Tcp { lanes, .. } => lanes.get_mut(conn as usize),
            _ => None,
        }
    }

    fn tcp(&mut self, input: &In<'_>, now: Time) {
        let (Way::Tcp { pace, .. }, conn) = (&self.way, conn_of(input)) else { return };
        let pause = Duration::from_millis(pace.pause);
        match (input, conn.and_then(|c| self.lane(c))) {
            (In::Connected(_), Some(lane)) => lane.open = true,
            (In::Writable(_, free), Some(lane)) => lane.credit = *free,
            (In::Received(_, bytes), Some(lane)) => lane.heard += bytes.len(),
            (In::Finished(c), Some(lane)) => {
                *lane = Lane { dial: Some(now + pause), ..Lane::default() };
                self.out.push_back(Out::Close(*c, false));
            }
            (In::Closed(..), Some(lane)) => *lane = Lane { dial: Some(now + pause), ..Lane::default() },
            _ => {}
        }
        match conn {
            Some(conn) => self.go(conn as usize, now),
            None => {
                let Way::Tcp { lanes, .. } = &self.way else { return };
                let due: Vec<usize> =
                    (0..lanes.len()).filter(|n| lanes[*n].next().is_some_and(|at| at <= now)).collect();
                for n in due {
                    self.go(n, now);
                }
            }
        }
    }

    fn datagrams(&mut self, input: &In<'_>, now: Time) {
        let Way::Udp { next, sent, overheard } = &mut self.way else { return };
        // What the tap hears comes to port 0.
        if let In::Datagram { port: 0, from, bytes } = input {
            if overheard.len() == OVERHEARD {
                overheard.pop_front();
            }
            overheard.push_back((*from, Bytes::copy_from_slice(bytes)));
        }
        while *next <= now {
            *next += EVERY;
            *sent += 1;
            self.out.extend(udp::datagram(self.kind, &self.target, &mut self.rng, *sent, overheard));
        }
    }
}

impl Lane {
    fn next(&self) -> Option<Time> {
        self.dial.or(self.until)
    }
}

fn conn_of(input: &In<'_>) -> Option<Conn> {
    match input {
        In::Connected(c) | In::Writable(c, _) | In::Received(c, _) | In::Finished(c) | In::Closed(c, _) => {
            Some(*c)
        }
        In::Address(_) | In::Accepted(_) | In::Datagram { .. } | In::Tick => None,
    }
}

impl Client for Abuser {
    fn on(&mut self, input: In<'_>, now: Time) {
        match &mut self.way {
            Way::Tcp { .. } => self.tcp(&input, now),
            Way::Udp { .. } => self.datagrams(&input, now),
            Way::Node(node) => {
                node.on(&input, now);
                self.out.extend(node.said());
            }
            Way::Quic(quic) => {
                quic.on(&input, now);
                self.out.extend(quic.said());
            }
            Way::Over => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        match &self.way {
            Way::Tcp { lanes, .. } => lanes.iter().filter_map(Lane::next).min(),
            Way::Udp { next, .. } => Some(*next),
            Way::Node(node) => node.wake(),
            Way::Quic(quic) => quic.wake(),
            Way::Over => None,
        }
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn standing(&self) -> Standing {
        Standing { ended: matches!(self.way, Way::Over), ..Standing::default() }
    }
}
