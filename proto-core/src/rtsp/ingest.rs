//! A publisher's RTP into frames: order, assembly, one clock; and the reports that it gets back.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::formats::Offered;
use crate::limits::Limits;
use crate::media::decode_order::DecodeOrder;
use crate::media::frame::{Ingest, NewFrame, Rotation};
use crate::media::payload::{Depay, Unit};
use crate::media::reception::Counts;
use crate::media::reorder::{Inserted, Popped, Reorder};
use crate::media::rtp_clock::{SharedClock, TrackClock};
use crate::media::track::{CodecParams, TrackId};
use crate::time::{Deadline, Time};
use crate::wire::h264_sps;
use crate::wire::h265;
use crate::wire::rtcp_reports::{self as rtcp, Report};
use crate::wire::rtp::{Packet, SequenceUnwrapper};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Another SSRC on a lane is followed once the first has been silent for so long.
const SSRC_SILENCE: Duration = Duration::from_secs(2);

/// What became of packets and frames of a publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Packets taken.
    pub(super) packets: u64,
    /// Packets that never came.
    pub(super) lost: u64,
    /// Packets that came when their place had been given up.
    pub(super) late: u64,
    /// Packets that are none, or of another payload type or stream.
    pub(super) strange: u64,
    /// Frames that could not be used.
    pub(super) damaged: u64,
}

#[derive(Debug)]
struct Held {
    timestamp: u32,
    marker: bool,
    payload: Bytes,
}

#[derive(Debug)]
struct Lane {
    track: TrackId,
    payload_type: u8,
    depay: Depay,
    /// Datagrams come in any order.
    reorder: Option<Reorder<Held>>,
    seqs: SequenceUnwrapper,
    /// The stream, and when it was heard last.
    ssrc: Option<(u32, Time)>,
    clock: TrackClock,
    order: DecodeOrder,
    counts: Counts,
    key_wanted: bool,
}

/// All lanes of one publisher.
#[derive(Debug)]
pub(super) struct Ingester {
    lanes: Vec<Option<Lane>>,
    shared: SharedClock,
    own_ssrc: u32,
    most: (usize, usize),
    waits: (Duration, Duration, usize),
    jump: Duration,
    stats: Stats,
}

impl Ingester {
    /// `own_ssrc`: who we are in reports.
    pub(super) fn new(limits: &Limits, own_ssrc: u32) -> Ingester {
        let jitter = Duration::from_millis(limits.jitter_ms);
        Ingester {
            lanes: Vec::new(),
            shared: SharedClock::default(),
            own_ssrc,
            most: (limits.frame_bytes, limits.frame_packets),
            waits: (
                Duration::from_millis(limits.rtc_video_wait_ms).min(jitter),
                Duration::from_millis(limits.rtc_audio_wait_ms).min(jitter),
                limits.rtc_audio_packets,
            ),
            jump: Duration::from_millis(limits.discontinuity_ms),
            stats: Stats::default(),
        }
    }

    /// Adds a lane; lanes are numbered from 0. Packets of a lane without a track are counted and dropped.
    pub(super) fn add(&mut self, taken: Option<(TrackId, &Offered)>, datagrams: bool) {
        let Some((track, offered)) = taken else { return self.lanes.push(None) };
        let mut depay = Depay::new(&offered.format, self.most.0, self.most.1);
        let mut order = DecodeOrder::default();
        if let Some(preset) = &offered.preset {
            depay.preset(preset);
            order.announce(reordered(preset));
        }
        let video = offered.format.codec().is_video();
        let (wait, most) = if video { (self.waits.0, self.most.1) } else { (self.waits.1, self.waits.2) };
        self.lanes.push(Some(Lane {
            track,
            payload_type: offered.payload_type,
            depay,
            reorder: datagrams.then(|| Reorder::new(wait, most)),
            seqs: SequenceUnwrapper::default(),
            ssrc: None,
            clock: TrackClock::new(offered.format.clock_rate(), self.jump),
            order,
            counts: Counts::default(),
            key_wanted: false,
        }));
    }

    /// Takes an RTP packet of a lane. Answers whether it is one.
    pub(super) fn rtp(&mut self, lane: usize, packet: &[u8], now: Time, out: &mut VecDeque<Ingest>) -> bool {
        let parsed = Packet::parse(packet);
        let Some(Some(l)) = self.lanes.get_mut(lane) else {
            self.stats.strange += 1;
            return parsed.is_some();
        };
        let Some(packet) = parsed.filter(|p| p.payload_type == l.payload_type && l.follow(p.ssrc, now))
        else {
            self.stats.strange += 1;
            return parsed.is_some();
        };
        self.stats.packets += 1;
        let seq = l.seqs.unwrap(packet.seq);
        let missed = l.counts.packet(seq, packet.timestamp, l.clock.rate(), now);
        let held = Held {
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: Bytes::copy_from_slice(packet.payload),
        };
        match &mut l.reorder {
            Some(reorder) => {
                if reorder.insert(seq, held, now) == Inserted::Late {
                    self.stats.late += 1;
                }
                self.run(now, out);
            }
            None => {
                if missed > 0 {
                    self.stats.lost += missed;
                    l.depay.lost();
                }
                l.push(&held, now, out);
            }
        }
        true
    }

    /// Takes an RTCP packet of a lane. Answers whether the stream is over.
    pub(super) fn rtcp(&mut self, lane: usize, packet: &[u8], now: Time) -> bool {
        let Some(Some(l)) = self.lanes.get_mut(lane) else { return false };
        let mut bye = false;
        for report in rtcp::parse(packet) {
            match report {
                Report::Sender { ssrc, ntp, timestamp } if l.ssrc.is_none_or(|(known, _)| known == ssrc) => {
                    l.clock.sender_report(timestamp, rtcp::nanos_of(ntp), &mut self.shared);
                    l.counts.sender_report(ntp, now);
                }
                Report::Bye { ssrc } => bye |= l.ssrc.is_some_and(|(known, _)| known == ssrc),
                _ => {}
            }
        }
        bye
    }

    /// Hands on what is in order by now.
    pub(super) fn run(&mut self, now: Time, out: &mut VecDeque<Ingest>) {
        for lane in self.lanes.iter_mut().flatten() {
            while let Some(popped) = lane.reorder.as_mut().and_then(|r| r.pop(now)) {
                match popped {
                    Popped::Packet(held) => lane.push(&held, now, out),
                    Popped::Lost(n) => {
                        self.stats.lost += n;
                        lane.depay.lost();
                    }
                }
            }
        }
    }

    /// When waiting for a missing packet ends.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let waits = self.lanes.iter().flatten().filter_map(|l| l.reorder.as_ref()?.deadline());
        waits.min().map(|at| Deadline::new(at, "missing packets"))
    }

    /// What was counted so far.
    pub(super) fn stats(&self) -> Stats {
        let damaged = self.lanes.iter().flatten().map(|l| {
            let d = l.depay.drops();
            d.damaged + d.undecodable + d.too_large
        });
        Stats { damaged: damaged.sum(), ..self.stats }
    }

    /// Somebody needs a key frame: the next report of each lane with pictures asks for one.
    pub(super) fn want_key(&mut self) {
        self.lanes
            .iter_mut()
            .flatten()
            .filter(|l| l.track == TrackId::VIDEO)
            .for_each(|l| l.key_wanted = true);
    }

    /// Whether a lane wants a key frame that has not been asked for.
    pub(super) fn wants_key(&self) -> bool {
        self.lanes.iter().flatten().any(|l| l.ssrc.is_some() && (l.key_wanted || l.depay.needs_key()))
    }

    /// The receiver's reports of all lanes that were heard.
    pub(super) fn reports(&mut self, now: Time) -> Vec<(usize, Bytes)> {
        let own = self.own_ssrc;
        let lanes = self.lanes.iter_mut().enumerate().filter_map(|(n, l)| Some((n, l.as_mut()?)));
        lanes
            .filter_map(|(n, l)| {
                let (ssrc, _) = l.ssrc?;
                let key = (std::mem::take(&mut l.key_wanted) || l.depay.needs_key()).then_some(ssrc);
                Some((n, rtcp::receiver_report(own, Some(&l.counts.block(ssrc, now)), key)))
            })
            .collect()
    }
}

impl Lane {
    fn follow(&mut self, ssrc: u32, now: Time) -> bool {
        match &mut self.ssrc {
            Some((known, last)) if *known == ssrc => *last = now,
            Some((_, last)) if now.since(*last) < SSRC_SILENCE => return false,
            other => {
                if other.is_some() {
                    self.depay.lost();
                }
                *other = Some((ssrc, now));
                self.seqs = SequenceUnwrapper::default();
                self.counts = Counts::default();
                if let Some(reorder) = &mut self.reorder {
                    reorder.reset();
                }
            }
        }
        true
    }

    fn push(&mut self, held: &Held, now: Time, out: &mut VecDeque<Ingest>) {
        let (track, clock, order) = (self.track, &mut self.clock, &mut self.order);
        self.depay.push(&held.payload, held.timestamp, held.marker, |unit| {
            take(unit, track, clock, order, now, out)
        });
    }
}

fn take(
    unit: Unit,
    track: TrackId,
    clock: &mut TrackClock,
    order: &mut DecodeOrder,
    now: Time,
    out: &mut VecDeque<Ingest>,
) {
    if let Some(params) = unit.params {
        order.announce(reordered(&params));
        out.push_back(Ingest::Config { track, params });
    }
    let (dts, pts) = if track == TrackId::VIDEO {
        let pts = clock.shown(unit.timestamp, now);
        (order.dts(pts), pts)
    } else {
        let time = clock.time(unit.timestamp, now);
        (time, time)
    };
    out.push_back(Ingest::Frame(NewFrame {
        track,
        dts,
        pts,
        kind: unit.kind,
        discardable: unit.discardable,
        temporal_layer: unit.temporal_layer,
        rotation: Rotation::R0,
        capture: None,
        payload: unit.payload,
    }));
}

/// How many pictures a track's parameters let be coded before another and shown after it.
fn reordered(params: &CodecParams) -> u32 {
    match params {
        CodecParams::H264 { sps, reorders: true, .. } => {
            sps.iter().find_map(|s| h264_sps::inspect(s)?.max_num_reorder_frames).unwrap_or(0)
        }
        CodecParams::H265 { sps, reorders: true, .. } => {
            sps.iter().find_map(|s| Some(h265::SpsInfo::parse(s)?.reorder)).unwrap_or(0)
        }
        _ => 0,
    }
}
