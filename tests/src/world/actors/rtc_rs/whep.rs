//! A player by WHEP (draft-ietf-wish-whep).

use super::peer::{Did, Peer};
use super::reorder::Reorder;
use crate::world::actors::In;
use crate::world::actors::player::{Heard, PlayerBy, PlayerConfig, Source};
use crate::world::actors::publisher::Attempt;
use crate::world::media::{Label, dress_of};
use proto_core::time::Time;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp::Packet;
use rtc::rtp::codec::h264::H264Packet;
use rtc::rtp::packetizer::Depacketizer;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpReceiverId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use std::collections::VecDeque;
use std::time::Duration;

/// Time between two wishes for a key frame.
const PLI: Duration = Duration::from_millis(500);

/// A player by webrtc-rs.
pub type RtcPlayer = PlayerBy<Whep>;

/// What is received of one track.
#[derive(Default)]
struct Lane {
    reorder: Reorder,
    /// The newest timestamp, counted on beyond 32 bits.
    clock: Option<u64>,
    ssrc: u32,
}

impl Lane {
    /// A timestamp without overflow (RFC 3550, 5.1).
    fn stamp(&mut self, low: u32) -> u64 {
        let stamp = match self.clock {
            None => (1 << 40) | u64::from(low),
            Some(newest) => newest.wrapping_add_signed(i64::from(low.wrapping_sub(newest as u32) as i32)),
        };
        self.clock = Some(stamp);
        stamp
    }
}

/// A depayloader that puts lengths before NAL units.
fn depacketizer() -> H264Packet {
    let mut depacketizer = H264Packet::default();
    depacketizer.is_avc = true;
    depacketizer
}

/// The access unit that is being put together.
struct Unit {
    stamp: u64,
    nals: Vec<u8>,
}

/// A player's session.
pub struct Whep {
    peer: Peer,
    video_receiver: RTCRtpReceiverId,
    video: Lane,
    audio: Lane,
    depacketizer: H264Packet,
    unit: Option<Unit>,
    /// Nothing can be decoded before the next key frame: packets were lost, or it has had none yet. What the node sends
    /// before its last DTLS message has come cannot be decrypted, so the first key frame may be among the lost.
    broken: bool,
    /// Whether parameter sets have come.
    configured: bool,
    /// When it last asked for a key frame.
    asked: Option<Time>,
    heard: VecDeque<Heard>,
}

impl Whep {
    fn drain(&mut self, now: Time) {
        while let Some(did) = self.peer.poll() {
            match did {
                Did::Do(out) => self.heard.push_back(Heard::Do(out)),
                Did::Connected => self.heard.push_back(Heard::Playing),
                Did::Status(text) => self.heard.push_back(Heard::Status(text)),
                Did::Rtp(packet) => {
                    let lane =
                        if packet.header.payload_type == 111 { &mut self.audio } else { &mut self.video };
                    lane.ssrc = packet.header.ssrc;
                    lane.reorder.push(packet, now);
                }
                Did::Rtcp(_) => {}
                Did::Ended(why) => self.heard.push_back(Heard::Ended(why)),
            }
        }
        while let Some((packet, _)) = self.audio.reorder.pop(now) {
            let stamp = self.audio.stamp(packet.header.timestamp);
            // A publisher through this library sends bare labels; what a bridge made has the first byte of Opus in front.
            let made = packet.payload.first().is_some_and(|b| *b != b'H');
            match Label::read(packet.payload.get(usize::from(made)..).unwrap_or_default()) {
                Ok(label) => {
                    // Its configuration is in the answer.
                    self.heard.push_back(Heard::Config('a', 0));
                    self.heard.push_back(Heard::Frame('a', stamp, label));
                }
                Err(e) => self.wrong(format!("sound at {stamp}: {e}")),
            }
        }
        while let Some((packet, lost)) = self.video.reorder.pop(now) {
            if lost {
                self.broken = true;
                self.unit = None;
                self.depacketizer = depacketizer();
            }
            self.picture(&packet, now);
        }
    }

    fn wrong(&mut self, text: String) {
        self.heard.push_back(Heard::Wrong("S3", text));
    }

    /// Asks for a key frame, as whoever cannot decode does (RFC 4585, 6.3.1), twice a second at most.
    fn ask(&mut self, now: Time) {
        if self.asked.is_some_and(|at| now < at + PLI) {
            return;
        }
        self.asked = Some(now);
        let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc: self.video.ssrc };
        let at = self.peer.instant(now);
        if let Some(mut receiver) = self.peer.pc.rtp_receiver(self.video_receiver) {
            let _ = receiver.write_rtcp(at, vec![Box::new(pli)]);
        }
        self.peer.drive(now);
    }

    fn picture(&mut self, packet: &Packet, now: Time) {
        // Empty packets only probe or fill.
        if packet.payload.is_empty() {
            return;
        }
        let stamp = self.video.stamp(packet.header.timestamp);
        match &self.unit {
            Some(unit) if unit.stamp != stamp => {
                if self.broken {
                    self.depacketizer = depacketizer();
                }
                let text = format!("the picture at {} has no marked end", unit.stamp);
                if !self.broken {
                    self.wrong(text);
                }
                self.unit = None;
            }
            _ => {}
        }
        let unit = self.unit.get_or_insert_with(|| Unit { stamp, nals: Vec::new() });
        match self.depacketizer.depacketize(&packet.payload) {
            Ok(nals) => unit.nals.extend_from_slice(&nals),
            Err(_) if self.broken => {}
            Err(e) => return self.wrong(format!("a packet of the picture at {stamp}: {e}")),
        }
        if packet.header.marker
            && let Some(unit) = self.unit.take()
        {
            self.whole(&unit);
            if self.broken {
                self.ask(now);
            }
        }
    }

    /// An access unit is whole: NAL units behind their lengths.
    fn whole(&mut self, unit: &Unit) {
        let (mut rest, mut sets, mut label) = (&unit.nals[..], [&[][..]; 2], None);
        while let Some((size, tail)) = rest.split_first_chunk::<4>() {
            let size = u32::from_be_bytes(*size) as usize;
            let Some((nal, tail)) = tail.split_at_checked(size) else { break };
            rest = tail;
            match nal.first().map(|b| b & 0x1f) {
                Some(7) => sets[0] = nal,
                Some(8) => sets[1] = nal,
                Some(kind @ (1 | 5)) => {
                    let read = nal.get(3..).ok_or("a short slice".to_owned()).and_then(Label::read);
                    label = Some(read.and_then(|l| {
                        let key = kind == 5;
                        if l.key == key { Ok(l) } else { Err(format!("{l:?} comes as NAL unit {kind}")) }
                    }));
                }
                _ => {}
            }
        }
        match label {
            Some(Ok(label)) => {
                if let Some(dress) = dress_of(sets[0], sets[1]) {
                    self.configured = true;
                    self.heard.push_back(Heard::Config('v', dress));
                }
                self.broken &= !(label.key && self.configured);
                if !self.broken {
                    self.heard.push_back(Heard::Frame('v', unit.stamp, label));
                }
            }
            _ if self.broken => {}
            Some(Err(e)) => self.wrong(format!("the picture at {}: {e}", unit.stamp)),
            None => self.wrong(format!("the picture at {} has no slice", unit.stamp)),
        }
    }
}

impl Source for Whep {
    fn begin(attempt: Attempt, _config: &PlayerConfig, now: Time) -> Whep {
        let mut video = None;
        let peer = Peer::new(attempt, "whep", now, |pc| {
            for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
                let init = RTCRtpTransceiverInit {
                    direction: RTCRtpTransceiverDirection::Recvonly,
                    streams: vec![],
                    send_encodings: vec![],
                };
                pc.add_transceiver_from_kind(kind, Some(init)).expect("the kind is known");
            }
            video = pc.get_receivers().last();
        });
        let mut whep = Whep {
            peer,
            video_receiver: video.expect("there is a receiver"),
            video: Lane::default(),
            audio: Lane::default(),
            depacketizer: depacketizer(),
            unit: None,
            broken: true,
            configured: false,
            asked: None,
            heard: VecDeque::new(),
        };
        whep.drain(now);
        whep
    }

    fn on(&mut self, input: &In<'_>, now: Time) {
        self.peer.on(input, now);
        self.drain(now);
    }

    fn finish(&mut self, now: Time) {
        self.peer.finish(now);
        self.drain(now);
    }

    fn abort(&mut self) {
        self.peer.abort();
    }

    fn poll(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        [self.peer.wake(), self.video.reorder.deadline(), self.audio.reorder.deadline()]
            .into_iter()
            .flatten()
            .min()
    }
}
