//! A viewer's session without an `Rtc` of its own: an ICE-lite responder, DTLS for the keys, and a sender that seals the
//! stream's shared packets straight into the batch that leaves. It carries what plain WHEP viewers need: media one way,
//! no data channel. Everything else is `rtc/peer.rs`, and that is also the oracle in tests.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answer;
mod bandwidth;
mod burst;
mod feedback;
mod lane;
mod path;
mod receipts;
mod thin;

use super::dtls::{Said, Session, Settled};
use super::egress::render;
use super::path::Path;
use super::peer::{PeerEvent, Sent, SessionStats, Setup, Verdict, instant, peer_closed};
use super::sdp::Wish;
use super::srtp::{self, OVERHEAD, Opener, Sealer};
use crate::error::Reason;
use crate::guard::must_here;
use crate::hub::delivery::Delivery;
use crate::io::Batch;
use crate::limits::Limits;
use crate::media::frame::{Frame, FrameKind};
use crate::media::payload::PAYLOAD_BYTES;
use crate::media::track::{CodecConfig, TrackId};
use crate::rand::Rng;
use crate::simulation::Bug;
use crate::time::{Deadline, Time};
use answer::Offered;
use bandwidth::Bandwidth;
use feedback::{Again, ReportClock};
use lane::{Fits, Lane};
use path::Nominated;
use receipts::AT_FIRST;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::IceCreds;
use str0m::config::CryptoProvider;
use str0m::crypto::dtls::{DtlsInstance, DtlsOutput};
use thin::{Spread, Thin};

/// How often a session's numbers are reported.
const STATS_INTERVAL: Duration = Duration::from_secs(5);
/// How often sender reports are sent, so that sound and picture stay together.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// What one DTLS record can have.
const RECORD: usize = 2_048;
/// Characters of the name that both sources share (RFC 3550, 6.5.1): 95 bits of chance.
const CNAME_CHARS: usize = 16;

/// How long media waits after a handshake that the viewer began, until the last words of it have left a second time: what
/// leaves with them could overtake them, or they are lost, and the viewer would decrypt nothing of its first pictures.
/// Two round trips, within these bounds: nothing is overtaken by so much.
const LAST_WORDS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(60)];
/// Packets of sound that may leave in a turn whatever else does.
const SOUNDS: usize = 4;
/// Bytes that may leave at once to try a link out.
const TRY_BYTES: usize = 24 * PAYLOAD_BYTES;
/// Frames for which a queue keeps room.
const KEPT: usize = 8;

/// A frame that waits for its turn to be sent.
#[derive(Debug)]
struct Waiting {
    frame: Arc<Frame>,
    timestamp: u32,
    /// The next packet.
    next: u32,
    since: Time,
}

/// The end of a handshake that the peer began, which it has yet to hear.
struct LastWords {
    again: Time,
    records: Vec<Vec<u8>>,
}

/// DTLS of a viewer.
enum Dtls {
    /// It conducts the handshake.
    Shakes(Box<Session>),
    /// The handshake stands, and nothing was kept of it but what the end needs.
    Settled(Box<Settled>),
}

/// What became of a turn of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// More waits.
    More,
    /// Nothing waits.
    Idle,
}

/// Its fields stand in this order in memory: first what each frame touches, so that a frame for a thousand viewers fetches few
/// lines of each from beyond the processor's caches, then what packets from the peer and the hours need.
#[repr(C)]
pub(super) struct Viewer {
    connected: bool,
    closed: bool,
    /// The certificate that the peer showed is the one that its offer named.
    proven: bool,
    shaken: bool,
    client: bool,
    heard: Time,
    next_report: Time,
    clock: ReportClock,
    limits: Arc<Limits>,
    /// What its link carries, where it can be given less or more.
    bandwidth: Option<Box<Bandwidth>>,
    /// It joined a stream with several renditions, and says by feedback or by a rate what its link carries.
    adapts: bool,
    /// Whether its link carries the one rendition that there is.
    thin: Thin,
    /// How what leaves for a thin link is spread.
    spread: Spread,
    /// As [`Viewer::lanes`].
    waiting: [VecDeque<Waiting>; 2],
    /// Picture, sound.
    lanes: [Option<Lane>; 2],
    again: Again,
    nominated: Option<Nominated>,
    sealer: Option<Sealer>,
    stats: SessionStats,
    closing: Option<Reason>,
    pub(super) sent: VecDeque<Sent>,
    pub(super) events: VecDeque<PeerEvent>,
    /// A receiver's clock that it told: who, the middle 32 bits of its NTP time, when it came.
    told: Option<(u32, u32, Time)>,
    /// When its link's room was told last.
    next_room: Time,
    opener: Option<Opener>,
    dtls: Dtls,
    dtls_deadline: Time,
    fingerprint: [u8; 32],
    /// When our last flight of a handshake that the peer began left.
    flight: Time,
    last_words: Option<LastWords>,
    crypto: Arc<CryptoProvider>,
    password: String,
    cname: String,
    base: Instant,
    opened: Time,
    next_stats: Time,
    #[cfg(test)]
    pub(super) explode: bool,
}

impl Viewer {
    /// Opens a session and answers the offer, in the words that str0m would use.
    ///
    /// # Errors
    /// The offer cannot be answered, or DTLS cannot be begun.
    pub(super) fn open(setup: Setup<'_>, rng: &mut Rng) -> Result<(Viewer, String), Reason> {
        let Setup { prepared, wish, identity, limits, candidates, tcp_ports, creds, base, now, .. } = setup;
        let candidates = crate::rtc::path::candidates(candidates, tcp_ports)?;
        let adapts = matches!(wish, Wish::Play { video: Some(pictures), .. } if pictures.adapts);
        let offered = Offered::read(prepared, adapts)?;
        // Four that differ, and none is 0.
        let ssrc = (rng.u32() | 4) & !3;
        let mut lane = |carried: &Option<lane::Carried>, n: u32| {
            carried.clone().map(|c| Lane::new(c, [ssrc + n, ssrc + n + 1], rng))
        };
        let mut lanes = [lane(&offered.video, 0), lane(&offered.audio, 2)];
        if let [Some(pictures), _] = &mut lanes
            && offered.adapts
        {
            pictures.want_arrivals(now, Duration::MAX);
        }
        let cname = rng.token(CNAME_CHARS);
        let crypto = identity.crypto().clone();
        let ours = crypto.sha256_provider.sha256(&identity.certificate().certificate);
        let [video, audio] = &lanes;
        let answer = offered.answer([video.as_ref(), audio.as_ref()], &creds, &ours, &cname, &candidates)?;
        let dtls = Dtls::Shakes(Box::new(identity.handshake(offered.waits, instant(base, now))?));
        let viewer = Viewer {
            lanes,
            sealer: None,
            waiting: [VecDeque::new(), VecDeque::new()],
            again: Again::default(),
            nominated: None,
            clock: ReportClock::default(),
            told: None,
            bandwidth: offered.adapts.then(|| Box::new(Bandwidth::new(now))),
            adapts: offered.adapts || offered.rate.is_some(),
            thin: Thin::default(),
            spread: Spread::default(),
            next_room: now,
            opener: None,
            dtls,
            dtls_deadline: now,
            fingerprint: offered.fingerprint,
            proven: false,
            shaken: false,
            flight: now,
            last_words: None,
            client: offered.waits,
            crypto,
            password: creds.pass,
            cname,
            base,
            limits,
            opened: now,
            heard: now,
            connected: false,
            closing: None,
            closed: false,
            next_report: now,
            next_stats: now + STATS_INTERVAL,
            stats: SessionStats::default(),
            sent: VecDeque::new(),
            events: VecDeque::new(),
            #[cfg(test)]
            explode: false,
        };
        Ok((viewer, answer))
    }

    pub(super) fn connected(&self) -> bool {
        self.connected
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing is left of its handshake but what the end needs.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.dtls, Dtls::Settled(_))
    }

    /// When anything authenticated came last.
    pub(super) fn heard(&self) -> Time {
        self.heard
    }

    /// Takes DTLS or RTCP from a path that the peer has proven to be its own.
    pub(super) fn datagram(&mut self, path: Path, datagram: &[u8], now: Time) -> Verdict {
        #[cfg(test)]
        assert!(!self.explode, "told to");
        let Some(first) = datagram.first() else { return Verdict::Unauthentic };
        self.stats.bytes_in += datagram.len() as u64;
        if let Some(nominated) = self.nominated.as_mut().filter(|n| n.path.same_end(&path)) {
            nominated.heard = now;
        }
        if first >> 6 == 2 {
            return self.feedback(datagram, now);
        }
        // What is not authentic is dropped (RFC 6347, 4.1.2.7); only what ends the session for good does so here.
        // In the clear nothing but a flight that was sent again is of a peer with keys: no alert ends its session.
        if self.shaken && !matches!(first, 20 | 22) && datagram.get(3..5) == Some(&[0, 0]) {
            return Verdict::Unauthentic;
        }
        let taken = match &mut self.dtls {
            Dtls::Settled(_) => return self.settled(path, datagram, now),
            Dtls::Shakes(session) => {
                let taken = session.handle_packet(datagram).is_ok();
                if !taken && self.shaken && session.is_closed() {
                    self.broke();
                }
                taken
            }
        };
        self.shake(path, now);
        if taken { Verdict::Taken } else { Verdict::Unauthentic }
    }

    fn broke(&mut self) {
        self.closing
            .get_or_insert_with(|| Reason::peer("webrtc_error", "the DTLS session of the viewer broke"));
        self.closed = true;
    }

    /// Takes records after the handshake.
    fn settled(&mut self, path: Path, datagram: &[u8], now: Time) -> Verdict {
        let Dtls::Settled(settled) = &mut self.dtls else { return Verdict::Unauthentic };
        let said = settled.take(datagram);
        let answer = match said {
            Said::Flight => settled.flight(now).to_vec(),
            // A goodbye is answered with one (RFC 5246, 7.2.1).
            Said::Goodbye => settled.goodbye().into_iter().collect(),
            Said::Nothing | Said::Taken | Said::Broken => Vec::new(),
        };
        for record in answer {
            self.stats.bytes_out += record.len() as u64;
            self.sent.push_back((path, record));
        }
        match said {
            Said::Nothing => return Verdict::Unauthentic,
            Said::Taken | Said::Flight => {}
            Said::Goodbye => {
                self.closing.get_or_insert_with(peer_closed);
                self.closed = true;
            }
            Said::Broken => self.broke(),
        }
        Verdict::Taken
    }

    /// Takes out what DTLS says; its records leave on the path that is given.
    fn shake(&mut self, path: Path, now: Time) {
        let Dtls::Shakes(session) = &mut self.dtls else { return };
        let mut buf = [0; RECORD];
        let (shaken, mut records) = (self.shaken, Vec::new());
        loop {
            match session.poll_output(&mut buf) {
                DtlsOutput::Packet(packet) => {
                    if !self.client && !shaken {
                        records.push(packet.to_vec());
                    }
                    self.stats.bytes_out += packet.len() as u64;
                    self.sent.push_back((path, packet.to_vec()));
                }
                DtlsOutput::PeerCert(certificate) => {
                    self.proven = self.crypto.sha256_provider.sha256(certificate) == self.fingerprint;
                    if !self.proven {
                        self.closing.get_or_insert_with(|| {
                            Reason::peer(
                                "wrong_certificate",
                                "the viewer shows another certificate than its offer names (a=fingerprint)",
                            )
                        });
                        self.closed = true;
                        return;
                    }
                }
                // S9: no keys without the right certificate on a path whose check succeeded.
                DtlsOutput::KeyingMaterial(material, profile) if self.proven => {
                    match srtp::keys(&material, profile, self.client, &self.crypto) {
                        Ok((sealer, opener)) => (self.sealer, self.opener) = (Some(sealer), Some(opener)),
                        Err(reason) => {
                            self.closing.get_or_insert(reason);
                            self.closed = true;
                            return;
                        }
                    }
                }
                DtlsOutput::Connected => self.shaken = true,
                DtlsOutput::CloseNotify => {
                    self.closing.get_or_insert_with(peer_closed);
                    self.closed = true;
                    return;
                }
                DtlsOutput::Timeout(at) => {
                    self.dtls_deadline =
                        Time::from_nanos(at.saturating_duration_since(self.base).as_nanos() as u64);
                    break;
                }
                _ => {}
            }
        }
        if self.sealer.is_some()
            && self.shaken
            && self.closing.is_none()
            && let Some(settled) = session.settled(records.clone())
        {
            self.dtls = Dtls::Settled(Box::new(settled));
        }
        if self.shaken && !records.is_empty() {
            let [least, most] = LAST_WORDS;
            let again = now + (now.since(self.flight) * 2).clamp(least, most);
            self.last_words = Some(LastWords { again, records });
        } else if !records.is_empty() {
            self.flight = now;
        }
        self.connect(now);
    }

    /// The media path stands once there are keys and the peer has said which path it wants.
    fn connect(&mut self, now: Time) {
        if !self.connected
            && self.shaken
            && let Some(sealer) = &self.sealer
            && let Some(nominated) = &self.nominated
            && self.last_words.as_ref().is_none_or(|words| words.again <= now)
        {
            // A record that comes twice is taken once (RFC 6347, 4.1.2.6).
            for record in self.last_words.take().map(|words| words.records).unwrap_or_default() {
                self.stats.bytes_out += record.len() as u64;
                self.sent.push_back((nominated.path, record));
            }
            self.connected = true;
            if let [Some(pictures), _] = &mut self.lanes
                && nominated.path.conn().is_none()
            {
                pictures.want_arrivals(now, AT_FIRST);
            }
            self.heard = now;
            self.next_report = now;
            self.events
                .push_back(PeerEvent::Connected { remote: nominated.path.remote(), srtp: sealer.profile() });
        }
    }

    /// Learns what the hub delivers. Answers whether something waits to be sent.
    pub(super) fn deliver(&mut self, delivery: Delivery, now: Time) -> bool {
        match delivery {
            Delivery::Config { track, config } => {
                self.lanes.iter_mut().flatten().for_each(|l| l.config(track, &config));
                false
            }
            Delivery::Frame { frame, pts, .. } => self.queue(frame, pts, now),
        }
    }

    fn queue(&mut self, frame: Arc<Frame>, pts: i64, now: Time) -> bool {
        let kind = usize::from(!frame.is_video());
        let fits = self.lanes.get(kind).and_then(Option::as_ref).map_or(Fits::NoTrack, |l| l.fits(&frame));
        let Fits::Yes(config) = fits else {
            self.stats.frames_unsent += 1;
            return false;
        };
        if !self.connected || self.closing.is_some() {
            self.stats.frames_unsent += 1;
            return false;
        }
        if frame.media.kind == FrameKind::Key && self.is_spread() {
            // A key frame that the link had no time for is worth nothing beside a newer one.
            let [pictures, _] = &mut self.waiting;
            let all = pictures.len();
            pictures.retain(|w| w.next > 0);
            self.stats.frames_unsent += (all - pictures.len()) as u64;
        }
        let behind = self.limits.ice_tcp_behind_ms;
        let waits_long = |w: &Waiting| now.since(w.since).as_millis() as u64 >= behind;
        let late = self.over().is_some() && self.waiting.iter().filter_map(VecDeque::front).any(waits_long);
        let (waiting, most) =
            (self.waiting.iter().map(VecDeque::len).sum::<usize>(), self.limits.rtc_viewer_frames);
        if late || waiting >= most {
            self.overflow(kind);
            return true;
        }
        must_here(self.limits.simulation, waiting < most, "S6", || {
            format!("{waiting} frames wait for a viewer, limits.rtc_viewer_frames is {most}")
        });
        frame.renderings.rtp.get_or_init(|| render(&frame, config));
        self.clock.frame(pts, now);
        if let (Some(Some(lane)), Some(waiting)) = (self.lanes.get_mut(kind), self.waiting.get_mut(kind)) {
            lane.started = true;
            let timestamp = lane.timestamp(pts);
            waiting.push_back(Waiting { frame, timestamp, next: 0, since: now });
        }
        true
    }

    /// More waits than may: what has not begun to leave is left out, and pictures go on with the next key frame.
    fn overflow(&mut self, kind: usize) {
        self.stats.frames_unsent += 1;
        for waiting in &mut self.waiting {
            let all = waiting.len();
            waiting.retain(|w| w.next > 0);
            self.stats.frames_unsent += (all - waiting.len()) as u64;
        }
        if let Some(Some(lane)) = self.lanes.first_mut() {
            lane.started = false;
            if kind == 0 {
                self.events.push_back(PeerEvent::KeyFrameWanted);
            }
        }
    }

    /// Nothing of what waits will leave.
    fn forget_waiting(&mut self) {
        for waiting in &mut self.waiting {
            self.stats.frames_unsent += waiting.len() as u64;
            waiting.clear();
        }
    }

    /// Appends what waits to a batch: at most `segments` packets of pictures or packets that are sent again, then sound, as
    /// the last and shorter packet of the same message where it fits (messages have `most` packets).
    pub(super) fn send(
        &mut self,
        batch: &mut Batch,
        scratch: &mut Vec<u8>,
        (segments, most): (usize, usize),
        now: Time,
    ) -> Turn {
        self.spread.turn(now);
        self.unheard(now);
        let copies = self.copies(now);
        let Some(nominated) = &self.nominated else { return Turn::Idle };
        let (source, destination) = (Some(nominated.path.local().ip()), nominated.path.remote());
        let Some(sealer) = &mut self.sealer else { return Turn::Idle };
        if self.closed || self.limits.rtc_consent_ms <= now.since(self.heard).as_millis() as u64 {
            // RFC 7675: without consent nothing leaves; the session ends at its deadline.
            if !self.limits.simulation.planted(Bug::ConsentIgnored) {
                self.forget_waiting();
                return Turn::Idle;
            }
        }
        // S9, asserted before anything leaves: the right certificate, a whole handshake, and consent that was renewed.
        let silent = now.since(self.heard);
        let may = self.proven && self.shaken && silent < Duration::from_millis(self.limits.rtc_consent_ms);
        must_here(self.limits.simulation, may, "S9", || {
            format!(
                "media for {destination}, which proved its certificate: {}, ended its handshake: {}, was heard {} ms ago",
                self.proven,
                self.shaken,
                silent.as_millis()
            )
        });
        let began = batch.buf.len();
        let paced = self.thin.pace().filter(|_| nominated.path.conn().is_none());
        let mut left = match paced {
            None => segments.max(1),
            Some(room) => self.spread.packets(room, now).min(segments),
        };
        let age = self.limits.rtc_rtx_ms;
        while left > 0
            && let Some((kind, seq)) = self.again.next(copies, now)
        {
            let start = batch.buf.len();
            if let Some(Some(lane)) = self.lanes.get_mut(kind) {
                if lane.came(seq) {
                    continue;
                }
                let put = lane.again(seq, now, Some(age), sealer, scratch, &mut batch.buf);
                leaves(&mut self.bandwidth, lane, (batch.buf.len() - start, true), now);
                self.again.spent(put.unwrap_or(0));
            }
            batch.commit(source, destination, start, most);
            left -= 1;
        }
        let fresh = batch.buf.len();
        let mut broken = false;
        let [pictures, sounds] = &mut self.waiting;
        let sound = sounds.front().and_then(|w| w.frame.renderings.rtp.get()?.0.first()).map(|p| p.len());
        for (kind, waiting) in [pictures, sounds].into_iter().enumerate() {
            // Sound never waits for the turns of a large picture.
            left = left.max(if kind == 0 { 0 } else { SOUNDS });
            let mut put = 0;
            while left > 0
                && !broken
                && let Some(front) = waiting.front_mut()
            {
                let payloads = front.frame.renderings.rtp.get().map_or(&[][..], |r| r.0.as_slice());
                let Some(Some(lane)) = self.lanes.get_mut(kind) else { break };
                let mut pad = 0;
                while left > 0
                    && let Some(payload) = payloads.get(front.next as usize)
                {
                    let last = front.next as usize + 1 == payloads.len();
                    let before = payloads.get((front.next as usize).wrapping_sub(1)).filter(|_| put > 0);
                    if let Some(before) = before.filter(|b| last && sound.is_some_and(|s| s <= b.len())) {
                        // Of one size with the others, sound can follow in the same message.
                        pad = u8::try_from(before.len().saturating_sub(payload.len())).unwrap_or(0);
                    }
                    let start = batch.buf.len();
                    let which = (front.next as usize, pad);
                    let sealed = lane.put(
                        &front.frame,
                        which,
                        (front.timestamp, now),
                        sealer,
                        scratch,
                        &mut batch.buf,
                    );
                    broken |= sealed.is_err();
                    leaves(&mut self.bandwidth, lane, (batch.buf.len() - start, false), now);
                    batch.commit(source, destination, start, most);
                    front.next += 1;
                    put += 1;
                    left -= 1;
                }
                if front.next as usize >= payloads.len()
                    && let Some(Waiting { frame, timestamp, .. }) = waiting.pop_front()
                {
                    lane.note((frame, timestamp, pad), now, self.limits.rtc_rtx_packets, age);
                }
            }
            if waiting.is_empty() && waiting.capacity() > KEPT {
                // The memory of a newcomer's burst.
                waiting.shrink_to(KEPT);
            }
        }
        // What its link carries beyond that is tried out with packets that it has already.
        let extra = self.bandwidth.as_mut().map_or(0, |b| b.extra(now)).min(TRY_BYTES);
        let (mut tried, mut back) = (0, 0);
        while tried < extra
            && let [Some(lane), _] = &mut self.lanes
            && let Some(seq) = lane.recent(back)
        {
            let start = batch.buf.len();
            let put = lane.again(seq, now, None, sealer, scratch, &mut batch.buf);
            leaves(&mut self.bandwidth, lane, (batch.buf.len() - start, false), now);
            batch.commit(source, destination, start, most);
            tried += PAYLOAD_BYTES;
            back += 1;
            if put.is_err() {
                break;
            }
        }
        if broken {
            self.closing
                .get_or_insert_with(|| Reason::local("srtp", "packets for the viewer could not be sealed"));
            self.closed = true;
        }
        // Reports have no timer: they leave with media, or there is nothing to report.
        if self.next_report <= now && batch.buf.len() > fresh {
            self.next_report = now + REPORT_INTERVAL;
            let start = batch.buf.len();
            if self.report(now, scratch, &mut batch.buf) {
                batch.commit(source, destination, start, most);
            }
        }
        self.stats.bytes_out += (batch.buf.len() - began) as u64;
        // What is sent again earns nothing.
        self.again.earned(batch.buf.len() - fresh, self.limits.rtx_percent, now);
        if paced.is_some() || self.waiting.iter().all(VecDeque::is_empty) && self.again.is_empty() {
            Turn::Idle
        } else {
            Turn::More
        }
    }

    /// Bytes that it may be handed now as a newcomer; `None`: it does not tell what comes.
    pub(super) fn burst(&mut self, now: Time) -> Option<usize> {
        if self.over().is_some() {
            // TCP sees to it.
            return Some(usize::MAX);
        }
        let [Some(lane), _] = &mut self.lanes else { return None };
        let [pictures, _] = &self.waiting;
        let left = |w: &Waiting| {
            w.frame.renderings.rtp.get().map_or(0, |r| r.0.len()).saturating_sub(w.next as usize)
        };
        let waiting = pictures.iter().map(left).sum::<usize>() as u64;
        lane.receipts.as_mut()?.burst(waiting, now)
    }

    /// Ends the session: says goodbye, then `Closed`.
    pub(super) fn close(&mut self, reason: Reason, now: Time) {
        self.closing.get_or_insert(reason);
        if let Some(Nominated { path, .. }) = self.nominated.clone() {
            self.goodbye(path);
            match &mut self.dtls {
                Dtls::Settled(settled) => {
                    if let Some(record) = settled.goodbye() {
                        self.stats.bytes_out += record.len() as u64;
                        self.sent.push_back((path, record));
                    }
                }
                Dtls::Shakes(session) => {
                    if session.close().is_ok() && session.handle_timeout(instant(self.base, now)).is_ok() {
                        self.shake(path, now);
                    }
                }
            }
        }
        self.closed = true;
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Time) {
        let limits = &self.limits;
        if !self.connected && now.since(self.opened).as_millis() as u64 >= limits.rtc_handshake_ms {
            let reason = super::peer::handshake_timeout(limits, self.heard > self.opened);
            self.closing.get_or_insert(reason);
            self.closed = true;
            return;
        }
        if now.since(self.heard).as_millis() as u64 >= limits.rtc_consent_ms
            && !limits.simulation.planted(Bug::ConsentIgnored)
        {
            let reason = super::peer::silent(limits);
            self.closing.get_or_insert(reason);
            self.closed = true;
            return;
        }
        if self.dtls_deadline <= now
            && let Dtls::Shakes(session) = &mut self.dtls
        {
            let _ = session.handle_timeout(instant(self.base, now));
            match self.nominated.clone() {
                Some(Nominated { path, .. }) => self.shake(path, now),
                // Nobody to shake hands with yet.
                None => self.dtls_deadline = now + REPORT_INTERVAL,
            }
        }
        self.connect(now);
        self.spread.due = self.next_packet().is_some_and(|at| at <= now);
        if self.next_stats <= now {
            self.next_stats = now + STATS_INTERVAL;
            if self.connected {
                self.events.push_back(PeerEvent::Stats(self.stats));
            }
        }
    }

    /// Says how it ended, once it has. Called after every input.
    pub(super) fn drain(&mut self) {
        if self.closed {
            let reason = self.closing.clone().unwrap_or_else(peer_closed);
            self.forget_waiting();
            if self.stats != SessionStats::default() {
                self.events.push_back(PeerEvent::Stats(self.stats));
            }
            self.events.push_back(PeerEvent::Closed(reason));
        }
    }

    /// When time alone changes something, and why.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let consent = self.heard + Duration::from_millis(self.limits.rtc_consent_ms);
        let shakes = matches!(self.dtls, Dtls::Shakes(_));
        let mut next = shakes.then(|| Deadline::new(self.dtls_deadline, "dtls"));
        if !self.limits.simulation.planted(Bug::ConsentIgnored) {
            next = Deadline::earliest(next, Some(Deadline::new(consent, "consent")));
        }
        let again = self.last_words.as_ref().filter(|_| self.nominated.is_some());
        next = Deadline::earliest(next, again.map(|w| Deadline::new(w.again, "the handshake's end, again")));
        if self.connected {
            next = Deadline::earliest(
                next,
                self.next_packet().map(|at| Deadline::new(at, "packets of a thin link")),
            );
            next = Deadline::earliest(next, Some(Deadline::new(self.next_stats, "numbers")));
        } else {
            let end = self.opened + Duration::from_millis(self.limits.rtc_handshake_ms);
            next = Deadline::earliest(next, Some(Deadline::new(end, "handshake")));
        }
        next
    }

    /// Learns about the tracks that are known when it opens.
    pub(super) fn tracks(&mut self, tracks: &[(TrackId, Arc<CodecConfig>)]) {
        for (track, config) in tracks {
            self.lanes.iter_mut().flatten().for_each(|l| l.config(*track, config));
        }
    }

    /// ICE begins anew with other credentials of ours; the peer's path stays until it nominates another.
    pub(super) fn restart(&mut self, creds: &IceCreds) {
        self.password.clone_from(&creds.pass);
        if let Some(nominated) = &mut self.nominated {
            nominated.priority = 0;
        }
    }
}

/// A packet of so many bytes leaves, perhaps again; if it has a number, it is told when it came.
fn leaves(bandwidth: &mut Option<Box<Bandwidth>>, lane: &mut Lane, (bytes, again): (usize, bool), now: Time) {
    if let Some(bandwidth) = bandwidth
        && let Some(number) = lane.numbered(now).filter(|_| bytes > 0)
    {
        bandwidth.sends(number, (bytes + OVERHEAD, again), now);
    }
}
