//! One WebRTC session of a client: signalling, and webrtc-rs's peer connection behind one UDP port.

use super::signal::Signal;
use crate::world::actors::publisher::Attempt;
use crate::world::actors::{Conn, In, Out};
use bytes::{Bytes, BytesMut};
use proto_core::time::Time;
use rtc::interceptor::{ReceiverReportBuilder, Registry, Slot};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::{
    configure_nack, configure_simulcast_extension_headers, configure_twcc_receiver_only,
};
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_RTX, MediaEngine,
};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// What happened in a session.
pub(super) enum Did {
    /// The client does this.
    Do(Out),
    /// The node refused or said something else.
    Status(String),
    /// Media may flow.
    Connected,
    /// A packet came.
    Rtp(rtc::rtp::Packet),
    /// Feedback came.
    Rtcp(Vec<Box<dyn rtc::rtcp::Packet>>),
    /// It is over, and why.
    Ended(String),
}

/// A session.
pub(super) struct Peer {
    attempt: Attempt,
    /// The library's part.
    pub(super) pc: RTCPeerConnection,
    /// The library's instant of `begun`.
    base: Instant,
    begun: Time,
    local: SocketAddr,
    signal: Option<Signal>,
    next_conn: Conn,
    /// The path of its resource, once it stands.
    resource: Option<String>,
    leaving: bool,
    over: bool,
    timer: Option<Time>,
    did: VecDeque<Did>,
}

pub(super) fn h264() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned(),
        rtcp_feedback: vec![],
    }
}

pub(super) fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: vec![],
    }
}

fn engine() -> MediaEngine {
    let mut engine = MediaEngine::default();
    let rtx = RTCRtpCodec {
        mime_type: MIME_TYPE_RTX.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "apt=102".to_owned(),
        rtcp_feedback: vec![],
    };
    for (rtp_codec, payload_type, kind) in [
        (opus(), 111, RtpCodecKind::Audio),
        (h264(), 102, RtpCodecKind::Video),
        (rtx, 103, RtpCodecKind::Video),
    ] {
        let codec = RTCRtpCodecParameters { rtp_codec, payload_type };
        engine.register_codec(codec, kind).expect("the codec is known");
    }
    engine
}

/// The library's default interceptors but for sender reports: it makes those with the system's wall clock, which has
/// nothing to do with the world's.
fn registry(engine: &mut MediaEngine) -> rtc::shared::error::Result<Registry> {
    let registry = configure_nack(Registry::new(), engine);
    configure_simulcast_extension_headers(engine)?;
    let registry = configure_twcc_receiver_only(registry, engine)?;
    Ok(registry.with(Slot::ReceiverReport, ReceiverReportBuilder::new().build()))
}

impl Peer {
    /// A session at `/whip/...` or `/whep/...` (`way`). `tracks` adds what is to be sent or received.
    pub(super) fn new(
        attempt: Attempt,
        way: &str,
        now: Time,
        tracks: impl FnOnce(&mut RTCPeerConnection),
    ) -> Peer {
        // Only what lies between instants counts, so any will do to begin with.
        let base = Instant::now();
        let port = 50_000 + (attempt.number % 10_000) as u16;
        let local = SocketAddr::new(attempt.ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port);
        let mut engine = engine();
        let registry = registry(&mut engine).expect("the interceptors are known");
        // It gives a silent node up sooner than by default (30 s).
        let settings = SettingEngineBuilder::new()
            .with_ice_timeouts(
                Some(Duration::from_secs(3)),
                Some(Duration::from_secs(3)),
                Some(Duration::from_secs(1)),
            )
            .build();
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_setting_engine(settings)
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .build(base)
            .expect("a peer connection can be made");
        tracks(&mut pc);
        pc.add_local_candidate(RTCIceCandidateInit {
            candidate: format!("candidate:1 1 udp 2130706431 {} {port} typ host", local.ip()),
            ..Default::default()
        })
        .expect("the candidate is right");
        let offer = pc.create_offer(None).expect("an offer can be made");
        pc.set_local_description(base, offer).expect("the offer is right");
        let offer = pc.local_description().expect("there is an offer").sdp;
        let path = format!("/{way}/{}", attempt.stream);
        let mut peer = Peer {
            attempt,
            pc,
            base,
            begun: now,
            local,
            signal: None,
            next_conn: 0,
            resource: None,
            leaving: false,
            over: false,
            timer: None,
            did: VecDeque::new(),
        };
        peer.ask(&path, Some(&offer));
        peer
    }

    /// The library's idea of a time.
    pub(super) fn instant(&self, now: Time) -> Instant {
        self.base + now.since(self.begun)
    }

    fn ask(&mut self, path: &str, offer: Option<&str>) {
        let to = self.attempt.to;
        self.signal = Some(Signal::new(self.next_conn, to, path, offer));
        self.did.push_back(Did::Do(Out::Dial(self.next_conn, to)));
        self.next_conn += 1;
    }

    /// What is wrong that can only be somebody's mistake.
    fn wrong(&mut self, text: String) {
        let text = format!("webrtc-rs with {} at {}: {text}", self.attempt.stream, self.attempt.to);
        self.did.push_back(Did::Do(Out::Violation("S3", text)));
    }

    fn end(&mut self, why: &str) {
        if !self.over {
            self.over = true;
            self.timer = None;
            self.did.push_back(Did::Ended(why.to_owned()));
        }
    }

    fn signalling(&mut self, input: &In<'_>, now: Time) {
        let Some(signal) = &mut self.signal else { return };
        let conn = signal.conn();
        match signal.on(input) {
            Ok((out, None)) => self.did.extend(out.map(Did::Do)),
            Ok((out, Some(answer))) => {
                self.did.extend(out.map(Did::Do));
                self.did.push_back(Did::Do(Out::Close(conn, false)));
                self.signal = None;
                if self.leaving {
                    return match answer.status {
                        // It may have ended by itself meanwhile.
                        200 | 404 => self.end("left"),
                        status => {
                            self.wrong(format!("DELETE is answered with {status}: {}", answer.body));
                        }
                    };
                }
                if answer.status != 201 {
                    let text = format!("{}: {}", answer.status, answer.body.trim());
                    self.did.push_back(Did::Status(text.clone()));
                    return self.end(&text);
                }
                self.resource = answer.location;
                if self.resource.is_none() {
                    self.wrong("an answer without Location".to_owned());
                }
                let at = self.instant(now);
                let taken = RTCSessionDescription::answer(answer.body.clone())
                    .and_then(|sdp| self.pc.set_remote_description(at, sdp));
                if let Err(e) = taken {
                    self.wrong(format!("cannot read the answer: {e}: {}", answer.body));
                }
            }
            Err(why) => {
                self.signal = None;
                self.end(if self.leaving { "left" } else { &why });
            }
        }
    }

    /// Takes what the client was told.
    pub(super) fn on(&mut self, input: &In<'_>, now: Time) {
        if self.over {
            return;
        }
        match input {
            In::Datagram { port, from, bytes } => {
                if *port == self.local.port() {
                    let transport = TransportContext {
                        local_addr: self.local,
                        peer_addr: *from,
                        transport_protocol: TransportProtocol::UDP,
                        ecn: None,
                    };
                    let now = self.instant(now);
                    // What it cannot read it reports in its log only; nothing hangs on it.
                    let _ = self.pc.handle_read(TaggedBytesMut {
                        now,
                        transport,
                        message: BytesMut::from(*bytes),
                    });
                }
            }
            In::Tick => {
                if self.timer.is_some_and(|at| at <= now) {
                    let _ = self.pc.handle_timeout(self.instant(now));
                }
            }
            _ => self.signalling(input, now),
        }
        self.drive(now);
    }

    /// Passes on what the library wants.
    pub(super) fn drive(&mut self, now: Time) {
        while let Some(out) = self.pc.poll_write() {
            self.did.push_back(Did::Do(Out::Datagram {
                port: self.local.port(),
                to: out.transport.peer_addr,
                bytes: Bytes::from(out.message),
            }));
        }
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                match state {
                    RTCPeerConnectionState::Connected => self.did.push_back(Did::Connected),
                    RTCPeerConnectionState::Failed if !self.leaving => self.end("the media path is gone"),
                    RTCPeerConnectionState::Closed if !self.leaving => {
                        self.end("the node closed the session")
                    }
                    _ => {}
                }
            }
        }
        while let Some(TaggedRTCMessage { message, .. }) = self.pc.poll_read() {
            match message {
                RTCMessage::RtpPacket(_, packet) => self.did.push_back(Did::Rtp(packet)),
                RTCMessage::RtcpPacket(_, packets) => self.did.push_back(Did::Rtcp(packets)),
                _ => {}
            }
        }
        // A timer that is due already may not make the world run in circles.
        let least = now + Duration::from_millis(1);
        let timer = self.pc.poll_timeout().filter(|_| !self.over);
        self.timer = timer.map(|at| (self.begun + at.saturating_duration_since(self.base)).max(least));
    }

    /// Ends the session in order: DTLS's `close_notify`, then DELETE.
    pub(super) fn finish(&mut self, now: Time) {
        if self.leaving || self.over {
            return;
        }
        self.leaving = true;
        let _ = self.pc.close();
        let _ = self.pc.handle_timeout(self.instant(now));
        self.drive(now);
        match self.resource.take() {
            Some(path) => self.ask(&path, None),
            None => {
                self.abort();
                self.end("left");
            }
        }
    }

    /// Goes without a word.
    pub(super) fn abort(&mut self) {
        if let Some(signal) = self.signal.take() {
            self.did.push_back(Did::Do(Out::Close(signal.conn(), true)));
        }
    }

    pub(super) fn poll(&mut self) -> Option<Did> {
        self.did.pop_front()
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.timer
    }
}
