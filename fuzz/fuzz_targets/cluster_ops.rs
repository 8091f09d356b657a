//! Any sequence of node messages, broken links, questions and waits at a manager: it never panics, its epochs only
//! rise, each question is answered at most once, and no node without a running lease is given out.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use proto_core::cluster::manager::{Action, Input, Manager, Output, Pairing};
use proto_core::cluster::{Epoch, LinkId, NodeId};
use proto_core::io::ConnId;
use proto_core::machine::Machine;
use proto_core::media::key::StreamKey;
use proto_core::node::config::Role;
use proto_core::time::{Time, WallTime};
use proto_core::wire::link::{Advertised, Message, NodeInfo, Report, StreamReport};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
enum Op {
    Wait(u16),
    WallClock(u32),
    Register { link: u8, node: u8, instance: u8, capacity: u16, roles: u8 },
    LinkDown(u8),
    Report { link: u8, sessions: u16, draining: bool, streams: Vec<(u8, u8, u8, bool, bool)> },
    Claim { link: u8, key: u8, identity: u8 },
    Announce { link: u8, key: u8, term: u8, count: u8 },
    Release { link: u8, key: u8, term: u8, count: u8 },
    Locate { link: u8, key: u8 },
    Pair { broadcast: bool, key: u8, region: Option<u8>, strict: bool },
}

fn link(n: u8) -> LinkId {
    match n % 5 {
        0 => LinkId::Local,
        n => LinkId::Conn(ConnId::accepted(u64::from(n))),
    }
}

fn key(n: u8) -> Option<StreamKey> {
    StreamKey::parse(&format!("live/s{}", n % 4)).ok()
}

fn epoch(term: u8, count: u8) -> Epoch {
    Epoch { term: u64::from(term), count: u64::from(count) }
}

fn message(op: Op, req: u64) -> Option<Input> {
    Some(match op {
        Op::Wait(_) | Op::WallClock(_) => return None,
        Op::LinkDown(n) => Input::LinkDown(link(n)),
        Op::Pair { broadcast, key: k, region, strict } => Input::Pair {
            req,
            pairing: Pairing {
                action: if broadcast { Action::Broadcast } else { Action::Subscribe },
                key: key(k)?,
                regions: region.map(|r| format!("r{}", r % 3)).into_iter().collect(),
                strict,
                count: 1 + usize::from(k % 3),
                leaves: None,
            },
        },
        Op::Register { link: l, node, instance, capacity, roles } => {
            let ip = Ipv4Addr::new(10, 0, 0, node).into();
            let all = [Role::Manager, Role::Origin, Role::Edge];
            let roles =
                all.into_iter().enumerate().filter(|(i, _)| roles >> i & 1 == 1).map(|(_, r)| r).collect();
            let info = NodeInfo {
                id: NodeId(format!("n{}", node % 4)),
                instance: u64::from(instance % 2),
                version: String::new(),
                roles,
                region: format!("r{}", node % 3),
                advertised: Advertised {
                    public: ip,
                    private: ip,
                    name: String::new(),
                    http: 1,
                    rtmp: 1,
                    rtmps: 1,
                    rtsp: 1,
                    rtsps: 1,
                    webrtc: 1,
                    link: 1,
                    https: 0,
                },
                capacity_mbps: u32::from(capacity),
                highest: Epoch::default(),
            };
            Input::Link(link(l), Message::Register(Box::new(info)))
        }
        Op::Report { link: l, sessions, draining, streams } => {
            let stream = |(k, term, count, silent, live)| {
                Some(StreamReport {
                    key: key(k)?,
                    epoch: epoch(term, count),
                    silent,
                    live,
                    viewers: 0,
                    about: Default::default(),
                })
            };
            let streams = streams.into_iter().filter_map(stream).collect();
            let report = Report {
                sessions: u32::from(sessions),
                session_limit: 100,
                draining,
                streams,
                ..Report::default()
            };
            Input::Link(link(l), Message::Report(report))
        }
        Op::Claim { link: l, key: k, identity } => {
            let identity = if identity % 3 == 0 { String::new() } else { format!("i{}", identity % 3) };
            Input::Link(link(l), Message::Claim { req, key: key(k)?, identity })
        }
        Op::Announce { link: l, key: k, term, count } => {
            let message =
                Message::Announce { key: key(k)?, epoch: epoch(term, count), identity: String::new() };
            Input::Link(link(l), message)
        }
        Op::Release { link: l, key: k, term, count } => {
            Input::Link(link(l), Message::Release { key: key(k)?, epoch: epoch(term, count) })
        }
        Op::Locate { link: l, key: k } => {
            Input::Link(link(l), Message::Locate { req, key: key(k)?, direct: false })
        }
    })
}

fuzz_target!(|data: &[u8]| {
    // One operation after the other to the end of the data: a list's own coding would be short almost always.
    let mut data = Unstructured::new(data);
    let ops = std::iter::from_fn(|| if data.is_empty() { None } else { Op::arbitrary(&mut data).ok() });
    let mut now = Time::ZERO;
    let mut manager = Manager::new(Arc::default(), false, now);
    let mut last = Epoch::default();
    let mut answered = BTreeMap::new();
    for (req, op) in ops.enumerate() {
        let req = req as u64 + 1;
        match op {
            Op::Wait(ms) => now += Duration::from_millis(u64::from(ms)),
            Op::WallClock(s) => manager.handle(Input::WallClock(WallTime(u64::from(s) * 1_000_000_000)), now),
            op => {
                if let Some(input) = message(op, req) {
                    manager.handle(input, now);
                }
            }
        }
        manager.handle(Input::Tick, now);
        if let Some(d) = manager.deadline() {
            assert!(d.at > now, "{} is due and was not done", d.why);
        }
        while let Some(output) = manager.poll() {
            match output {
                Output::ToLink(_, Message::Claimed { epoch, .. }) => {
                    assert!(epoch > last, "{epoch} after {last}");
                    last = epoch;
                }
                Output::Paired { req, result } => {
                    assert!(answered.insert(req, ()).is_none(), "answered twice");
                    if let Ok(placement) = result {
                        assert!(manager.registry().alive(&placement.node.id, now));
                    }
                }
                _ => {}
            }
        }
        // The books agree with themselves.
        for (key, stream) in manager.registry().streams() {
            if let Some(owner) = &stream.owner {
                assert!(manager.registry().node(owner).is_some_and(|n| n.owns.contains(key)));
            }
        }
        for (id, node) in manager.registry().nodes() {
            let owned = |key: &StreamKey| {
                manager.registry().stream(key).is_some_and(|s| s.owner.as_ref() == Some(id))
            };
            assert!(node.owns.iter().all(owned));
        }
    }
});
