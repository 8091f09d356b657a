use super::*;
use crate::buf::Inbox;
use crate::media::frame::{FrameKind, Rotation};
use crate::media::track::{CodecParams, Origin};
use crate::wire::vp9::Vp9Format;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn key() -> impl Strategy<Value = StreamKey> {
    "[a-z0-9]{1,8}/[A-Za-z0-9._~-]{0,20}x".prop_filter_map("key", |s| StreamKey::parse(&s).ok())
}

fn node() -> impl Strategy<Value = NodeId> {
    "[a-z0-9-]{1,20}".prop_map(NodeId)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, count)| Epoch { term, count })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..50).prop_map(Bytes::from)
}

fn info() -> impl Strategy<Value = NodeInfo> {
    let addrs = (any::<IpAddr>(), any::<IpAddr>(), "[a-z.]{0,20}", any::<[u16; 8]>());
    let roles = proptest::sample::subsequence(vec![Role::Manager, Role::Origin, Role::Edge], 0..=3);
    (node(), any::<u64>(), ".{0,20}", roles, "[a-z-]{0,9}", any::<u32>(), addrs, epoch()).prop_map(
        |(
            id,
            instance,
            version,
            roles,
            region,
            capacity_mbps,
            (public, private, name, [http, rtmp, rtmps, rtsp, rtsps, webrtc, link, https]),
            highest,
        )| {
            let advertised =
                Advertised { public, private, name, http, rtmp, rtmps, rtsp, rtsps, webrtc, link, https };
            NodeInfo { id, instance, version, roles, region, advertised, capacity_mbps, highest }
        },
    )
}

fn sets() -> impl Strategy<Value = Vec<Bytes>> {
    vec(bytes(), 0..3)
}

fn size() -> impl Strategy<Value = Option<(u32, u32)>> {
    option::of(any::<(u32, u32)>())
}

fn params() -> impl Strategy<Value = CodecParams> {
    prop_oneof![
        (vec(bytes(), 0..3), vec(bytes(), 0..3), option::of(any::<(u32, u32)>()), any::<bool>())
            .prop_map(|(sps, pps, size, reorders)| CodecParams::H264 { sps, pps, size, reorders }),
        any::<u8>().prop_map(|channels| CodecParams::Opus { channels }),
        (bytes(), any::<u32>(), any::<u8>()).prop_map(|(asc, rate, channels)| CodecParams::Aac {
            asc,
            rate,
            channels
        }),
        ([sets(), sets(), sets()], size(), any::<bool>()).prop_map(|([vps, sps, pps], size, reorders)| {
            CodecParams::H265 { vps, sps, pps, size, reorders }
        }),
        size().prop_map(|size| CodecParams::Vp8 { size }),
        (any::<([u8; 3], bool)>(), size()).prop_map(|(([profile, depth, subsampling], full_range), size)| {
            let format = Vp9Format { profile, depth, subsampling, full_range };
            CodecParams::Vp9 { format, size }
        }),
        (bytes(), size()).prop_map(|(sequence_header, size)| CodecParams::Av1 { sequence_header, size }),
        any::<(u32, u8)>().prop_map(|(rate, channels)| CodecParams::Mp3 { rate, channels }),
        any::<u8>().prop_map(|channels| CodecParams::Pcma { channels }),
        any::<u8>().prop_map(|channels| CodecParams::Pcmu { channels }),
    ]
}

fn config() -> impl Strategy<Value = TrackConfig> {
    (any::<u8>(), any::<u32>(), option::of(any::<u8>()), params()).prop_map(
        |(track, version, from, params)| {
            let origin = from.map_or(Origin::Ingest, |from| Origin::Derived { from: TrackId(from) });
            TrackConfig { track: TrackId(track), config: CodecConfig { version, params, origin } }
        },
    )
}

fn frame() -> impl Strategy<Value = RelayFrame> {
    let kind =
        prop::sample::select(vec![FrameKind::Key, FrameKind::Delta, FrameKind::Audio, FrameKind::Data]);
    let rotation = prop::sample::select(vec![Rotation::R0, Rotation::R90, Rotation::R180, Rotation::R270]);
    let times = (any::<i64>(), any::<i64>(), option::of(any::<u64>()));
    (any::<(u64, u64, u32, u8, bool, u8)>(), epoch(), times, kind, rotation, bytes()).prop_map(
        |(
            (pull, seq, config_version, track, discardable, temporal_layer),
            epoch,
            (dts, pts, capture),
            kind,
            rotation,
            payload,
        )| {
            let track = TrackId(track);
            let media =
                NewFrame { track, dts, pts, kind, discardable, temporal_layer, rotation, capture, payload };
            RelayFrame { pull, seq, epoch, config_version, media }
        },
    )
}

fn facts() -> impl Strategy<Value = StreamFacts> {
    let track = ("[A-Za-z0-9.]{0,9}", any::<(u32, u32, u32, u8)>()).prop_map(
        |(codec, (width, height, rate, channels))| TrackFacts { codec, width, height, rate, channels },
    );
    // An empty text in a list is no entry; nobody sends one.
    let code = "[a-z_]{1,9}";
    (any::<(u64, u64)>(), "[a-z]{0,9}", vec(track, 0..3), vec(code, 0..3)).prop_map(
        |((bits_per_s, uptime_s), source, tracks, notices)| StreamFacts {
            bits_per_s,
            source,
            uptime_s,
            tracks,
            notices,
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let stream = (key(), epoch(), any::<(bool, bool, u32)>(), facts()).prop_map(
        |(key, epoch, (silent, live, viewers), about)| StreamReport {
            key,
            epoch,
            silent,
            live,
            viewers,
            about,
        },
    );
    let relayed = (key(), any::<u32>(), any::<u32>()).prop_map(|(key, viewers, hops)| RelayedReport {
        key,
        viewers,
        hops,
    });
    (any::<(u64, u32, u32, u32, bool)>(), vec(stream, 0..4), vec(relayed, 0..4)).prop_map(
        |((egress_bps, loop_busy_permille, sessions, session_limit, draining), streams, relayed)| Report {
            egress_bps,
            loop_busy_permille,
            sessions,
            session_limit,
            draining,
            streams,
            relayed,
        },
    )
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    let n = any::<u64>;
    let word = || "[ -~é]{0,40}";
    prop_oneof![
        (any::<(u32, u32, u64, [u8; 32])>(), node()).prop_map(
            |((version, min_version, features, nonce), node)| {
                Message::Hello(Hello { version, min_version, features, node, nonce })
            }
        ),
        any::<[u8; 32]>().prop_map(|hmac| Message::Proof { hmac }),
        (word(), word()).prop_map(|(code, text)| Message::Bye { code, text }),
        Just(Message::Ping),
        info().prop_map(|i| Message::Register(Box::new(i))),
        (n(), word(), word()).prop_map(|(term, rtsp, rtsps)| Message::Registered { term, rtsp, rtsps }),
        report().prop_map(Message::Report),
        (n(), key(), word()).prop_map(|(req, key, identity)| Message::Claim { req, key, identity }),
        (n(), key(), epoch()).prop_map(|(req, key, epoch)| Message::Claimed { req, key, epoch }),
        (n(), word(), word()).prop_map(|(req, code, text)| Message::Refused { req, code, text }),
        (key(), epoch(), word()).prop_map(|(key, epoch, identity)| Message::Announce {
            key,
            epoch,
            identity
        }),
        (key(), epoch()).prop_map(|(key, epoch)| Message::Release { key, epoch }),
        (n(), key(), any::<bool>()).prop_map(|(req, key, direct)| Message::Locate { req, key, direct }),
        (n(), key(), epoch(), node(), any::<IpAddr>(), any::<u16>(), any::<bool>()).prop_map(
            |(req, key, epoch, node, ip, port, live)| {
                Message::Located { req, key, epoch, node, link_addr: SocketAddr::new(ip, port), live }
            }
        ),
        (n(), key()).prop_map(|(req, key)| Message::NotFound { req, key }),
        (n(), key(), any::<bool>()).prop_map(|(req, key, publishes)| Message::Relocate {
            req,
            key,
            publishes
        }),
        (n(), word(), word(), word()).prop_map(|(req, node, rtmp, rtmps)| Message::Relocated {
            req,
            node,
            rtmp,
            rtmps
        }),
        (key(), epoch(), node(), any::<IpAddr>(), any::<u16>()).prop_map(|(key, epoch, node, ip, port)| {
            Message::Moved { key, epoch, node, link_addr: SocketAddr::new(ip, port) }
        }),
        (key(), epoch()).prop_map(|(key, epoch)| Message::Fence { key, epoch }),
        any::<(bool, u64, bool)>().prop_map(|(on, within_ms, stop)| Message::Drain { on, within_ms, stop }),
        (key(), n()).prop_map(|(key, for_ms)| Message::Warm { key, for_ms }),
        ".{0,40}".prop_map(|name| Message::Revoke { name }),
        key().prop_map(|key| Message::Want { key }),
        vec("[a-z/*]{1,20}", 0..4).prop_map(|streams| Message::Offers { streams }),
        (n(), key(), vec(node(), 0..5), proptest::option::of((epoch(), n())))
            .prop_map(|(pull, key, hops, after)| Message::Pull { pull, key, hops, after }),
        (n(), vec(node(), 0..5), vec(config(), 0..4)).prop_map(|(pull, path, configs)| Message::Tracks {
            pull,
            path,
            configs
        }),
        frame().prop_map(|f| Message::Frame(Box::new(f))),
        (n(), proptest::option::of(any::<u8>().prop_map(TrackId)))
            .prop_map(|(pull, track)| Message::KeyRequest { pull, track }),
        n().prop_map(|pull| Message::SourceAway { pull }),
        n().prop_map(|pull| Message::SourceBack { pull }),
        (n(), word(), word()).prop_map(|(pull, code, text)| Message::End { pull, code, text }),
        n().prop_map(|pull| Message::CancelPull { pull }),
        (n(), any::<u8>(), n(), n(), n()).prop_map(|(pull, track, number, frames, bytes)| {
            Message::Group(Group { pull, track, number, frames, bytes })
        }),
        (n(), n()).prop_map(|(pull, frames)| Message::Sent { pull, frames }),
    ]
}

fn wire(message: &Message) -> Vec<u8> {
    let e = encode(message);
    [&e.head[..], &e.tail[..]].concat()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(m in message()) {
        let mut inbox = Inbox::new(1 << 20);
        let bytes = wire(&m);
        prop_assert_eq!(inbox.fill(&bytes), bytes.len());
        let raw = split(&mut inbox, 1 << 20).unwrap().unwrap();
        prop_assert!(inbox.is_empty());
        prop_assert_eq!(decode(raw).unwrap().unwrap(), m);
    }

    #[test]
    fn unknown_fields_are_left_out(m in message(), value in vec(any::<u8>(), 0..100), tag in 100u8..) {
        let mut bytes = wire(&m).split_off(4);
        bytes.extend([tag, value.len() as u8]);
        bytes.extend(&value);
        prop_assert_eq!(decode(bytes.into()).unwrap().unwrap(), m);
    }

    #[test]
    fn a_cut_or_bent_message_never_panics(m in message(), cut in any::<prop::sample::Index>(), bend in any::<u8>()) {
        let mut bytes = wire(&m).split_off(4);
        let at = cut.index(bytes.len());
        let _ = decode(Bytes::copy_from_slice(&bytes[..at]));
        bytes[at] ^= bend;
        let _ = decode(bytes.into());
    }

    #[test]
    fn garbage_never_panics(kind in 0u16..40, garbage in vec(any::<u8>(), 0..200)) {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend(garbage);
        let _ = decode(bytes.into());
    }
}

#[test]
fn an_unknown_message_is_skipped() {
    assert_eq!(decode(Bytes::from_static(&[0xff, 0xfe, 1, 2, 3])), Ok(None));
}

#[test]
fn a_declared_length_reserves_nothing_and_too_much_is_refused() {
    let mut inbox = Inbox::new(1 << 20);
    inbox.fill(&[0, 0, 0xff, 0xff, 0]);
    assert_eq!(split(&mut inbox, 1 << 16), Ok(None));
    assert_eq!(inbox.len(), 5);
    let mut inbox = Inbox::new(1 << 20);
    inbox.fill(&[0, 1, 0, 1, 0]);
    assert!(split(&mut inbox, 1 << 16).is_err());
}

#[test]
fn a_payload_is_not_copied_when_a_frame_is_written() {
    let payload = Bytes::from(vec![7; 1000]);
    let media = NewFrame {
        track: TrackId::VIDEO,
        dts: -5,
        pts: 5,
        kind: FrameKind::Key,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: payload.clone(),
    };
    let frame = RelayFrame { pull: 1, seq: 2, epoch: Epoch::default(), config_version: 1, media };
    let e = encode(&Message::Frame(Box::new(frame)));
    assert_eq!(e.tail.as_ptr(), payload.as_ptr());
    assert!(e.head.len() < 60, "{}", e.head.len());
}
