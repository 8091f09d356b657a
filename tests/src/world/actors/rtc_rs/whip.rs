//! A publisher by WHIP (RFC 9725).

use super::opus_at;
use super::peer::{Did, Peer, h264, opus};
use crate::world::actors::In;
use crate::world::actors::publisher::{Attempt, Due, PublisherBy, PublisherConfig, Said, Wire};
use crate::world::media::sets;
use bytes::{BufMut, Bytes, BytesMut};
use proto_core::time::Time;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp::Packet;
use rtc::rtp::codec::{h264::H264Payloader, opus::OpusPayloader};
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use rtc::rtp_transceiver::{RTCRtpSenderId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use std::collections::VecDeque;

/// A publisher by webrtc-rs.
pub type RtcPublisher = PublisherBy<Whip>;

/// Bytes of a packet's payload.
const MTU: usize = 1_150;

/// Nanoseconds from one sender report of a track to the next.
const REPORTS: i64 = 1_000_000_000;

/// The world's wall clock as an NTP timestamp (RFC 3550, 4).
fn ntp(now: Time) -> u64 {
    const EPOCH: u64 = 1_700_000_000 + 2_208_988_800;
    let nanos = now.as_nanos();
    ((EPOCH + nanos / 1_000_000_000) << 32) | (((nanos % 1_000_000_000) << 32) / 1_000_000_000)
}

/// What is sent of one track.
struct Lane {
    sender: RTCRtpSenderId,
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    first: u32,
    rate: i64,
    packets: u32,
    octets: u32,
    /// When the next sender report is due, nanoseconds from the start.
    report: i64,
    payloader: Box<dyn Payloader>,
}

/// A publisher's session.
pub struct Whip {
    peer: Peer,
    video: Lane,
    audio: Lane,
    ready: bool,
    key: bool,
    said: VecDeque<Said>,
}

impl Whip {
    fn drain(&mut self) {
        while let Some(did) = self.peer.poll() {
            match did {
                Did::Do(out) => self.said.push_back(Said::Do(out)),
                Did::Connected if !self.ready => {
                    self.ready = true;
                    self.said.push_back(Said::Ready);
                }
                Did::Rtcp(packets) => {
                    self.key |= packets.iter().any(|p| p.as_any().is::<PictureLossIndication>());
                }
                Did::Ended(why) => {
                    self.ready = false;
                    self.said.push_back(Said::Ended(why));
                }
                Did::Connected | Did::Status(_) | Did::Rtp(_) => {}
            }
        }
    }
}

/// The access unit as a byte stream (H.264, annex B); parameter sets go before key frames.
fn access_unit(due: &Due) -> Bytes {
    const START: [u8; 4] = [0, 0, 0, 1];
    let mut out = BytesMut::with_capacity(due.len + 64);
    if due.label.key {
        let (sps, pps) = sets(due.label.dress);
        for set in [&sps[..], &pps[..]] {
            out.put_slice(&START);
            out.put_slice(set);
        }
    }
    out.put_slice(&START);
    // A slice header: first macroblock 0, slice type 7 (I) or 5 (P), then bits without meaning.
    out.put_slice(if due.label.key { &[0x65, 0x88, 0x84] } else { &[0x41, 0x9a, 0x84] });
    out.put_slice(&due.label.write(due.len));
    out.freeze()
}

impl Wire for Whip {
    fn begin(attempt: Attempt, _: &PublisherConfig, now: Time) -> Whip {
        let mut rng = attempt.rng.fork("rtp", 0);
        let mut lanes = Vec::new();
        let stream = attempt.rng.fork("msid", 0).token(16);
        let peer = Peer::new(attempt, "whip", now, |pc| {
            let audio: (_, _, Box<dyn Payloader>) = (RtpCodecKind::Audio, opus(), Box::new(OpusPayloader));
            let video: (_, _, Box<dyn Payloader>) =
                (RtpCodecKind::Video, h264(), Box::new(H264Payloader::default()));
            for (kind, codec, payloader) in [audio, video] {
                let ssrc = rng.u32();
                let payload_type = if kind == RtpCodecKind::Video { 102 } else { 111 };
                let encoding = RTCRtpEncodingParameters {
                    rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
                    codec: codec.clone(),
                    ..Default::default()
                };
                let track = MediaStreamTrack::new(
                    stream.clone(),
                    kind.to_string(),
                    kind.to_string(),
                    kind,
                    vec![encoding],
                );
                let init = RTCRtpTransceiverInit {
                    direction: RTCRtpTransceiverDirection::Sendonly,
                    streams: vec![stream.clone()],
                    send_encodings: vec![],
                };
                pc.add_transceiver_from_track(track, Some(init)).expect("the track is right");
                let sender = pc.get_senders().last().expect("it has a sender");
                let (sequence, first, rate) = (rng.u32() as u16, rng.u32(), i64::from(codec.clock_rate));
                lanes.push(Lane {
                    sender,
                    ssrc,
                    payload_type,
                    sequence,
                    first,
                    rate,
                    packets: 0,
                    octets: 0,
                    report: 0,
                    payloader,
                });
            }
        });
        let video = lanes.pop().expect("two lanes");
        let audio = lanes.pop().expect("two lanes");
        let mut whip = Whip { peer, video, audio, ready: false, key: false, said: VecDeque::new() };
        whip.drain();
        whip
    }

    fn on(&mut self, input: &In<'_>, now: Time) {
        self.peer.on(input, now);
        self.drain();
    }

    fn send(&mut self, due: &Due, now: Time) {
        if !self.ready {
            return;
        }
        let video = due.label.track == 'v';
        let (lane, data) = if video {
            (&mut self.video, access_unit(due))
        } else {
            (&mut self.audio, Bytes::from(due.label.write(due.len)))
        };
        let at = self.peer.instant(now);
        let payloads = lane.payloader.payload(MTU, &data).expect("a frame can be cut into packets");
        let last = payloads.len().saturating_sub(1);
        let timestamp = lane.first.wrapping_add((due.time * lane.rate / 1_000_000_000) as u32);
        for (n, payload) in payloads.into_iter().enumerate() {
            let mut packet = Packet { payload, ..Packet::default() };
            packet.header.version = 2;
            packet.header.marker = video && n == last;
            packet.header.payload_type = lane.payload_type;
            packet.header.sequence_number = lane.sequence;
            packet.header.timestamp = timestamp;
            packet.header.ssrc = lane.ssrc;
            lane.sequence = lane.sequence.wrapping_add(1);
            lane.packets += 1;
            lane.octets += packet.payload.len() as u32;
            if let Some(mut sender) = self.peer.pc.rtp_sender(lane.sender) {
                sender.write_rtp(at, packet).expect("a packet as negotiated");
            }
        }
        if due.time >= lane.report {
            lane.report = due.time + REPORTS;
            let report = SenderReport {
                ssrc: lane.ssrc,
                ntp_time: ntp(now),
                rtp_time: timestamp,
                packet_count: lane.packets,
                octet_count: lane.octets,
                ..SenderReport::default()
            };
            if let Some(mut sender) = self.peer.pc.rtp_sender(lane.sender) {
                sender.write_rtcp(at, vec![Box::new(report)]).expect("a report can be sent");
            }
        }
        self.peer.drive(now);
        self.drain();
    }

    fn finish(&mut self, now: Time) {
        self.ready = false;
        self.peer.finish(now);
        self.drain();
    }

    fn abort(&mut self) {
        self.peer.abort();
        self.drain();
    }

    fn poll(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.peer.wake()
    }

    fn wants_key(&mut self) -> bool {
        std::mem::take(&mut self.key)
    }

    fn sound_at(n: u64) -> i64 {
        opus_at(n)
    }
}
