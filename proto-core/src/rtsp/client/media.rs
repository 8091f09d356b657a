//! Media of a client's session, both ways.

use super::{Client, Output, REPORT_EVERY, Way};
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::rtsp::egress::Written;
use crate::rtsp::ingest::Ingester;
use crate::time::Time;
use crate::wire::rtcp_reports::{self as rtcp, Report};
use crate::wire::rtsp::put_frame_head;
use bytes::{Bytes, BytesMut};
use std::time::Duration;

impl Client {
    /// A packet of the server, by whatever way it came.
    pub(super) fn packet(&mut self, lane: usize, rtcp: bool, bytes: &[u8], now: Time) {
        if self.plays() {
            let Some(ingest) = &mut self.ingest else { return };
            if rtcp {
                if ingest.rtcp(lane, bytes, now) {
                    self.close(Reason::peer("rtcp_bye", "the server says that the stream is over"), now);
                }
            } else if ingest.rtp(lane, bytes, now, &mut self.media) {
                self.media_at = Some(now);
            }
            self.take_media(now);
        } else if rtcp && self.active {
            let ssrc = self.egress.ssrc(lane);
            let wanted = |r: &Report| matches!(r, Report::KeyFrameWanted { ssrc: s } if Some(*s) == ssrc);
            if rtcp::parse(bytes).iter().any(wanted) && self.may_ask_for_key(now) {
                self.key_asked = Some(now);
                self.events.push_back(Output::KeyFrameWanted);
            }
        }
    }

    fn may_ask_for_key(&self, now: Time) -> bool {
        let pause = Duration::from_millis(1_000 / u64::from(self.limits.key_requests_per_s.max(1)));
        self.key_asked.is_none_or(|at| now.since(at) >= pause)
    }

    pub(super) fn take_media(&mut self, now: Time) {
        self.events.extend(self.media.drain(..).map(Output::Media));
        if self.active && self.may_ask_for_key(now) && self.ingest.as_ref().is_some_and(Ingester::wants_key) {
            self.key_asked = Some(now);
            self.report(now);
        }
    }

    pub(super) fn report(&mut self, now: Time) {
        if !self.active {
            return;
        }
        let reports = match &mut self.ingest {
            Some(ingest) => ingest.reports(now),
            None => self.egress.reports(now, &self.wall, false),
        };
        self.report_at = Some(now + REPORT_EVERY);
        for (lane, bytes) in reports {
            self.put_packet(lane, true, &bytes);
        }
    }

    pub(super) fn put_packet(&mut self, lane: usize, rtcp: bool, bytes: &Bytes) {
        match self.lanes.get(lane) {
            Some(Way::Channels(rtp, control)) => {
                let mut out = BytesMut::with_capacity(4 + bytes.len());
                put_frame_head(&mut out, if rtcp { *control } else { *rtp }, bytes.len());
                out.extend_from_slice(bytes);
                self.outbox.push(out);
            }
            Some(Way::Datagrams) => {
                self.events.push_back(Output::Datagram { lane, rtcp, bytes: bytes.clone() });
            }
            None => {}
        }
    }

    pub(super) fn deliver(&mut self, delivery: &Delivery, now: Time) {
        if !self.active || self.plays() {
            if matches!(delivery, Delivery::Config { .. }) {
                let _ = self.egress.write(delivery, now);
            }
            return;
        }
        match self.egress.write(delivery, now) {
            Written::Packets { lane, burst, first } => {
                match self.lanes.get(lane).copied() {
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
            Written::Changed(_) => {
                self.drop_some("config_changed", 1);
                // RTSP cannot tell a server; a new session can.
                let text = "the publisher's codec changed; the server is told anew";
                self.log(Level::Info, text);
                self.close(Reason::local("config_changed", text), now);
            }
        }
    }
}
