//! From a viewer's wish to frames on its way: find the stream (here, or by a pull), subscribe, and pump.

use super::authority::Asker;
use super::conns::{Conn, Proto};
use super::session::{AtCursor, Carrier, Part, Protocol, SessionId};
use super::web::Answered;
use super::{Alarm, Node};
use crate::error::Reason;
use crate::guard::{guard, must};
use crate::hub::delivery::Delivery;
use crate::hub::{CodecSet, Pace, Picks, Shown, StreamId, SubscriberId};
use crate::io::Level;
use crate::machine::Machine;
use crate::media::frame::FrameKind;
use crate::media::key::StreamKey;
use crate::media::track::{Codec, Origin};
use crate::rtc;
use crate::rtmp;
use crate::rtsp;
use crate::simulation::{Bug, Site};
use crate::time::{Deadline, Time};
use std::time::Duration;

/// Bytes that may wait in an RTMP machine before its viewer takes no more frames: enough for one turn, little
/// enough that a slow viewer is seen as slow.
pub(super) const BACKLOG: usize = 64 << 10;
/// Items that one viewer gets in one go, so that many viewers share a turn.
pub(super) const ITEMS_A_TURN: usize = 256;
/// How long after a stream's first track its sound is waited for.
const SETTLE: Duration = Duration::from_millis(300);
/// How long after a stream's first track its pictures are waited for: an encoder of pictures starts slower than one of sound, and
/// who joined without pictures stays without.
const SETTLE_PICTURES: Duration = Duration::from_millis(1_500);
/// Bytes of a cached group that a newcomer over UDP gets in one burst …
const BURST_BYTES: usize = 48 << 10;
/// … and the pause between bursts (about 75 Mbit/s).
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// The machine that plays on a connection of ours, of either protocol.
enum Player<'a> {
    Rtmp(&'a mut rtmp::server::Server, u32),
    Rtsp(&'a mut rtsp::Server),
}

impl<'a> Player<'a> {
    fn of(proto: &'a mut Proto, carrier: Carrier) -> Option<Player<'a>> {
        match (proto, carrier) {
            (Proto::Rtmp(m), Carrier::Message(_, stream)) => Some(Player::Rtmp(m, stream)),
            (Proto::Rtsp(m), _) => Some(Player::Rtsp(m)),
            _ => None,
        }
    }

    fn backlog(&self) -> usize {
        match self {
            Player::Rtmp(m, _) => m.backlog(),
            Player::Rtsp(m) => m.backlog(),
        }
    }

    fn is_udp(&self) -> bool {
        matches!(self, Player::Rtsp(m) if m.is_udp())
    }

    fn deliver(&mut self, delivery: &Delivery, now: Time) {
        match self {
            Player::Rtmp(m, stream) => m.handle(rtmp::server::Input::Deliver(*stream, delivery), now),
            Player::Rtsp(m) => m.handle(rtsp::server::Input::Deliver(delivery), now),
        }
    }
}

impl Node {
    /// A client of a protocol whose connection is the session, or carries it, asked to play.
    pub(super) fn conn_play(&mut self, protocol: Protocol, carrier: Carrier, key: StreamKey, asker: Asker) {
        let Some(conn) = carrier.conn() else { return };
        let Some(remote) = self.conns.get(&conn).map(|c| c.remote) else { return };
        let session = self.sessions.add(protocol, Part::AsksToPlay, key, Some(remote), carrier, self.now);
        match self.round_trip(&self.conn_via(conn)) {
            Some(reason) => self.refuse_play(session, &reason),
            None => self.permit(session, asker),
        }
    }

    /// Starts a viewer at once if its stream is here, else has the stream pulled.
    pub(super) fn find_stream(&mut self, session: SessionId) {
        let Some(key) = self.sessions.get(session).map(|s| s.key.clone()) else { return };
        if let Err(reason) = self.room(0, 0) {
            return self.refuse_play(session, &reason);
        }
        if let Some(stream) = self.hub.find(&key)
            && self.is_settled(stream)
        {
            self.start_viewer(session, stream);
            return;
        }
        self.play_waiting.entry(key.clone()).or_default().push(session);
        let sourced = self.hub.find(&key).is_none() && self.want_source(&key);
        let mut patience = Duration::from_millis(self.limits.cluster_answer_ms);
        if self.remotes.has_source(&key) {
            patience = patience.max(Duration::from_millis(self.limits.source_wait_ms));
        }
        let until = self.now + patience + Duration::from_millis(500);
        if !self.limits.simulation.planted(Bug::PublishRacesRead) {
            self.timers.set(Alarm::Waiting(session), Deadline::new(until, "a viewer waits for its stream"));
        }
        self.touch_viewers(&key);
        if self.hub.find(&key).is_none() && !sourced {
            self.pull(&key);
        }
    }

    /// Whether a stream's tracks are known: pictures and sound, or one of them for so long that the other will
    /// hardly come. A viewer by WHEP must be told all tracks in one answer.
    pub(super) fn is_settled(&self, stream: StreamId) -> bool {
        let tracks = self.hub.tracks(stream);
        let pictures = tracks.iter().any(|(_, c)| c.params.codec().is_video());
        let sound = tracks.iter().any(|(_, c)| !c.params.codec().is_video());
        let since = self.first_track.get(&stream).map(|t| self.now.since(*t));
        let early = !self.limits.simulation.happens(Site::LateSettle, stream.0);
        let over = since.is_some_and(|s| s >= self.settles_in(stream));
        (early && pictures && sound) || ((pictures || sound) && over)
    }

    /// How long after a stream's first track those that are missing are waited for.
    fn settles_in(&self, stream: StreamId) -> Duration {
        let pictures = self.hub.tracks(stream).iter().any(|(_, c)| c.params.codec().is_video());
        if pictures { SETTLE } else { SETTLE_PICTURES }
    }

    /// A stream got a track: those who waited for it start, now or once the others had their chance.
    pub(super) fn stream_has_tracks(&mut self, key: &StreamKey) {
        let Some(stream) = self.hub.find(key) else { return };
        self.bridges.touch(stream);
        if self.hub.tracks(stream).is_empty() {
            // Another publisher took over and has said nothing yet: its tracks have their time from their own first.
            return self.forget_first_track(stream, key);
        }
        let since = *self.first_track.entry(stream).or_insert(self.now);
        if !self.is_settled(stream) {
            let at = Deadline::new(since + self.settles_in(stream), "the tracks of a stream settle");
            self.timers.set(Alarm::Settle(key.clone()), at);
            return;
        }
        self.timers.cancel(&Alarm::Settle(key.clone()));
        if self.limits.simulation.planted(Bug::PublishRacesRead) {
            return;
        }
        for session in self.play_waiting.remove(key).unwrap_or_default() {
            self.timers.cancel(&Alarm::Waiting(session));
            self.start_viewer(session, stream);
        }
        self.push_stream(key);
    }

    /// What a stream's former publisher announced says nothing about the next one's tracks.
    pub(super) fn forget_first_track(&mut self, stream: StreamId, key: &StreamKey) {
        self.first_track.remove(&stream);
        self.timers.cancel(&Alarm::Settle(key.clone()));
    }

    /// A stream cannot be had: those who waited for it are refused.
    pub(super) fn stream_not_found(&mut self, key: &StreamKey, reason: &Reason) {
        for session in self.play_waiting.remove(key).unwrap_or_default() {
            self.timers.cancel(&Alarm::Waiting(session));
            self.refuse_play(session, reason);
        }
    }

    /// A viewer waited long enough.
    pub(super) fn waited_enough(&mut self, session: SessionId) {
        let Some(key) = self.sessions.get(session).map(|s| s.key.clone()) else { return };
        let reason = Reason::peer(
            "not_live",
            format!("{key} is not live: no picture or sound came in time; try again"),
        );
        if let Some(waiting) = self.play_waiting.get_mut(&key) {
            waiting.retain(|s| *s != session);
            if waiting.is_empty() {
                self.play_waiting.remove(&key);
            }
        }
        self.refuse_play(session, &reason);
    }

    /// A waiting viewer left.
    pub(super) fn forget_waiting(&mut self, session: SessionId, key: &StreamKey, reason: &Reason) {
        self.timers.cancel(&Alarm::Waiting(session));
        if self.limits.simulation.planted(Bug::SessionLeftInMap) {
            return;
        }
        self.joining.remove(&session);
        if let Some(waiting) = self.play_waiting.get_mut(key) {
            waiting.retain(|s| *s != session);
            if waiting.is_empty() {
                self.play_waiting.remove(key);
            }
        }
        if let Some(offer) = self.whep_waiting.remove(&session) {
            self.answer_whep(offer.conn, session, offer.dialect, Err(reason));
        }
    }

    pub(super) fn refuse_play(&mut self, session: SessionId, reason: &Reason) {
        let Some(s) = self.sessions.get(session) else { return };
        self.timers.cancel(&Alarm::Expires(session));
        let (carrier, protocol, remote) = (s.carrier, s.protocol, s.remote);
        let who = remote.map(|r| format!(" {r}")).unwrap_or_default();
        // Players ask again and again for what nobody publishes yet.
        let level = if reason.code == "not_found" { Level::Info } else { Level::Warn };
        self.log_session(level, session, reason.code, format!("viewer{who} refused: {reason}"));
        self.counters.ended_as(protocol.name(), reason);
        if let Some(s) = self.sessions.remove(session, self.now) {
            self.touch_viewers(&s.key);
        }
        if let Carrier::Signal(id) = carrier {
            self.signal_refused(id, session, reason);
        } else if let Some(offer) = self.whep_waiting.remove(&session) {
            self.answer_whep(offer.conn, session, offer.dialect, Err(reason));
        } else if let Carrier::Conn(conn) = carrier {
            self.tell_play_refused(conn, reason.clone());
        } else if let Carrier::Message(conn, stream) = carrier {
            self.tell_rtmp(conn, rtmp::server::Input::PlayRefused(stream, reason.clone()));
        }
    }

    fn start_viewer(&mut self, session: SessionId, stream: StreamId) {
        let Some(s) = self.sessions.get(session) else { return };
        let started = match (s.protocol, s.carrier) {
            (_, Carrier::Signal(id)) => self.start_signal(id, session, stream),
            (Protocol::Whep, _) => self.start_whep(session, stream),
            (Protocol::Rtsp, _) => self.describe_rtsp(session, stream),
            (Protocol::Flv, _) => self.start_flv(session, stream),
            _ => self.start_rtmp(session, stream),
        };
        if let Err(reason) = started {
            self.refuse_play(session, &reason);
        }
    }

    fn start_rtmp(&mut self, session: SessionId, stream: StreamId) -> Result<(), Reason> {
        let Some(Carrier::Message(conn, message)) = self.sessions.get(session).map(|s| s.carrier) else {
            return Err(Reason::local("no_carrier", "the session has no connection"));
        };
        let (takes, tracks) = match self.conns.get(&conn) {
            Some(Conn { proto: Proto::Rtmp(m), .. }) => (m.takes(), m.takes_tracks()),
            _ => (CodecSet::ALL, false),
        };
        let (takes_opus, takes_h265) = (takes.has(Codec::Opus), takes.has(Codec::H265));
        // Of other codecs that it does not take, its machine says so; in place of Opus there is AAC.
        let accepts = if takes_opus { CodecSet::ALL } else { CodecSet::ALL.without(Codec::Opus) };
        // In place of H.265 there may be H.264 as well.
        let mut accepts =
            if takes_h265 { None } else { self.without_h265(stream, accepts) }.unwrap_or(accepts);
        // Of renditions in several codecs it gets one that it takes.
        let codecs =
            self.hub.tracks(stream).into_iter().map(|(_, c)| c.params.codec()).filter(|c| c.is_video());
        let (taken, others): (Vec<Codec>, Vec<Codec>) = codecs.partition(|c| takes.has(*c));
        if !taken.is_empty() {
            accepts = others.into_iter().fold(accepts, CodecSet::without);
        }
        let picks = if tracks { Picks::All } else { Picks::One };
        let subscriber = self.hub.subscribe_to(stream, accepts, picks, self.now)?;
        self.hub.set_pace(subscriber, Pace::Merged);
        self.conn_is_used(conn);
        self.tell_rtmp(conn, rtmp::server::Input::PlayAccepted(message));
        self.viewer_joined(session, stream, subscriber);
        Ok(())
    }

    fn start_whep(&mut self, session: SessionId, stream: StreamId) -> Result<(), Reason> {
        self.playable(stream, rtc::codecs::CARRIED)?;
        let Some(waiting) = self.whep_waiting.remove(&session) else {
            return Err(Reason::local("no_carrier", "the viewer's offer is gone"));
        };
        let remote = self.sessions.get(session).and_then(|s| s.remote);
        let local =
            self.conns.get(&waiting.conn).and_then(|c| c.local).map_or(self.advertised.public, |l| l.ip());
        let candidates = self.advertised.candidates(local, self.config.webrtc.port);
        let mut tracks = self.tracks_for(stream, rtc::codecs::CARRIED);
        let from = remote.map_or(self.advertised.public, |r| r.ip());
        let mut played = match &waiting.offer {
            Ok(sdp) => self.rtc.play(rtc::Offer { sdp, from, candidates: &candidates }, &tracks, self.now),
            Err(channel) => self.rtc.offer(from, &candidates, &tracks, *channel, self.now),
        };
        // Who does not take H.265 gets what can be made of it.
        if played.as_ref().is_err_and(|why| why.code == "no_common_codec")
            && let Ok(sdp) = &waiting.offer
            && let Some(accepts) = self.without_h265(stream, rtc::codecs::CARRIED)
        {
            tracks = self.tracks_for(stream, accepts);
            played = self.rtc.play(rtc::Offer { sdp, from, candidates: &candidates }, &tracks, self.now);
        }
        let playing = match played {
            Ok(playing) => playing,
            Err(reason) => {
                self.whep_waiting.insert(session, waiting);
                return Err(reason);
            }
        };
        self.sessions.set_carrier(session, Carrier::Rtc(playing.session));
        let secret = self.rng.fork("resource", session.0).token(32);
        let secret = super::loops::resource(self.config.loops.as_ref(), secret);
        self.sessions.name_resource(session, secret);
        self.expect_viewer(stream, playing.takes);
        let known = self.hub.notices(stream).iter().map(|n| n.text().to_owned());
        let notices = known.chain(playing.no_sound).collect();
        let sound = tracks.iter().find_map(|(_, c)| match c.origin {
            Origin::Derived { .. } if c.params.codec().is_video() => None,
            Origin::Derived { from } => {
                let (_, of) = self.hub.tracks(stream).into_iter().find(|(id, _)| *id == from)?;
                Some(format!("{}, made of {}", c.params.codec().name(), of.params.codec().name()))
            }
            Origin::Ingest => None,
        });
        // What a publisher sends goes to whoever has a data channel for it.
        let channel = waiting.dialect || playing.answer.contains("m=application ");
        let answered = Answered { sdp: playing.answer, notices, sound };
        self.answer_whep(waiting.conn, session, waiting.dialect, Ok(answered));
        if let Some(key) = self.hub.key(stream).cloned() {
            let takes = if channel { playing.takes.with_data() } else { playing.takes };
            self.joining.insert(session, (key, takes));
        }
        Ok(())
    }

    /// A WHEP viewer's media path stands: it may be sent frames from now on.
    pub(super) fn whep_connected(&mut self, session: SessionId) {
        let Some((key, accepts)) = self.joining.remove(&session) else { return };
        let gone = || Reason::peer("not_live", format!("{key} ended before the viewer was connected"));
        let stream = self.hub.find(&key);
        match stream.ok_or_else(gone).and_then(|s| Ok((s, self.hub.subscribe(s, accepts, self.now)?))) {
            Ok((stream, subscriber)) => self.viewer_joined(session, stream, subscriber),
            Err(reason) => self.end_session(session, &reason),
        }
    }

    pub(super) fn viewer_joined(&mut self, session: SessionId, stream: StreamId, subscriber: SubscriberId) {
        self.sessions.set_part(session, Part::Plays { stream, subscriber });
        let Some(s) = self.sessions.get(session) else { return };
        let asked = must(self.limits.simulation, self.hub.key(stream) == Some(&s.key), "S3", || {
            format!("a viewer of {} joined {:?}", s.key, self.hub.key(stream))
        });
        if let Err(broken) = asked {
            return self.end_session(session, &broken);
        }
        let at = s.remote.map(|r| format!(" at {r}")).unwrap_or_default();
        let (key, push) = (s.key.clone(), s.is_push());
        self.touch_viewers(&key);
        self.load.joined_bps += self.hub.bits_per_s(stream, self.now);
        self.bridges.touch(stream);
        if !push {
            self.log_session(Level::Info, session, "plays", format!("viewer{at} joined"));
        }
        self.pump(subscriber);
    }

    /// Hands a viewer what it can take now.
    pub(super) fn pump(&mut self, subscriber: SubscriberId) {
        let Some(AtCursor { session: id, carrier, stream, .. }) = self.sessions.at_cursor(subscriber) else {
            return;
        };
        if let Err(broken) = self.plays_its_own(stream, subscriber) {
            return self.end_session(id, &broken);
        }
        match carrier {
            Carrier::Rtc(session) => return self.pump_rtc(id, subscriber, session),
            Carrier::Message(..) => return self.pump_player(id, subscriber, carrier, stream),
            Carrier::Conn(conn) if self.is_rtsp(conn) => {
                return self.pump_player(id, subscriber, carrier, stream);
            }
            _ => {}
        }
        let mut burst = 0;
        let mut udp = false;
        for turns in 0..ITEMS_A_TURN {
            let room = match carrier {
                Carrier::Conn(conn) => match self.conns.get(&conn) {
                    Some(Conn { proto: Proto::Remote { machine: Some(m), .. }, .. }) => {
                        udp = m.is_udp();
                        m.backlog() < BACKLOG && burst < BURST_BYTES
                    }
                    Some(_) => match self.flv_backlog(conn) {
                        Some(waits) => waits < BACKLOG,
                        None => return,
                    },
                    None => return,
                },
                // A slow link is the pull's own business: it leaves out whole groups.
                Carrier::Pull(..) => true,
                Carrier::Message(..) | Carrier::Rtc(_) | Carrier::Request(_) | Carrier::Signal(_) => return,
            };
            let turn = self.now.as_nanos() ^ id.0;
            if room && turns > 0 && self.limits.simulation.happens(Site::ShortTurn, turn) {
                break;
            }
            if !room {
                if udp {
                    self.timers.set(
                        Alarm::Pump(subscriber),
                        Deadline::new(self.now + BURST_PAUSE, "the next burst for a newcomer"),
                    );
                } else {
                    self.hub.blocked(subscriber, self.now);
                }
                return;
            }
            let Some(delivery) = self.hub.next(subscriber, self.now) else { return };
            if let Delivery::Frame { frame, cached, .. } = &delivery {
                self.pumped += frame.len();
                if *cached && udp {
                    burst += frame.len();
                }
                self.first_frame(id);
            }
            match carrier {
                Carrier::Conn(conn) => {
                    if udp && let Delivery::Frame { frame, .. } = &delivery {
                        self.hub.progress(subscriber, frame.len(), self.now);
                    }
                    self.tell_delivery(conn, &delivery);
                }
                Carrier::Pull(conn, pull) => self.serve(conn, pull, &delivery),
                Carrier::Message(..) | Carrier::Rtc(_) | Carrier::Request(_) | Carrier::Signal(_) => {}
            }
        }
        // More may wait: the turn goes to the others first.
        self.timers.set(Alarm::Pump(subscriber), Deadline::new(self.now, "a viewer has more to take"));
    }

    /// S3, asserted with each turn: what a subscriber is handed is of the stream that its session plays.
    fn plays_its_own(&self, stream: StreamId, subscriber: SubscriberId) -> Result<(), Reason> {
        let from = self.hub.stream_of(subscriber);
        must(self.limits.simulation, from == Some(stream), "S3", || {
            format!("frames of {from:?} for a session that plays {stream:?}")
        })
    }

    /// Hands an RTMP or RTSP player what it can take now. As with WebRTC, what is done for each player is done once a call.
    fn pump_player(&mut self, id: SessionId, subscriber: SubscriberId, carrier: Carrier, stream: StreamId) {
        let now = self.now;
        let Some(conn) = carrier.conn() else { return };
        let proto = self.conns.get_mut(&conn).filter(|c| c.in_step.is_none()).map(|c| &mut c.proto);
        let Some(mut player) = proto.and_then(|p| Player::of(p, carrier)) else { return };
        let (udp, rtmp) = (player.is_udp(), matches!(player, Player::Rtmp(..)));
        let (mut burst, mut bytes, mut frames) = (0, 0, false);
        let mut waits = Some((now, "a viewer has more to take"));
        let (mut broken, mut drained) = (None, false);
        for turns in 0..ITEMS_A_TURN {
            let room = player.backlog() < BACKLOG && burst < BURST_BYTES;
            if room && turns > 0 && self.limits.simulation.happens(Site::ShortTurn, now.as_nanos() ^ id.0) {
                break;
            }
            if !room {
                waits = udp.then(|| (now + BURST_PAUSE, "the next burst for a newcomer"));
                if !udp {
                    self.hub.blocked(subscriber, now);
                }
                break;
            }
            let Some(delivery) = self.hub.next(subscriber, now) else {
                (waits, drained) = (None, true);
                break;
            };
            if let Delivery::Frame { frame, cached, .. } = &delivery {
                frames = true;
                self.pumped += frame.len();
                if udp {
                    burst += if *cached { frame.len() } else { 0 };
                    self.hub.progress(subscriber, frame.len(), now);
                }
            }
            let before = player.backlog();
            if let Err(reason) = guard(|| player.deliver(&delivery, now)) {
                broken = Some(reason);
                break;
            }
            bytes += player.backlog().saturating_sub(before);
        }
        if let Some(reason) = broken {
            return self.end_conn(conn, reason, Some(true));
        }
        self.dirty_conns.insert(conn);
        if frames {
            // What an RTSP player gets is counted as it leaves, with what is no media.
            let bytes = if let Carrier::Message(..) = carrier { bytes } else { 0 };
            self.handed_over(id, bytes);
        }
        match waits {
            Some((at, why)) => self.timers.set(Alarm::Pump(subscriber), Deadline::new(at, why)),
            None if rtmp && drained => {
                self.drain_conn(conn);
                self.fall_in(id, subscriber, stream, conn);
            }
            None => {}
        }
    }

    /// Hands a viewer by WebRTC what it can take now. The way of most frames of a busy node: what is done for each viewer is
    /// done once a call, not once a frame.
    fn pump_rtc(&mut self, id: SessionId, subscriber: SubscriberId, session: rtc::SessionId) {
        let (mut burst, mut bytes, mut waits) = (0, 0, Some((self.now, "a viewer has more to take")));
        let catches_up = self.hub.catches_up(subscriber, self.now);
        let most =
            catches_up.map_or(usize::MAX, |how| self.rtc.burst(session, how, self.now)).min(BURST_BYTES);
        for turns in 0..ITEMS_A_TURN {
            if burst >= most {
                waits = Some((self.now + BURST_PAUSE, "the next burst for a newcomer"));
                break;
            }
            let turn = self.now.as_nanos() ^ id.0;
            if turns > 0 && self.limits.simulation.happens(Site::ShortTurn, turn) {
                break;
            }
            let Some(delivery) = self.hub.next(subscriber, self.now) else {
                waits = None;
                break;
            };
            if let Delivery::Frame { frame, cached, .. } = &delivery {
                bytes += frame.len();
                burst += if *cached || catches_up.is_some() { frame.len() } else { 0 };
                if frame.media.kind == FrameKind::Data {
                    self.signal_data(id, &frame.media.payload);
                    continue;
                }
            }
            self.rtc.handle(rtc::endpoint::Input::Deliver { session, delivery }, self.now);
        }
        if bytes > 0 {
            // As much as leaves before others have their turn.
            self.pumped += bytes.min(rtc::endpoint::SLICE_BYTES);
            self.hub.progress(subscriber, bytes, self.now);
            self.handed_over(id, bytes);
        }
        if let Some((at, why)) = waits {
            self.timers.set(Alarm::Pump(subscriber), Deadline::new(at, why));
        }
    }

    /// What a viewer's link carries: it is given what fits, and tries out what would come next.
    pub(super) fn has_room(&mut self, session: SessionId, room: Option<u64>) {
        let Some((carrier, part)) = self.sessions.get(session).map(|s| (s.carrier, s.part)) else { return };
        if let (Carrier::Rtc(rtc), Part::Plays { subscriber, .. }) = (carrier, part) {
            let goal = self.hub.set_room(subscriber, room, self.now);
            self.rtc.handle(rtc::Input::Goal { session: rtc, goal }, self.now);
        }
    }

    /// A viewer of a stream with several renditions goes over to another, or its link turned out too thin for any, or not to be
    /// so any more.
    pub(super) fn shown(&mut self, subscriber: SubscriberId, shown: Shown) {
        let Some(session) = self.sessions.of_subscriber(subscriber) else { return };
        let size = shown.size.map_or("pictures of unknown size".to_owned(), |(w, h)| format!("{w}x{h}"));
        if shown.of <= 1 {
            if shown.thin {
                let text = format!(
                    "the viewer's link is too thin for the stream's pictures ({size}), of which there is one rendition: it gets \
                     key frames and sound until it carries more; publish at a lower bit rate, or a second rendition of a lower one"
                );
                return self.log_session(Level::Warn, session, "thin_link", text);
            }
            let text = format!("the viewer's link carries all of the stream's pictures again ({size})");
            return self.log_session(Level::Info, session, "thin_link_over", text);
        }
        if shown.thin {
            let text = format!(
                "the viewer's link is too thin for the least of the stream's renditions ({size}): it gets key frames and sound; \
                 publish a rendition of a lower bit rate"
            );
            return self.log_session(Level::Warn, session, "thin_link", text);
        }
        let text = format!("shown {size}, one of {} renditions", shown.of);
        self.log_session(Level::Debug, session, "rendition", text);
    }

    fn first_frame(&mut self, session: SessionId) {
        self.handed_over(session, 0);
    }

    /// A viewer was handed frames, of which so many bytes are to be counted.
    pub(super) fn handed_over(&mut self, session: SessionId, bytes: usize) {
        let now = self.now;
        let Some(s) = self.sessions.get_mut(session) else { return };
        s.bytes_out += bytes as u64;
        if s.first_frame.is_none() {
            s.first_frame = Some(now);
            if s.protocol == Protocol::Relay {
                return;
            }
            self.counters.joins.0.observe(now.since(s.since).as_secs_f64());
        }
    }

    /// A TCP viewer's connection took bytes.
    pub(super) fn viewer_progress(&mut self, session: SessionId, bytes: usize) {
        if let Some(Part::Plays { subscriber, .. }) = self.sessions.get(session).map(|s| s.part) {
            self.hub.progress(subscriber, bytes, self.now);
        }
    }
}
