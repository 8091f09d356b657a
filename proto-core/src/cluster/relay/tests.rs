use super::client::{Input, Output};
use super::*;
use crate::cluster::member::Source;
use crate::cluster::world::key;
use crate::cluster::{Epoch, NodeId};
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings, Rotation};
use crate::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use crate::rand::Rng;
use crate::time::Time;
use crate::wire::link::Message;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

const E1: Epoch = Epoch { term: 1, count: 1 };
const E2: Epoch = Epoch { term: 1, count: 2 };
const T: Time = Time::ZERO;

fn id(name: &str) -> NodeId {
    NodeId(name.to_owned())
}

fn client() -> PullClient {
    PullClient::new(5, key("x"), id("edge"), Arc::default(), Rng::new([3; 32]), T)
}

fn server(pull: u64) -> PullServer {
    PullServer::accept(pull, key("x"), &[id("edge")], &id("origin"), &[], Arc::default()).unwrap()
}

fn source(node: &str, epoch: Epoch) -> Source {
    Source { epoch, node: id(node), link_addr: "10.0.0.1:5090".parse().unwrap() }
}

fn config(track: TrackId, version: u32) -> Delivery {
    let params = match track {
        TrackId::AUDIO => CodecParams::Opus { channels: version as u8 },
        _ => CodecParams::H264 {
            sps: vec![Bytes::from(vec![version as u8])],
            pps: vec![],
            size: None,
            reorders: false,
        },
    };
    Delivery::Config { track, config: Arc::new(CodecConfig { version, params, origin: Origin::Ingest }) }
}

fn frame(seq: u64, kind: FrameKind, epoch: Epoch) -> Delivery {
    let track = if kind == FrameKind::Audio { TrackId::AUDIO } else { TrackId::VIDEO };
    let pts = seq as i64;
    let media = NewFrame {
        track,
        dts: pts,
        pts,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: Bytes::from_static(b"picture"),
    };
    let frame = Arc::new(Frame { seq, epoch, config_version: 1, media, renderings: Renderings::default() });
    Delivery::Frame { frame, dts: pts, pts, cached: false }
}

fn drain(c: &mut PullClient) -> Vec<Output> {
    std::iter::from_fn(|| c.poll()).collect()
}

fn pts(said: &[Output]) -> Vec<i64> {
    let one = |o: &Output| match o {
        Output::Ingest { ingest: Ingest::Frame(f), .. } => Some(f.pts),
        _ => None,
    };
    said.iter().filter_map(one).collect()
}

/// A client that pulls from `node`, with what it said drained.
fn pull_from(c: &mut PullClient, node: &str, epoch: Epoch, now: Time) -> PullServer {
    c.handle(Input::Located(Ok(source(node, epoch))), now);
    c.handle(Input::LinkUp, now);
    drain(c);
    server(c.pull())
}

fn feed(c: &mut PullClient, s: &mut PullServer, items: &[Delivery]) -> Vec<Output> {
    for item in items {
        if let Some(m) = s.deliver(item, 0) {
            c.handle(Input::Message(m), T);
        }
    }
    drain(c)
}

use FrameKind::{Audio, Delta, Key};

#[test]
fn a_pull_finds_dials_pulls_and_hands_frames_to_the_hub() {
    let mut c = client();
    assert_eq!(drain(&mut c), [Output::Locate]);
    c.handle(Input::Located(Ok(source("origin", E1))), T);
    assert!(matches!(&drain(&mut c)[..], [Output::Connect { node, .. }] if node.0 == "origin"));
    c.handle(Input::LinkUp, T);
    let said = drain(&mut c);
    assert!(matches!(&said[..], [Output::Send(Message::Pull { hops, .. })] if hops[..] == [id("edge")]));
    let mut s = server(c.pull());
    let said = feed(&mut c, &mut s, &[config(TrackId::VIDEO, 1), frame(1, Key, E1), frame(2, Delta, E1)]);
    assert!(matches!(said[0], Output::Ingest { ingest: Ingest::Config { track: TrackId::VIDEO, .. }, .. }));
    assert_eq!(pts(&said), [1, 2]);
    assert_eq!((s.counters().frames, s.counters().bytes), (2, 14));
    assert_eq!(c.path(), [id("origin")]);
}

#[test]
fn a_cached_group_is_passed_on_with_squeezed_times() {
    let mut c = client();
    let mut s = pull_from(&mut c, "origin", E1, T);
    let squeezed = |seq, kind, to: i64| match frame(seq, kind, E1) {
        Delivery::Frame { frame, .. } => Delivery::Frame { frame, dts: to, pts: to + 1, cached: true },
        other => other,
    };
    let items =
        [config(TrackId::VIDEO, 1), squeezed(1, Key, 98), squeezed(40, Delta, 99), frame(100, Delta, E1)];
    let said = feed(&mut c, &mut s, &items);
    assert_eq!(pts(&said), [99, 100, 100], "the viewers there are not set behind by the group's length");
}

#[test]
fn after_a_break_nothing_comes_twice_and_no_picture_without_its_reference() {
    let mut c = client();
    let mut s = pull_from(&mut c, "origin", E1, T);
    let first = [config(TrackId::VIDEO, 1), frame(1, Key, E1), frame(2, Delta, E1), frame(3, Delta, E1)];
    assert_eq!(pts(&feed(&mut c, &mut s, &first)), [1, 2, 3]);
    // The cached group still holds the last frame we had: it goes on without a seam.
    c.handle(Input::LinkDown(Reason::peer("reset", "reset")), T);
    assert!(drain(&mut c).contains(&Output::Away));
    c.handle(Input::Tick, c.deadline().unwrap().at);
    let mut s = pull_from(&mut c, "origin", E1, T);
    let again = [
        config(TrackId::VIDEO, 1),
        frame(1, Key, E1),
        frame(2, Delta, E1),
        frame(3, Delta, E1),
        frame(4, Delta, E1),
    ];
    let said = feed(&mut c, &mut s, &again);
    assert_eq!(pts(&said), [4]);
    assert!(said.contains(&Output::Back));
    // The frames between are lost: pictures wait for the next key frame.
    c.handle(Input::LinkDown(Reason::peer("reset", "reset")), T);
    c.handle(Input::Tick, c.deadline().unwrap().at);
    let mut s = pull_from(&mut c, "origin", E1, T);
    let later = [config(TrackId::VIDEO, 1), frame(8, Delta, E1), frame(9, Key, E1), frame(10, Delta, E1)];
    assert_eq!(pts(&feed(&mut c, &mut s, &later)), [9, 10]);
    assert_eq!((c.taken().stale, c.taken().repeated, c.taken().unusable), (0, 3, 1));
    assert!(c.taken().adds_up());
}

#[test]
fn from_another_node_on_the_way_nothing_comes_twice_either() {
    let mut c = client();
    let mut s = pull_from(&mut c, "middle", E1, T);
    let first = [config(TrackId::VIDEO, 1), frame(7, Key, E1), frame(8, Delta, E1)];
    assert_eq!(pts(&feed(&mut c, &mut s, &first)), [7, 8]);
    // The manager's word comes late: the stream is at another node, and was so when those frames were made.
    c.handle(Input::Moved(source("origin", E1)), T);
    c.handle(Input::LinkUp, T);
    drain(&mut c);
    let mut s = server(c.pull());
    let again = [config(TrackId::VIDEO, 1), frame(7, Key, E1), frame(8, Delta, E1), frame(9, Delta, E1)];
    assert_eq!(pts(&feed(&mut c, &mut s, &again)), [9]);
}

#[test]
fn a_number_from_far_away_is_left_out_and_silences_no_track() {
    let mut c = client();
    let mut s = pull_from(&mut c, "origin", E1, T);
    let items = [
        config(TrackId::VIDEO, 1),
        config(TrackId::AUDIO, 1),
        frame(1, Key, E1),
        frame(u64::MAX, Audio, E1),
        frame(2, Audio, E1),
        frame(u64::MAX, Delta, E1),
        frame(3, Delta, E1),
        frame(4, Key, E1),
        frame(5, Audio, E1),
    ];
    let said = feed(&mut c, &mut s, &items);
    // What refers to the picture that was left out has to wait for the next key frame.
    assert_eq!(pts(&said), [1, 2, 4, 5]);
    assert_eq!((c.taken().stale, c.taken().repeated, c.taken().unusable), (0, 0, 3));
    assert!(c.taken().adds_up());
}

#[test]
fn frames_of_a_superseded_epoch_are_never_passed_on() {
    let mut c = client();
    let mut s = pull_from(&mut c, "origin", E1, T);
    feed(&mut c, &mut s, &[config(TrackId::AUDIO, 1), frame(1, Audio, E1)]);
    c.handle(Input::Moved(source("origin", E2)), T);
    assert!(pts(&feed(&mut c, &mut s, &[frame(2, Audio, E1)])).is_empty());
    assert_eq!(pts(&feed(&mut c, &mut s, &[frame(1, Audio, E2)])), [1], "numbers start anew with the epoch");
    c.handle(Input::LinkDown(Reason::peer("reset", "reset")), T);
    c.handle(Input::Tick, c.deadline().unwrap().at);
    drain(&mut c);
    c.handle(Input::Located(Ok(source("old", E1))), T);
    assert!(!drain(&mut c).iter().any(|o| matches!(o, Output::Connect { .. })));
}

#[test]
fn each_attempt_asks_anew_after_a_growing_wait_and_the_wait_for_a_stream_ends() {
    let mut c = client();
    drain(&mut c);
    let (mut now, mut waits) = (T, Vec::new());
    loop {
        c.handle(Input::Located(Err(Reason::peer("not_found", "nobody"))), now);
        assert!(matches!(drain(&mut c)[..], [Output::Unavailable(_)]));
        let asked = now;
        now = c.deadline().unwrap().at;
        c.handle(Input::Tick, now);
        match &drain(&mut c)[..] {
            [Output::Locate] => waits.push(now.since(asked).as_millis()),
            [Output::Ended(r)] => {
                assert_eq!((r.code, now.as_millis()), ("source_gone", 30_000));
                break;
            }
            o => panic!("{o:?}"),
        }
    }
    assert!(
        waits[0] <= 100 && waits.iter().all(|w| (50..=2_000).contains(w)) && waits.len() < 45,
        "{waits:?}"
    );
    assert_eq!(c.deadline(), None);
}

#[test]
fn it_ends_a_while_after_the_last_viewer_left() {
    let mut c = client();
    pull_from(&mut c, "origin", E1, T);
    c.handle(Input::Wanted(false), T);
    c.handle(Input::Wanted(true), Time::from_millis(4_000));
    c.handle(Input::Tick, Time::from_millis(6_000));
    assert_eq!(drain(&mut c), []);
    c.handle(Input::Wanted(false), Time::from_millis(6_000));
    c.handle(Input::Tick, Time::from_millis(11_000));
    let said = drain(&mut c);
    assert!(
        matches!(&said[..], [Output::Send(Message::CancelPull { .. }), Output::Ended(r)] if r.code == "no_viewers")
    );
}

#[test]
fn key_requests_are_coalesced_to_two_a_second() {
    let mut c = client();
    pull_from(&mut c, "origin", E1, T);
    let mut sent = 0;
    for ms in 0..1_000 {
        let now = Time::from_millis(ms);
        c.handle(Input::KeyWanted(None), now);
        c.handle(Input::Tick, now);
        sent += drain(&mut c).len();
    }
    assert_eq!(sent, 2);
    c.handle(Input::Tick, Time::from_millis(1_000));
    assert_eq!(drain(&mut c).len(), 1, "the last wish is not forgotten");
    c.handle(Input::Tick, Time::from_millis(9_000));
    assert_eq!(drain(&mut c).len(), 0);
    let mut s = server(1);
    assert!(
        s.key_request(None, T)
            && !s.key_request(None, Time::from_millis(499))
            && s.key_request(Some(TrackId(3)), Time::from_millis(499))
            && s.key_request(None, Time::from_millis(500))
    );
}

#[test]
fn a_slow_link_loses_whole_groups_and_keeps_sound() {
    let most = Limits::default().link_queue_bytes;
    let mut s = server(1);
    let steps = [
        (Key, 0, true),
        (Delta, most / 2 + 1, false),
        (Audio, most / 2 + 1, true),
        (Delta, 0, false),
        (Key, most / 3, false),
        (Delta, 0, false),
        (Audio, most + 1, false),
        (Key, most / 4, true),
        (Delta, most / 2, true),
    ];
    for (n, (kind, backlog, passes)) in steps.into_iter().enumerate() {
        assert_eq!(s.deliver(&frame(n as u64, kind, E1), backlog).is_some(), passes, "step {n}");
        assert_eq!(s.wants_key(0), [1, 2, 3, 4, 5, 6].contains(&n));
    }
    let c = s.counters();
    assert_eq!((c.frames, c.skipped_frames, c.frames * 7, c.skipped_bytes), (4, 5, c.bytes, 35));
}

#[test]
fn circles_and_long_ways_are_refused() {
    let accept = |hops: &[&str], upstream: &[&str]| {
        let ids = |names: &[&str]| names.iter().map(|n| id(n)).collect::<Vec<_>>();
        match PullServer::accept(1, key("x"), &ids(hops), &id("me"), &ids(upstream), Arc::default()) {
            Ok(_) => "ok".to_owned(),
            Err(Message::End { code, .. }) => code,
            Err(m) => panic!("{m:?}"),
        }
    };
    assert_eq!(accept(&["e"], &["o"]), "ok");
    assert_eq!(accept(&["e", "me"], &[]), "relay_loop");
    assert_eq!(accept(&["e"], &["o", "e"]), "relay_loop");
    assert_eq!(accept(&["e", "f"], &["o", "p", "q"]), "relay_hops");
    let mut c = client();
    pull_from(&mut c, "origin", E1, T);
    let path = vec![id("edge"), id("origin")];
    c.handle(Input::Message(Message::Tracks { pull: c.pull(), path, configs: vec![] }), T);
    assert!(matches!(
        drain(&mut c)[..],
        [Output::Send(Message::CancelPull { .. }), Output::Log(..), Output::Unavailable(_)]
    ));
}

#[test]
fn away_and_back_pass_once_each_and_what_an_old_attempt_sends_is_left_alone() {
    let mut c = client();
    let mut s = pull_from(&mut c, "origin", E1, T);
    feed(&mut c, &mut s, &[config(TrackId::AUDIO, 1), frame(1, Audio, E1)]);
    for m in [s.away(), s.away(), s.back(), s.back()] {
        c.handle(Input::Message(m), T);
    }
    assert_eq!(drain(&mut c), [Output::Away, Output::Back]);
    c.handle(Input::Message(s.end(&Reason::local("draining", "the node drains"))), T);
    c.handle(Input::Tick, c.deadline().unwrap().at);
    pull_from(&mut c, "origin", E1, T);
    assert!(pts(&feed(&mut c, &mut s, &[frame(2, Audio, E1)])).is_empty());
}

/// Fed by a relay, a node stays with it when its origin goes on under a higher epoch, goes to another origin itself, and
/// asks for the origin when the relay has had nothing for a lease.
#[test]
fn a_node_that_a_relay_feeds_finds_the_origin_when_it_must() {
    let mut c = client();
    assert!(!c.wants_origin());
    let limits = Arc::new(Limits::default());
    let mut s = pull_from(&mut c, "relay", E1, T);
    s = PullServer::accept(s.pull(), key("x"), &[id("edge")], &id("relay"), &[id("origin")], limits).unwrap();
    feed(&mut c, &mut s, &[config(TrackId::VIDEO, 1), frame(1, Key, E1)]);
    assert_eq!(c.path(), [id("origin"), id("relay")]);
    assert!(c.wants_origin(), "others may be fed by it now");
    c.handle(Input::Moved(source("origin", E2)), T);
    assert_eq!(drain(&mut c), [], "the relay goes on");
    assert_eq!(pts(&feed(&mut c, &mut s, &[frame(2, Delta, E1)])), [] as [i64; 0], "stale");
    assert_eq!(pts(&feed(&mut c, &mut s, &[frame(1, Key, E2)])), [1]);
    c.handle(Input::Message(s.away()), T);
    assert_eq!(drain(&mut c), [Output::Away]);
    let lease = Duration::from_millis(Limits::default().lease_ms);
    let mut said = Vec::new();
    while !said.contains(&Output::Locate) {
        let at = c.deadline().unwrap().at;
        assert!(at <= T + lease + Duration::from_secs(1));
        c.handle(Input::Tick, at);
        said.extend(drain(&mut c));
    }
    assert!(matches!(said[0], Output::Send(Message::CancelPull { .. })), "{said:?}");
    c.handle(Input::Located(Ok(source("origin", E2))), T + lease * 2);
    assert!(matches!(&drain(&mut c)[..], [Output::Connect { node, .. }] if node.0 == "origin"));
}

#[test]
fn after_a_break_it_says_what_it_had() {
    let mut c = client();
    let asked = |c: &mut PullClient, node: &str| {
        c.handle(Input::Located(Ok(source(node, E1))), T);
        c.handle(Input::LinkUp, T);
        let said = drain(c);
        said.iter().find_map(|o| match o {
            Output::Send(Message::Pull { after, .. }) => Some(*after),
            _ => None,
        })
    };
    assert_eq!(asked(&mut c, "origin"), Some(None), "nothing yet");
    let mut s = server(c.pull());
    let sound =
        [config(TrackId::VIDEO, 1), config(TrackId::AUDIO, 1), frame(1, Key, E1), frame(2, Audio, E1)];
    feed(&mut c, &mut s, &sound);
    feed(&mut c, &mut s, &[frame(3, Delta, E1), frame(4, Delta, E1)]);
    c.handle(Input::LinkDown(Reason::peer("link_down", "broke")), T);
    let later = c.deadline().unwrap().at;
    c.handle(Input::Tick, later);
    assert_eq!(asked(&mut c, "origin"), Some(Some((E1, 2))), "of the track that is behind");
    // What it had is recognised, and what it lacks follows, also where a key frame came since.
    let mut s = server(c.pull());
    let again = [
        frame(2, Audio, E1),
        frame(3, Delta, E1),
        frame(4, Delta, E1),
        frame(5, Delta, E1),
        frame(6, Key, E1),
    ];
    let said = feed(&mut c, &mut s, &again);
    assert_eq!(pts(&said), [5, 6]);
    let after =
        |o: &Output| if let Output::Ingest { seq, after, .. } = o { Some((*seq, *after)) } else { None };
    assert_eq!(said.iter().filter_map(after).collect::<Vec<_>>(), [(5, Some(4)), (6, Some(5))]);
    assert!(c.taken().adds_up());
}

#[test]
fn what_follows_frames_that_it_never_had_is_not_said_to_be_the_next() {
    let mut c = client();
    c.handle(Input::Located(Ok(source("origin", E1))), T);
    c.handle(Input::LinkUp, T);
    let mut s = server(c.pull());
    feed(&mut c, &mut s, &[config(TrackId::VIDEO, 1), frame(1, Key, E1), frame(2, Delta, E1)]);
    c.handle(Input::LinkDown(Reason::peer("link_down", "broke")), T);
    let later = c.deadline().unwrap().at;
    c.handle(Input::Tick, later);
    c.handle(Input::Located(Ok(source("origin", E1))), later);
    c.handle(Input::LinkUp, later);
    drain(&mut c);
    let mut s = server(c.pull());
    // The source no longer has what it had.
    let said = feed(&mut c, &mut s, &[frame(9, Key, E1), frame(10, Delta, E1)]);
    let after =
        |o: &Output| if let Output::Ingest { seq, after, .. } = o { Some((*seq, *after)) } else { None };
    assert_eq!(said.iter().filter_map(after).collect::<Vec<_>>(), [(9, None), (10, Some(9))]);
    // Nor is what comes behind frames that were lost on the way.
    c.handle(Input::Lost { track: TrackId::VIDEO, frames: 1, bytes: 1 }, later);
    let said = feed(&mut c, &mut s, &[frame(12, Key, E1)]);
    assert_eq!(said.iter().filter_map(after).collect::<Vec<_>>(), [(12, None)]);
}
