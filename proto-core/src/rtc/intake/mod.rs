//! What a publisher's session does with media, beside str0m, which does ICE, DTLS and data channels for it: SRTP is opened,
//! each packet is accounted for, and the sender is told what it needs to know: reports (RFC 3550), packets to send again
//! (RFC 4585, RFC 4588), when packets came (transport-wide feedback), key frames, and the rate where it asks for that.
//!
//! str0m could do all that too, but gives a packet up after five requests or once a hundred others have come, which is a
//! quarter of a key frame of 4K.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrivals;
mod estimate;
mod missing;
mod offer;

use super::srtp::receive::{self, Receiver};
use super::srtp::{Opener, Refused, Sealer};
use crate::error::Reason;
use crate::limits::Limits;
use crate::media::reception::Counts;
use crate::rand::Rng;
use crate::time::{Deadline, Time};
use crate::wire::rtcp::{self, Packet};
use crate::wire::rtcp_feedback as feedback;
use crate::wire::rtcp_reports::ntp_of;
use crate::wire::rtp;
use arrivals::Arrivals;
use estimate::Estimate;
use missing::Missing;
pub(super) use offer::{TRANSPORT, Wanted};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use str0m::config::CryptoProvider;
use str0m::crypto::dtls::SrtpProfile;

/// How often the sender gets reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Entries of one request for lost packets: 17 numbers each.
const NACK_ENTRIES: usize = 200;

/// A packet of media.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) payload_type: u8,
    pub(super) ssrc: u32,
    /// Which of the layers of the pictures it is of; 0 where there is one, and of sound.
    pub(super) layer: usize,
    /// The sequence number, with its wraps above.
    pub(super) seq: u64,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    /// It was sent again.
    pub(super) again: bool,
    pub(super) payload: Arc<[u8]>,
}

/// What came of a datagram.
#[derive(Debug)]
pub(super) enum Opened {
    /// Media, of now or sent again.
    Media(Received),
    /// A sender's clock: source, NTP time, RTP timestamp.
    Clock(Vec<(u32, u64, u32)>),
    /// Authentic, and nothing to hand on: padding, feedback.
    Nothing,
    /// Seen before.
    Seen,
    /// Not the peer's, or of one source too many.
    Refused,
}

struct Keys {
    sealer: Sealer,
    opener: Opener,
    receiver: Receiver,
}

#[derive(Debug)]
struct Source {
    counts: Counts,
    /// Its packets are those of others, sent again.
    repairs: bool,
    /// The layer of the pictures that it named, or repairs.
    layer: Option<usize>,
    /// Bytes since the report before.
    bytes: u64,
}

/// One encoding of the pictures: a layer of a simulcast, or all there is.
#[derive(Debug)]
struct Encoding {
    /// The source whose packets are asked for again.
    source: Option<u32>,
    missing: Missing,
}

/// The receiving side of a session.
pub(super) struct Intake {
    wanted: Wanted,
    /// Who we are in reports.
    own: u32,
    keys: Option<Keys>,
    sources: BTreeMap<u32, Source>,
    pictures: Vec<Encoding>,
    arrivals: Arrivals,
    estimate: Option<Estimate>,
    next_report: Time,
    /// When something was said last.
    said: Time,
    intra: u8,
    most: usize,
    /// Packets that were asked for, key frames that were asked for, share lost between the last two reports.
    pub(super) nacks: u64,
    pub(super) key_requests: u64,
    pub(super) loss: Option<f32>,
    plain: Vec<u8>,
    /// Packets to send.
    pub(super) out: VecDeque<Vec<u8>>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Intake {
    pub(super) fn new(wanted: Wanted, limits: &Limits, rng: &mut Rng) -> Intake {
        let estimate = wanted.rate.then(Estimate::default);
        let encoding = |_| Encoding { source: None, missing: Missing::new(limits.rtc_missing_packets) };
        Intake {
            pictures: (0..wanted.layers.len().max(1)).map(encoding).collect(),
            wanted,
            own: rng.u32() | 1,
            keys: None,
            sources: BTreeMap::new(),
            arrivals: Arrivals::default(),
            estimate,
            next_report: Time::ZERO,
            said: Time::ZERO,
            intra: 0,
            most: limits.rtp_ssrcs,
            nacks: 0,
            key_requests: 0,
            loss: None,
            plain: Vec::new(),
            out: VecDeque::new(),
        }
    }

    /// DTLS stands, and these are its keys. `client`: ours is the client's.
    pub(super) fn keys(
        &mut self,
        material: &[u8],
        profile: SrtpProfile,
        client: bool,
        crypto: &CryptoProvider,
    ) -> Result<(), Reason> {
        let (sealer, opener, receiver) = receive::keys(material, profile, client, crypto, self.most)?;
        self.keys = Some(Keys { sealer, opener, receiver });
        Ok(())
    }

    /// Opens a datagram of RTP or RTCP.
    pub(super) fn datagram(&mut self, datagram: &[u8], now: Time) -> Opened {
        let Some(keys) = &mut self.keys else { return Opened::Refused };
        let mut plain = std::mem::take(&mut self.plain);
        let is_rtcp = datagram.get(1).is_some_and(|kind| matches!(kind & 0x7f, 64..=95));
        let opened = if is_rtcp {
            match keys.opener.rtcp(datagram, &mut plain) {
                Ok(()) => self.rtcp(&plain, now),
                Err(Refused::Replayed) => Opened::Seen,
                Err(_) => Opened::Refused,
            }
        } else {
            match keys.receiver.open(datagram, &mut plain) {
                Ok((ssrc, index)) => self.rtp(datagram, &plain, ssrc, index, now),
                Err(Refused::Replayed) => Opened::Seen,
                Err(_) => Opened::Refused,
            }
        };
        self.plain = plain;
        opened
    }

    fn rtp(&mut self, packet: &[u8], plain: &[u8], ssrc: u32, index: u64, now: Time) -> Opened {
        let number = |id: Option<u8>| rtp::extension(packet, id?)?.first_chunk::<2>().copied();
        if let Some(number) = number(self.wanted.transport) {
            self.arrivals.came(u16::from_be_bytes(number), now);
        }
        let Some(header) = rtp::head(packet) else { return Opened::Nothing };
        let format = self
            .wanted
            .formats
            .iter()
            .find(|f| f.pt == header.payload_type || f.rtx == Some(header.payload_type));
        let Some(format) = format.cloned() else { return Opened::Nothing };
        let repairs = format.rtx == Some(header.payload_type);
        let new = Source { counts: Counts::default(), repairs, layer: None, bytes: 0 };
        let source = self.sources.entry(ssrc).or_insert(new);
        let [names, repaired] = self.wanted.layer_names;
        let layer = if !format.video || self.wanted.layers.is_empty() {
            Some(0)
        } else {
            // Senders stop naming the layer once they know that it was heard (RFC 8852, 3.3).
            let name = rtp::extension(packet, (if repairs { repaired } else { names }).unwrap_or(0));
            let said = name.and_then(|n| self.wanted.layers.iter().position(|l| l.as_bytes() == n));
            source.layer = said.or(source.layer);
            source.layer
        };
        source.counts.packet(index, header.timestamp, format.rate, now);
        source.bytes += packet.len() as u64;
        let padding = if header.padded { plain.last().map_or(0, |n| usize::from(*n)) } else { 0 };
        let Some(payload) = plain.len().checked_sub(padding).and_then(|len| plain.get(..len)) else {
            return Opened::Nothing;
        };
        let (ssrc, seq, payload) = if repairs {
            // RFC 4588, 4: its own number first. What only pads, for the sake of bandwidth estimation, has none.
            let main = layer.and_then(|l| self.pictures.get(l)?.source);
            let (Some((original, payload)), Some(main)) = (payload.split_first_chunk::<2>(), main) else {
                return Opened::Nothing;
            };
            let newest = self.keys.as_ref().and_then(|k| k.receiver.newest(main));
            let Some(seq) = receive::nearest(newest, u16::from_be_bytes(*original)) else {
                return Opened::Nothing;
            };
            (main, seq, payload)
        } else {
            (ssrc, index, payload)
        };
        let Some(layer) = layer else { return Opened::Nothing };
        // Padding takes a number, and a place in the order.
        Opened::Media(Received {
            payload_type: format.pt,
            ssrc,
            layer,
            seq,
            timestamp: header.timestamp,
            marker: header.marker,
            again: repairs,
            payload: payload.into(),
        })
    }

    /// A packet of the pictures was taken; who sends it is asked for what is missing.
    pub(super) fn picture(&mut self, packet: &Received, now: Time) {
        let Some(encoding) = self.pictures.get_mut(packet.layer) else { return };
        if encoding.source != Some(packet.ssrc) {
            encoding.source = Some(packet.ssrc);
            encoding.missing.afresh();
        }
        encoding.missing.came(packet.seq, packet.again, now);
    }

    fn rtcp(&mut self, plain: &[u8], now: Time) -> Opened {
        let mut clocks = Vec::new();
        for packet in rtcp::packets(plain).map_while(Result::ok) {
            match packet {
                Packet::Sender(info, _) => {
                    if let Some(source) = self.sources.get_mut(&info.ssrc) {
                        source.counts.sender_report(info.ntp, now);
                    }
                    clocks.push((info.ssrc, info.ntp, info.timestamp));
                }
                Packet::Extended { blocks, .. } => {
                    for block in blocks.iter() {
                        if let rtcp::Block::Delay { ssrc, last, since } = block
                            && ssrc == self.own
                        {
                            let rtt = rtcp::round_trip(ntp_of(now.as_nanos()), last, since);
                            for encoding in &mut self.pictures {
                                rtt.into_iter().for_each(|rtt| encoding.missing.measured(rtt));
                            }
                        }
                    }
                }
                // A publisher gets nothing that it could report of.
                _ => {}
            }
        }
        if clocks.is_empty() { Opened::Nothing } else { Opened::Clock(clocks) }
    }

    /// The round trip, where something is known of it.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.pictures.iter().find_map(|e| e.missing.rtt())
    }

    /// Nobody waits any more for packets of a layer of the pictures before this one.
    pub(super) fn given_up(&mut self, layer: usize, before: u64) {
        if let Some(encoding) = self.pictures.get_mut(layer) {
            encoding.missing.given_up(before);
        }
    }

    /// More packets of a layer are missing than may be asked for; only a key frame helps. Says so once.
    pub(super) fn overflowed(&mut self, layer: usize) -> bool {
        self.pictures.get_mut(layer).is_some_and(|e| e.missing.overflowed())
    }

    /// Asks for a key frame of this source, if the sender knows how.
    pub(super) fn request_key_frame(&mut self, ssrc: u32) {
        let mut plain = self.opening(&[]);
        if self.wanted.picture_loss {
            feedback::put_picture_loss(&mut plain, self.own, ssrc);
        } else if self.wanted.full_intra {
            self.intra = self.intra.wrapping_add(1);
            feedback::put_full_intra(&mut plain, self.own, ssrc, self.intra);
        } else {
            return;
        }
        self.key_requests += 1;
        self.send(&plain);
    }

    /// Says what is due.
    pub(super) fn run(&mut self, now: Time) {
        if self.keys.is_none() {
            return;
        }
        let before = self.out.len();
        if self.next_report <= now && !self.sources.is_empty() {
            self.report(now);
        }
        let mut all = Vec::new();
        for encoding in self.pictures.iter_mut().filter(|_| self.wanted.nack) {
            if let Some(ssrc) = encoding.source {
                all.push((ssrc, encoding.missing.ask(now).into_iter().map(|n| n as u16).collect::<Vec<_>>()));
            }
        }
        for (ssrc, lost) in all {
            let mut rest = lost.as_slice();
            while !rest.is_empty() {
                let mut plain = self.opening(&[]);
                let asked = feedback::put_nack(&mut plain, self.own, ssrc, rest, NACK_ENTRIES);
                self.nacks += asked as u64;
                rest = rest.get(asked.max(1)..).unwrap_or_default();
                self.send(&plain);
            }
        }
        let media = self.pictures.iter().find_map(|e| e.source).or(self.sources.keys().next().copied());
        let media = media.unwrap_or(0);
        loop {
            let mut plain = self.opening(&[]);
            if !self.arrivals.feedback(self.own, media, now, &mut plain) {
                break;
            }
            self.send(&plain);
        }
        if self.out.len() > before {
            self.said = now;
        } else if self.pressing().is_some_and(|at| at <= now) {
            self.said = now;
            let plain = self.opening(&[]);
            self.send(&plain);
        }
    }

    /// When something is to be said although there is nothing to say.
    fn pressing(&self) -> Option<Time> {
        let press = |e: &Encoding| e.missing.press(self.said);
        self.pictures.iter().filter(|_| self.wanted.nack).filter_map(press).min()
    }

    /// A compound packet begins with a report and who sends it (RFC 3550, 6.1).
    fn opening(&self, blocks: &[crate::wire::rtcp_reports::Block]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(128);
        feedback::put_receiver_report(&mut plain, self.own, blocks);
        rtcp::put_description(&mut plain, &[self.own], b"headwater");
        plain
    }

    fn report(&mut self, now: Time) {
        self.next_report = now + REPORT_INTERVAL;
        let mut worst = 0;
        let mut bytes = 0;
        let mut blocks = Vec::new();
        for (ssrc, source) in &mut self.sources {
            let block = source.counts.block(*ssrc, now);
            if !source.repairs {
                worst = worst.max(block.fraction);
            }
            bytes += std::mem::take(&mut source.bytes);
            blocks.push(block);
        }
        self.loss = Some(f32::from(worst) / 256.0);
        let mut plain = self.opening(&blocks);
        feedback::put_reference_time(&mut plain, self.own, ntp_of(now.as_nanos()));
        if let Some(estimate) = &mut self.estimate {
            let rate = estimate.report(bytes * 8, worst);
            let sources: Vec<u32> =
                self.sources.iter().filter(|(_, s)| !s.repairs).map(|(s, _)| *s).collect();
            feedback::put_rate(&mut plain, self.own, rate, &sources);
        }
        self.send(&plain);
    }

    fn send(&mut self, plain: &[u8]) {
        let Some(keys) = &mut self.keys else { return };
        let mut sealed = Vec::with_capacity(plain.len() + 32);
        if keys.sealer.rtcp(plain, &mut sealed).is_ok() {
            self.out.push_back(sealed);
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let report = (self.keys.is_some() && !self.sources.is_empty()).then_some(self.next_report);
        let asking = self.pictures.iter().filter_map(|e| e.missing.deadline()).min();
        let asking = asking.filter(|_| self.wanted.nack);
        let mut next = report.map(|at| Deadline::new(at, "receiver reports"));
        next = Deadline::earliest(next, asking.map(|at| Deadline::new(at, "requests for lost packets")));
        next = Deadline::earliest(next, self.pressing().map(|at| Deadline::new(at, "answers to requests")));
        Deadline::earliest(next, self.arrivals.deadline().map(|at| Deadline::new(at, "transport feedback")))
    }
}
