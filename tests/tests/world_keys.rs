//! The cluster's key is replaced while publishers send and viewers watch, as docs/keys.md says.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::abuse::Stage;
use headwater_tests::world::scenario::*;
use headwater_tests::world::{HostId, World};
use proto_core::node::config::{Config, Role};

const FILE: &str = "/etc/headwater/keys";
const OLD: &str = "the key before, 32 characters long";
const NEW: &str = "the key after it, 32 characters too";

fn by_file(c: &mut Config) {
    c.cluster.key_file = FILE.to_owned();
    c.limits.tls_reload_ms = 500;
}

fn lines(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("{key}\n")).collect()
}

/// How often a host's log says this.
fn said(w: &World, name: &str, words: &str) -> usize {
    let of = format!(" {name} ");
    w.log().iter().filter(|l| l.contains(&of) && l.contains(words)).count()
}

/// Links by QUIC, and connections of links by TCP, of a node.
fn links(w: &World, of: HostId) -> (usize, usize) {
    let (_, audit) = w.audits().into_iter().find(|(h, _)| *h == of).expect("it runs");
    (audit.quic_links, audit.conns.1)
}

fn rolled(quic: bool) {
    for seed in chosen("0..6") {
        let w = &mut World::new(seed);
        w.quic(quic);
        w.file_everywhere(FILE, &lines(&[OLD]));
        let stage = Stage::new(w, by_file);
        let nodes = [("m1", stage.manager), ("o1", stage.origin), ("e1", stage.edge)];
        let before = nodes.map(|(_, node)| links(w, node));
        // In every order, another one in each step.
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [1, 0, 2], [2, 1, 0]];
        for (step, keys) in [&[OLD, NEW][..], &[NEW, OLD], &[NEW]].into_iter().enumerate() {
            for at in ORDERS[(seed as usize + step) % 6] {
                w.file(nodes[at].1, FILE, &lines(keys));
                w.run(ms(900));
            }
            for (name, _) in nodes {
                assert_eq!(said(w, name, "the cluster's keys changed"), step + 1, "{name}");
            }
            w.run(ms(1_500));
        }
        w.run(ms(3_000));
        assert_eq!(stage.innocents.lost(w), Vec::<String>::new());
        assert_eq!(nodes.map(|(_, node)| links(w, node)), before, "the same links stand, on the new key");
        assert!(
            nodes.iter().any(|(name, _)| said(w, name, "the key of this link is accepted no longer") > 0)
        );

        // Who has the old key only is let in no more; who has the new one is.
        w.file_everywhere(FILE, &lines(&[OLD]));
        let stale = w.host_with("x1", &[Role::Edge], Some(stage.manager), by_file);
        w.file_everywhere(FILE, &lines(&[NEW]));
        let late = w.host_with("e2", &[Role::Edge], Some(stage.manager), by_file);
        w.run(ms(3_000));
        assert!(said(w, "x1", "does not have this cluster's key") > 0);
        let v = w.play(late, STREAM);
        w.until("it sees", ms(5_000), |w| !w.player(v).seen.is_empty());
        assert!(!w.log().iter().any(|l| l.contains(OLD) || l.contains(NEW)), "no log holds a key");
        w.crash(stale);
        assert!(w.expect_drained());
    }
}

#[test]
fn the_key_is_replaced_over_quic_and_nobody_loses_a_frame() {
    rolled(true);
}

#[test]
fn the_key_is_replaced_over_tcp_and_nobody_loses_a_frame() {
    rolled(false);
}
