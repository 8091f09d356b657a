//! What `/metrics` says. Names and labels are fixed; the only label that a client chooses is the stream's name, which
//! is capped and only counted for streams that were accepted.

use super::Node;
use super::exposition::Exposition;
use super::session::{Part, Protocol, Session};
use crate::cluster::registry::StreamState;
use crate::hub::StreamId;
use std::collections::BTreeMap;

impl Node {
    pub(super) fn metrics(&self) -> String {
        let mut e = Exposition::new(self.limits.metric_labels);
        self.node_metrics(&mut e);
        self.cluster_metrics(&mut e);
        self.session_metrics(&mut e);
        self.stream_metrics(&mut e);
        e.text(self.config.loops.as_ref().map(|l| l.index))
    }

    fn node_metrics(&self, e: &mut Exposition) {
        let c = &self.counters;
        let info = vec![
            ("node", self.id.0.clone()),
            ("region", self.config.node.region.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        e.gauge("node_info", "Always 1; the labels say who this is", info, 1.0);
        e.gauge(
            "uptime_seconds",
            "Seconds since the node started",
            vec![],
            self.now.as_millis() as f64 / 1e3,
        );
        e.gauge(
            "proxied_websockets",
            "Websockets proxied to other nodes now",
            vec![],
            self.proxy.len() as f64,
        );
        e.gauge("connections", "TCP connections open now", vec![], self.conns.len() as f64);
        let help = "Timers of connections, sessions and streams that are set now";
        e.gauge("timers", help, vec![], self.timers.len() as f64);
        let help = "Bytes that sessions and rings count for against limits.memory_bytes";
        e.gauge("memory_counted_bytes", help, vec![], self.memory() as f64);
        e.gauge(
            "draining",
            "1 while the node finishes what runs",
            vec![],
            f64::from(u8::from(self.draining)),
        );
        let registered = f64::from(u8::from(self.member.is_registered()));
        e.gauge("registered", "1 while the manager has this node in its books", vec![], registered);
        let busy = f64::from(self.load.busy_permille) / 1e3;
        e.gauge("loop_busy_ratio", "Share of the last second or so in which the loop was busy", vec![], busy);
        e.gauge(
            "egress_bits_per_second",
            "Sent to clients and other nodes over the last second or so",
            vec![],
            self.load.egress_bps as f64,
        );
        for (service, n) in &c.accepted {
            let labels = vec![("service", (*service).to_owned())];
            e.counter("connections_accepted", "TCP connections taken", labels, *n);
        }
        for (direction, map) in [("in", &c.bytes_in), ("out", &c.bytes_out)] {
            for (service, n) in map {
                let labels = vec![("service", (*service).to_owned()), ("direction", direction.to_owned())];
                e.counter("tcp_bytes", "Bytes over TCP, as payload of connections", labels, *n);
            }
        }
        for (direction, n, bytes) in
            [("in", c.datagrams_in, c.datagram_bytes_in), ("out", c.datagrams_out, c.datagram_bytes_out)]
        {
            let labels = vec![("direction", direction.to_owned())];
            e.counter("datagrams", "UDP datagrams", labels.clone(), n);
            e.counter("datagram_bytes", "Bytes in UDP datagrams", labels, bytes);
        }
        e.counter(
            "udp_messages",
            "Messages to the kernel that carried datagrams, one or several each",
            vec![],
            c.messages_out,
        );
        let most = self.rtc.most_segments() as f64;
        let help = "Datagrams that one message to the kernel may hold for WebRTC; 1: this host lacks GSO, and each costs more";
        e.gauge("udp_segments_most", help, vec![], most);
        let help = "Datagrams in a message to the kernel over the last second or so";
        e.gauge("udp_segments_per_message", help, vec![], self.load.segments_per_message);
        let help = "Time that the loop was busy for each datagram that left over the last second or so";
        e.gauge("loop_seconds_per_datagram", help, vec![], self.load.nanos_per_datagram / 1e9);
        e.counter("udp_messages_refused", "Messages that the kernel refused", vec![], c.messages_refused);
        for ((what, fault, code), n) in &c.ended {
            let labels = vec![
                ("what", (*what).to_owned()),
                ("fault", (*fault).to_owned()),
                ("reason", (*code).to_owned()),
            ];
            e.counter(
                "ended",
                "Connections and sessions that ended or were refused, by whose fault and why",
                labels,
                *n,
            );
        }
        for ((what, step), n) in &c.remotes {
            let labels = vec![("what", (*what).to_owned()), ("step", (*step).to_owned())];
            e.counter(
                "remote_steps",
                "Sources and destinations: tries, and how many of them worked",
                labels,
                *n,
            );
        }
        for ((what, state), n) in self.remotes_by_state() {
            let labels = vec![("what", what.to_owned()), ("state", state.to_owned())];
            e.gauge("remotes", "Sources and destinations by state", labels, n as f64);
        }
        for ((what, reason), n) in &c.dropped {
            let labels = vec![("what", (*what).to_owned()), ("reason", (*reason).to_owned())];
            e.counter("dropped", "Things dropped, by what and why", labels, *n);
        }
        for (reason, n) in self.rtc.drops().by_reason() {
            let labels = vec![("what", "datagram".to_owned()), ("reason", reason.to_owned())];
            e.counter("dropped", "Things dropped, by what and why", labels, n);
        }
    }

    fn session_metrics(&self, e: &mut Exposition) {
        let mut sessions: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for protocol in [
            Protocol::Rtmp,
            Protocol::Rtsp,
            Protocol::Whip,
            Protocol::Whep,
            Protocol::Flv,
            Protocol::Ws,
            Protocol::Relay,
        ] {
            sessions.insert((protocol.name(), "publish"), 0);
            sessions.insert((protocol.name(), "play"), 0);
        }
        let mut quality = Quality::default();
        for s in self.sessions.iter() {
            *sessions.entry((s.protocol.name(), role(s))).or_default() += 1;
            quality.add(s);
        }
        for ((protocol, role), n) in sessions {
            let labels = vec![("protocol", protocol.to_owned()), ("role", role.to_owned())];
            let help = "Publishing and playing sessions open now; relay: pulls of other nodes";
            e.gauge("sessions", help, labels, n as f64);
        }
        let help = "RTMP players that are sent the very bytes that others are sent, chosen once for all";
        e.gauge("players_in_step", help, vec![], self.in_step.members() as f64);
        let help = "Mean round trip of the sessions that measure it (WebRTC); absent while none does";
        quality.rtt().into_iter().for_each(|v| e.gauge("rtt_seconds_mean", help, vec![], v));
        let help = "Mean share of packets lost lately, 0 to 1, over the sessions that measure it (WebRTC)";
        quality.loss().into_iter().for_each(|v| e.gauge("loss_ratio_mean", help, vec![], v));
        let help = "Seconds from a viewer's request to its first picture or sound";
        e.histogram("join_seconds", help, &self.counters.joins.0);
    }

    /// What the manager's books hold.
    fn cluster_metrics(&self, e: &mut Exposition) {
        let Some(manager) = &self.manager else { return };
        for (reason, n) in manager.refused() {
            let labels = vec![("what", "cluster".to_owned()), ("reason", (*reason).to_owned())];
            e.counter("dropped", "Things dropped, by what and why", labels, *n);
        }
        let registry = manager.registry();
        let mut nodes = BTreeMap::from([("draining", 0u32), ("in_service", 0), ("lost", 0)]);
        for node in registry.nodes().values() {
            let state = match (registry.alive(&node.info.id, self.now), node.draining()) {
                (false, _) => "lost",
                (true, true) => "draining",
                (true, false) => "in_service",
            };
            *nodes.entry(state).or_default() += 1;
        }
        for (state, n) in nodes {
            let help = "Nodes in the manager's books";
            e.gauge("cluster_nodes", help, vec![("state", state.to_owned())], f64::from(n));
        }
        let held = registry.streams().values().filter(|s| s.state == StreamState::Held).count();
        for (state, n) in [("held", held), ("live", registry.streams().len() - held)] {
            let help = "Streams in the manager's books; held: the publisher is away";
            e.gauge("cluster_streams", help, vec![("state", state.to_owned())], n as f64);
        }
    }

    fn stream_metrics(&self, e: &mut Exposition) {
        let viewers = self.viewers();
        let mut pulls: BTreeMap<StreamId, u32> = BTreeMap::new();
        let mut quality: BTreeMap<(StreamId, &str), Quality> = BTreeMap::new();
        for s in self.sessions.iter() {
            if let Part::Plays { stream, .. } | Part::Publishes { stream, .. } = s.part {
                quality.entry((stream, role(s))).or_default().add(s);
                *pulls.entry(stream).or_default() += u32::from(s.protocol == Protocol::Relay);
            }
        }
        for (id, key) in self.hub.streams().take(self.limits.metric_labels) {
            let Some(stats) = self.hub.stats(id, self.now) else { continue };
            let stream = || vec![("stream", key.to_string())];
            let count = |of: &BTreeMap<StreamId, u32>| f64::from(of.get(&id).copied().unwrap_or(0));
            e.gauge("stream_viewers", "Viewers of a stream on this node", stream(), count(&viewers));
            e.gauge("stream_pulls", "Other nodes that pull a stream from this node", stream(), count(&pulls));
            for role in ["play", "publish"] {
                let Some(quality) = quality.get(&(id, role)) else { continue };
                let labels = || [stream(), vec![("role", role.to_owned())]].concat();
                let help = "Mean round trip of a stream's sessions that measure it (WebRTC)";
                quality.rtt().into_iter().for_each(|v| e.gauge("stream_rtt_seconds_mean", help, labels(), v));
                let help =
                    "Mean share of packets lost lately, 0 to 1, of a stream's sessions that measure it";
                quality.loss().into_iter().for_each(|v| e.gauge("stream_loss_ratio_mean", help, labels(), v));
            }
            let help = "What a stream's source sends, bits a second";
            e.gauge("stream_bits_per_second", help, stream(), stats.bits_per_s as f64);
            e.gauge(
                "stream_live",
                "1 while the stream has a source",
                stream(),
                f64::from(u8::from(self.is_live(id))),
            );
            e.counter(
                "stream_frames_offered",
                "Frames that a stream's sources handed in",
                stream(),
                stats.offered,
            );
            for track in &stats.tracks {
                let what = track.codec.map_or("data", |c| c.name());
                let labels = |direction: &str| {
                    let mut l = stream();
                    l.push(("codec", what.to_owned()));
                    l.push(("direction", direction.to_owned()));
                    l
                };
                e.counter("stream_frames", "Frames of a stream", labels("in"), track.input.frames);
                e.counter("stream_frames", "Frames of a stream", labels("out"), track.output.frames);
                e.counter("stream_bytes", "Media bytes of a stream", labels("in"), track.input.bytes);
                e.counter("stream_bytes", "Media bytes of a stream", labels("out"), track.output.bytes);
            }
            for (side, drops) in [("in", &stats.dropped), ("out", &stats.not_delivered)] {
                for (reason, n) in drops {
                    let mut l = stream();
                    l.push(("direction", side.to_owned()));
                    l.push(("reason", (*reason).to_owned()));
                    e.counter("stream_frames_dropped", "Frames of a stream that were dropped", l, *n);
                }
            }
        }
    }
}

fn role(s: &Session) -> &'static str {
    if s.is_publisher() { "publish" } else { "play" }
}

/// Means over sessions.
#[derive(Default)]
struct Quality {
    rtt: (f64, u32),
    loss: (f64, u32),
}

impl Quality {
    fn add(&mut self, s: &Session) {
        for (sum, value) in [(&mut self.rtt, s.rtt_ms.map(|ms| ms / 1e3)), (&mut self.loss, s.loss)] {
            if let Some(value) = value {
                sum.0 += value;
                sum.1 += 1;
            }
        }
    }

    fn rtt(&self) -> Option<f64> {
        mean(self.rtt)
    }

    fn loss(&self) -> Option<f64> {
        mean(self.loss)
    }
}

fn mean((sum, n): (f64, u32)) -> Option<f64> {
    (n > 0).then(|| sum / f64::from(n))
}
