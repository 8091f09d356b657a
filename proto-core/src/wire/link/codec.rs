//! How a [`Message`] stands on the wire.

use super::{Advertised, Hello, Message, NodeInfo, RelayFrame, Report, StreamReport, TrackConfig};
use crate::buf::Inbox;
use crate::cluster::{Epoch, NodeId};
use crate::media::frame::{FrameKind, NewFrame, Rotation};
use crate::media::key::StreamKey;
use crate::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use crate::node::config::Role;
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes of a text field; longer ones are malformed.
const TEXT_MAX: usize = 512;
/// Bytes of a node's name.
const NODE_MAX: usize = 128;
/// Entries of a list other than a report's streams: parameter sets (H.264, 7.4.2: at most 256), hops, tracks.
const LIST_MAX: usize = 256;

/// A message that cannot be read: which part is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

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

/// Takes the next whole message (type and fields, without the length) out of what was received.
///
/// # Errors
/// If the message declares more than `limit` bytes, or fewer than its type takes.
pub fn split(inbox: &mut Inbox, limit: usize) -> Result<Option<Bytes>, Malformed> {
    let Some(&length) = inbox.peek().first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(Malformed("a message longer than allowed"));
    }
    if length < 2 {
        return Err(Malformed("a message without a type"));
    }
    if inbox.len() < 4 + length {
        return Ok(None);
    }
    inbox.consume(4);
    Ok(Some(inbox.take(length)))
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
            match &track.config.params {
                CodecParams::H264 { sps, pps, size, reorders } => {
                    w.number(4, 1u8);
                    for set in sps {
                        w.bytes(5, set);
                    }
                    for set in pps {
                        w.bytes(6, set);
                    }
                    if let Some((width, height)) = size {
                        w.nested(7, |w| {
                            w.varint(u64::from(*width));
                            w.varint(u64::from(*height));
                        });
                    }
                    w.number(8, *reorders);
                }
                CodecParams::Opus { channels } => {
                    w.number(4, 2u8);
                    w.number(9, *channels);
                }
                CodecParams::Aac { asc, rate, channels } => {
                    w.number(4, 3u8);
                    w.number(9, *channels);
                    w.bytes(10, asc);
                    w.number(11, *rate);
                }
            }
        });
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
        Message::Registered { term } => {
            w.number(1, *term);
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
        Message::Locate { req, key } => {
            w.number(1, *req);
            w.key(2, key);
            18
        }
        Message::Located { req, key, epoch, node, link_addr } => {
            w.number(1, *req);
            w.key(2, key);
            w.epoch(3, *epoch);
            w.node(4, node);
            w.addr(5, *link_addr);
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
        Message::Pull { pull, key, hops } => {
            w.number(1, *pull);
            w.key(2, key);
            for node in hops {
                w.node(3, node);
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
        Message::KeyRequest { pull } => {
            w.number(1, *pull);
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
        });
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

const fn role_bit(role: Role) -> u8 {
    match role {
        Role::Manager => 1,
        Role::Origin => 2,
        Role::Edge => 4,
    }
}

fn varint(value: &mut Bytes) -> Result<u64, Malformed> {
    let mut out = 0u64;
    for (i, byte) in value.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            break;
        }
        out |= bits << (7 * i);
        if byte & 0x80 == 0 {
            let _ = value.split_to(i + 1);
            return Ok(out);
        }
    }
    Err(Malformed("a number that does not end or is too large"))
}

fn next_field(rest: &mut Bytes) -> Result<Option<(u8, Bytes)>, Malformed> {
    let Some(&tag) = rest.first() else { return Ok(None) };
    let _ = rest.split_to(1);
    let len = varint(rest)?;
    match usize::try_from(len) {
        Ok(len) if len <= rest.len() => Ok(Some((tag, rest.split_to(len)))),
        _ => Err(Malformed("a field longer than its message")),
    }
}

fn number(mut value: Bytes) -> Result<u64, Malformed> {
    varint(&mut value)
}

fn small<T: TryFrom<u64>>(value: Bytes) -> Result<T, Malformed> {
    T::try_from(number(value)?).map_err(|_| Malformed("a number out of range"))
}

fn flag(value: Bytes) -> Result<bool, Malformed> {
    Ok(number(value)? != 0)
}

fn signed(value: Bytes) -> Result<i64, Malformed> {
    let v = number(value)?;
    Ok((v >> 1) as i64 ^ -((v & 1) as i64))
}

fn text(value: &Bytes) -> Result<String, Malformed> {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= TEXT_MAX => Ok(text.to_owned()),
        Ok(_) => Err(Malformed("a text that is too long")),
        Err(_) => Err(Malformed("a text that is not UTF-8")),
    }
}

fn key(value: &Bytes) -> Result<StreamKey, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed("a stream name that is not UTF-8"))?;
    StreamKey::parse(text).map_err(|_| Malformed("a stream name that is not allowed"))
}

fn node(value: &Bytes) -> Result<NodeId, Malformed> {
    match std::str::from_utf8(value) {
        Ok(name) if !name.is_empty() && name.len() <= NODE_MAX && !name.chars().any(char::is_control) => {
            Ok(NodeId(name.to_owned()))
        }
        _ => Err(Malformed("a node name that is empty, too long, or not text")),
    }
}

fn epoch(mut value: Bytes) -> Result<Epoch, Malformed> {
    Ok(Epoch { term: varint(&mut value)?, count: varint(&mut value)? })
}

fn ip(value: &Bytes) -> Result<IpAddr, Malformed> {
    if let Ok(octets) = <[u8; 4]>::try_from(&value[..]) {
        Ok(octets.into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(&value[..]) {
        Ok(octets.into())
    } else {
        Err(Malformed("an address that is neither IPv4 nor IPv6"))
    }
}

fn addr(mut value: Bytes) -> Result<SocketAddr, Malformed> {
    let Some(at) = value.len().checked_sub(2) else { return Err(Malformed("an address without a port")) };
    let port = value.split_off(at);
    let port = port.first_chunk::<2>().map_or(0, |p| u16::from_be_bytes(*p));
    Ok(SocketAddr::new(ip(&value)?, port))
}

fn array(value: &Bytes) -> Result<[u8; 32], Malformed> {
    <[u8; 32]>::try_from(&value[..]).map_err(|_| Malformed("a nonce or proof that is not 32 bytes"))
}

fn need<T>(value: Option<T>) -> Result<T, Malformed> {
    value.ok_or(Malformed("a message without a field that it needs"))
}

/// Appends to a list that stays short in any honest message.
fn push<T>(list: &mut Vec<T>, value: T) -> Result<(), Malformed> {
    if list.len() >= LIST_MAX {
        return Err(Malformed("a list that is too long"));
    }
    list.push(value);
    Ok(())
}

/// The fields that most messages consist of, by their meaning instead of their tag.
#[derive(Default)]
struct Parts {
    id: u64,
    key: Option<StreamKey>,
    epoch: Option<Epoch>,
    node: Option<NodeId>,
    addr: Option<SocketAddr>,
    first: String,
    second: String,
}

/// What a tag of a simple message means.
#[derive(Clone, Copy)]
enum Part {
    Id,
    Key,
    Epoch,
    Node,
    Addr,
    First,
    Second,
}

fn parts(mut rest: Bytes, layout: &[Part]) -> Result<Parts, Malformed> {
    let mut p = Parts::default();
    while let Some((tag, value)) = next_field(&mut rest)? {
        match usize::from(tag).checked_sub(1).and_then(|i| layout.get(i)) {
            Some(Part::Id) => p.id = number(value)?,
            Some(Part::Key) => p.key = Some(key(&value)?),
            Some(Part::Epoch) => p.epoch = Some(epoch(value)?),
            Some(Part::Node) => p.node = Some(node(&value)?),
            Some(Part::Addr) => p.addr = Some(addr(value)?),
            Some(Part::First) => p.first = text(&value)?,
            Some(Part::Second) => p.second = text(&value)?,
            None => {}
        }
    }
    Ok(p)
}

/// Reads a message, given its type and fields. `None`: a message of a newer version, to be skipped.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn decode(mut message: Bytes) -> Result<Option<Message>, Malformed> {
    use Part::{Addr, First, Id, Key, Node, Second};
    let kind = *message.first_chunk::<2>().ok_or(Malformed("a message without a type"))?;
    let rest = message.split_off(2);
    Ok(Some(match u16::from_be_bytes(kind) {
        1 => Message::Hello(read_hello(rest)?),
        2 => {
            let (mut hmac, mut rest) = (None, rest);
            while let Some((tag, value)) = next_field(&mut rest)? {
                if tag == 1 {
                    hmac = Some(array(&value)?);
                }
            }
            Message::Proof { hmac: need(hmac)? }
        }
        3 => {
            let p = parts(rest, &[First, Second])?;
            Message::Bye { code: p.first, text: p.second }
        }
        4 => Message::Ping,
        10 => Message::Register(Box::new(read_info(rest)?)),
        11 => Message::Registered { term: parts(rest, &[Id])?.id },
        12 => Message::Report(read_report(rest)?),
        13 => {
            let p = parts(rest, &[Id, Key, First])?;
            Message::Claim { req: p.id, key: need(p.key)?, identity: p.first }
        }
        14 => {
            let p = parts(rest, &[Id, Key, Part::Epoch])?;
            Message::Claimed { req: p.id, key: need(p.key)?, epoch: need(p.epoch)? }
        }
        15 => {
            let p = parts(rest, &[Id, First, Second])?;
            Message::Refused { req: p.id, code: p.first, text: p.second }
        }
        16 => {
            let p = parts(rest, &[Key, Part::Epoch, First])?;
            Message::Announce { key: need(p.key)?, epoch: need(p.epoch)?, identity: p.first }
        }
        17 => {
            let p = parts(rest, &[Key, Part::Epoch])?;
            Message::Release { key: need(p.key)?, epoch: need(p.epoch)? }
        }
        18 => {
            let p = parts(rest, &[Id, Key])?;
            Message::Locate { req: p.id, key: need(p.key)? }
        }
        19 => {
            let p = parts(rest, &[Id, Key, Part::Epoch, Node, Addr])?;
            let (key, epoch) = (need(p.key)?, need(p.epoch)?);
            Message::Located { req: p.id, key, epoch, node: need(p.node)?, link_addr: need(p.addr)? }
        }
        20 => {
            let p = parts(rest, &[Id, Key])?;
            Message::NotFound { req: p.id, key: need(p.key)? }
        }
        21 => {
            let p = parts(rest, &[Key, Part::Epoch, Node, Addr])?;
            let (key, epoch) = (need(p.key)?, need(p.epoch)?);
            Message::Moved { key, epoch, node: need(p.node)?, link_addr: need(p.addr)? }
        }
        22 => {
            let p = parts(rest, &[Key, Part::Epoch])?;
            Message::Fence { key: need(p.key)?, epoch: need(p.epoch)? }
        }
        30 => read_pull(rest)?,
        31 => read_tracks(rest)?,
        32 => return Ok(read_frame(rest)?.map(|f| Message::Frame(Box::new(f)))),
        33 => Message::KeyRequest { pull: parts(rest, &[Id])?.id },
        34 => Message::SourceAway { pull: parts(rest, &[Id])?.id },
        35 => Message::SourceBack { pull: parts(rest, &[Id])?.id },
        36 => {
            let p = parts(rest, &[Id, First, Second])?;
            Message::End { pull: p.id, code: p.first, text: p.second }
        }
        37 => Message::CancelPull { pull: parts(rest, &[Id])?.id },
        _ => return Ok(None),
    }))
}

fn read_hello(mut rest: Bytes) -> Result<Hello, Malformed> {
    let (mut version, mut min_version, mut features, mut id, mut nonce) = (0, 0, 0, None, None);
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => version = small(value)?,
            2 => min_version = small(value)?,
            3 => features = number(value)?,
            4 => id = Some(node(&value)?),
            5 => nonce = Some(array(&value)?),
            _ => {}
        }
    }
    Ok(Hello { version, min_version, features, node: need(id)?, nonce: need(nonce)? })
}

fn read_info(mut rest: Bytes) -> Result<NodeInfo, Malformed> {
    let mut id = None;
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut info = NodeInfo {
        id: NodeId(String::new()),
        instance: 0,
        version: String::new(),
        roles: Vec::new(),
        region: String::new(),
        advertised: Advertised {
            public: nowhere,
            private: nowhere,
            name: String::new(),
            http: 0,
            rtmp: 0,
            webrtc: 0,
            link: 0,
        },
        capacity_mbps: 0,
    };
    let a = &mut info.advertised;
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => id = Some(node(&value)?),
            2 => info.instance = number(value)?,
            3 => info.version = text(&value)?,
            4 => {
                let bits = number(value)?;
                let all = [Role::Manager, Role::Origin, Role::Edge];
                info.roles = all.into_iter().filter(|r| bits & u64::from(role_bit(*r)) != 0).collect();
            }
            5 => info.region = text(&value)?,
            6 => info.capacity_mbps = small(value)?,
            7 => a.public = ip(&value)?,
            8 => a.private = ip(&value)?,
            9 => a.name = text(&value)?,
            10 => a.http = small(value)?,
            11 => a.rtmp = small(value)?,
            12 => a.webrtc = small(value)?,
            13 => a.link = small(value)?,
            _ => {}
        }
    }
    info.id = need(id)?;
    Ok(info)
}

fn read_report(mut rest: Bytes) -> Result<Report, Malformed> {
    let mut r = Report::default();
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => r.egress_bps = number(value)?,
            2 => r.loop_busy_permille = small(value)?,
            3 => r.sessions = small(value)?,
            4 => r.session_limit = small(value)?,
            5 => r.draining = flag(value)?,
            6 => r.streams.push(read_stream(value)?),
            _ => {}
        }
    }
    Ok(r)
}

fn read_stream(mut rest: Bytes) -> Result<StreamReport, Malformed> {
    let (mut name, mut at, mut silent, mut live, mut viewers) = (None, None, false, false, 0);
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => name = Some(key(&value)?),
            2 => at = Some(epoch(value)?),
            3 => silent = flag(value)?,
            4 => live = flag(value)?,
            5 => viewers = small(value)?,
            _ => {}
        }
    }
    Ok(StreamReport { key: need(name)?, epoch: need(at)?, silent, live, viewers })
}

fn read_pull(mut rest: Bytes) -> Result<Message, Malformed> {
    let (mut pull, mut name, mut hops) = (0, None, Vec::new());
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => pull = number(value)?,
            2 => name = Some(key(&value)?),
            3 => push(&mut hops, node(&value)?)?,
            _ => {}
        }
    }
    Ok(Message::Pull { pull, key: need(name)?, hops })
}

fn read_tracks(mut rest: Bytes) -> Result<Message, Malformed> {
    let (mut pull, mut path, mut configs) = (0, Vec::new(), Vec::new());
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => pull = number(value)?,
            2 => push(&mut path, node(&value)?)?,
            3 => {
                if let Some(config) = read_config(value)? {
                    push(&mut configs, config)?;
                }
            }
            _ => {}
        }
    }
    Ok(Message::Tracks { pull, path, configs })
}

/// `None`: a codec of a newer version; the track is left out.
fn read_config(mut rest: Bytes) -> Result<Option<TrackConfig>, Malformed> {
    let (mut track, mut version, mut origin, mut codec) = (TrackId(0), 0, Origin::Ingest, 0);
    let (mut sps, mut pps, mut size, mut reorders) = (Vec::new(), Vec::new(), None, false);
    let (mut channels, mut asc, mut rate) = (0, Bytes::new(), 0);
    while let Some((tag, mut value)) = next_field(&mut rest)? {
        match tag {
            1 => track = TrackId(small(value)?),
            2 => version = small(value)?,
            3 => {
                let from = number(value)?.saturating_sub(1);
                let from = u8::try_from(from).map_err(|_| Malformed("a track number out of range"))?;
                origin = Origin::Derived { from: TrackId(from) };
            }
            4 => codec = number(value)?,
            5 => push(&mut sps, value)?,
            6 => push(&mut pps, value)?,
            7 => {
                let (width, height) = (varint(&mut value)?, varint(&mut value)?);
                let narrow = |v| u32::try_from(v).map_err(|_| Malformed("a picture size out of range"));
                size = Some((narrow(width)?, narrow(height)?));
            }
            8 => reorders = flag(value)?,
            9 => channels = small(value)?,
            10 => asc = value,
            11 => rate = small(value)?,
            _ => {}
        }
    }
    let params = match codec {
        1 => CodecParams::H264 { sps, pps, size, reorders },
        2 => CodecParams::Opus { channels },
        3 => CodecParams::Aac { asc, rate, channels },
        _ => return Ok(None),
    };
    Ok(Some(TrackConfig { track, config: CodecConfig { version, params, origin } }))
}

/// `None`: a frame of a kind that a newer version knows.
fn read_frame(mut rest: Bytes) -> Result<Option<RelayFrame>, Malformed> {
    let (mut pull, mut seq, mut at, mut config_version, mut kind) = (0, 0, None, 0, 0);
    let mut media = NewFrame {
        track: TrackId(0),
        dts: 0,
        pts: 0,
        kind: FrameKind::Data,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: Bytes::new(),
    };
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => pull = number(value)?,
            2 => seq = number(value)?,
            3 => at = Some(epoch(value)?),
            4 => config_version = small(value)?,
            5 => media.track = TrackId(small(value)?),
            6 => media.dts = signed(value)?,
            7 => media.pts = signed(value)?,
            8 => kind = number(value)?,
            9 => media.discardable = flag(value)?,
            10 => media.temporal_layer = small(value)?,
            11 => {
                media.rotation = match number(value)? {
                    1 => Rotation::R90,
                    2 => Rotation::R180,
                    3 => Rotation::R270,
                    _ => Rotation::R0,
                }
            }
            12 => media.capture = Some(number(value)?),
            15 => media.payload = value,
            _ => {}
        }
    }
    media.kind = match kind {
        1 => FrameKind::Key,
        2 => FrameKind::Delta,
        3 => FrameKind::Audio,
        4 => FrameKind::Data,
        _ => return Ok(None),
    };
    Ok(Some(RelayFrame { pull, seq, epoch: need(at)?, config_version, media }))
}
