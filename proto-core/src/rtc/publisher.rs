//! A publisher's RTP into frames: reorder, assemble, put on one clock.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::codecs::payload_format;
use super::intake::{Intake, Opened, Received, Wanted};
use super::peer::{PeerEvent, SessionStats};
use super::sdp::Prepared;
use crate::limits::Limits;
use crate::media::frame::{Ingest, NewFrame, Rotation};
use crate::media::payload::{Depay, Unit};
use crate::media::reorder::{Inserted, Popped, Reorder};
use crate::media::rtp_clock::{SharedClock, TrackClock};
use crate::media::track::{Codec, TrackId};
use crate::rand::Rng;
use crate::time::{Deadline, Time};
use crate::wire::rtcp_reports::nanos_of;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A second SSRC on a section is followed once the first has been silent for so long.
const SSRC_SILENCE: Duration = Duration::from_secs(2);

/// Layer wait for so many round trips at least: a request, its answer, and both once more, twice.
const WAIT_ROUND_TRIPS: u32 = 5;

#[derive(Debug)]
struct Held {
    timestamp: u32,
    marker: bool,
    payload: Arc<[u8]>,
}

#[derive(Debug)]
struct Lane {
    payload_types: Vec<u8>,
    ssrc: Option<(u32, Time)>,
    reorder: Reorder<Held>,
    clock: TrackClock,
}

impl Lane {
    fn takes(&self, payload_type: u8) -> bool {
        self.payload_types.contains(&payload_type)
    }

    /// Whether packets of `ssrc` are taken, and whether it is a new one.
    fn follow(&mut self, ssrc: u32, now: Time) -> (bool, bool) {
        match &mut self.ssrc {
            Some((known, last)) if *known == ssrc => {
                *last = now;
                (true, false)
            }
            Some((_, last)) if now.since(*last) < SSRC_SILENCE => (false, false),
            other => {
                let changed = other.is_some();
                *other = Some((ssrc, now));
                (true, changed)
            }
        }
    }
}

/// One encoding of the pictures: a layer of a simulcast, or all there is.
#[derive(Debug)]
struct Layer {
    track: TrackId,
    lane: Lane,
    depay: Depay,
    key_wanted: bool,
    key_asked: Option<Time>,
}

impl Layer {
    fn key_due_at(&self, every: Duration) -> Option<Time> {
        self.key_wanted.then(|| self.key_asked.map_or(Time::ZERO, |t| t + every))
    }
}

#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) intake: Intake,
    video: Vec<Layer>,
    audio: Option<(Lane, Depay)>,
    shared: SharedClock,
    /// How long pictures wait for a lost packet, at least and at most.
    video_wait: (Duration, Duration),
    /// Key frames of one track are asked for no more often.
    key_interval: Duration,
}

impl Publisher {
    pub(super) fn new(p: &Prepared, limits: &Limits, rng: &mut Rng) -> Publisher {
        let jitter = Duration::from_millis(limits.jitter_ms);
        let video_wait = Duration::from_millis(limits.rtc_video_wait_ms).min(jitter);
        // Sound is not retransmitted; its wait is for disorder only.
        let audio_wait = Duration::from_millis(limits.rtc_audio_wait_ms).min(jitter);
        let jump = Duration::from_millis(limits.discontinuity_ms);
        let depay = |codec: Codec| {
            let format = payload_format(codec)?;
            Some((Depay::new(&format, limits.frame_bytes, limits.frame_packets), format.clock_rate()))
        };
        let pictures = |layer: usize| {
            let (depay, rate) = depay(p.video.first()?.codec)?;
            let lane = Lane {
                payload_types: p.video.iter().map(|f| f.pt).collect(),
                ssrc: None,
                reorder: Reorder::new(video_wait, limits.frame_packets),
                clock: TrackClock::new(rate, jump),
            };
            let track = TrackId::video(u8::try_from(layer).ok()?)?;
            Some(Layer { track, lane, depay, key_wanted: false, key_asked: None })
        };
        let video = (0..p.layers.len().max(1)).filter_map(pictures).collect();
        let audio = p.audio.and_then(|format| {
            let (depay, rate) = depay(format.codec)?;
            let lane = Lane {
                payload_types: vec![format.pt],
                ssrc: None,
                reorder: Reorder::new(audio_wait, limits.rtc_audio_packets),
                clock: TrackClock::new(rate, jump),
            };
            Some((lane, depay))
        });
        Publisher {
            intake: Intake::new(Wanted::of(p), limits, rng),
            video,
            audio,
            shared: SharedClock::default(),
            video_wait: (video_wait, jitter),
            key_interval: Duration::from_millis(1000 / u64::from(limits.key_requests_per_s.max(1))),
        }
    }

    /// Takes a datagram of RTP or RTCP. Answers whether it is the peer's.
    pub(super) fn datagram(&mut self, datagram: &[u8], now: Time, stats: &mut SessionStats) -> bool {
        match self.intake.datagram(datagram, now) {
            Opened::Media(packet) => self.packet(packet, now, stats),
            Opened::Clock(clocks) => {
                for (ssrc, ntp, timestamp) in clocks {
                    self.sender_report(ssrc, ntp, timestamp);
                }
            }
            Opened::Nothing => {}
            Opened::Seen => stats.packets_repeated += 1,
            Opened::Refused => return false,
        }
        true
    }

    fn packet(&mut self, packet: Received, now: Time, stats: &mut SessionStats) {
        let pt = packet.payload_type;
        let mut pictures = self.video.get_mut(packet.layer).filter(|p| p.lane.takes(pt));
        let is_video = pictures.is_some();
        let lane = match (&mut pictures, &mut self.audio) {
            (Some(pictures), _) => &mut pictures.lane,
            (_, Some((lane, _))) if lane.takes(pt) => lane,
            _ => return,
        };
        let (taken, changed) = lane.follow(packet.ssrc, now);
        if !taken {
            return;
        }
        if is_video {
            self.intake.picture(&packet, now);
        }
        if changed {
            stats.packets_lost += lane.reorder.reset() as u64;
        }
        let held = Held { timestamp: packet.timestamp, marker: packet.marker, payload: packet.payload };
        if lane.reorder.insert(packet.seq, held, now) == Inserted::Late {
            stats.packets_late += 1;
        }
        if let Some(pictures) = pictures.filter(|_| changed) {
            pictures.depay.lost();
            pictures.key_wanted = true;
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.video.iter().map(|p| &p.lane).chain(self.audio.iter().map(|(lane, _)| lane))
    }

    fn sender_report(&mut self, ssrc: u32, ntp: u64, timestamp: u32) {
        let lanes =
            self.video.iter_mut().map(|p| &mut p.lane).chain(self.audio.iter_mut().map(|(lane, _)| lane));
        for lane in lanes.filter(|lane| lane.ssrc.is_some_and(|(known, _)| known == ssrc)) {
            lane.clock.sender_report(timestamp, nanos_of(ntp), &mut self.shared);
        }
    }

    /// Turns what is in order by now into media.
    pub(super) fn run(&mut self, now: Time, stats: &mut SessionStats, out: &mut VecDeque<PeerEvent>) {
        for (layer, pictures) in self.video.iter_mut().enumerate() {
            let Layer { track, lane, depay, key_wanted, .. } = pictures;
            let before = depay.drops();
            // On a long way what is lost needs longer to come again than on a short one.
            let round_trips = self.intake.rtt().unwrap_or_default() * WAIT_ROUND_TRIPS;
            lane.reorder.wait(self.video_wait.0.max(round_trips).min(self.video_wait.1));
            if self.intake.overflowed(layer) {
                *key_wanted = true;
            }
            while let Some(popped) = lane.reorder.pop(now) {
                match popped {
                    Popped::Lost(n) => {
                        stats.packets_lost += n;
                        depay.lost();
                        *key_wanted = true;
                        lane.reorder.next().into_iter().for_each(|next| self.intake.given_up(layer, next));
                    }
                    Popped::Packet(held) => {
                        let (clock, track) = (&mut lane.clock, *track);
                        depay.push(&held.payload, held.timestamp, held.marker, |unit| {
                            take(unit, track, clock, now, out);
                        });
                    }
                }
            }
            let drops = depay.drops();
            if drops != before && depay.needs_key() {
                *key_wanted = true;
            }
        }
        if let Some((lane, depay)) = &mut self.audio {
            while let Some(popped) = lane.reorder.pop(now) {
                match popped {
                    Popped::Lost(n) => {
                        stats.packets_lost += n;
                        depay.lost();
                    }
                    Popped::Packet(held) => {
                        let clock = &mut lane.clock;
                        depay.push(&held.payload, held.timestamp, held.marker, |unit| {
                            take(unit, TrackId::AUDIO, clock, now, out);
                        });
                    }
                }
            }
        }
        let audio = self.audio.as_ref().map(|(_, depay)| depay.drops()).unwrap_or_default();
        (stats.frames_damaged, stats.frames_undecodable) = (audio.damaged, 0);
        stats.frames_too_large = audio.too_large;
        for drops in self.video.iter().map(|p| p.depay.drops()) {
            stats.frames_damaged += drops.damaged;
            stats.frames_undecodable += drops.undecodable;
            stats.frames_too_large += drops.too_large;
        }
        stats.discontinuities = self.lanes().map(|l| l.clock.discontinuities()).sum();
    }

    /// A key frame of this track is wanted, or of all.
    pub(super) fn want_key(&mut self, track: Option<TrackId>) {
        let wanted = |p: &&mut Layer| track.is_none_or(|t| t == p.track);
        self.video.iter_mut().filter(wanted).for_each(|p| p.key_wanted = true);
    }

    /// Tells the sender what it is to know by now.
    pub(super) fn tell(&mut self, now: Time) {
        // Before the first packet there is nobody to ask, and the first picture is a key frame.
        for pictures in &mut self.video {
            if let Some((ssrc, _)) = pictures.lane.ssrc
                && pictures.key_due_at(self.key_interval).is_some_and(|at| at <= now)
            {
                pictures.key_wanted = false;
                pictures.key_asked = Some(now);
                self.intake.request_key_frame(ssrc);
            }
        }
        self.intake.run(now);
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let reorder = self.lanes().filter_map(|l| l.reorder.deadline()).min();
        let started = self.video.iter().filter(|p| p.lane.ssrc.is_some());
        let key = started.filter_map(|p| p.key_due_at(self.key_interval)).filter(|at| *at > Time::ZERO).min();
        let next = Deadline::earliest(
            reorder.map(|at| Deadline::new(at, "missing packets")),
            key.map(|at| Deadline::new(at, "key frame request")),
        );
        Deadline::earliest(next, self.intake.deadline())
    }
}

/// Gives a frame its time and hands it on, its track's parameters first where they changed.
fn take(unit: Unit, track: TrackId, clock: &mut TrackClock, now: Time, out: &mut VecDeque<PeerEvent>) {
    if let Some(params) = unit.params {
        out.push_back(PeerEvent::Media(Ingest::Config { track, params }));
    }
    let time = clock.time(unit.timestamp, now);
    let frame = NewFrame {
        track,
        dts: time,
        pts: time,
        kind: unit.kind,
        discardable: unit.discardable,
        temporal_layer: unit.temporal_layer,
        rotation: Rotation::R0,
        capture: None,
        payload: unit.payload,
    };
    out.push_back(PeerEvent::Media(Ingest::Frame(frame)));
}
