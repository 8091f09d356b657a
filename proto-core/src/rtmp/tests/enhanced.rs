//! Enhanced RTMP, and what Flash clients send.

use super::*;
use crate::io::Level;

/// A connection that said `more` in `connect` and does what `then` says.
fn connected(more: &[(&str, Value)], then: &[Vec<u8>]) -> (Server, Vec<Output>) {
    let mut pairs = vec![("app", Value::string("live")), ("tcUrl", Value::string("rtmp://h/live"))];
    pairs.extend(more.iter().cloned());
    let connect = command(0, "connect", 1.0, Value::object(pairs), &[]);
    let mut bytes = vec![hello(), connect, command(0, "createStream", 2.0, Value::Null, &[])];
    bytes.extend_from_slice(then);
    let mut s = server();
    let out = feed(&mut s, &bytes.concat());
    (s, out)
}

fn playing() -> Vec<u8> {
    command(1, "play", 3.0, Value::Null, &[Value::string("demo")])
}

fn publishing() -> Vec<u8> {
    command(1, "publish", 3.0, Value::Null, &[Value::string("demo"), Value::string("live")])
}

fn list(names: &[&str]) -> (&'static str, Value) {
    ("fourCcList", Value::StrictArray(names.iter().copied().map(Value::string).collect()))
}

/// The rest of a session's words, without its greeting.
fn later(s: &mut Server) -> Vec<u8> {
    sent(&drain(s, true, T0))
}

fn hevc() -> CodecParams {
    let set = |kind: u8| vec![Bytes::from(vec![kind << 1, 1, 0xc1, 9])];
    crate::media::h265::h265_params(set(32), set(33), set(34))
}

#[test]
fn who_says_nothing_of_fourccs_is_told_nothing_of_them() {
    let info = |more: &[(&str, Value)]| {
        let (_, out) = connected(more, &[]);
        let all = messages(&sent(&out));
        let result = all.iter().find(|m| m.kind == kind::COMMAND).map(values).unwrap();
        assert_eq!(result[0], Value::string("_result"));
        result[3].clone()
    };
    assert_eq!(info(&[]).get("fourCcList"), None);
    let said = info(&[list(&["hvc1"])]);
    let Some(Value::StrictArray(ours)) = said.get("fourCcList") else { panic!("{said:?}") };
    assert!(ours.contains(&Value::string("av01")) && ours.contains(&Value::string("Opus")));
    assert_eq!(said.get("videoFourCcInfoMap").and_then(|m| m.get("vp09")), Some(&Value::Number(4.0)));
    assert_eq!(info(&[("capsEx", Value::Number(1.0))]).get("capsEx"), Some(&Value::Number(15.0)));
}

#[test]
fn h265_goes_to_players_that_take_it_and_others_are_told_why_not() {
    let deliver = |s: &mut Server| {
        s.handle(Input::Deliver(1, &config(TrackId::VIDEO, hevc())), T0);
        s.handle(Input::Deliver(1, &config(TrackId::AUDIO, aac())), T0);
        s.handle(Input::Deliver(1, &delivery(picture(FrameKind::Key, 0, 40))), T0);
        s.handle(Input::Deliver(1, &delivery(new_frame(TrackId::AUDIO, FrameKind::Audio, 5, vec![1]))), T0);
        drain(s, true, T0)
    };
    let videos = |out: &[Output]| {
        let bytes = [vec![0; 1 + 2 * PACKET], sent(out)].concat();
        let mut reader = ChunkReader::new(&Limits::default());
        reader.set_partial_cap(4 << 20);
        let mut size = raw(2, kind::SET_CHUNK_SIZE, 0, 60_000u32.to_be_bytes().to_vec());
        size.extend_from_slice(&bytes[1 + 2 * PACKET..]);
        let mut rest = &size[..];
        let all: Vec<Message> = std::iter::from_fn(|| reader.read(&mut rest).unwrap()).collect();
        let count = |k| all.iter().filter(|m| m.kind == k).count();
        (count(kind::VIDEO), count(kind::AUDIO))
    };
    let (mut s, _) = connected(&[list(&["hvc1"])], &[playing()]);
    assert_eq!(videos(&deliver(&mut s)), (2, 2));
    let (mut s, _) = connected(&[], &[playing()]);
    let out = deliver(&mut s);
    assert_eq!(videos(&out), (0, 2), "sound goes on");
    let told = out.iter().find_map(|o| match o {
        Output::Log(Level::Info, text) if text.contains("H.265") => Some(text.clone()),
        _ => None,
    });
    assert!(told.is_some_and(|t| t.contains("RTMP") && t.contains("?video=h265") && t.contains("libx264")));
    let query = command(1, "play", 3.0, Value::Null, &[Value::string("demo?video=hevc")]);
    let (mut s, _) = connected(&[], &[query]);
    assert_eq!(videos(&deliver(&mut s)), (2, 2));
}

#[test]
fn further_tracks_go_to_players_that_tell_tracks_apart() {
    use crate::wire::flv::{AudioTag, VideoTag};
    let small =
        crate::media::h264::h264_params(vec![vec![0x67, 0x42, 0xc0, 1].into()], vec![vec![0x68].into()]);
    let deliver = |caps: f64| {
        let (mut s, _) = connected(&[list(&["*"]), ("capsEx", Value::Number(caps))], &[playing()]);
        for (track, params) in [
            (TrackId::VIDEO, hevc()),
            (TrackId::AUDIO, aac()),
            (TrackId(3), small.clone()),
            (TrackId(4), CodecParams::Opus { channels: 2 }),
        ] {
            s.handle(Input::Deliver(1, &config(track, params)), T0);
        }
        for (track, kind) in [
            (TrackId::VIDEO, FrameKind::Key),
            (TrackId(3), FrameKind::Key),
            (TrackId::AUDIO, FrameKind::Audio),
            (TrackId(4), FrameKind::Audio),
        ] {
            s.handle(Input::Deliver(1, &delivery(new_frame(track, kind, 5, vec![0, 0, 0, 1, 0x65]))), T0);
        }
        let said = sent(&drain(&mut s, true, T0));
        let size = raw(2, kind::SET_CHUNK_SIZE, 0, 60_000u32.to_be_bytes().to_vec());
        let mut all = messages(&[vec![0; 1 + 2 * PACKET], size, said].concat());
        all.retain(|m| matches!(m.kind, kind::VIDEO | kind::AUDIO));
        all
    };
    let numbers = |all: &[Message]| -> Vec<(u8, Option<u8>)> {
        let number = |m: &Message| match m.kind {
            kind::VIDEO => match VideoTag::parse(&m.payload).unwrap() {
                VideoTag::Tracks(all) => Some(all[0].0),
                _ => None,
            },
            _ => match AudioTag::parse(&m.payload).unwrap() {
                AudioTag::Tracks(all) => Some(all[0].0),
                _ => None,
            },
        };
        all.iter().map(|m| (m.kind, number(m))).collect()
    };
    let (v, a) = (kind::VIDEO, kind::AUDIO);
    let headers = [(v, None), (a, None), (v, Some(1)), (a, Some(1))];
    let frames = [(v, None), (v, Some(1)), (a, None), (a, Some(1))];
    assert_eq!(numbers(&deliver(2.0)), [headers, frames].concat());
    // Without the capability there is one of each: the hub sends no other, and the last picture that it named counts.
    assert!(numbers(&deliver(0.0)).iter().all(|(_, n)| n.is_none()));
}

#[test]
fn a_node_that_drains_asks_those_to_reconnect_who_said_that_they_do() {
    for (caps, then, asked) in [
        (1.0, publishing(), true),
        (3.0, playing(), true),
        (2.0, publishing(), false),
        (1.0, Vec::new(), false),
    ] {
        let (mut s, _) = connected(&[("capsEx", Value::Number(caps))], &[then]);
        for to in [None, Some("rtmp://other:1935")] {
            s.handle(Input::Reconnect(to.map(str::to_owned)), T0);
            let said = later(&mut s);
            let has = |words: &[u8]| said.windows(words.len()).any(|w| w == words);
            assert_eq!(has(b"NetConnection.Connect.ReconnectRequest"), asked, "{caps}");
            // A property: length and name, type and length of a string.
            let url = b"\0\x05tcUrl\x02\0\x16rtmp://other:1935/live";
            assert_eq!(has(url), asked && to.is_some(), "{caps} {to:?}");
        }
    }
}

#[test]
fn a_new_peer_bandwidth_is_answered_with_the_window_once() {
    let limit = |window: u32| raw(2, kind::SET_PEER_BANDWIDTH, 0, [&window.to_be_bytes()[..], &[2]].concat());
    let (mut s, _) = connected(&[], &[publishing()]);
    let answer = |s: &mut Server, window| sent(&feed(s, &limit(window)));
    let first = answer(&mut s, 70_000);
    assert!(first.windows(4).any(|w| w == 70_000u32.to_be_bytes()), "{first:?}");
    assert!(answer(&mut s, 70_000).is_empty());
    assert!(answer(&mut s, 0).is_empty());
    assert!(!answer(&mut s, 80_000).is_empty());
}

#[test]
fn commands_of_type_17_are_amf0_with_amf3_values_in_it() {
    let flash = |first: &[u8]| {
        // connect, 1, {app: "live"} as an AMF3 object.
        let mut payload = first.to_vec();
        payload.extend(emit_all(&[Value::string("connect"), Value::Number(1.0)]));
        payload.extend([17, 10, 0x0b, 0x01, 7, b'a', b'p', b'p', 6, 9, b'l', b'i', b'v', b'e', 1]);
        let mut s = server();
        let bytes = [hello(), raw(3, kind::COMMAND_AMF3, 0, payload)].concat();
        words(&sent(&feed(&mut s, &bytes)))
    };
    for first in [&[0][..], &[]] {
        assert!(flash(first).contains(&"NetConnection.Connect.Success".to_owned()), "{:?}", flash(first));
    }
}
