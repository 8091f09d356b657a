//! The scenarios that show planted bugs. Each passes without its bug.

use crate::world::actors::publisher::PublisherConfig;
use crate::world::actors::webrtc::{WhepConfig, WhipConfig};
use crate::world::actors::{Client, In, Notes, Out};
use crate::world::{ClientId, HostId, World};
use bytes::Bytes;
use proto_core::node::config::{Config, Role};
use proto_core::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

const ONE: &str = "live/one";
const TWO: &str = "live/two";

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A manager, two origins and two edges.
pub(super) struct Cluster {
    m: HostId,
    o1: HostId,
    o2: HostId,
    e1: HostId,
    e2: HostId,
}

fn cluster(w: &mut World, change: impl Fn(&mut Config)) -> Cluster {
    let m = w.host_with("m1", &[Role::Manager], None, &change);
    let [o1, o2] = ["o1", "o2"].map(|n| w.host_with(n, &[Role::Origin], Some(m), &change));
    let [e1, e2] = ["e1", "e2"].map(|n| w.host_with(n, &[Role::Edge], Some(m), &change));
    w.lapse(ms(2_500));
    Cluster { m, o1, o2, e1, e2 }
}

/// What a scenario needs before its point, and did not get: not the bug's doing, so it has a name of its own.
fn need(w: &mut World, what: &str, within: u64, holds: impl FnMut(&mut World) -> bool) {
    if !w.wait(ms(within), holds) && w.violation().is_none() {
        w.violate("SCENARIO", format!("not within {within} ms: {what}"));
    }
}

fn retrying() -> PublisherConfig {
    PublisherConfig { again: Some(ms(300)), ..PublisherConfig::default() }
}

fn live(w: &mut World, at: HostId, stream: &str) -> ClientId {
    let p = w.publish_with(at, stream, retrying());
    need(w, "the publisher is accepted", 4_000, |w| w.publisher(p).is_ready());
    p
}

fn viewer(w: &mut World, at: HostId, stream: &str) -> ClientId {
    let v = w.play(at, stream);
    need(w, "the viewer sees pictures", 4_000, |w| w.player(v).last_picture().is_some());
    v
}

fn goes_to(w: &mut World, publisher: ClientId, at: HostId) {
    let to = w.rtmp_addr(at);
    w.with_publisher(publisher, |p, now| {
        p.goes_to(to);
        p.connect(now);
    });
}

/// A publisher at the first origin and a viewer at the first edge.
fn watched(w: &mut World) -> (Cluster, ClientId, ClientId) {
    let c = cluster(w, |_| {});
    let p = live(w, c.o1, ONE);
    w.lapse(ms(500));
    let v = viewer(w, c.e1, ONE);
    (c, p, v)
}

pub(super) fn origin_restarts(w: &mut World) {
    let (c, ..) = watched(w);
    w.lapse(ms(1_000));
    w.crash(c.o1);
    w.lapse(ms(1_000));
    w.start(c.o1);
    w.expect_recovery();
    w.expect_drained();
}

pub(super) fn publisher_moves_from_a_dead_origin(w: &mut World) {
    let (c, p, _) = watched(w);
    w.crash(c.o1);
    goes_to(w, p, c.o2);
    w.expect_recovery();
}

pub(super) fn an_origin_is_gone(w: &mut World) {
    let c = cluster(w, |_| {});
    w.crash(c.o1);
    w.lapse(ms(5_000));
    for n in 0..4 {
        if w.violation().is_some() {
            return;
        }
        ask(w, c.m, &format!("/streammanager/api/4.0/event/live/n{n}?action=broadcast"));
    }
}

/// Asks by HTTP and waits for the answer, whatever it is. Answers its status.
fn ask(w: &mut World, at: HostId, path: &str) -> Option<u16> {
    use crate::world::actors::asker::Asker;
    let to = w.http_addr(at);
    let id = w.add(Box::new(Asker::new(to, path)));
    need(w, "an answer", 5_000, |w| w.actor::<Asker>(id).is_some_and(|a| a.result.is_some()));
    Some(w.actor::<Asker>(id)?.result.as_ref()?.as_ref().ok()?.0)
}

/// More ask in one second than an edge takes: each edge is given out as often as it has room, then nobody.
pub(super) fn a_crowd_asks_where_to_watch(w: &mut World) {
    let c = cluster(w, |c| c.limits.rtc_sessions = 3);
    live(w, c.o1, ONE);
    w.lapse(ms(1_500));
    let mut given = 0;
    for _ in 0..8 {
        if w.violation().is_some() {
            return;
        }
        given += u32::from(
            ask(w, c.m, &format!("/streammanager/api/4.0/event/{ONE}?action=subscribe")) == Some(200),
        );
    }
    if given != 6 && w.violation().is_none() {
        w.violate("SCENARIO", format!("two edges with room for three each were given out {given} times"));
    }
}

pub(super) fn a_client_names_the_manager_as_its_node(w: &mut World) {
    use crate::world::actors::socket::Socket;
    let c = cluster(w, |_| {});
    let to = w.http_addr(c.m);
    let path = format!("/streammanager/?id=one&host={}&app=live", to.ip());
    let id = w.add(Box::new(Socket::new(to, &path)));
    need(w, "an end", 5_000, |w| w.actor::<Socket>(id).is_some_and(|s| s.closed.is_some()));
}

pub(super) fn an_idle_origin_dies(w: &mut World) {
    let (c, ..) = watched(w);
    // Its lease must not end in the moment in which the others report.
    let o3 = w.host("o3", &[Role::Origin], Some(c.m));
    w.lapse(ms(5_000));
    w.crash(o3);
    w.lapse(ms(6_000));
}

pub(super) fn a_publisher_vanishes(w: &mut World) {
    let (c, p, _) = watched(w);
    w.lapse(ms(1_000));
    w.cut(p.into());
    w.lapse(ms(3_500));
    w.publish_with(c.o2, ONE, retrying());
    w.expect_recovery();
}

pub(super) fn a_play_comes_before_its_publish(w: &mut World) {
    let c = cluster(w, |_| {});
    let p = w.publish_with(c.o1, ONE, retrying());
    let accepted = |w: &mut World| w.node_of(c.o1).is_some_and(|n| n.publishing().next().is_some());
    need(w, "the name is granted", 4_000, accepted);
    // Its first picture takes its time; meanwhile a viewer asks.
    w.cut(p.into());
    w.play(c.o1, ONE);
    w.lapse(ms(400));
    w.heal(p.into());
    need(w, "the publisher is accepted", 4_000, |w| w.publisher(p).is_ready());
    w.expect_recovery();
}

pub(super) fn a_publisher_changes_its_origin(w: &mut World) {
    let (c, p, _) = watched(w);
    w.lapse(ms(1_000));
    goes_to(w, p, c.o2);
    w.expect_recovery();
}

pub(super) fn two_streams_share_a_link(w: &mut World) {
    let (c, ..) = watched(w);
    live(w, c.o1, TWO);
    w.lapse(ms(500));
    viewer(w, c.e1, TWO);
    w.lapse(ms(3_000));
}

/// A viewer that does not read for so long.
fn slow(w: &mut World, pause: u64) {
    let c = cluster(w, |_| {});
    let config = PublisherConfig { key_bytes: 60_000, delta_bytes: 8_000, ..retrying() };
    let p = w.publish_with(c.o1, ONE, config);
    need(w, "the publisher is accepted", 3_000, |w| w.publisher(p).is_ready());
    let v = viewer(w, c.o1, ONE);
    w.with_player(v, |v| v.read(false));
    w.lapse(ms(pause));
    w.with_player(v, |v| v.read(true));
    w.lapse(ms(4_000));
}

pub(super) fn a_viewer_is_slow(w: &mut World) {
    slow(w, 5_500);
}

pub(super) fn a_viewer_stops_reading(w: &mut World) {
    slow(w, 20_000);
}

pub(super) fn a_small_ring(w: &mut World) {
    let c = cluster(w, |c| c.limits.ring_frames = 150);
    live(w, c.o1, ONE);
    w.lapse(ms(500));
    viewer(w, c.e1, ONE);
    w.lapse(ms(6_000));
}

/// A node with room for a stream and some sessions: who comes first is served to the end, who comes later is told.
pub(super) fn more_come_than_fit(w: &mut World) {
    let m = w.host("m1", &[Role::Manager], None);
    // The sessions of a publisher and four viewers, and a ring.
    let small = |c: &mut Config| {
        c.limits.session_bytes = 4 << 20;
        c.limits.memory_bytes = c.limits.ring_bytes_min + 5 * c.limits.session_bytes;
    };
    let o = w.host_with("o1", &[Role::Origin], Some(m), small);
    w.lapse(ms(2_500));
    let p = live(w, o, ONE);
    w.lapse(ms(500));
    let first = viewer(w, o, ONE);
    let late = w.publish_with(o, TWO, PublisherConfig { again: None, ..PublisherConfig::default() });
    w.lapse(ms(1_000));
    let others: Vec<ClientId> = (0..8).map(|_| w.play(o, ONE)).collect();
    w.lapse(ms(1_000));
    let by_whep = w.play_webrtc(o, ONE, WhepConfig { again: None, ..WhepConfig::default() });
    w.lapse(ms(3_000));
    if w.violation().is_some() {
        return;
    }
    let served = |w: &World, v| w.player(v).last_picture().is_some_and(|s| w.now().since(s.at) < ms(500));
    let many = others.iter().filter(|v| served(w, **v)).count();
    let status = w.whep(by_whep).calls().last().and_then(|c| c.status);
    let told = w.publisher(late).sent.last().and_then(|s| s.ended.clone());
    let right = served(w, first) && w.publisher(p).is_ready() && many == 3 && status == Some(503);
    if !right || told.is_none() {
        let text = format!("first {}, {many} of 8 served, WHEP {status:?}, late {told:?}", served(w, first));
        w.violate("SCENARIO", text);
    }
    for v in others {
        w.with_player(v, |p| p.leave());
    }
    w.lapse(ms(1_000));
    viewer(w, o, ONE);
}

pub(super) fn a_viewer_leaves_while_it_waits(w: &mut World) {
    let c = cluster(w, |_| {});
    w.part(c.m.into(), c.e1.into());
    let v = w.play(c.e1, ONE);
    let waits = |w: &mut World| w.node_of(c.e1).is_some_and(|n| n.audit().waiting[4] > 0);
    need(w, "the viewer waits", 2_000, waits);
    w.remove(v);
    w.lapse(ms(3_000));
    w.join_all();
    w.expect_recovery();
    w.expect_drained();
}

/// The manager takes an origin for dead and grants its stream to another; then it hears of it again.
pub(super) fn a_split_cluster_heals(w: &mut World) {
    let (c, ..) = watched(w);
    w.part(c.m.into(), c.o1.into());
    w.lapse(ms(5_000));
    live(w, c.o2, ONE);
    w.lapse(ms(2_000));
    w.join(c.m.into(), c.o1.into());
    w.expect_recovery();
}

pub(super) fn an_edge_loses_its_origin(w: &mut World) {
    let (c, ..) = watched(w);
    viewer(w, c.e2, ONE);
    w.part(c.e1.into(), c.o1.into());
    w.lapse(ms(12_000));
}

pub(super) fn some_viewers(w: &mut World) {
    let (c, ..) = watched(w);
    viewer(w, c.e1, ONE);
    viewer(w, c.e2, ONE);
    w.lapse(ms(8_000));
}

/// The bytes of a link over TCP are known at any time, on their way or not.
pub(super) fn some_viewers_by_tcp(w: &mut World) {
    w.quic(false);
    some_viewers(w);
}

/// Over QUIC it is only seen when nothing is on its way any more.
pub(super) fn a_relayed_stream_rests(w: &mut World) {
    w.quic(true);
    let (c, p, _) = watched(w);
    viewer(w, c.e1, ONE);
    w.lapse(ms(3_000));
    w.cut(p.into());
    w.lapse(ms(13_000));
}

pub(super) fn nobody_does_anything(w: &mut World) {
    cluster(w, |_| {});
    w.lapse(ms(5_000));
}

pub(super) fn the_manager_restarts(w: &mut World) {
    let (c, ..) = watched(w);
    w.crash(c.m);
    w.lapse(ms(500));
    w.start(c.m);
    w.expect_recovery();
}

pub(super) fn an_edge_drains(w: &mut World) {
    let (c, ..) = watched(w);
    w.drain(c.e1);
    w.lapse(ms(35_000));
}

pub(super) fn a_publisher_goes_silent_for_good(w: &mut World) {
    let (_, p, _) = watched(w);
    w.lapse(ms(500));
    w.cut(p.into());
    w.lapse(ms(45_000));
}

/// Two encoders of one name connect again and again and send nothing.
pub(super) fn two_silent_encoders(w: &mut World) {
    let c = cluster(w, |c| (c.limits.stream_silent_ms, c.limits.takeover_ms) = (1_000, 10_000));
    for at in [c.o1, c.o2] {
        let p = w.publish_with(at, ONE, retrying());
        w.with_publisher(p, |p, _| p.keep_silent(true));
    }
    w.lapse(ms(20_000));
}

/// Publishers by RTMP and WebRTC that never give up, viewers of both kinds, and whatever can happen to nodes and links;
/// then all is well again, and then everyone leaves.
pub(super) fn anything_happens(w: &mut World) {
    let c = cluster(w, |_| {});
    let nodes = [c.m, c.o1, c.o2, c.e1, c.e2];
    let publishers = [w.publish_with(c.o1, ONE, retrying()), w.publish_with(c.o2, ONE, retrying())];
    let whip = WhipConfig { again: Some(ms(500)), ..WhipConfig::default() };
    let by_whip = w.publish_webrtc(c.o2, TWO, whip);
    w.lapse(ms(1_500));
    for at in [c.o1, c.e1, c.e2] {
        w.play(at, ONE);
        w.play_webrtc(at, TWO, WhepConfig { again: Some(ms(500)), ..WhepConfig::default() });
    }
    for step in 0..12 {
        let which = nodes[w.pick("node", step, 5) as usize];
        let other = nodes[w.pick("other", step, 5) as usize];
        match w.pick("what", step, 10) {
            0 if w.node_of(which).is_some() => w.crash(which),
            0 | 1 if w.node_of(which).is_none() => w.start(which),
            2 => w.cut(which.into()),
            3 => w.heal_all(),
            4 => w.cut([publishers[0], publishers[1], by_whip][w.pick("publisher", step, 3) as usize].into()),
            5 => w.part_one_way(which, other),
            6 => w.part(which.into(), other.into()),
            7 => w.pause(which),
            8 => w.resume(which),
            _ => {
                w.play(
                    [c.o1, c.o2, c.e1, c.e2][w.pick("at", step, 4) as usize],
                    [ONE, TWO][step as usize % 2],
                );
            }
        }
        w.lapse(ms(50 + w.pick("time", step, 4_000)));
        if w.violation().is_some() {
            return;
        }
    }
    w.heal_all();
    for node in nodes {
        if w.node_of(node).is_none() {
            w.start(node);
        }
    }
    w.expect_recovery();
    w.expect_drained();
}

/// Sends STUN requests for users that do not exist.
struct Prober {
    to: SocketAddr,
    sent: u64,
    next: Time,
    out: Vec<Out>,
    notes: Notes,
}

impl Prober {
    /// A Binding request (RFC 8489, section 5) with a USERNAME.
    fn request(&self) -> Bytes {
        let name = format!("00nobody{:06}:me", self.sent % 1_000_000);
        let mut bytes = vec![0x00, 0x01, 0x00, 4 + name.len() as u8, 0x21, 0x12, 0xa4, 0x42];
        bytes.extend([7; 12]);
        bytes.extend([0x00, 0x06, 0x00, name.len() as u8]);
        bytes.extend(name.as_bytes());
        while bytes.len() % 4 != 0 {
            bytes.push(0);
        }
        // MESSAGE-INTEGRITY of nobody's password.
        bytes.extend([0x00, 0x08, 0x00, 20]);
        bytes.extend([9; 20]);
        let body = (bytes.len() - 20) as u8;
        bytes[3] = body;
        bytes.into()
    }
}

impl Client for Prober {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Tick if now >= self.next => {
                self.sent += 1;
                self.next = now + ms(50);
                self.out.push(Out::Datagram { port: 9_000, to: self.to, bytes: self.request() });
            }
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop()
    }

    fn wake(&self) -> Option<Time> {
        Some(self.next)
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }
}

/// A publisher and a viewer by WebRTC; then the viewer's host is gone.
pub(super) fn a_whep_viewer_vanishes(w: &mut World) {
    let c = cluster(w, |_| {});
    let p = w.publish_webrtc(c.o1, ONE, WhipConfig::default());
    need(w, "the publisher is connected", 5_000, |w| w.whip(p).is_ready());
    let v = w.play_webrtc(c.o1, ONE, WhepConfig::default());
    need(w, "the viewer sees pictures", 5_000, |w| w.whep(v).last_picture().is_some());
    w.cut(v.into());
    w.lapse(ms(40_000));
    w.remove(v);
    w.heal(v.into());
    w.expect_drained();
}

pub(super) fn a_stranger_probes(w: &mut World) {
    let c = cluster(w, |_| {});
    let to = SocketAddr::new(w.http_addr(c.e1).ip(), Config::default().webrtc.port);
    let (next, notes) = (w.now(), Notes::default());
    w.add(Box::new(Prober { to, sent: 0, next, out: Vec::new(), notes }));
    w.lapse(ms(2_000));
}
