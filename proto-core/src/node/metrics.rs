//! What `/metrics` says. Names and labels are fixed; the only label that a client chooses is the stream's name, which
//! is capped and only counted for streams that were accepted.

use super::Node;
use super::exposition::Exposition;
use super::session::{Part, Protocol};
use std::collections::BTreeMap;

impl Node {
    pub(super) fn metrics(&self) -> String {
        let mut e = Exposition::new(self.limits.metric_labels);
        self.node_metrics(&mut e);
        self.session_metrics(&mut e);
        self.stream_metrics(&mut e);
        e.text()
    }

    fn node_metrics(&self, e: &mut Exposition) {
        let c = &self.counters;
        e.gauge(
            "uptime_seconds",
            "Seconds since the node started",
            vec![],
            self.now.as_millis() as f64 / 1e3,
        );
        e.gauge("connections", "TCP connections open now", vec![], self.conns.len() as f64);
        e.gauge(
            "draining",
            "1 while the node finishes what runs",
            vec![],
            f64::from(u8::from(self.draining)),
        );
        let registered = f64::from(u8::from(self.member.is_registered()));
        e.gauge("registered", "1 while the manager has this node in its books", vec![], registered);
        e.gauge(
            "egress_bits_per_second",
            "Sent over the last report interval",
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
                e.counter("tcp_bytes", "Bytes over TCP", labels, *n);
            }
        }
        for (direction, n, bytes) in
            [("in", c.datagrams_in, c.datagram_bytes_in), ("out", c.datagrams_out, c.datagram_bytes_out)]
        {
            let labels = vec![("direction", direction.to_owned())];
            e.counter("datagrams", "UDP datagrams", labels.clone(), n);
            e.counter("datagram_bytes", "Bytes in UDP datagrams", labels, bytes);
        }
        e.counter("udp_messages", "Messages to the kernel that carried datagrams", vec![], c.messages_out);
        e.counter("udp_messages_refused", "Messages that the kernel refused", vec![], c.messages_refused);
        for ((what, fault, code), n) in &c.ended {
            let labels = vec![
                ("what", (*what).to_owned()),
                ("fault", (*fault).to_owned()),
                ("reason", (*code).to_owned()),
            ];
            e.counter("ended", "Connections and sessions ended or refused", labels, *n);
        }
        for ((what, reason), n) in &c.dropped {
            let labels = vec![("what", (*what).to_owned()), ("reason", (*reason).to_owned())];
            e.counter("dropped", "Things dropped", labels, *n);
        }
        for (reason, n) in self.rtc.drops().by_reason() {
            let labels = vec![("what", "datagram".to_owned()), ("reason", reason.to_owned())];
            e.counter("dropped", "Things dropped", labels, n);
        }
    }

    fn session_metrics(&self, e: &mut Exposition) {
        let mut sessions: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for protocol in [Protocol::Rtmp, Protocol::Whip, Protocol::Whep, Protocol::Relay] {
            sessions.insert((protocol.name(), "publish"), 0);
            sessions.insert((protocol.name(), "play"), 0);
        }
        let (mut rtt, mut rtts, mut loss, mut losses) = (0.0, 0u32, 0.0, 0u32);
        for s in self.sessions.iter() {
            let role = if s.is_publisher() { "publish" } else { "play" };
            *sessions.entry((s.protocol.name(), role)).or_default() += 1;
            if let Some(ms) = s.rtt_ms {
                rtt += ms / 1e3;
                rtts += 1;
            }
            if let Some(l) = s.loss {
                loss += l;
                losses += 1;
            }
        }
        for ((protocol, role), n) in sessions {
            let labels = vec![("protocol", protocol.to_owned()), ("role", role.to_owned())];
            e.gauge("sessions", "Sessions now", labels, n as f64);
        }
        e.gauge(
            "rtt_seconds_mean",
            "Mean round trip of the sessions that measure it",
            vec![],
            rtt / f64::from(rtts.max(1)),
        );
        e.gauge(
            "loss_ratio_mean",
            "Mean packet loss of the sessions that measure it",
            vec![],
            loss / f64::from(losses.max(1)),
        );
        e.counter("joins", "Viewers that got a first picture or sound", vec![], self.counters.joins);
        let help = "Milliseconds from a viewer's request to its first picture or sound, all joins added up";
        e.counter("join_milliseconds", help, vec![], self.counters.join_ms);
    }

    fn stream_metrics(&self, e: &mut Exposition) {
        let mut viewers: BTreeMap<_, u64> = BTreeMap::new();
        for s in self.sessions.iter() {
            if let Part::Plays { stream, .. } = s.part {
                *viewers.entry(stream).or_default() += 1;
            }
        }
        for (id, key) in self.hub.streams().take(self.limits.metric_labels) {
            let Some(stats) = self.hub.stats(id, self.now) else { continue };
            let stream = || vec![("stream", key.to_string())];
            let n = viewers.get(&id).copied().unwrap_or(0);
            e.gauge("stream_viewers", "Viewers and pulls of a stream on this node", stream(), n as f64);
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
