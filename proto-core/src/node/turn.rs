//! One turn of the node: an input goes to the machine that it is for, then everything that the machines say to each
//! other is carried until nothing is left to say.

use super::conns::Wire;
use super::quic::LINK_SOCKET;
use super::session::Carrier;
use super::{Alarm, MEDIA_SOCKET, Node};
use crate::cluster::{manager, member, quic};
use crate::error::Reason;
use crate::hub::{HubEvent, StreamId};
use crate::io::{Answer, Batch, ConnId, Input, Level, Output};
use crate::machine::Machine;
use crate::rtc::endpoint;
use crate::simulation::{Bug, Site};
use crate::time::{Deadline, Time, WallAnchor};
use std::net::SocketAddr;
use std::time::Duration;

impl Machine for Node {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        self.now = now.max(self.now);
        // The loop has its turn, and each of its inputs in it, end with a tick.
        let turn = matches!(input, Input::Tick);
        if turn {
            self.pumped = 0;
        }
        self.take(input);
        self.due(turn);
        self.settle();
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        let machines = [
            self.timers.next(),
            self.rtc.deadline(),
            self.hub.deadline(),
            self.member.deadline(),
            self.manager.as_ref().and_then(Machine::deadline),
            self.quic.deadline(),
            (self.hub.has_ready() || self.in_step.has_work())
                .then(|| Deadline::new(self.now, "viewers wait for their turn")),
        ];
        let mut next = machines.into_iter().fold(None, Deadline::earliest)?;
        if self.limits.simulation.planted(Bug::RestlessTimer) {
            next.at = next.at.min(self.now + Duration::from_millis(5));
        }
        if self.limits.simulation.happens(Site::LateTimer, next.at.as_nanos()) {
            next.at += Duration::from_millis(4);
        }
        Some(next)
    }
}

/// Bytes of a connection that neither publishes nor plays that are looked at in one go.
const STRANGE: usize = 8 << 10;
/// Bytes that viewers are handed in one turn of the loop.
const PUMP_BYTES: usize = 192 << 10;

impl Node {
    fn take(&mut self, input: Input<'_>) {
        let now = self.now;
        match input {
            Input::Tick => {}
            Input::Busy { permille } => self.load.busy_permille = permille,
            Input::WallClock(wall) => {
                self.wall = WallAnchor::new(now, wall);
                self.tls.set_clock(wall);
                if let Some(manager) = &mut self.manager {
                    manager.handle(manager::Input::WallClock(wall), now);
                }
            }
            Input::HostAddresses(addresses) => self.start(addresses),
            Input::Accepted { conn, service, local, remote } => self.accepted(conn, service, local, remote),
            Input::Connected { conn, local, remote } => self.connected(conn, local, remote),
            Input::Received { conn, bytes } => self.received(conn, bytes),
            Input::Writable { conn, free } => {
                let short = self.short_credit(conn, free);
                self.wire(conn, Wire::Writable(short));
                self.drain_conn(conn);
                if short < free {
                    // The driver will not tell of room again that it has told of.
                    self.wire(conn, Wire::Writable(free - short));
                    self.drain_conn(conn);
                }
                self.proxy_room(conn);
                self.refill(conn);
            }
            Input::PeerFinished { conn } => self.wire(conn, Wire::PeerFinished),
            Input::Closed { conn, reason } => {
                self.gone(conn);
                // Why it was refused matters more than how the peer took it.
                let reason = self.conn_closing(conn).unwrap_or(reason);
                self.end_conn(conn, reason, None);
            }
            Input::UdpOpened { socket: LINK_SOCKET, local, max_segments } => {
                self.quic_opened(local, max_segments);
            }
            Input::UdpFailed { socket: LINK_SOCKET, reason } => self.quic_failed(&reason),
            Input::UdpOpened { socket, max_segments, .. } if socket != MEDIA_SOCKET => {
                self.rtsp_udp.opened(socket, max_segments);
            }
            Input::UdpOpened { socket, local, max_segments } => {
                self.udp_open = true;
                self.rtc.handle(endpoint::Input::UdpOpened { socket, max_segments }, now);
                let text = format!("WebRTC listens on udp {local} ({max_segments} segments a message)");
                self.log(Level::Info, "node", "udp_open", text);
            }
            Input::UdpFailed { socket, reason } if socket != MEDIA_SOCKET => {
                self.rtsp_udp_failed(socket, &reason)
            }
            Input::UdpFailed { reason, .. } => {
                let at = self.config.webrtc_addr();
                self.out.push_back(Output::Fatal(Reason::local(
                    "udp_bind",
                    format!("cannot open udp {at} for WebRTC (webrtc.port): {}", reason.text),
                )));
            }
            Input::Datagram { socket, local, remote, stride, bytes } => {
                self.counters.datagrams_in += bytes.len().div_ceil(stride.max(1)) as u64;
                self.counters.datagram_bytes_in += bytes.len() as u64;
                if socket == LINK_SOCKET {
                    return self.quic_datagrams(local, remote, stride, bytes);
                }
                if socket != MEDIA_SOCKET {
                    return self.rtsp_datagrams(socket, remote, stride, bytes);
                }
                self.rtc.handle(endpoint::Input::Datagram { socket, local, remote, stride, bytes }, now);
            }
            Input::Sent { batch, refused } => {
                self.counters.messages_refused += refused as u64;
                if batch.socket == LINK_SOCKET {
                    self.tell_quic(quic::Input::Recycle(batch));
                } else if batch.socket == MEDIA_SOCKET {
                    self.rtc.handle(endpoint::Input::Recycle(batch), now);
                } else {
                    self.rtsp_udp.recycle(batch);
                }
            }
            Input::Answer { ask, answer: Answer::Bridged(done) } => self.bridged(ask, done),
            Input::Answer { ask, answer: Answer::Checked(right) } => self.password_checked(ask, right),
            Input::Answer { ask, answer } => self.answered(ask, answer),
            Input::Drain => self.drain(),
        }
    }

    /// The host's addresses are known: the node can say who it is, and begins.
    fn start(&mut self, addresses: &[std::net::IpAddr]) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        self.advertised = super::address::Advertised::find(&self.config, addresses);
        for warning in self.advertised.warnings.clone() {
            self.log(Level::Warn, "node", "advertise", warning);
        }
        let roles: Vec<String> =
            self.config.node.roles.iter().map(|r| format!("{r:?}").to_lowercase()).collect();
        let text = format!(
            "node {} starts: roles {}, region {}, told to others as {} (nodes: {})",
            self.id,
            roles.join("+"),
            self.config.node.region,
            self.advertised.url_host(),
            self.advertised.private
        );
        self.log(Level::Info, "node", "start", text);
        if let Some(wrong) = self.authority.policy.wrong() {
            let text = format!("everybody is refused everything: {wrong}");
            self.log(Level::Error, "auth", "auth_wrong", text);
        } else if !self.authority.policy.is_on() && !self.config.bind.is_loopback() {
            let text = "anyone who reaches this node may publish and play: auth.rules is empty; write rules, or restrict \
                        access by --bind or a firewall where that is not wanted";
            self.log(Level::Warn, "node", "open", text.to_owned());
        }
        let bind = self.config.webrtc_addr();
        self.out.push_back(Output::OpenUdp { socket: MEDIA_SOCKET, bind });
        self.start_quic();
        self.start_tls();
        self.read_key_set();
        self.read_cluster_keys();
        self.open_rtsp_udp();
        self.join_cluster();
        self.start_remotes();
        let first = self.now + Duration::from_millis(self.limits.report_ms);
        self.timers.set(Alarm::Report, Deadline::new(first, "load is measured and reported"));
    }

    /// What a stranger sends is looked at little by little, so that what follows from one part is done with before the next
    /// is read: else a connection could hold many times of what it sent.
    fn received(&mut self, id: ConnId, mut bytes: &[u8]) {
        while let Some((piece, rest)) = bytes.split_at_checked(STRANGE).filter(|(_, rest)| !rest.is_empty())
            && self.conns.get(&id).is_some_and(|c| !c.let_in)
        {
            self.wire(id, Wire::Received(piece));
            self.settle();
            bytes = rest;
        }
        self.wire(id, Wire::Received(bytes));
    }

    /// Any number of bytes is a legal answer of a socket.
    fn short_credit(&self, conn: ConnId, free: usize) -> usize {
        let key = conn.0 ^ self.now.as_nanos();
        if self.limits.simulation.happens(Site::ShortCredit, key) {
            free.min(1 + key as usize % 100)
        } else {
            free
        }
    }

    /// Fires what is due.
    fn due(&mut self, turn: bool) {
        let now = self.now;
        let idle = self.limits.simulation.happens(Site::IdleTick, now.as_nanos());
        while let Some(alarm) = self.timers.pop_due(now) {
            match alarm {
                Alarm::Conn(conn) => {
                    if let Some(c) = self.conns.get_mut(&conn) {
                        c.alarm = None;
                    }
                    self.wire(conn, Wire::Tick);
                }
                Alarm::Waiting(session) => self.waited_enough(session),
                Alarm::Settle(key) => self.stream_has_tracks(&key),
                Alarm::Signal(id) => self.tick_signal(id),
                Alarm::KeyFrames(session) => self.key_frame_due(session),
                Alarm::Pump(subscriber) => self.pumps.push_back(subscriber),
                Alarm::Pull(key) => self.tick_pull(&key),
                Alarm::Warm(key) => self.not_warm(&key),
                Alarm::Bridge(id) => self.bridge_due(id),
                Alarm::Bridged(id) => self.bridge_answer_due(id),
                Alarm::Report => self.report(),
                Alarm::Certificates => self.look_at_certificates(),
                Alarm::KeySet => self.read_key_set(),
                Alarm::ClusterKeys => self.read_cluster_keys(),
                Alarm::Expires(session) => self.right_ends(session),
                Alarm::Proxy => self.look_at_proxies(),
                Alarm::Fetch(id) => self.fetch_due(id),
                Alarm::Remote(id) => self.remote_due(&id),
                Alarm::QuicWait(conn) => self.dial_by_tcp(conn),
                Alarm::QuicAgain(addr) => self.try_quic_again(addr),
                Alarm::DrainEnds => self.drain_ends(),
            }
        }
        let due = |d: Option<Deadline>| idle || d.is_some_and(|d| d.at <= now);
        if turn && due(self.rtc.deadline()) {
            self.rtc.handle(endpoint::Input::Tick, now);
        }
        if due(self.hub.deadline()) {
            self.hub.tick(now);
        }
        if due(self.member.deadline()) {
            self.member.handle(member::Input::Tick, now);
        }
        if let Some(manager) = &mut self.manager
            && due(manager.deadline())
        {
            manager.handle(manager::Input::Tick, now);
        }
        while let Some(subscriber) = self.pumps.pop_front() {
            self.pump(subscriber);
        }
    }

    /// Carries what the machines say until nothing is left, and says so where the node ends with that.
    fn settle(&mut self) {
        self.carry_all();
        if self.stopping && self.ends_what_nobody_publishes() {
            self.carry_all();
        }
        if self.draining && self.drained() {
            self.carry_all();
            self.out.push_back(Output::Drained);
        }
    }

    fn carry_all(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(conn) = self.dirty_conns.pop_first() {
                self.drain_conn(conn);
                quiet = false;
            }
            while let Some(said) = self.rtc.poll() {
                self.rtc_said(said);
                quiet = false;
            }
            if self.step_on() {
                quiet = false;
            }
            while let Some(event) = self.next_of_hub() {
                self.hub_said(event);
                quiet = false;
            }
            while let Some(said) = self.member.poll() {
                self.member_said(said);
                quiet = false;
            }
            while let Some(said) = self.manager.as_mut().and_then(Machine::poll) {
                self.manager_said(said);
                quiet = false;
            }
            if self.settle_signals() {
                quiet = false;
            }
            if self.settle_bridges() {
                quiet = false;
            }
            if self.settle_pulls() {
                quiet = false;
            }
            if self.settle_remotes() {
                quiet = false;
            }
            // Last, so that what the others said leaves together.
            if quiet && self.settle_quic() {
                quiet = false;
            }
            if quiet {
                break;
            }
        }
        self.share_memory();
        self.send_rtsp_batches();
    }

    /// What the hub says, as long as there is room in this turn for viewers who can have more. The others wait: what is
    /// made of a frame for some viewers leaves before it is made for the next, while all that it takes is in the processor's
    /// caches, and input waits no longer than that.
    fn next_of_hub(&mut self) -> Option<HubEvent> {
        if self.pumped < self.pump_bytes() { self.hub.poll_event() } else { self.hub.poll_news() }
    }

    /// Bytes that viewers are handed in this turn.
    pub(super) fn pump_bytes(&self) -> usize {
        let small = self.limits.simulation.happens(Site::SmallTurn, self.now.as_nanos());
        if small { 1 } else { PUMP_BYTES }
    }

    fn rtc_said(&mut self, said: endpoint::Output) {
        use crate::rtc::PeerEvent as E;
        let (rtc, event) = match said {
            endpoint::Output::Datagrams(batch) => {
                return self.send_batch(batch);
            }
            endpoint::Output::Stream { conn, bytes } => return self.send(conn, bytes),
            endpoint::Output::StreamProven { conn } => return self.ice_proven(conn),
            endpoint::Output::CloseStream { conn } => {
                let reason = Reason::local("session_over", "the WebRTC session of this connection is over");
                return self.end_conn(conn, reason, Some(false));
            }
            endpoint::Output::Event(rtc, event) => (rtc, event),
        };
        let Some(session) = self.sessions.on(Carrier::Rtc(rtc)) else { return };
        match event {
            E::Connected { remote, srtp } => {
                let ms = self.sessions.get(session).map_or(0, |s| self.now.since(s.since).as_millis());
                if let Some(s) = self.sessions.get_mut(session) {
                    s.remote = Some(remote);
                    s.srtp = Some(srtp);
                }
                // Of a viewer, the next line says where it is.
                let publishes = self.sessions.get(session).is_some_and(super::session::Session::is_publisher);
                let level = if publishes { Level::Info } else { Level::Debug };
                self.log_session(
                    level,
                    session,
                    "connected",
                    format!("media path to {remote} stands after {ms} ms, {srtp}"),
                );
                self.whep_connected(session);
            }
            E::Path { path, nominated } => {
                let (remote, local) = (path.remote(), path.local());
                let over = if path.conn().is_some() { " over TCP" } else { "" };
                let text = match nominated {
                    true => format!("the peer chose the path from {remote} to {local}{over}"),
                    false => format!("an ICE check with our password came from {remote} to {local}{over}"),
                };
                self.log_session(Level::Debug, session, "path", text);
            }
            E::Media(ingest) => self.ingest(session, ingest),
            E::KeyFrameWanted => {
                if let Some(super::session::Part::Plays { subscriber, .. }) =
                    self.sessions.get(session).map(|s| s.part)
                {
                    self.hub.subscriber_wants_key(subscriber, self.now);
                }
            }
            E::Room(room) => self.has_room(session, room),
            E::ChannelOpened | E::ChannelText(_) | E::ChannelClosed => self.signal_channel(session, &event),
            E::Stats(stats) => self.rtc_stats(session, &stats),
            E::Closed(reason) => self.end_session(session, &reason),
            E::Log(level, text) => self.log_session(level, session, "machine", text),
        }
    }

    pub(super) fn send_batch(&mut self, batch: Box<Batch>) {
        self.counters.messages_out += batch.items.len() as u64;
        self.counters.datagram_bytes_out += batch.buf.len() as u64;
        self.counters.datagrams_out +=
            batch.items.iter().map(|t| t.len.div_ceil(t.segment_size.max(1)) as u64).sum::<u64>();
        self.out.push_back(Output::Datagrams(batch));
    }

    fn rtc_stats(&mut self, session: super::session::SessionId, stats: &crate::rtc::SessionStats) {
        let Some(s) = self.sessions.get_mut(session) else { return };
        let loss = if s.is_publisher() { stats.loss_in } else { stats.loss_out };
        s.rtc = Some(*stats);
        s.rtt_ms = stats.rtt.map(|d| d.as_secs_f64() * 1e3).or(s.rtt_ms);
        s.loss = loss.map(f64::from).or(s.loss);
    }

    fn hub_said(&mut self, event: HubEvent) {
        match event {
            HubEvent::Ready(subscriber) if self.in_step.leads(subscriber) => self.pump_cohort(subscriber),
            HubEvent::Ready(subscriber) => match self.bridges.of_subscriber(subscriber) {
                Some(bridge) => self.pump_bridge(bridge),
                None => {
                    self.pump(subscriber);
                    // At once, as long as what it touched is in the processor's caches.
                    while let Some(conn) = self.dirty_conns.pop_first() {
                        self.drain_conn(conn);
                    }
                }
            },
            HubEvent::KeyFrameWanted { stream, source, track } => {
                self.bridge_key_frames(stream);
                self.key_frame_wanted(source, track);
            }
            HubEvent::Evict(subscriber, _) if self.in_step.leads(subscriber) => self.disband(subscriber),
            HubEvent::Evict(subscriber, reason) => {
                if let Some(session) = self.sessions.of_subscriber(subscriber) {
                    self.end_session(session, &reason);
                } else {
                    self.bridge_evicted(subscriber);
                }
            }
            HubEvent::Slow(subscriber, reason) => {
                if let Some(session) = self.sessions.of_subscriber(subscriber) {
                    self.log_session(Level::Warn, session, reason.code, reason.to_string());
                } else {
                    self.bridge_is_slow(subscriber);
                }
            }
            HubEvent::Shown(subscriber, shown) => self.shown(subscriber, shown),
            HubEvent::SourceDisplaced { source, reason, .. } => self.source_displaced(source, &reason),
            HubEvent::SourceAway(stream) => {
                let key = self.stream_name(stream);
                let hold = self.limits.stream_hold_ms / 1000;
                self.log_stream(
                    Level::Info,
                    key,
                    "away",
                    format!("no source; the stream and its viewers are held for {hold} s"),
                );
                self.tell_viewers(stream, true);
                self.held(stream);
            }
            HubEvent::SourceBack(stream) => {
                let key = self.stream_name(stream);
                self.log_stream(Level::Info, key, "back", "the stream has a source again".to_owned());
                self.tell_viewers(stream, false);
            }
            HubEvent::Ended { stream, key, reason, stats } => {
                self.forget_first_track(stream, &key);
                // Why it is no longer pulled has been said.
                let (level, kind) = match (reason.is_defect(), self.is_ours(&key)) {
                    (true, _) => (Level::Error, reason.code),
                    (false, true) => (Level::Info, "ended"),
                    (false, false) => (Level::Debug, "ended"),
                };
                if reason.is_defect() {
                    self.counters.ended_as("stream", &reason);
                }
                self.log_stream(level, key.to_string(), kind, format!("the stream ended: {reason}"));
                self.stream_ended(&key, stats.epoch);
            }
            HubEvent::Notice(stream, notice) => {
                // Whoever watches may need other tracks from now on.
                self.bridges.touch(stream);
                let key = self.stream_name(stream);
                // Its origin warns once for all nodes.
                let ours = self.hub.key(stream).is_some_and(|k| self.is_ours(k));
                let level = if ours { Level::Warn } else { Level::Debug };
                self.log_stream(level, key, notice.code(), notice.text().to_owned());
            }
        }
    }

    pub(super) fn stream_name(&self, stream: StreamId) -> String {
        self.hub.key(stream).map(ToString::to_string).unwrap_or_default()
    }

    /// A connection can take more: whoever plays on it gets more.
    fn refill(&mut self, conn: ConnId) {
        for session in self.sessions.of_conn(conn) {
            if let Some(super::session::Part::Plays { subscriber, .. }) =
                self.sessions.get(session).map(|s| s.part)
            {
                self.pump(subscriber);
            }
        }
    }

    pub(super) fn next_dialled(&mut self, to: SocketAddr, used: super::links::LinkUse) -> ConnId {
        self.dials(super::conns::Conn::dialling(to, used))
    }

    /// Has the driver dial the far end of a connection.
    pub(super) fn dials(&mut self, dialled: super::conns::Conn) -> ConnId {
        self.next_dial += 1;
        let (conn, to) = (ConnId::dialled(self.next_dial), dialled.remote);
        self.conns.insert(conn, dialled);
        self.out.push_back(Output::Dial { conn, to });
        conn
    }
}
