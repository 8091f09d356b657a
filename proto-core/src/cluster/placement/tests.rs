use super::*;
use crate::cluster::LinkId;
use crate::cluster::registry::Registry;
use crate::io::ConnId;
use crate::limits::Limits;
use crate::time::Time;
use crate::wire::link::{Advertised, NodeInfo, Report};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const BOTH: &[Role] = &[Role::Origin, Role::Edge];

fn key(n: usize) -> StreamKey {
    StreamKey::parse(&format!("live/s{n}")).unwrap()
}

fn names(n: usize) -> Vec<NodeId> {
    (0..n).map(|i| NodeId(format!("node-{i}"))).collect()
}

fn idle(node: &NodeId) -> Candidate<'_> {
    Candidate { node, region: "eu", roles: BOTH, alive: true, draining: false, used_ppm: 0, step_ppm: 1_000 }
}

pub(crate) fn info(name: &str, roles: &[Role], region: &str, capacity_mbps: u32) -> NodeInfo {
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    NodeInfo {
        id: NodeId(name.to_owned()),
        instance: 1,
        version: "test".to_owned(),
        roles: roles.to_vec(),
        region: region.to_owned(),
        advertised: Advertised {
            public: ip,
            private: ip,
            name: String::new(),
            http: 1,
            rtmp: 2,
            rtmps: 7,
            rtsp: 5,
            rtsps: 6,
            webrtc: 3,
            link: 4,
            https: 0,
        },
        capacity_mbps,
        highest: crate::cluster::Epoch::default(),
    }
}

#[test]
fn the_dead_the_draining_the_full_and_those_without_the_role_are_never_given_out() {
    let n = names(5);
    let mut c: Vec<_> = n.iter().map(idle).collect();
    c[0].alive = false;
    c[1].draining = true;
    c[2].used_ppm = FULL_PPM;
    c[3].roles = &[Role::Manager];
    c[4].used_ppm = FULL_PPM - 1;
    let (node, why) = pick_origin(&key(0), &c, &[], false).unwrap();
    assert_eq!(node, &n[4]);
    assert_eq!((why.known, why.passed.dead, why.passed.draining, why.passed.full), (4, 1, 1, 1));
    assert_eq!(pick_edge(&key(0), &c, &[], false).unwrap().0, &n[4]);
    assert_eq!(pick_origin(&key(0), &c[..3], &[], false).unwrap_err().code, "origins_full");
    assert_eq!(pick_origin(&key(0), &c[..2], &[], false).unwrap_err().code, "no_origin");
    assert_eq!(pick_edge(&key(0), &[], &[], false).unwrap_err().code, "no_edge");
}

#[test]
fn regions_are_preferred_in_order_and_strict_refuses_the_rest() {
    let n = names(3);
    let mut c: Vec<_> = n.iter().map(idle).collect();
    c[1].region = "us";
    (c[1].used_ppm, c[2].used_ppm) = (500_000, 10);
    let pick = |regions: &[&str], strict| pick_origin(&key(1), &c, regions, strict).map(|(n, _)| n.0.clone());
    assert_eq!(pick(&["asia", "us"], false).unwrap(), "node-1");
    assert_eq!(pick(&["asia"], false).unwrap(), "node-0");
    assert_eq!(pick(&["asia"], true).unwrap_err().code, "no_region");
}

#[test]
fn ties_are_spread_over_nodes_and_do_not_depend_on_their_order() {
    let n = names(4);
    let c: Vec<_> = n.iter().map(idle).collect();
    let mut back = c.clone();
    back.reverse();
    let mut seen = BTreeMap::new();
    for i in 0..400 {
        let a = pick_origin(&key(i), &c, &[], false).unwrap().0;
        assert_eq!(a, pick_origin(&key(i), &back, &[], false).unwrap().0);
        *seen.entry(a).or_insert(0) += 1;
    }
    assert!(seen.len() == 4 && seen.values().all(|n| *n > 60), "{seen:?}");
}

#[test]
fn one_streams_viewers_stay_together_until_their_edge_is_busier_than_the_mean() {
    let n = names(10);
    let mut c: Vec<_> = n.iter().map(idle).collect();
    let mut carried = BTreeMap::new();
    for _ in 0..100 {
        let node = pick_edge(&key(7), &c, &[], false).unwrap().0.clone();
        c.iter_mut().filter(|c| *c.node == node).for_each(|c| c.used_ppm += c.step_ppm);
        *carried.entry(node).or_insert(0) += 1;
    }
    assert_eq!(carried.len(), 1, "a tenth of an edge is nothing to spread");
    for _ in 0..4_000 {
        let node = pick_edge(&key(7), &c, &[], false).unwrap().0.clone();
        c.iter_mut().filter(|c| *c.node == node).for_each(|c| c.used_ppm += c.step_ppm);
        *carried.entry(node).or_insert(0) += 1;
    }
    let most = *carried.values().max().unwrap();
    assert!(carried.len() >= 8 && most <= 4_100 / 10 * 13 / 10, "{carried:?}");
}

#[test]
fn a_lost_edge_moves_only_its_own_streams() {
    let n = names(8);
    let mut c: Vec<_> = n.iter().map(idle).collect();
    let before: Vec<_> = (0..200).map(|i| pick_edge(&key(i), &c, &[], false).unwrap().0.clone()).collect();
    c[3].alive = false;
    for (i, old) in before.iter().enumerate().filter(|(_, old)| **old != n[3]) {
        assert_eq!(pick_edge(&key(i), &c, &[], false).unwrap().0, old);
    }
}

/// 1000 publishers come to ten origins of 100 to 1000 Mbit/s, each sends 4 Mbit/s on; the origins report after every
/// `report_every` of them. The busiest may carry 1.15 times its fair share.
fn fair(report_every: usize) {
    let limits = Arc::new(Limits::default());
    let mut r = Registry::new(Arc::clone(&limits));
    let now = Time::from_millis(1);
    let capacity = |i: usize| (i as u32 + 1) * 100;
    let n = names(10);
    for (i, name) in n.iter().enumerate() {
        let link = LinkId::Conn(ConnId::accepted(i as u64));
        r.register(link, info(&name.0, BOTH, "eu", capacity(i)), now).unwrap();
    }
    let mut carried = vec![0u32; 10];
    let mut now = now;
    for s in 0..1_000 {
        let candidates = r.candidates(now);
        let node = pick_origin(&key(s), &candidates, &[], false).unwrap().0.clone();
        r.reserve(&key(s), &node, now);
        let epoch = crate::cluster::Epoch { term: 1, count: s as u64 };
        r.grant(&key(s), &node, epoch, "", now);
        carried[n.iter().position(|x| *x == node).unwrap()] += 1;
        if s % report_every == report_every - 1 {
            now += std::time::Duration::from_millis(1_000);
            for (i, name) in n.iter().enumerate() {
                let egress_bps = u64::from(carried[i]) * 4_000_000;
                let report =
                    Report { egress_bps, sessions: carried[i], session_limit: 10_000, ..Report::default() };
                assert!(r.report(name, &report, now));
            }
        }
    }
    for (i, got) in carried.iter().enumerate() {
        let share = 1_000.0 * f64::from(capacity(i)) / 5_500.0;
        assert!(
            f64::from(*got) <= share * 1.15,
            "origin {i} carries {got}, its share is {share:.1}: {carried:?}"
        );
    }
}

#[test]
fn unequal_origins_are_used_equally_whether_or_not_reports_come_in_between() {
    for report_every in [1, 7, 100, 1_001] {
        fair(report_every);
    }
}

/// Many streams with few viewers each: a stream shall be pulled to as few edges as can be. 1 is the least.
#[test]
fn ten_thousand_streams_of_ten_viewers_are_pulled_to_few_of_twenty_edges() {
    let limits = Arc::new(Limits::default());
    let mut r = Registry::new(Arc::clone(&limits));
    let mut now = Time::from_millis(1);
    let edges = names(20);
    // Unequal edges, which 100,000 viewers of 1 Mbit/s fill to about two thirds.
    let capacity = |i: usize| 5_000 + 500 * (i as u32 % 10);
    for (i, name) in edges.iter().enumerate() {
        let link = LinkId::Conn(ConnId::accepted(i as u64));
        r.register(link, info(&name.0, &[Role::Edge], "eu", capacity(i)), now).unwrap();
    }
    let at: BTreeMap<NodeId, usize> = edges.iter().cloned().zip(0..).collect();
    let mut carried = vec![0u32; 20];
    let (mut pulls, mut viewers) = (0usize, 0usize);
    for s in 0..10_000 {
        let mut on = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let candidates = r.candidates(now);
            let node = pick_edge(&key(s), &candidates, &[], false).unwrap().0.clone();
            r.expect_viewer(&node, now);
            let i = at[&node];
            carried[i] += 1;
            on.insert(i);
            viewers += 1;
            // A thousand viewers come in a second, and the edges report what they carry.
            if viewers.is_multiple_of(1_000) {
                now += std::time::Duration::from_millis(1_000);
                for (i, name) in edges.iter().enumerate() {
                    let egress_bps = u64::from(carried[i]) * 1_000_000;
                    let report = Report {
                        egress_bps,
                        sessions: carried[i],
                        session_limit: 20_000,
                        ..Report::default()
                    };
                    assert!(r.report(name, &report, now));
                }
            }
        }
        pulls += on.len();
    }
    let mean = pulls as f64 / 10_000.0;
    assert!(mean <= 1.3, "{mean} pulls a stream; the edges carry {carried:?}");
    for (i, got) in carried.iter().enumerate() {
        assert!(*got < capacity(i), "edge {i} carries {got} Mbit/s of {}", capacity(i));
    }
}
