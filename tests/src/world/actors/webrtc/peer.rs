//! The WebRTC of a client, as a browser has it: str0m with full ICE, from one UDP port or over TCP, in virtual time.

use bytes::Bytes;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

/// A client's cryptography and certificate.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) crypto: Arc<CryptoProvider>,
    pub(super) certificate: DtlsCert,
}

/// A packet of media, decrypted and authentic.
#[derive(Debug)]
pub(super) struct Rtp {
    /// Whether it is of the section of pictures (else of sound).
    pub(super) picture: bool,
    /// Sequence number, unwrapped.
    pub(super) seq: u64,
    pub(super) stamp: u32,
    pub(super) marker: bool,
    pub(super) payload: Arc<[u8]>,
}

/// What happened.
pub(super) enum Said {
    /// ICE and DTLS stand.
    Connected,
    /// Media came.
    Packet(Rtp),
    /// The node asks for a key frame.
    KeyFrameWanted,
    /// A sender report: the media section, its RTP timestamp, and nanoseconds of the sender's wall clock.
    Report(Mid, u32, i128),
    /// The session is over.
    Closed(String),
    /// A message came on the data channel.
    Text(String),
    /// It saw what must never be.
    Violation(&'static str, String),
}

pub(super) struct Peer {
    rtc: Rtc,
    base: Instant,
    local: SocketAddr,
    /// What carries its datagrams.
    protocol: Protocol,
    pending: Option<SdpPendingOffer>,
    pub(super) video: Mid,
    pub(super) audio: Mid,
    pub(super) connected: bool,
    /// SRTP may come: our ChangeCipherSpec is on its way, so the node may have finished its handshake.
    keyed: bool,
    closed: bool,
    /// The data channel, once it stands.
    channel: Option<ChannelId>,
    deadline: Time,
    /// When anything came last.
    pub(super) heard: Time,
    /// RTP that came and was not given out. At the start that is no fault of the node: str0m drops what was overtaken by
    /// the first packet of its stream.
    pub(super) unread: i64,
    /// RTP that came before this end's handshake had ended.
    pub(super) early: u64,
    pub(super) out: VecDeque<(SocketAddr, Bytes)>,
    pub(super) said: VecDeque<Said>,
}

/// What a new peer needs.
pub(super) struct Setup<'a> {
    pub(super) identity: &'a Identity,
    pub(super) rng: &'a mut Rng,
    pub(super) local: SocketAddr,
    pub(super) base: Instant,
    pub(super) direction: Direction,
    /// It dials, because no UDP passes.
    pub(super) tcp: bool,
    /// It opens a data channel of this label.
    pub(super) channel: Option<&'static str>,
}

impl Peer {
    /// A peer and its offer: one section of pictures, one of sound.
    pub(super) fn new(setup: Setup<'_>, now: Time) -> Result<(Peer, String), String> {
        let (direction, channel) = (setup.direction, setup.channel);
        let mut peer = Peer::waiting(setup, now)?;
        let mut changes = peer.rtc.sdp_api();
        peer.video = changes.add_media(MediaKind::Video, direction, None, None, None);
        peer.audio = changes.add_media(MediaKind::Audio, direction, None, None, None);
        if let Some(label) = channel {
            changes.add_channel(label.to_owned());
        }
        let (offer, pending) = changes.apply().ok_or("there is nothing to offer")?;
        peer.pending = Some(pending);
        Ok((peer, offer.to_sdp_string()))
    }

    /// A peer that waits for an offer.
    pub(super) fn waiting(setup: Setup<'_>, now: Time) -> Result<Peer, String> {
        let Setup { identity, rng, local, base, tcp, .. } = setup;
        let creds = IceCreds { ufrag: rng.token(8), pass: rng.token(24) };
        let mut rtc = Rtc::builder()
            .set_crypto_provider(identity.crypto.clone())
            .set_dtls_cert(identity.certificate.clone())
            .set_local_ice_credentials(creds)
            .set_rtp_mode(true)
            .build(base + now.since(Time::ZERO));
        let candidate = match tcp {
            true => Candidate::builder().tcp().host(local).tcptype(TcpType::Active).build(),
            false => Candidate::host(local, "udp"),
        };
        rtc.add_local_candidate(candidate.map_err(|e| e.to_string())?);
        let nowhere = Mid::from("none");
        Ok(Peer {
            rtc,
            base,
            local,
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            pending: None,
            video: nowhere,
            audio: nowhere,
            connected: false,
            keyed: false,
            closed: false,
            channel: None,
            deadline: now,
            heard: now,
            unread: 0,
            early: 0,
            out: VecDeque::new(),
            said: VecDeque::new(),
        })
    }

    /// Takes an offer, and answers it; opens a data channel of that label if one is offered.
    pub(super) fn offered(&mut self, sdp: &str, label: &str, now: Time) -> Result<String, String> {
        // Asked to choose, a browser begins the handshake (RFC 8842, 5.3), and str0m would not.
        let asked = sdp.replace("a=setup:actpass", "a=setup:passive");
        let offer = SdpOffer::from_sdp_string(&asked).map_err(|e| e.to_string())?;
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(|e| e.to_string())?;
        let mut kind = "";
        for line in sdp.lines() {
            match (line.strip_prefix("m="), line.strip_prefix("a=mid:")) {
                (Some(section), _) => kind = section.split(' ').next().unwrap_or_default(),
                (_, Some(mid)) if kind == "video" => self.video = Mid::from(mid.trim()),
                (_, Some(mid)) if kind == "audio" => self.audio = Mid::from(mid.trim()),
                _ => {}
            }
        }
        if sdp.contains("m=application ") {
            let mut changes = self.rtc.sdp_api();
            changes.add_channel(label.to_owned());
            // There is a section for it already, so that nothing has to be negotiated.
            if changes.apply().is_some() {
                return Err("a channel that needs another offer".to_owned());
            }
        }
        self.tick(now);
        Ok(answer.to_sdp_string())
    }

    /// Says something on the data channel. Whether it stands and took it.
    pub(super) fn say(&mut self, text: &str, now: Time) -> bool {
        let channel = self.channel.and_then(|id| self.rtc.channel(id));
        let taken = channel.is_some_and(|mut c| c.write(false, text.as_bytes()).unwrap_or(false));
        self.tick(now);
        taken
    }

    pub(super) fn port(&self) -> u16 {
        self.local.port()
    }

    fn instant(&self, now: Time) -> Instant {
        self.base + now.since(Time::ZERO)
    }

    /// Takes the answer.
    pub(super) fn answer(&mut self, sdp: &str, now: Time) -> Result<(), String> {
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|e| e.to_string())?;
        let pending = self.pending.take().ok_or("a second answer")?;
        self.rtc.sdp_api().accept_answer(pending, answer).map_err(|e| e.to_string())?;
        self.tick(now);
        Ok(())
    }

    /// Whether the node took a section.
    pub(super) fn takes(&self, mid: Mid) -> bool {
        self.rtc
            .media(mid)
            .is_some_and(|m| m.direction() != Direction::Inactive && !m.remote_pts().is_empty())
    }

    /// Whether a payload type is of the section of pictures.
    fn is_picture(&self, pt: u8) -> bool {
        self.rtc.media(self.video).is_some_and(|m| m.remote_pts().iter().any(|p| **p == pt))
    }

    /// Takes a datagram.
    pub(super) fn datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Time) {
        if is_media(bytes) && !self.connected && !self.keyed {
            let text = format!("{from} sends SRTP before any handshake could have ended");
            self.said.push_back(Said::Violation("S9", text));
        }
        self.unread += i64::from(is_media(bytes) && !is_rtcp(bytes));
        self.early += u64::from(is_media(bytes) && !self.connected);
        // What the network damaged is dropped here; SRTP, DTLS and STUN drop the rest.
        let Ok(receive) = Receive::new(self.protocol, from, self.local, bytes) else { return };
        self.heard = now;
        self.input(Input::Receive(self.instant(now), receive));
        self.drain();
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Time) {
        self.input(Input::Timeout(self.instant(now)));
        self.drain();
    }

    pub(super) fn wake(&self) -> Option<Time> {
        (!self.closed).then_some(self.deadline)
    }

    /// Sends the payloads of a frame, with sequence numbers from `seq` on.
    pub(super) fn write(
        &mut self,
        mid: Mid,
        seq: u64,
        stamp: u32,
        payloads: Vec<Vec<u8>>,
        sampled: Time,
        now: Time,
    ) {
        let wallclock = self.instant(sampled);
        let video = mid == self.video;
        let Some(pt) = self.rtc.media(mid).and_then(|m| m.remote_pts().first().copied()) else { return };
        let last = payloads.len().saturating_sub(1);
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        for (n, payload) in payloads.into_iter().enumerate() {
            let packet = RtpWrite::new(pt, (seq + n as u64).into(), stamp, wallclock, payload);
            stream.write_rtp(packet.marker(video && n == last).nackable(video));
        }
        self.tick(now);
    }

    /// Asks for a key frame.
    pub(super) fn want_key(&mut self, now: Time) {
        let mid = self.video;
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, None) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
            self.tick(now);
        }
    }

    /// Says goodbye over DTLS, as a browser does whose page is closed.
    pub(super) fn close(&mut self, now: Time) {
        if self.rtc.close().is_ok() {
            self.tick(now);
        }
    }

    fn input(&mut self, input: Input<'_>) {
        if !self.closed
            && let Err(e) = self.rtc.handle_input(input)
        {
            self.end(e.to_string());
        }
    }

    fn end(&mut self, why: String) {
        if !std::mem::replace(&mut self.closed, true) {
            self.said.push_back(Said::Closed(why));
        }
    }

    fn drain(&mut self) {
        while !self.closed {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    let at = at.saturating_duration_since(self.base);
                    self.deadline = Time::from_nanos(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
                    if !self.rtc.is_alive() {
                        self.end("WebRTC has ended".to_owned());
                    }
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    self.keyed |= has_change_cipher_spec(&t.contents);
                    self.out.push_back((t.destination, Vec::from(t.contents).into()));
                }
                Ok(Output::Event(event)) => self.event(event),
                Err(e) => self.end(e.to_string()),
            }
        }
    }

    fn event(&mut self, event: Event) {
        let said = match event {
            Event::Connected => {
                self.connected = true;
                Said::Connected
            }
            Event::RtpPacket(packet) => {
                self.unread -= 1;
                Said::Packet(Rtp {
                    picture: self.is_picture(*packet.header.payload_type),
                    seq: *packet.seq_no,
                    stamp: packet.header.timestamp,
                    marker: packet.header.marker,
                    payload: packet.payload,
                })
            }
            Event::KeyframeRequest(_) => Said::KeyFrameWanted,
            Event::SenderFeedback(report) => {
                let info = report.sender_info;
                let ntp = info.ntp_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Said::Report(report.mid, info.rtp_time.numer() as u32, ntp.as_nanos() as i128)
            }
            Event::ChannelOpen(id, _) => {
                self.channel = Some(id);
                return;
            }
            Event::ChannelData(data) => Said::Text(String::from_utf8_lossy(&data.data).into_owned()),
            Event::Closed => return self.end("the node said goodbye".to_owned()),
            _ => return,
        };
        self.said.push_back(said);
    }
}

/// RTP or RTCP (RFC 7983, 7).
pub(super) fn is_media(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(128..=191))
}

/// RTCP among media (RFC 5761, 4).
fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes.get(1), Some(192..=223))
}

/// Whether DTLS records (RFC 6347, 4.1) hold a ChangeCipherSpec.
fn has_change_cipher_spec(mut bytes: &[u8]) -> bool {
    while let [kind @ 20..=23, _, _, _, _, _, _, _, _, _, _, high, low, rest @ ..] = bytes {
        if *kind == 20 {
            return true;
        }
        let Some(next) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        bytes = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_cipher_spec_is_found_among_other_records() {
        let record = |kind: u8, len: u8| {
            let mut r = vec![kind, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, len];
            r.resize(13 + usize::from(len), 9);
            r
        };
        assert!(has_change_cipher_spec(&[record(22, 30), record(20, 1), record(22, 40)].concat()));
        assert!(!has_change_cipher_spec(&[record(22, 20), record(22, 40)].concat()));
        assert!(!has_change_cipher_spec(&[0, 1, 0, 0]) && !has_change_cipher_spec(&record(22, 40)[..20]));
        assert!(is_media(&[128]) && is_media(&[191]) && !is_media(&[22]) && !is_media(&[]));
    }
}
