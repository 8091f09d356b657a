//! What viewers say of what they get (RTCP in), and what they are told (RTCP out).

use super::receipts::{AFTER_LOSS, Asked};
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
/// What is saved up beyond that is forgotten over so long: at 25 % there is enough for all of two seconds at most, for when
/// nothing is heard of what came.
const SAVED: Duration = Duration::from_secs(8);
/// Of the budget, copies leave so much to what is asked for …
const COPIES_LEAVE: i64 = BUDGET_MAX / 4;
/// … and what nothing is heard of, so much …
const UNHEARD_LEAVES: i64 = BUDGET_MAX / 8;
/// … and copies of that, so much.
const UNHEARD_COPIES_LEAVE: i64 = BUDGET_MAX / 2;
/// Where a stream's time runs away from what its first frame promised by so much, both lanes begin a new count.
const APART: u64 = 10_000_000_000;
/// What a viewer's link carries is told to whoever chooses for it so often at most.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);

/// What is asked for leaves so often where feedback takes long: requests come a round trip apart, and the first answer may be
/// lost too.
const COPIES: u8 = 3;
/// What nothing is heard of leaves so often, as far as there is budget.
const UNHEARD_COPIES: u8 = 2;
/// So much time lies between two copies, so that hardly a burst of losses takes both.
const BETWEEN: Duration = Duration::from_millis(50);
/// Feedback that takes no longer says in time whether there is need of a copy.
const SOON: Duration = Duration::from_millis(60);

/// A packet that leaves once more.
#[derive(Clone, Copy, Debug)]
struct Copy {
    packet: (usize, u16),
    left: u8,
    due: Time,
}

/// What is to be sent again, within a budget (A27).
#[derive(Debug)]
pub(super) struct Again {
    asked: VecDeque<(usize, u16)>,
    /// What nothing was heard of, behind what was asked for.
    unheard: VecDeque<(usize, u16)>,
    /// Copies in the order in which they are due; as long as little is lost, there is room for them.
    copies: VecDeque<Copy>,
    budget: i64,
    /// When it was earned last.
    earned: Time,
}

impl Default for Again {
    fn default() -> Again {
        Again {
            asked: VecDeque::new(),
            unheard: VecDeque::new(),
            copies: VecDeque::new(),
            budget: BUDGET_MAX,
            earned: Time::ZERO,
        }
    }
}

impl Again {
    fn ask(&mut self, lane: usize, seq: u16) {
        let packet = (lane, seq);
        let known = self.asked.contains(&packet) || self.copies.iter().any(|c| c.packet == packet);
        if self.asked.len() < AGAIN_MAX && !known {
            self.asked.push_back(packet);
        }
    }

    /// Nothing is heard of a packet: it leaves once more if there is much budget.
    fn unheard(&mut self, lane: usize, seq: u16) {
        if self.unheard.len() < AGAIN_MAX {
            self.unheard.push_back((lane, seq));
        }
    }

    /// The next one that may be sent at `now`. What the budget does not cover is forgotten: the viewer asks again, or for a
    /// key frame.
    pub(super) fn next(&mut self, copies: u8, now: Time) -> Option<(usize, u16)> {
        if self.budget <= 0 {
            self.asked.clear();
        }
        if self.budget <= COPIES_LEAVE || copies <= 1 {
            self.copies.clear();
        }
        if self.budget <= UNHEARD_LEAVES {
            self.unheard.clear();
        }
        let (packet, left) = match self.copies.pop_front_if(|c| c.due <= now) {
            Some(copy) => (copy.packet, copy.left),
            None => match self.asked.pop_front() {
                Some(packet) => (packet, copies),
                None => {
                    let most = if self.budget > UNHEARD_COPIES_LEAVE { UNHEARD_COPIES } else { 1 };
                    (self.unheard.pop_front()?, copies.min(most))
                }
            },
        };
        if left > 1 && self.copies.len() < AGAIN_MAX {
            self.copies.push_back(Copy { packet, left: left - 1, due: now + BETWEEN });
        }
        Some(packet)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.unheard.is_empty()
    }

    pub(super) fn spent(&mut self, bytes: usize) {
        self.budget -= bytes as i64;
    }

    /// Bytes were sent; a share of them may be sent again.
    pub(super) fn earned(&mut self, bytes: usize, percent: u32, now: Time) {
        let passed = now.since(self.earned).min(SAVED);
        self.earned = now;
        let saved = i128::from((self.budget - BUDGET_MAX).max(0));
        let forgotten = saved * passed.as_nanos() as i128 / SAVED.as_nanos() as i128;
        self.budget += bytes as i64 * i64::from(percent) / 100 - forgotten as i64;
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
                        missing.iter().for_each(|seq| self.asked(lane, seq, now));
                    }
                }
                Packet::Arrivals(feedback) => {
                    if let Some(bandwidth) = &mut self.bandwidth {
                        bandwidth.feedback(feedback.iter(), now);
                        let room = bandwidth.estimate();
                        if self.adapts {
                            self.has_room(room, now);
                        }
                        self.fed(now);
                    }
                    let [Some(pictures), _] = &mut self.lanes else { continue };
                    let Some(receipts) = &mut pictures.receipts else { continue };
                    let which = (feedback.nth(), feedback.base());
                    for seq in receipts.feedback(which, feedback.iter().map(|(_, at)| at), now) {
                        self.again.ask(0, seq as u16);
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
                Packet::Rate { bits } => {
                    if self.adapts && self.bandwidth.is_none() {
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
    pub(super) fn has_room(&mut self, room: Option<u64>, now: Time) {
        if self.next_room <= now && (room.is_some() || self.stats.room.is_some()) {
            self.next_room = now + ROOM_INTERVAL;
            self.stats.room = room;
            self.events.push_back(PeerEvent::Room(room));
        }
    }

    /// A packet was asked for. What is known to have come, or may yet come as it left again less than a round trip ago, is
    /// not sent for that.
    fn asked(&mut self, lane: usize, seq: u16, now: Time) {
        let rtt = self.stats.rtt.unwrap_or_default();
        if let Some(Some(of)) = self.lanes.get_mut(lane)
            && let Some(number) = of.newest(seq)
        {
            of.want_arrivals(now, AFTER_LOSS);
            if let Some(receipts) = &mut of.receipts
                && receipts.asked(number, rtt, now) == Asked::Waits
            {
                return;
            }
        }
        self.again.ask(lane, seq);
    }

    /// What feedback is overdue about is sent again, once: most of it came. Over TCP all comes.
    pub(super) fn unheard(&mut self, now: Time) {
        if self.over().is_some() {
            return;
        }
        let [Some(pictures), _] = &mut self.lanes else { return };
        let Some(receipts) = &mut pictures.receipts else { return };
        for seq in receipts.unheard(Duration::from_millis(self.limits.rtc_rtx_ms), now) {
            self.again.unheard(0, seq as u16);
        }
    }

    /// How often what is asked for leaves. On a full link copies would be what is lost next, and where feedback is back about
    /// as soon as a copy would leave, it says whether there is need of one.
    pub(super) fn copies(&self, now: Time) -> u8 {
        let [pictures, _] = &self.lanes;
        let told = pictures.as_ref().and_then(|l| l.receipts.as_ref()).and_then(|r| r.told_after());
        let full = self.bandwidth.as_ref().is_some_and(|b| b.is_full(now));
        if full || told.is_none_or(|after| after <= SOON) { 1 } else { COPIES }
    }

    /// Whether something waits to be sent again.
    pub(in crate::rtc) fn wants_turn(&self) -> bool {
        if self.is_spread() { self.spread.due } else { !self.again.is_empty() }
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
        let Some(lane) = self.lane_of(report.ssrc) else { return };
        self.stats.loss_out = Some(f32::from(report.lost) / 256.0);
        let rtt = rtcp::round_trip(ntp(now), report.last_sr, report.since_last_sr);
        self.stats.rtt = rtt.or(self.stats.rtt);
        if lane == 0 {
            self.weigh(report, rtt, now);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_leaves_thrice_with_time_in_between() {
        let ms = Time::from_millis;
        let mut again = Again::default();
        again.ask(0, 7);
        again.ask(0, 7);
        again.ask(0, 8);
        assert_eq!([again.next(COPIES, ms(0)), again.next(COPIES, ms(1))], [Some((0, 7)), Some((0, 8))]);
        assert_eq!(again.next(COPIES, ms(49)), None);
        assert!(again.is_empty(), "a copy asks for no turn of its own");
        again.ask(0, 7);
        assert!(again.is_empty(), "it leaves again anyway");
        assert_eq!([again.next(COPIES, ms(50)), again.next(COPIES, ms(50))], [Some((0, 7)), None]);
        assert_eq!([again.next(COPIES, ms(51)), again.next(COPIES, ms(99))], [Some((0, 8)), None]);
        assert_eq!([again.next(COPIES, ms(100)), again.next(COPIES, ms(101))], [Some((0, 7)), Some((0, 8))]);
        assert_eq!(again.next(COPIES, ms(999)), None);
        again.ask(0, 3);
        assert_eq!([again.next(1, ms(1_000)), again.next(1, ms(2_000))], [Some((0, 3)), None]);
    }

    #[test]
    fn what_nothing_is_heard_of_comes_second_and_leaves_twice_while_there_is_much_budget() {
        let ms = Time::from_millis;
        let mut again = Again::default();
        again.unheard(0, 5);
        again.ask(0, 6);
        assert!(!again.is_empty());
        let two = |a: &mut Again, at| [a.next(COPIES, ms(at)), a.next(COPIES, ms(at))];
        assert_eq!(two(&mut again, 0), [Some((0, 6)), Some((0, 5))]);
        assert_eq!(two(&mut again, 50), [Some((0, 6)), Some((0, 5))]);
        assert_eq!(two(&mut again, 100), [Some((0, 6)), None]);
        again.spent((BUDGET_MAX - UNHEARD_COPIES_LEAVE) as usize);
        again.unheard(0, 5);
        assert_eq!([again.next(COPIES, ms(200)), again.next(COPIES, ms(300))], [Some((0, 5)), None]);
        again.spent((UNHEARD_COPIES_LEAVE - COPIES_LEAVE) as usize);
        again.ask(0, 9);
        assert_eq!([again.next(COPIES, ms(400)), again.next(COPIES, ms(500))], [Some((0, 9)), None]);
        again.spent((COPIES_LEAVE - UNHEARD_LEAVES) as usize);
        again.unheard(0, 5);
        assert_eq!(again.next(COPIES, ms(600)), None, "the rest is for what is asked for");
        again.ask(0, 4);
        assert_eq!(again.next(COPIES, ms(600)), Some((0, 4)));
        again.spent(BUDGET_MAX as usize);
        again.ask(0, 9);
        assert_eq!(again.next(COPIES, ms(700)), None);
    }

    #[test]
    fn a_quarter_of_what_was_sent_is_saved_for_some_seconds() {
        let mut again = Again::default();
        let mut at = 0;
        let mut send = |again: &mut Again, seconds: u64, bytes: usize| {
            for _ in 0..seconds * 50 {
                at += 20;
                again.earned(bytes, 25, Time::from_millis(at));
            }
            again.budget - BUDGET_MAX
        };
        // 300 kB a second.
        let saved = send(&mut again, 60, 6_000);
        assert!((580_000..600_000).contains(&saved), "{saved}: 75 kB for eight seconds");
        assert!(send(&mut again, 60, 0) < 1_000, "who is sent nothing keeps what everyone begins with");
        again.spent(1 << 20);
        assert!(send(&mut again, 1, 6_000) < 76_000 - (1 << 20));
    }
}
