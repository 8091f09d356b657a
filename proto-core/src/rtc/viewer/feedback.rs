//! What viewers say of what they get (RTCP in), and what they are told (RTCP out).

use super::{PeerEvent, Verdict, Viewer};
use crate::rtc::path::Path;
use crate::time::Time;
use crate::wire::rtcp::{self, Block, Packet, SenderInfo};
use crate::wire::rtcp_feedback::put_delay;
use crate::wire::rtcp_reports::ntp_of;
use std::collections::VecDeque;
use std::time::Duration;

/// Requests for lost packets that may wait for their turn; a viewer that lost more needs a key frame, and asks for one.
const AGAIN_MAX: usize = 1_024;
/// Bytes that may be sent again at first, and at once: 25 % of the first moments would be too little for a newcomer's
/// cached pictures.
const BUDGET_MAX: i64 = 96 << 10;
/// Where a stream's time runs away from what its first frame promised by so much, both lanes begin a new count.
const APART: u64 = 10_000_000_000;
/// What a viewer's link carries is told to whoever chooses for it so often at most.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);

/// What is to be sent again, within a budget (A27).
#[derive(Debug)]
pub(super) struct Again {
    asked: VecDeque<(usize, u16)>,
    budget: i64,
}

impl Default for Again {
    fn default() -> Again {
        Again { asked: VecDeque::new(), budget: BUDGET_MAX }
    }
}

impl Again {
    fn ask(&mut self, lane: usize, seq: u16) {
        if self.asked.len() < AGAIN_MAX && !self.asked.contains(&(lane, seq)) {
            self.asked.push_back((lane, seq));
        }
    }

    /// The next one that may be sent. What the budget does not cover is forgotten: the viewer asks again, or for a key
    /// frame.
    pub(super) fn next(&mut self) -> Option<(usize, u16)> {
        if self.budget <= 0 {
            self.asked.clear();
        }
        self.asked.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    pub(super) fn spent(&mut self, bytes: usize) {
        self.budget -= bytes as i64;
    }

    /// Bytes were sent; a share of them may be sent again.
    pub(super) fn earned(&mut self, bytes: usize, percent: u32) {
        self.budget = (self.budget + bytes as i64 * i64::from(percent) / 100).min(BUDGET_MAX);
    }
}

/// Ties the viewer's timeline to the clock of reports, the same for sound and picture. A report says which moment of the
/// timeline is now; how far the frames that leave are behind it does not matter to lip sync, which compares the tracks.
#[derive(Debug, Default)]
pub(super) struct ReportClock {
    anchor: Option<(Time, i64)>,
}

impl ReportClock {
    /// A frame shown at `pts` leaves now.
    pub(super) fn frame(&mut self, pts: i64, now: Time) {
        let expected = self.at(now);
        if expected.is_none_or(|e| e.abs_diff(pts) > APART) {
            self.anchor = Some((now, pts));
        }
    }

    /// The moment of the timeline that is now.
    fn at(&self, now: Time) -> Option<i64> {
        let (then, pts) = self.anchor?;
        Some(pts.saturating_add(now.since(then).as_nanos() as i64))
    }
}

/// Time as NTP counts it, from the Unix epoch: what matters of the clock of reports is only how fast it runs.
fn ntp(now: Time) -> u64 {
    ntp_of(now.as_nanos())
}

impl Viewer {
    /// Takes a datagram of RTCP.
    pub(super) fn feedback(&mut self, datagram: &[u8], now: Time) -> Verdict {
        let Some(opener) = &mut self.opener else { return Verdict::Unauthentic };
        let mut plain = Vec::with_capacity(datagram.len());
        if opener.rtcp(datagram, &mut plain).is_err() {
            return Verdict::Unauthentic;
        }
        // No sign of consent: that is renewed by checks alone (RFC 7675).
        for packet in rtcp::packets(&plain).map_while(Result::ok) {
            match packet {
                Packet::Reports(reports) | Packet::Sender(_, reports) => {
                    reports.iter().for_each(|r| self.reported(&r, now))
                }
                Packet::Nack { ssrc, missing } => {
                    if let Some(lane) = self.lane_of(ssrc) {
                        missing.iter().for_each(|seq| self.again.ask(lane, seq));
                    }
                }
                Packet::PictureLoss { ssrc } => self.key_frame([ssrc].into_iter()),
                Packet::FullIntra(sources) => self.key_frame(sources.iter()),
                Packet::Extended { ssrc, blocks } => {
                    for block in blocks.iter() {
                        if let Block::ReferenceTime(time) = block {
                            self.told = Some((ssrc, (time >> 16) as u32, now));
                        }
                    }
                }
                Packet::Arrivals(feedback) => {
                    if let Some((_, bandwidth)) = &mut self.bandwidth {
                        bandwidth.feedback(feedback.iter(), now);
                        let room = bandwidth.estimate();
                        self.has_room(room, now);
                    }
                }
                Packet::Rate { bits } => {
                    if self.bandwidth.is_none() {
                        self.has_room(Some(bits), now);
                    }
                }
                // A viewer that sends nothing has nothing to say goodbye of; it ends by DTLS or silence.
                Packet::Goodbye | Packet::Other => {}
            }
        }
        Verdict::Taken
    }

    /// Its link carries so much. Told so often that what it is given can follow.
    fn has_room(&mut self, room: Option<u64>, now: Time) {
        if self.next_room <= now && (room.is_some() || self.stats.room.is_some()) {
            self.next_room = now + ROOM_INTERVAL;
            self.stats.room = room;
            self.events.push_back(PeerEvent::Room(room));
        }
    }

    /// What it could be given if its link carried so much.
    pub(in crate::rtc) fn set_goal(&mut self, goal: Option<u64>) {
        if let Some((_, bandwidth)) = &mut self.bandwidth {
            bandwidth.set_goal(goal);
        }
    }

    /// Whether something waits to be sent again.
    pub(in crate::rtc) fn wants_turn(&self) -> bool {
        !self.again.is_empty()
    }

    fn lane_of(&self, ssrc: u32) -> Option<usize> {
        self.lanes.iter().position(|l| l.as_ref().is_some_and(|l| l.ssrc == ssrc))
    }

    fn key_frame(&mut self, mut sources: impl Iterator<Item = u32>) {
        if sources.any(|s| self.lane_of(s) == Some(0)) {
            self.events.push_back(PeerEvent::KeyFrameWanted);
        }
    }

    fn reported(&mut self, report: &rtcp::Report, now: Time) {
        if self.lane_of(report.ssrc).is_none() {
            return;
        }
        self.stats.loss_out = Some(f32::from(report.lost) / 256.0);
        self.stats.rtt = rtcp::round_trip(ntp(now), report.last_sr, report.since_last_sr).or(self.stats.rtt);
    }

    /// Appends reports of all lanes that have sent something, sealed. Whether there is anything to report.
    pub(super) fn report(&mut self, now: Time, plain: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        let (Some(at), Some(sealer)) = (self.clock.at(now), &mut self.sealer) else { return false };
        plain.clear();
        let mut sources = [0; 2];
        let mut count = 0;
        for (lane, source) in self.lanes.iter().flatten().filter(|l| l.packets > 0).zip(&mut sources) {
            let info = SenderInfo {
                ssrc: lane.ssrc,
                ntp: ntp(now),
                timestamp: lane.timestamp(at),
                packets: lane.packets,
                octets: lane.octets,
            };
            rtcp::put_sender_report(plain, &info);
            *source = lane.ssrc;
            count += 1;
        }
        if count == 0 {
            return false;
        }
        rtcp::put_description(plain, sources.get(..count).unwrap_or_default(), self.cname.as_bytes());
        // A receiver's clock is answered, so that it knows how long a retransmission takes.
        if let Some((receiver, time, at)) = self.told.take() {
            let since = (now.since(at).as_nanos() * 65_536 / 1_000_000_000).min(u128::from(u32::MAX));
            let [own, _] = sources;
            put_delay(plain, own, (receiver, time, since as u32));
        }
        sealer.rtcp(plain, out).is_ok()
    }

    fn say(&mut self, plain: &[u8], path: Path) {
        let Some(sealer) = &mut self.sealer else { return };
        let mut sealed = Vec::with_capacity(plain.len() + 32);
        if sealer.rtcp(plain, &mut sealed).is_ok() {
            self.stats.bytes_out += sealed.len() as u64;
            self.sent.push_back((path, sealed));
        }
    }

    /// Says that nothing more comes (RFC 3550, 6.6).
    pub(super) fn goodbye(&mut self, path: Path) {
        let sources: Vec<u32> = self.lanes.iter().flatten().map(|l| l.ssrc).collect();
        let Some(first) = sources.first() else { return };
        let mut plain = vec![2 << 6, 201, 0, 1];
        plain.extend_from_slice(&first.to_be_bytes());
        rtcp::put_description(&mut plain, &sources, self.cname.as_bytes());
        rtcp::put_goodbye(&mut plain, &sources);
        self.say(&plain, path);
    }
}
