//! Media of a session, both ways: packets of a publisher or of a player's reports, frames to a player.

use super::{Output, REPORT_EVERY, Server, Told, Way};
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::rtsp::egress::Written;
use crate::rtsp::ingest::Ingester;
use crate::rtsp::order::State;
use crate::time::Time;
use crate::wire::rtcp_reports::{self as rtcp, Report};
use crate::wire::rtsp::put_frame_head;
use bytes::{Bytes, BytesMut};
use std::time::Duration;

impl Server {
    /// A packet of the peer, by whatever way it came.
    pub(super) fn packet(&mut self, lane: usize, rtcp: bool, bytes: &[u8], now: Time) {
        if self.state == State::Recording
            && let Some(ingest) = &mut self.ingest
        {
            if rtcp {
                ingest.rtcp(lane, bytes, now);
            } else {
                ingest.rtp(lane, bytes, now, &mut self.media);
            }
            self.take_media(now);
        } else if rtcp && matches!(self.state, State::Playing) {
            let ssrc = self.egress.ssrc(lane);
            let wanted = |r: &Report| matches!(r, Report::KeyFrameWanted { ssrc: s } if Some(*s) == ssrc);
            let pause = Duration::from_millis(1_000 / u64::from(self.limits.key_requests_per_s.max(1)));
            if rtcp::parse(bytes).iter().any(wanted) && self.key_asked.is_none_or(|at| now.since(at) >= pause)
            {
                self.key_asked = Some(now);
                self.events.push_back(Output::KeyFrameWanted);
            }
        }
    }

    pub(super) fn take_media(&mut self, now: Time) {
        self.events.extend(self.media.drain(..).map(Output::Media));
        let pause = Duration::from_millis(1_000 / u64::from(self.limits.key_requests_per_s.max(1)));
        if self.key_asked.is_none_or(|at| now.since(at) >= pause)
            && self.ingest.as_ref().is_some_and(Ingester::wants_key)
        {
            self.key_asked = Some(now);
            self.report(now);
        }
    }

    pub(super) fn report(&mut self, now: Time) {
        let reports = match (&self.state, &mut self.ingest) {
            (State::Recording, Some(ingest)) => ingest.reports(now),
            (State::Playing, _) => self.egress.reports(now, &self.wall, false),
            _ => return,
        };
        self.report_at = Some(now + REPORT_EVERY);
        for (lane, bytes) in reports {
            self.put_packet(lane, true, &[], &bytes);
        }
    }

    pub(super) fn put_packet(&mut self, lane: usize, rtcp: bool, head: &[u8], body: &Bytes) {
        match self.lanes.get(lane).map(|l| l.way) {
            Some(Way::Channels(rtp, control)) => {
                let mut out = BytesMut::with_capacity(4 + head.len() + body.len());
                put_frame_head(&mut out, if rtcp { control } else { rtp }, head.len() + body.len());
                out.extend_from_slice(head);
                out.extend_from_slice(body);
                self.outbox.push(out);
            }
            Some(Way::Datagrams) => {
                let bytes = if head.is_empty() { body.clone() } else { [head, body].concat().into() };
                self.events.push_back(Output::Datagram { lane, rtcp, bytes });
            }
            None => {}
        }
    }

    pub(super) fn deliver(&mut self, delivery: &Delivery, now: Time) {
        if self.state != State::Playing {
            if matches!(delivery, Delivery::Config { .. }) {
                let _ = self.egress.write(delivery, now);
            } else if self.told == Told::Plays {
                self.drop_some("player_asked", 1);
            }
            return;
        }
        match self.egress.write(delivery, now) {
            Written::Packets { lane, burst, first } => {
                match self.lanes.get(lane).map(|l| l.way) {
                    Some(Way::Channels(rtp, _)) => self.outbox.push(burst.interleaved(rtp)),
                    Some(Way::Datagrams) => self.events.push_back(Output::Burst { lane, burst }),
                    None => {}
                }
                if first {
                    // A receiver puts sound and picture side by side from the first report on.
                    self.report(now);
                }
            }
            Written::Config => {}
            Written::NotSetUp => self.drop_some("not_set_up", 1),
            Written::BeforeKey => self.drop_some("before_key", 1),
            Written::Changed(codec) => {
                self.drop_some("config_changed", 1);
                let text = format!(
                    "the publisher's {} is not what this player was told any more, and RTSP cannot tell it: it is to ask again",
                    codec.name()
                );
                self.close(Reason::local("config_changed", text), now);
            }
        }
    }
}
