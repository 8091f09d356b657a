//! The table of abuses (A1 to A33) in virtual time: who mounts each, what the node counts and says of it, and the
//! innocents beside it, a publisher and ten viewers by three protocols, who lose no frame.
//!
//! [`super::interference`] asks whether innocents notice anything at all of a kind of evil; this asks of each row of
//! the table whether it is held, and whether an operator can see that it was tried.

use super::actors::evil::Evil;
use super::actors::player::{PlayerConfig, Seen};
use super::actors::publisher::PublisherConfig;
use super::actors::webrtc::WhepConfig;
use super::scenario::{STREAM, ms, ready, session};
use super::{ClientId, HostId, World};
use proto_core::auth::Action;
use proto_core::auth::config::RuleConfig;
use proto_core::auth::secret::Secret;
use proto_core::node::config::{Config, Role};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an abuse goes on.
const ABUSE: Duration = Duration::from_secs(6);

/// Which node an abuse goes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The manager.
    Manager,
    /// The origin, where the innocent publisher is.
    Origin,
    /// The edge.
    Edge,
}

/// Who mounts an abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A misbehaving client.
    Evil(Evil),
    /// The walls' clocks of all hosts, which jump a day forth and two back.
    Clocks,
    /// An operator who ends a second edge, while its viewers stay.
    Drain,
    /// More connections than a node has descriptors.
    Descriptors,
}

/// What is seen of an abuse at the node that it goes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// A counter that rises, `what/reason` of `headwater_ended_total` or `headwater_dropped_total`. Empty: nothing is refused.
    pub counter: &'static str,
    /// Words that the log has. Empty: as the counter says.
    pub said: &'static str,
}

impl Sign {
    /// The words that the log has.
    pub fn words(&self) -> &'static str {
        let reason = self.counter.split('/').next_back().unwrap_or_default();
        if self.said.is_empty() { reason } else { self.said }
    }
}

/// One abuse of a row.
#[derive(Clone, Copy, Debug)]
pub struct Abuse {
    /// The row of the table, such as `A1`.
    pub row: &'static str,
    /// Who mounts it.
    pub by: By,
    /// At which node.
    pub at: At,
    /// What must be seen.
    pub signs: &'static [Sign],
    /// What the nodes are configured with for it, beside [`quick`].
    pub with: fn(&mut Config),
}

/// The deadlines of all of these runs, so that they need not wait for long ones.
pub fn quick(c: &mut Config) {
    let l = &mut c.limits;
    (l.rtmp_handshake_ms, l.http_head_ms, l.rtsp_head_ms) = (3_000, 3_000, 3_000);
    (l.tls_handshake_ms, l.rtc_handshake_ms, l.link_handshake_ms) = (3_000, 3_000, 3_000);
    (l.viewer_stuck_ms, l.rtsp_idle_ms) = (2_000, 4_000);
}

fn nothing(_: &mut Config) {}

/// A viewer that does not read is behind at once.
fn small_buffers(c: &mut Config) {
    c.limits.viewer_queue_bytes = 32 << 10;
    c.limits.viewer_queue_ms = 500;
}

fn origins(c: &mut Config) {
    c.http.origins = vec!["https://ours.example".to_owned()];
}

/// Nobody may do anything without a token but the innocents.
fn rules(c: &mut Config) {
    let rule = |action, streams: &[&str], who: &str| RuleConfig {
        action,
        streams: streams.iter().map(|s| (*s).to_owned()).collect(),
        who: vec![who.to_owned()],
    };
    c.auth.secret = Secret::new("a secret of thirty-two characters");
    c.auth.rules = vec![
        rule(Action::Publish, &[STREAM], "anyone"),
        rule(Action::Publish, &[], "tokens"),
        rule(Action::Play, &[], "anyone"),
        rule(Action::Api, &[], "anyone"),
    ];
}

fn small_pictures(c: &mut Config) {
    c.limits.frame_bytes = 200 << 10;
    c.limits.frame_packets = 200;
}

fn few_streams(c: &mut Config) {
    c.limits.cluster_streams = 100;
}

macro_rules! abuses {
    ($($row:literal $by:expr, $at:ident, [$($counter:literal $($said:literal)?),*] $(with $with:ident)?;)+) => {
        /// The table: every row of the limits, A1 to A33.
        pub const ABUSES: &[Abuse] = &[$(Abuse {
            row: $row,
            by: $by,
            at: At::$at,
            signs: &[$(Sign { counter: $counter, said: abuses!(@ $($said)?) }),*],
            with: abuses!(@with $($with)?),
        }),+];
    };
    (@ $said:literal) => { $said };
    (@) => { "" };
    (@with $with:ident) => { $with };
    (@with) => { nothing };
}

use By::{Clocks, Descriptors, Drain};
use Evil as E;

const fn by(kind: Evil) -> By {
    By::Evil(kind)
}

abuses! {
    "A1" by(E::HandshakeTrickle), Origin, ["rtmp/handshake_timeout"];
    "A2" by(E::ChunkStreams), Origin,
        ["rtmp/rtmp_message_size", "rtmp/rtmp_partial_messages", "rtmp/rtmp_chunk_streams"];
    "A2" by(E::ChunkGarbage), Origin, ["rtmp/rtmp_chunk", "rtmp/rtmp_message_size"];
    "A3" by(E::ChunkSizeZero), Origin, ["rtmp/rtmp_chunk_size"];
    "A3" by(E::ChunkSizeHuge), Origin, ["rtmp/rtmp_chunk_size", "rtmp/rtmp_message_size"];
    "A4" by(E::LengthChange), Origin, ["rtmp/rtmp_chunk"];
    "A5" by(E::DeepAmf), Origin, ["rtmp/amf_size"];
    "A5" by(E::WideAmf), Origin, ["rtmp/amf_size", "rtmp/rtmp_message_size"];
    "A6" by(E::NeverReads), Origin, ["rtmp/viewer_stuck"] with small_buffers;
    "A6" by(E::RtspNeverReads), Origin, ["rtsp/viewer_stuck"] with small_buffers;
    "A6" by(E::NeverAcks), Origin, [];
    "A7" by(E::CommandFlood), Origin, ["rtmp/rtmp_commands"];
    "A8" by(E::SlowHead), Origin, ["http/http_head_timeout"];
    "A8" by(E::WickedHeads), Origin,
        ["http/http_bad_head", "http/http_bad_header", "http/http_line_too_long", "http/http_too_many_headers"];
    "A8" by(E::RtspSlowHead), Origin, ["rtsp/rtsp_head_timeout"];
    "A8" by(E::RtspWickedHeads), Origin,
        ["rtsp/rtsp_bad_head", "rtsp/rtsp_line_too_long", "rtsp/rtsp_too_many_headers"];
    "A9" by(E::HugeBodies), Origin, ["http/http_body_too_large", "http/http_body_timeout"];
    "A9" by(E::RtspHugeBodies), Origin, ["rtsp/rtsp_body_too_large", "rtsp/rtsp_bad_length"];
    "A10" by(E::InterleavedFlood), Origin, ["rtsp/rtsp_stray_packets"];
    "A11" by(E::RtspReflection), Origin, ["rtsp/refused_transport"];
    "A11" by(E::RtspHalfOpen), Origin, ["rtsp/rtsp_idle"];
    "A12" by(E::SessionGuesser), Origin, ["rtsp/refused_session", "rtsp/refused_order"];
    "A13" by(E::StunAnonymous), Origin, ["datagram/not_a_check", "datagram/stun_limit"];
    "A13" by(E::StunForged), Origin, ["datagram/stun_limit"];
    "A13" by(E::UdpGarbage), Origin, ["datagram/unknown_protocol"];
    "A14" by(E::StunWrong), Origin, ["datagram/unknown_user", "datagram/unauthentic"];
    "A15" by(E::DtlsGarbage), Origin, ["datagram/unknown_path"];
    "A15" by(E::DtlsForged), Origin, ["datagram/unauthentic_media"];
    "A15" by(E::ReplayElsewhere), Origin, ["datagram/unknown_path"];
    "A15" by(E::UnconnectedWhep), Origin, ["whep/too_many_sessions", "whep/handshake_timeout"];
    "A15" by(E::UnconnectedWhip), Origin, ["whip/too_many_sessions", "whip/handshake_timeout"];
    "A16" by(E::SdpBombs), Origin,
        ["whep/sdp_too_large", "whip/sdp_too_large", "http/http_body_too_large"];
    "A17" by(E::SdpBombs), Origin, ["whep/sdp_too_large" "candidates"];
    "A18" by(E::ProxyAbuse), Manager, ["request/forbidden" "answered 403"];
    "A18" by(E::WickedSockets), Origin,
        ["http/ws_bad_frame", "http/ws_mask", "http/ws_binary", "http/ws_close_code"];
    "A18" by(E::SignalFlood), Origin, ["http/ws_message_flood"];
    "A19" by(E::ForeignPages), Origin, ["request/forbidden" "answered 403"] with origins;
    "A20" by(E::TokenGuesser), Origin, ["auth/unauthorized" "answered 401", "request/unauthorized" "answered 401"] with rules;
    "A21" by(E::ConnectionFlood), Origin, ["conn/conns_per_ip"];
    "A21" by(E::TlsStall), Origin, ["https/tls_timeout"];
    "A21" Descriptors, Origin, [];
    "A22" by(E::SmugglingHeads), Origin,
        ["http/http_ambiguous_length", "http/http_bad_length", "http/http_chunked", "http/http_host"];
    "A22" by(E::PipelinedFlood), Origin, ["http/http_slow_reader"];
    "A23" by(E::WickedNames), Origin, ["rtmp/stream_name"];
    "A24" by(E::NameThief), Origin, ["rtmp/name_busy"];
    "A24" by(E::WhipThief), Origin, ["whip/name_busy"];
    "A24" by(E::RtspThief), Origin, ["rtsp/name_busy"];
    "A25" by(E::WickedNames), Origin, ["log/stream_name" "more lines like this were left out"];
    "A26" by(E::Compressed), Origin, ["http/http_content_encoding", "http/ws_bad_frame"];
    "A27" by(E::RtpForged), Origin, ["datagram/unauthentic_media"];
    "A27" by(E::Replay), Origin, ["datagram/unauthentic_media"];
    "A27" by(E::RtpFlood), Origin, ["datagram/unknown_path"];
    "A27" by(E::RtspPortFlood), Origin, ["datagram/rtsp_unknown_source"];
    "A28" by(E::FrameBombs), Origin, ["rtsp/damaged"] with small_pictures;
    "A28" by(E::RtspGarbageMedia), Origin, ["rtsp/damaged", "rtsp/strange"];
    "A29" by(E::AbsentNames), Edge, ["rtmp/not_found"];
    "A29" by(E::GreedyPuller), Origin, [];
    "A30" by(E::LinkWrongKey), Manager, ["link/link_key"];
    "A30" by(E::QuicGarbage), Origin, ["datagram/quic_unknown"];
    "A30" by(E::QuicForged), Manager, ["datagram/quic_unproven"];
    "A30" by(E::QuicHalfway), Manager, ["datagram/quic_no_room", "link/quic_handshake_timeout"];
    "A30" by(E::QuicWrongAlpn), Origin, ["link/quic_handshake"];
    "A30" by(E::QuicWrongKey), Manager, ["link/link_key"];
    "A30" by(E::QuicBeyond), Origin, ["link/quic_limits"];
    "A30" by(E::QuicGiant), Manager, ["link/link_malformed"];
    "A30" by(E::FakeNode), Manager, ["cluster/too_many_reports"];
    "A30" by(E::Impostor), Manager, ["cluster/node_name_taken" "another node called"];
    "A30" by(E::AnnounceFlood), Manager, ["cluster/cluster_streams" "limits.cluster_streams"] with few_streams;
    "A31" by(E::NeverReads), Edge, ["rtmp/viewer_stuck"] with small_buffers;
    "A32" Clocks, Origin, [];
    "A33" Drain, Edge, [];
}

/// The innocents: a publisher at the origin, viewers at the origin and at an edge.
pub struct Innocents {
    publisher: ClientId,
    rtmp: Vec<ClientId>,
    rtsp: Vec<ClientId>,
    whep: Vec<ClientId>,
}

/// A small cluster with its innocents.
pub struct Stage {
    /// The manager.
    pub manager: HostId,
    /// The origin.
    pub origin: HostId,
    /// The edge.
    pub edge: HostId,
    /// Who must not suffer.
    pub innocents: Innocents,
}

impl Stage {
    /// One that stands, its ten viewers watching. `change`: of the configuration of all nodes.
    pub fn new(w: &mut World, change: fn(&mut Config)) -> Stage {
        let change = |c: &mut Config| {
            quick(c);
            change(c);
        };
        let manager = w.host_with("m1", &[Role::Manager], None, change);
        let origin = w.host_with("o1", &[Role::Origin], Some(manager), change);
        let edge = w.host_with("e1", &[Role::Edge], Some(manager), change);
        w.run(ms(2_500));
        // Enough that a viewer who does not read has more waiting than anybody holds for it.
        let config = PublisherConfig { key_bytes: 40_000, delta_bytes: 8_000, ..PublisherConfig::default() };
        let publisher = w.publish_with(origin, STREAM, config);
        ready(w, publisher, 5_000);
        w.run(ms(1_000));
        let tcp = PlayerConfig::default;
        let udp = || PlayerConfig { udp: true, ..PlayerConfig::default() };
        let rtmp = [origin, origin, edge, edge].map(|at| w.play(at, STREAM)).to_vec();
        let rtsp = [(origin, udp()), (origin, tcp()), (edge, udp())]
            .map(|(at, how)| w.play_rtsp(at, STREAM, how))
            .to_vec();
        let strict = || WhepConfig { strict: true, ..WhepConfig::default() };
        let whep = [origin, origin, edge].map(|at| w.play_webrtc(at, STREAM, strict())).to_vec();
        let innocents = Innocents { publisher, rtmp, rtsp, whep };
        let all = innocents.viewers();
        w.until("all ten viewers see pictures", ms(5_000), |w| {
            all.iter().all(|v| w.standing(*v).session.is_some())
        });
        w.run(ms(1_500));
        Stage { manager, origin, edge, innocents }
    }

    fn host(&self, at: At) -> HostId {
        match at {
            At::Manager => self.manager,
            At::Origin => self.origin,
            At::Edge => self.edge,
        }
    }
}

impl Innocents {
    fn viewers(&self) -> Vec<ClientId> {
        [&self.rtmp[..], &self.rtsp, &self.whep].concat()
    }

    /// What they lost: nothing, if all is well. Every viewer has every picture (and, where it gets the publisher's own
    /// sound, every frame of sound) from its first on, on one connection, and the newest are recent.
    pub fn lost(&self, w: &World) -> Vec<String> {
        let p = w.publisher(self.publisher);
        let mut wrong = Vec::new();
        let [sent] = &p.sent[..] else {
            return vec![format!("the publisher needed {} connections: {:?}", p.sent.len(), p.sent)];
        };
        wrong.extend(sent.ended.iter().map(|why| format!("the publisher was ended: {why}")));
        let of = session(w, self.publisher);
        let tracks = [('v', sent.pictures), ('a', sent.sounds)];
        let mut check = |who: ClientId, track: char, seen: Vec<u64>, count: u64| {
            let whole = seen.windows(2).all(|w| w[1] == w[0] + 1);
            let recent = seen.last().is_some_and(|last| last + 25 >= count);
            if !whole || !recent {
                let gaps: Vec<_> = seen.windows(2).filter(|w| w[1] != w[0] + 1).collect();
                wrong.push(format!("{who:?}, track {track}: {:?} of {count}, gaps {gaps:?}", seen.last()));
            }
        };
        let numbers = |seen: &mut dyn Iterator<Item = &Seen>| seen.map(|s| s.label.seq).collect();
        for (track, count) in tracks {
            for id in &self.rtmp {
                check(*id, track, numbers(&mut w.player(*id).frames(track, of)), count);
            }
            for id in &self.rtsp {
                check(*id, track, numbers(&mut w.rtsp_player(*id).frames(track, of)), count);
            }
        }
        // Their sound is made by a bridge, and has no numbers.
        for id in &self.whep {
            check(*id, 'v', w.whep(*id).frames(of, true), sent.pictures);
        }
        for id in self.rtmp.iter().filter(|id| w.player(**id).connections != 1) {
            wrong.push(format!("{id:?} needed more than one connection: {:?}", w.player(*id).ended));
        }
        for id in self.rtsp.iter().filter(|id| w.rtsp_player(**id).connections != 1) {
            wrong.push(format!("{id:?} needed more than one connection: {:?}", w.rtsp_player(*id).ended));
        }
        for id in self.whep.iter().filter(|id| w.whep(**id).calls().len() != 1) {
            wrong.push(format!("{id:?} needed more than one call: {:?}", w.whep(*id).calls()));
        }
        wrong
    }
}

/// What a node has counted of ends, refusals and drops: `what/reason`.
fn counts(w: &mut World, at: HostId) -> BTreeMap<String, u64> {
    counts_in(&w.get(at, "/metrics").expect("a node says what it counts").1)
}

/// The same in the text of its metrics.
pub fn counts_in(metrics: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in metrics.lines() {
        let (name, rest) = line.split_once('{').unwrap_or_default();
        if !["headwater_ended_total", "headwater_dropped_total"].contains(&name) {
            continue;
        }
        let label = |key: &str| {
            let at = rest.find(&format!("{key}=\""))? + key.len() + 2;
            rest[at..].split('"').next()
        };
        let (Some(what), Some(reason)) = (label("what"), label("reason")) else { continue };
        let n = line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        *found.entry(format!("{what}/{reason}")).or_default() += n as u64;
    }
    found
}

/// What came of an abuse beside the innocents.
#[derive(Debug)]
pub struct Outcome {
    /// What the node counted more than before: `what/reason`.
    pub counted: BTreeMap<String, u64>,
    /// What the node said meanwhile.
    pub said: Vec<String>,
    /// What the innocents lost.
    pub lost: Vec<String>,
}

/// Mounts an abuse in an empty world.
pub fn mount(w: &mut World, abuse: &Abuse) -> Outcome {
    // Of both ways between nodes this has more that strangers can touch.
    w.quic(true);
    let stage = Stage::new(w, abuse.with);
    let victim = stage.host(abuse.at);
    let before = counts(w, victim);
    let from = w.log().len();
    let mut lost = Vec::new();
    match abuse.by {
        By::Evil(kind) => {
            let guest = w.evil(kind, victim, 0);
            w.run(ABUSE);
            w.relent(guest);
        }
        By::Clocks => {
            // Nodes look at the clock once a minute.
            for days in [1, -2] {
                for host in [stage.manager, stage.origin, stage.edge] {
                    w.jump_wall(host, days * 86_400_000);
                }
                w.run(Duration::from_secs(61));
            }
        }
        By::Drain => lost.extend(drain(w, &stage)),
        By::Descriptors => {
            w.descriptors(victim, Some(w.open_descriptors(victim) + 20));
            let guest = w.evil(Evil::ConnectionFlood, victim, 0);
            w.run(ABUSE);
            w.relent(guest);
            w.descriptors(victim, None);
            if w.turned_away(victim) == 0 {
                lost.push("the node never ran out of descriptors".to_owned());
            }
        }
    }
    // Dropped datagrams are told every five seconds.
    w.run(ms(5_500));
    lost.extend(stage.innocents.lost(w));
    let name = ["m1 ", "o1 ", "e1 "][abuse.at as usize];
    let said = w.log()[from..].iter().filter_map(|l| l.split_once(' ')).filter(|(_, l)| l.starts_with(name));
    let said = said.map(|(_, l)| l.to_owned()).collect();
    let mut counted = counts(w, victim);
    counted.retain(|what, n| {
        *n -= before.get(what).copied().unwrap_or(0);
        *n > 0
    });
    Outcome { counted, said, lost }
}

/// A second edge is told to end, with viewers on it that do not go: it is empty within its time.
fn drain(w: &mut World, stage: &Stage) -> Option<String> {
    let other = w.host_with("e2", &[Role::Edge], Some(stage.manager), |c| c.limits.drain_ms = 4_000);
    w.run(ms(2_500));
    let stays = w.play(other, STREAM);
    w.until("somebody watches there", ms(4_000), |w| w.standing(stays).session.is_some());
    w.drain(other);
    w.run(ms(4_500));
    let gone = w.player(stays).ended.is_some() && w.is_drained(other);
    (!gone).then(|| format!("the drain did not end: {:?}", w.player(stays).ended))
}

impl Outcome {
    /// What is not as it should be: frames that innocents lost, and signs that are missing.
    pub fn wrong(&self, abuse: &Abuse) -> Vec<String> {
        let mut wrong = self.lost.clone();
        for sign in abuse.signs {
            if !self.counted.contains_key(sign.counter) {
                wrong.push(format!("{} was not counted, only {:?}", sign.counter, self.counted));
            }
            let words = sign.words();
            // What only comes every few seconds is told at level Info; Debug is not what an operator sees.
            if !self.said.iter().any(|l| l.contains(words) && !l.contains(" Debug ")) {
                wrong.push(format!("the log says nothing of {words:?}"));
            }
        }
        wrong
    }
}
