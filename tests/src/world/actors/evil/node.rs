//! Abuses of the nodes' port: by strangers, and by a node that knows the cluster's key and turned bad.

use super::abuser::{Pace, Script, Step};
use super::rtmp::noise;
use super::{Evil, Target};
use crate::world::actors::{In, Out};
use bytes::Bytes;
use proto_core::cluster::keys::Keys;
use proto_core::cluster::link::{Config, Input, Link, Output, Side};
use proto_core::cluster::{Epoch, NodeId};
use proto_core::ids::Role;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{FrameKind, NewFrame, Rotation};
use proto_core::media::key::StreamKey;
use proto_core::media::track::TrackId;
use proto_core::rand::Rng;
use proto_core::time::Time;
use proto_core::wire::link::{
    Advertised, Hello, Message, NodeInfo, RelayFrame, Report, StreamFacts, StreamReport, encode,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How the kinds that need no link go about it; none: it is another's abuse.
pub(super) fn pace(kind: Evil) -> Option<Pace> {
    let (lanes, pause) = match kind {
        Evil::LinkGarbage => (4, 100),
        Evil::LinkSilence => (8, 100),
        Evil::LinkVersions => (2, 200),
        _ => return None,
    };
    Some(Pace { lanes, pause, script })
}

fn script(kind: Evil, target: &Target, rng: &mut Rng, nth: u64) -> Script {
    let hello = |rng: &mut Rng, version, min_version| {
        let node = NodeId(format!("{}-{nth}", target.own));
        let hello = Hello { version, min_version, features: u64::MAX, node, nonce: rng.bytes() };
        Step::Send(encode(&Message::Hello(hello)).head)
    };
    let proof = |rng: &mut Rng| Step::Send(encode(&Message::Proof { hmac: rng.bytes() }).head);
    let steps = match kind {
        Evil::LinkGarbage => {
            let len = [0x7fff_ffffu32, 0, 3_000, 90_000][nth as usize % 4].to_be_bytes();
            let body = noise(rng, 5_000);
            vec![Step::Send(Bytes::from([&len[..], &body].concat())), Step::Wait(1_000), Step::Reset]
        }
        Evil::LinkSilence => vec![hello(rng, 1, 1), Step::Wait(20_000), Step::Reset],
        _ => {
            let (version, least) = [(0, 0), (9, 7), (u32::MAX, u32::MAX), (1, 0)][nth as usize % 4];
            vec![hello(rng, version, least), proof(rng), Step::Wait(1_000), Step::Finish]
        }
    };
    Script::new(target.link, steps)
}

/// How often a false node does its worst.
const EVERY: Duration = Duration::from_millis(20);
/// The wait before it dials again.
const AGAIN: Duration = Duration::from_millis(300);

/// A node that is none. It speaks the real handshake, with the cluster's key or a wrong one.
pub(super) struct FalseNode {
    kind: Evil,
    target: Target,
    rng: Rng,
    link: Option<Link>,
    up: bool,
    dial: Option<Time>,
    next: Time,
    turns: u64,
    /// Epochs that were granted for its own claims.
    granted: Vec<(StreamKey, Epoch)>,
    out: VecDeque<Out>,
}

impl FalseNode {
    pub(super) fn new(kind: Evil, target: Target, rng: Rng, now: Time) -> FalseNode {
        FalseNode {
            kind,
            target,
            rng,
            link: None,
            up: false,
            dial: Some(now),
            next: now,
            turns: 0,
            granted: Vec::new(),
            out: VecDeque::new(),
        }
    }

    pub(super) fn said(&mut self) -> impl Iterator<Item = Out> + '_ {
        self.out.drain(..)
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let link = self.link.as_ref().and_then(Machine::deadline).map(|d| d.at);
        [self.dial, link, self.up.then_some(self.next)].into_iter().flatten().min()
    }

    pub(super) fn on(&mut self, input: &In<'_>, now: Time) {
        match input {
            In::Tick => {
                if self.dial.is_some_and(|at| at <= now) {
                    self.dial = None;
                    self.out.push_back(Out::Dial(0, self.target.link));
                }
                self.tell(Input::Tick, now);
            }
            In::Connected(_) => {
                let right = self.kind != Evil::LinkWrongKey;
                let key = if right { self.target.key.clone() } else { "another key".to_owned() };
                let keys = Arc::new(Keys::new(&key, []));
                let config = Config::new(self.name(), keys, Arc::new(Limits::default()));
                let rng = self.rng.fork("link", now.as_nanos());
                self.link = Some(Link::new(config, Side::Dialler, self.target.link, rng, now));
            }
            In::Writable(_, free) => self.tell(Input::Writable(*free), now),
            In::Received(_, bytes) => self.tell(Input::Received(bytes), now),
            In::Finished(_) => {
                self.out.push_back(Out::Close(0, false));
                self.gone(now);
            }
            In::Closed(..) => self.gone(now),
            In::Address(_) | In::Accepted(_) | In::Datagram { .. } => {}
        }
        if self.up && self.next <= now {
            self.next = now + EVERY;
            self.turns += 1;
            for message in self.worst(now) {
                self.tell(Input::Send(message), now);
            }
        }
        self.drain(now);
    }

    fn gone(&mut self, now: Time) {
        (self.link, self.up) = (None, false);
        self.dial = Some(now + AGAIN);
    }

    fn tell(&mut self, input: Input<'_>, now: Time) {
        if let Some(link) = &mut self.link {
            link.handle(input, now);
        }
    }

    fn drain(&mut self, now: Time) {
        while let Some(said) = self.link.as_mut().and_then(Machine::poll) {
            match said {
                Output::Send(bytes) => self.out.push_back(Out::Send(0, bytes)),
                Output::Up(_) => {
                    (self.up, self.next) = (true, now);
                    // A node that only pulls does not register where it pulls.
                    if self.kind != Evil::GreedyPuller {
                        self.tell(Input::Send(self.register()), now);
                    }
                }
                Output::Message(Message::Claimed { key, epoch, .. }) => self.granted.push((key, epoch)),
                Output::Message(_) | Output::Log(..) => {}
                Output::Closed(_) => {
                    self.out.push_back(Out::Close(0, false));
                    self.gone(now);
                }
            }
        }
    }

    fn name(&self) -> NodeId {
        let other = self.target.nodes.iter().find(|_| self.kind == Evil::Impostor);
        // A link to a node under that node's own name is refused before the key is looked at.
        NodeId(match other {
            Some(_) => format!("{}-link", self.target.own),
            None => self.target.own.clone(),
        })
    }

    fn register(&self) -> Message {
        let mut rng = self.rng.fork("info", self.turns);
        let n = self.target.nodes.len() as u32;
        let id = match self.kind {
            Evil::Impostor if n > 0 => NodeId(self.target.nodes[rng.below(n) as usize].clone()),
            _ => self.name(),
        };
        let ip = "10.1.200.200".parse().expect("an address");
        Message::Register(Box::new(NodeInfo {
            id,
            instance: rng.u64(),
            version: "0.0.0".to_owned(),
            roles: vec![Role::Origin, Role::Edge],
            region: "default".to_owned(),
            advertised: Advertised {
                public: ip,
                private: ip,
                name: String::new(),
                http: 80,
                rtmp: 1935,
                rtmps: 1936,
                rtsp: 8554,
                rtsps: 8555,
                webrtc: 443,
                link: 5090,
                https: 0,
            },
            capacity_mbps: u32::MAX,
            highest: Epoch::default(),
        }))
    }

    fn key(&self, n: u64) -> StreamKey {
        StreamKey::parse(&format!("live/{}-{n}", self.target.own)).expect("a name")
    }

    /// What it does at each turn.
    fn worst(&mut self, now: Time) -> Vec<Message> {
        let turn = self.turns;
        match self.kind {
            Evil::Impostor => vec![self.register()],
            Evil::AnnounceFlood => (0..20)
                .map(|n| {
                    let epoch = Epoch { term: 1, count: turn };
                    Message::Announce { key: self.key(turn * 20 + n), epoch, identity: String::new() }
                })
                .collect(),
            Evil::UnaskedFrames => self.frames(now),
            Evil::GreedyPuller => self.pulls(),
            _ => self.reports(),
        }
    }

    /// No load at all, ten times as often as is taken, with streams that were never granted and some that were.
    fn reports(&mut self) -> Vec<Message> {
        let turn = self.turns;
        let stream = |key, epoch| StreamReport {
            key,
            epoch,
            silent: false,
            live: true,
            viewers: u32::MAX,
            about: StreamFacts::default(),
        };
        let claim = Message::Claim { req: turn, key: self.key(turn % 16), identity: "x".to_owned() };
        let mut streams = vec![stream(self.key(turn % 64), Epoch { term: 1, count: 1 })];
        streams.extend(self.granted.iter().rev().take(8).map(|(k, e)| stream(k.clone(), *e)));
        let report = Report { session_limit: u32::MAX, streams, ..Report::default() };
        vec![claim, Message::Report(report.clone()), Message::Report(report)]
    }

    fn frames(&mut self, now: Time) -> Vec<Message> {
        let payload: Bytes = noise(&mut self.rng, 2_000).into();
        let media = NewFrame {
            track: TrackId(0),
            dts: now.as_nanos() as i64,
            pts: now.as_nanos() as i64,
            kind: FrameKind::Key,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::default(),
            capture: None,
            payload,
        };
        let epoch = Epoch { term: 1 << 39, count: self.turns };
        // Pulls of a node are numbered from 1, with the attempt in the low bits.
        (0..16u64)
            .map(|n| {
                let pull = ((n / 4 + 1) << 16) | (n % 4);
                let media = media.clone();
                Message::Frame(Box::new(RelayFrame {
                    pull,
                    seq: self.turns,
                    epoch,
                    config_version: 0,
                    media,
                }))
            })
            .chain([Message::SourceAway { pull: 1 << 16 }])
            .chain([Message::End { pull: 1 << 16, code: "x".to_owned(), text: "y".to_owned() }])
            .collect()
    }

    fn pulls(&mut self) -> Vec<Message> {
        let turn = self.turns;
        let key = self.target.stream(&mut self.rng);
        let Ok(key) = StreamKey::parse(&key) else { return Vec::new() };
        let hops = vec![NodeId(self.target.own.clone())];
        // The first eight turns bring new pulls; later ones come again under numbers that are in use.
        let pull = turn % 8;
        let mut all =
            vec![Message::KeyRequest { pull, track: None }, Message::KeyRequest { pull, track: None }];
        if turn < 24 {
            // Half of them say that they had the stream, up to anywhere.
            let after =
                turn.is_multiple_of(2).then(|| (Epoch { term: 1 << 39, count: turn }, self.rng.u64()));
            all.insert(0, Message::Pull { pull, key, hops, after });
        }
        if turn == 400 {
            all.extend((0..8).map(|pull| Message::CancelPull { pull }));
        }
        all
    }
}
