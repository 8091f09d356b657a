//! How a [`Message`] is written.

use super::{Message, NodeInfo, RelayFrame, Report, StreamFacts, TrackConfig};
use crate::ids::Role;
use crate::ids::{Epoch, NodeId};
use crate::media::frame::{FrameKind, Rotation};
use crate::media::key::StreamKey;
use crate::media::track::{Codec, CodecParams, Origin};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// Bytes of a text field; a longer one is cut when written and malformed when read.
pub(super) const TEXT_MAX: usize = 512;

/// A message ready to send. A frame's payload stays in its own shared buffer and is never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Length, type and fields.
    pub head: Bytes,
    /// The value of the last field, if it is a frame's payload; else empty.
    pub tail: Bytes,
}

impl Encoded {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Never true: a message has at least a length and a type.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push((v & 0x7f) as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    fn head(&mut self, tag: u8, len: usize) {
        self.0.push(tag);
        self.varint(len as u64);
    }

    fn bytes(&mut self, tag: u8, value: &[u8]) {
        self.head(tag, value.len());
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, tag: u8, value: &str) {
        if !value.is_empty() {
            // Cut at a character so that the other end can read what we send.
            let mut end = value.len().min(TEXT_MAX);
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            self.bytes(tag, value.as_bytes().get(..end).unwrap_or_default());
        }
    }

    fn number(&mut self, tag: u8, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.nested(tag, |w| w.varint(value));
        }
    }

    fn signed(&mut self, tag: u8, value: i64) {
        self.number(tag, ((value << 1) ^ (value >> 63)) as u64);
    }

    fn nested(&mut self, tag: u8, write: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        write(&mut inner);
        self.bytes(tag, &inner.0);
    }

    fn key(&mut self, tag: u8, key: &StreamKey) {
        self.bytes(tag, key.as_str().as_bytes());
    }

    fn node(&mut self, tag: u8, node: &NodeId) {
        self.bytes(tag, node.0.as_bytes());
    }

    fn epoch(&mut self, tag: u8, epoch: Epoch) {
        self.nested(tag, |w| {
            w.varint(epoch.term);
            w.varint(epoch.count);
        });
    }

    fn ip(&mut self, tag: u8, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.bytes(tag, &ip.octets()),
            IpAddr::V6(ip) => self.bytes(tag, &ip.octets()),
        }
    }

    fn addr(&mut self, tag: u8, addr: SocketAddr) {
        self.nested(tag, |w| {
            match addr.ip() {
                IpAddr::V4(ip) => w.0.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => w.0.extend_from_slice(&ip.octets()),
            }
            w.0.extend_from_slice(&addr.port().to_be_bytes());
        });
    }

    fn config(&mut self, tag: u8, track: &TrackConfig) {
        self.nested(tag, |w| {
            w.number(1, track.track.0);
            w.number(2, track.config.version);
            if let Origin::Derived { from } = track.config.origin {
                w.number(3, u64::from(from.0) + 1);
            }
            w.params(&track.config.params);
        });
    }

    fn sets(&mut self, tag: u8, sets: &[Bytes]) {
        for set in sets {
            self.bytes(tag, set);
        }
    }

    fn params(&mut self, params: &CodecParams) {
        self.number(4, codec_number(params.codec()));
        match params {
            CodecParams::H264 { sps, pps, reorders, .. } => {
                self.sets(5, sps);
                self.sets(6, pps);
                self.number(8, *reorders);
            }
            CodecParams::H265 { vps, sps, pps, reorders, .. } => {
                self.sets(5, sps);
                self.sets(6, pps);
                self.number(8, *reorders);
                self.sets(12, vps);
            }
            CodecParams::Vp8 { .. } => {}
            CodecParams::Vp9 { format, .. } => self.nested(13, |w| {
                for n in [format.profile, format.depth, format.subsampling, u8::from(format.full_range)] {
                    w.varint(u64::from(n));
                }
            }),
            CodecParams::Av1 { sequence_header, .. } => self.bytes(14, sequence_header),
            CodecParams::Opus { channels }
            | CodecParams::Pcma { channels }
            | CodecParams::Pcmu { channels } => {
                self.number(9, *channels);
            }
            CodecParams::Aac { asc, rate, channels } => {
                self.number(9, *channels);
                self.bytes(10, asc);
                self.number(11, *rate);
            }
            CodecParams::Mp3 { rate, channels } => {
                self.number(9, *channels);
                self.number(11, *rate);
            }
        }
        if let Some((width, height)) = params.size() {
            self.nested(7, |w| {
                w.varint(u64::from(width));
                w.varint(u64::from(height));
            });
        }
    }
}

/// Writes a message.
pub fn encode(message: &Message) -> Encoded {
    let mut w = Writer(vec![0; 6]);
    let mut tail = Bytes::new();
    let kind: u16 = match message {
        Message::Hello(h) => {
            w.number(1, h.version);
            w.number(2, h.min_version);
            w.number(3, h.features);
            w.node(4, &h.node);
            w.bytes(5, &h.nonce);
            1
        }
        Message::Proof { hmac } => {
            w.bytes(1, hmac);
            2
        }
        Message::Bye { code, text } => {
            w.text(1, code);
            w.text(2, text);
            3
        }
        Message::Ping => 4,
        Message::Register(info) => {
            write_info(&mut w, info);
            10
        }
        Message::Registered { term, rtsp, rtsps } => {
            w.number(1, *term);
            w.text(2, rtsp);
            w.text(3, rtsps);
            11
        }
        Message::Report(r) => {
            write_report(&mut w, r);
            12
        }
        Message::Claim { req, key, identity } => {
            w.number(1, *req);
            w.key(2, key);
            w.text(3, identity);
            13
        }
        Message::Claimed { req, key, epoch } => {
            w.number(1, *req);
            w.key(2, key);
            w.epoch(3, *epoch);
            14
        }
        Message::Refused { req, code, text } => {
            w.number(1, *req);
            w.text(2, code);
            w.text(3, text);
            15
        }
        Message::Announce { key, epoch, identity } => {
            w.key(1, key);
            w.epoch(2, *epoch);
            w.text(3, identity);
            16
        }
        Message::Release { key, epoch } => {
            w.key(1, key);
            w.epoch(2, *epoch);
            17
        }
        Message::Locate { req, key, direct } => {
            w.number(1, *req);
            w.key(2, key);
            w.number(3, *direct);
            18
        }
        Message::Located { req, key, epoch, node, link_addr, live } => {
            w.number(1, *req);
            w.key(2, key);
            w.epoch(3, *epoch);
            w.node(4, node);
            w.addr(5, *link_addr);
            w.number(6, *live);
            19
        }
        Message::NotFound { req, key } => {
            w.number(1, *req);
            w.key(2, key);
            20
        }
        Message::Moved { key, epoch, node, link_addr } => {
            w.key(1, key);
            w.epoch(2, *epoch);
            w.node(3, node);
            w.addr(4, *link_addr);
            21
        }
        Message::Fence { key, epoch } => {
            w.key(1, key);
            w.epoch(2, *epoch);
            22
        }
        Message::Drain { on, within_ms, stop } => {
            w.number(1, *on);
            w.number(2, *within_ms);
            w.number(3, *stop);
            23
        }
        Message::Warm { key, for_ms } => {
            w.number(1, *for_ms);
            w.key(2, key);
            24
        }
        Message::Revoke { name } => {
            w.text(1, name);
            25
        }
        Message::Want { key } => {
            w.key(1, key);
            28
        }
        Message::Offers { streams } => {
            for stream in streams {
                w.text(1, stream);
            }
            29
        }
        Message::Pull { pull, key, hops, after } => {
            w.number(1, *pull);
            w.key(2, key);
            for node in hops {
                w.node(3, node);
            }
            if let Some((epoch, seq)) = after {
                w.epoch(4, *epoch);
                w.number(5, *seq);
            }
            30
        }
        Message::Tracks { pull, path, configs } => {
            w.number(1, *pull);
            for node in path {
                w.node(2, node);
            }
            for config in configs {
                w.config(3, config);
            }
            31
        }
        Message::Frame(f) => {
            write_frame(&mut w, f);
            tail = f.media.payload.clone();
            32
        }
        Message::KeyRequest { pull, track } => {
            w.number(1, *pull);
            if let Some(track) = track {
                w.number(2, u64::from(track.0) + 1);
            }
            33
        }
        Message::SourceAway { pull } => {
            w.number(1, *pull);
            34
        }
        Message::SourceBack { pull } => {
            w.number(1, *pull);
            35
        }
        Message::End { pull, code, text } => {
            w.number(1, *pull);
            w.text(2, code);
            w.text(3, text);
            36
        }
        Message::CancelPull { pull } => {
            w.number(1, *pull);
            37
        }
        Message::Group(g) => {
            w.number(1, g.pull);
            w.number(2, g.track);
            w.number(3, g.number);
            w.number(4, g.frames);
            w.number(5, g.bytes);
            38
        }
        Message::Sent { pull, frames } => {
            w.number(1, *pull);
            w.number(2, *frames);
            39
        }
        Message::Relocate { req, key, publishes } => {
            w.number(1, *req);
            w.key(2, key);
            w.number(3, *publishes);
            40
        }
        Message::Relocated { req, node, rtmp, rtmps } => {
            w.number(1, *req);
            w.text(2, node);
            w.text(3, rtmp);
            w.text(4, rtmps);
            41
        }
    };
    let length = u32::try_from(w.0.len() - 4 + tail.len()).unwrap_or(u32::MAX);
    let prefix = length.to_be_bytes().into_iter().chain(kind.to_be_bytes());
    for (slot, byte) in w.0.iter_mut().zip(prefix) {
        *slot = byte;
    }
    Encoded { head: w.0.into(), tail }
}

fn write_info(w: &mut Writer, info: &NodeInfo) {
    let roles = info.roles.iter().fold(0u8, |bits, role| bits | role_bit(*role));
    w.node(1, &info.id);
    w.number(2, info.instance);
    w.text(3, &info.version);
    w.number(4, roles);
    w.text(5, &info.region);
    w.number(6, info.capacity_mbps);
    let a = &info.advertised;
    w.ip(7, a.public);
    w.ip(8, a.private);
    w.text(9, &a.name);
    w.number(10, a.http);
    w.number(11, a.rtmp);
    w.number(12, a.webrtc);
    w.number(13, a.link);
    w.epoch(14, info.highest);
    w.number(16, a.rtsp);
    w.number(17, a.rtsps);
    w.number(18, a.https);
    w.number(19, a.rtmps);
}

fn write_report(w: &mut Writer, r: &Report) {
    w.number(1, r.egress_bps);
    w.number(2, r.loop_busy_permille);
    w.number(3, r.sessions);
    w.number(4, r.session_limit);
    w.number(5, r.draining);
    for s in &r.streams {
        w.nested(6, |w| {
            w.key(1, &s.key);
            w.epoch(2, s.epoch);
            w.number(3, s.silent);
            w.number(4, s.live);
            w.number(5, s.viewers);
            write_facts(w, &s.about);
        });
    }
    for s in &r.relayed {
        w.nested(7, |w| {
            w.key(1, &s.key);
            w.number(2, s.viewers);
            w.number(3, s.hops);
        });
    }
}

fn write_facts(w: &mut Writer, facts: &StreamFacts) {
    w.number(6, facts.bits_per_s);
    w.text(7, &facts.source);
    w.number(8, facts.uptime_s);
    for t in &facts.tracks {
        w.nested(9, |w| {
            w.text(1, &t.codec);
            w.number(2, t.width);
            w.number(3, t.height);
            w.number(4, t.rate);
            w.number(5, t.channels);
        });
    }
    for code in &facts.notices {
        w.text(10, code);
    }
}

fn write_frame(w: &mut Writer, f: &RelayFrame) {
    let m = &f.media;
    w.number(1, f.pull);
    w.number(2, f.seq);
    w.epoch(3, f.epoch);
    w.number(4, f.config_version);
    w.number(5, m.track.0);
    w.signed(6, m.dts);
    w.signed(7, m.pts);
    w.number(
        8,
        match m.kind {
            FrameKind::Key => 1u8,
            FrameKind::Delta => 2,
            FrameKind::Audio => 3,
            FrameKind::Data => 4,
        },
    );
    w.number(9, m.discardable);
    w.number(10, m.temporal_layer);
    w.number(
        11,
        match m.rotation {
            Rotation::R0 => 0u8,
            Rotation::R90 => 1,
            Rotation::R180 => 2,
            Rotation::R270 => 3,
        },
    );
    if let Some(capture) = m.capture {
        w.nested(12, |w| w.varint(capture));
    }
    // The payload follows as the message's tail.
    w.head(15, m.payload.len());
}

pub(super) const fn codec_number(codec: Codec) -> u8 {
    match codec {
        Codec::H264 => 1,
        Codec::Opus => 2,
        Codec::Aac => 3,
        Codec::H265 => 4,
        Codec::Vp8 => 5,
        Codec::Vp9 => 6,
        Codec::Av1 => 7,
        Codec::Mp3 => 8,
        Codec::Pcma => 9,
        Codec::Pcmu => 10,
    }
}

pub(super) const fn role_bit(role: Role) -> u8 {
    match role {
        Role::Manager => 1,
        Role::Origin => 2,
        Role::Edge => 4,
    }
}
