//! How a [`Message`] is read.

use super::write::{TEXT_MAX, codec_number, role_bit};
use super::{
    Advertised, Group, Hello, Message, NodeInfo, RelayFrame, RelayedReport, Report, StreamFacts,
    StreamReport, TrackConfig, TrackFacts,
};
use crate::buf::Inbox;
use crate::ids::Role;
use crate::ids::{Epoch, NodeId};
use crate::media::frame::{FrameKind, NewFrame, Rotation};
use crate::media::key::StreamKey;
use crate::media::track::{Codec, CodecConfig, CodecParams, Origin, TrackId};
use crate::wire::vp9::Vp9Format;
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes of a node's name.
const NODE_MAX: usize = 128;
/// Entries of a list other than a report's streams: parameter sets (H.264, 7.4.2: at most 256), hops, tracks.
const LIST_MAX: usize = 256;

/// A message that cannot be read: which part is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

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
    third: String,
    flag: bool,
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
    Third,
    Flag,
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
            Some(Part::Third) => p.third = text(&value)?,
            Some(Part::Flag) => p.flag = flag(value)?,
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
        11 => {
            let p = parts(rest, &[Id, First, Second])?;
            Message::Registered { term: p.id, rtsp: p.first, rtsps: p.second }
        }
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
            let p = parts(rest, &[Id, Key, Part::Flag])?;
            Message::Locate { req: p.id, key: need(p.key)?, direct: p.flag }
        }
        19 => {
            let p = parts(rest, &[Id, Key, Part::Epoch, Node, Addr, Part::Flag])?;
            let (key, epoch, node) = (need(p.key)?, need(p.epoch)?, need(p.node)?);
            Message::Located { req: p.id, key, epoch, node, link_addr: need(p.addr)?, live: p.flag }
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
        23 => read_drain(rest)?,
        24 => {
            let p = parts(rest, &[Id, Key])?;
            Message::Warm { key: need(p.key)?, for_ms: p.id }
        }
        25 => Message::Revoke { name: parts(rest, &[First])?.first },
        28 => Message::Want { key: need(parts(rest, &[Key])?.key)? },
        29 => {
            let (mut streams, mut rest) = (Vec::new(), rest);
            while let Some((tag, value)) = next_field(&mut rest)? {
                // No name is empty; an empty field is as one that is not there.
                if tag == 1 && !value.is_empty() {
                    streams.push(text(&value)?);
                }
            }
            Message::Offers { streams }
        }
        30 => read_pull(rest)?,
        31 => read_tracks(rest)?,
        32 => return Ok(read_frame(rest)?.map(|f| Message::Frame(Box::new(f)))),
        33 => read_key_request(rest)?,
        34 => Message::SourceAway { pull: parts(rest, &[Id])?.id },
        35 => Message::SourceBack { pull: parts(rest, &[Id])?.id },
        36 => {
            let p = parts(rest, &[Id, First, Second])?;
            Message::End { pull: p.id, code: p.first, text: p.second }
        }
        37 => Message::CancelPull { pull: parts(rest, &[Id])?.id },
        38 => Message::Group(read_group(rest)?),
        39 => read_sent(rest)?,
        40 => {
            let p = parts(rest, &[Id, Key, Part::Flag])?;
            Message::Relocate { req: p.id, key: need(p.key)?, publishes: p.flag }
        }
        41 => {
            let p = parts(rest, &[Id, First, Second, Part::Third])?;
            Message::Relocated { req: p.id, node: p.first, rtmp: p.second, rtmps: p.third }
        }
        _ => return Ok(None),
    }))
}

fn read_group(mut rest: Bytes) -> Result<Group, Malformed> {
    let mut group = Group::default();
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => group.pull = number(value)?,
            2 => group.track = small(value)?,
            3 => group.number = number(value)?,
            4 => group.frames = number(value)?,
            5 => group.bytes = number(value)?,
            _ => {}
        }
    }
    Ok(group)
}

fn read_sent(mut rest: Bytes) -> Result<Message, Malformed> {
    let (mut pull, mut frames) = (0, 0);
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => pull = number(value)?,
            2 => frames = number(value)?,
            _ => {}
        }
    }
    Ok(Message::Sent { pull, frames })
}

fn read_key_request(mut rest: Bytes) -> Result<Message, Malformed> {
    let (mut pull, mut track) = (0, None);
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => pull = number(value)?,
            // One more than the track, for a number of 0 is not written.
            2 => {
                let number = small::<u16>(value)?.checked_sub(1);
                track = number.and_then(|n| u8::try_from(n).ok()).map(TrackId);
            }
            _ => {}
        }
    }
    Ok(Message::KeyRequest { pull, track })
}

fn read_drain(mut rest: Bytes) -> Result<Message, Malformed> {
    let (mut on, mut within_ms, mut stop) = (false, 0, false);
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => on = flag(value)?,
            2 => within_ms = number(value)?,
            3 => stop = flag(value)?,
            _ => {}
        }
    }
    Ok(Message::Drain { on, within_ms, stop })
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
            rtmps: 0,
            rtsp: 0,
            rtsps: 0,
            webrtc: 0,
            link: 0,
            https: 0,
        },
        capacity_mbps: 0,
        highest: Epoch::default(),
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
            16 => a.rtsp = small(value)?,
            17 => a.rtsps = small(value)?,
            18 => a.https = small(value)?,
            19 => a.rtmps = small(value)?,
            14 => info.highest = epoch(value)?,
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
            7 => r.relayed.push(read_relayed(value)?),
            _ => {}
        }
    }
    Ok(r)
}

fn read_stream(mut rest: Bytes) -> Result<StreamReport, Malformed> {
    let (mut name, mut at, mut silent, mut live, mut viewers) = (None, None, false, false, 0);
    let mut about = StreamFacts::default();
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => name = Some(key(&value)?),
            2 => at = Some(epoch(value)?),
            3 => silent = flag(value)?,
            4 => live = flag(value)?,
            5 => viewers = small(value)?,
            6 => about.bits_per_s = number(value)?,
            7 => about.source = text(&value)?,
            8 => about.uptime_s = number(value)?,
            9 => push(&mut about.tracks, read_track_facts(value)?)?,
            10 => push(&mut about.notices, text(&value)?)?,
            _ => {}
        }
    }
    Ok(StreamReport { key: need(name)?, epoch: need(at)?, silent, live, viewers, about })
}

fn read_track_facts(mut rest: Bytes) -> Result<TrackFacts, Malformed> {
    let mut t = TrackFacts::default();
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => t.codec = text(&value)?,
            2 => t.width = small(value)?,
            3 => t.height = small(value)?,
            4 => t.rate = small(value)?,
            5 => t.channels = small(value)?,
            _ => {}
        }
    }
    Ok(t)
}

fn read_relayed(mut rest: Bytes) -> Result<RelayedReport, Malformed> {
    let (mut name, mut viewers, mut hops) = (None, 0, 0);
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => name = Some(key(&value)?),
            2 => viewers = small(value)?,
            3 => hops = small(value)?,
            _ => {}
        }
    }
    Ok(RelayedReport { key: need(name)?, viewers, hops })
}

fn read_pull(mut rest: Bytes) -> Result<Message, Malformed> {
    let (mut pull, mut name, mut hops, mut of, mut seq) = (0, None, Vec::new(), None, 0);
    while let Some((tag, value)) = next_field(&mut rest)? {
        match tag {
            1 => pull = number(value)?,
            2 => name = Some(key(&value)?),
            3 => push(&mut hops, node(&value)?)?,
            4 => of = Some(epoch(value)?),
            5 => seq = number(value)?,
            _ => {}
        }
    }
    Ok(Message::Pull { pull, key: need(name)?, hops, after: of.map(|of| (of, seq)) })
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
    let (mut vps, mut format, mut sequence_header) = (Vec::new(), Vp9Format::default(), Bytes::new());
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
            12 => push(&mut vps, value)?,
            13 => {
                let mut next = || {
                    let n = varint(&mut value)?;
                    u8::try_from(n).map_err(|_| Malformed("a VP9 format out of range"))
                };
                let (profile, depth, subsampling) = (next()?, next()?, next()?);
                format = Vp9Format { profile, depth, subsampling, full_range: next()? != 0 };
            }
            14 => sequence_header = value,
            _ => {}
        }
    }
    let Some(codec) = Codec::ALL.into_iter().find(|c| u64::from(codec_number(*c)) == codec) else {
        return Ok(None);
    };
    let params = match codec {
        Codec::H264 => CodecParams::H264 { sps, pps, size, reorders },
        Codec::H265 => CodecParams::H265 { vps, sps, pps, size, reorders },
        Codec::Vp8 => CodecParams::Vp8 { size },
        Codec::Vp9 => CodecParams::Vp9 { format, size },
        Codec::Av1 => CodecParams::Av1 { sequence_header, size },
        Codec::Opus => CodecParams::Opus { channels },
        Codec::Aac => CodecParams::Aac { asc, rate, channels },
        Codec::Mp3 => CodecParams::Mp3 { rate, channels },
        Codec::Pcma => CodecParams::Pcma { channels },
        Codec::Pcmu => CodecParams::Pcmu { channels },
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
