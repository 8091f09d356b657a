//! What two ends of an RTMP connection say of their codecs (Veovera, "Enhanced RTMP" v1 and v2, "Enhancing NetConnection
//! connect Command").

use crate::media::track::{Codec, CodecSet};
use crate::wire::amf0::Value;
use crate::wire::flv::{codec_of, fourcc};

/// `capsEx`: the client obeys a reconnect request.
const RECONNECT: u32 = 1;
/// `capsEx`: multitrack messages are understood.
const MULTITRACK: u32 = 2;
/// `capsEx`: ModEx is understood.
const MOD_EX: u32 = 4;
/// `capsEx`: times in nanoseconds are understood.
const NANOS: u32 = 8;

/// In a FourCC map: the codec can be decoded.
const CAN_DECODE: u32 = 1;
/// In a FourCC map: the codec can be forwarded.
const CAN_FORWARD: u32 = 4;

/// What every RTMP player takes.
pub(super) const CLASSIC: CodecSet =
    CodecSet::NONE.with(Codec::H264).with(Codec::Aac).with(Codec::Mp3).with(Codec::Pcma).with(Codec::Pcmu);

/// What a client said of itself in `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// It speaks Enhanced RTMP.
    pub(super) enhanced: bool,
    /// What it takes as a player.
    pub(super) takes: CodecSet,
    /// It understands multitrack messages.
    pub(super) multitrack: bool,
    /// It obeys `NetConnection.Connect.ReconnectRequest`.
    pub(super) reconnects: bool,
}

impl Default for Said {
    fn default() -> Said {
        Said { enhanced: false, takes: CLASSIC, multitrack: false, reconnects: false }
    }
}

impl Said {
    /// Reads the command object of `connect`.
    pub(super) fn read(connect: &Value) -> Said {
        let names = ["fourCcList", "audioFourCcInfoMap", "videoFourCcInfoMap", "capsEx"];
        let mut said =
            Said { enhanced: names.iter().any(|name| connect.get(name).is_some()), ..Said::default() };
        match connect.get("fourCcList") {
            Some(Value::StrictArray(list)) => {
                list.iter().filter_map(Value::as_str).for_each(|name| said.take(name));
            }
            // ffmpeg before 7 writes one string where it was given one codec.
            Some(text) => text.as_str().into_iter().for_each(|name| said.take(name)),
            None => {}
        }
        for map in ["audioFourCcInfoMap", "videoFourCcInfoMap"] {
            let Some(Value::Object(pairs) | Value::EcmaArray(pairs)) = connect.get(map) else { continue };
            for (name, flags) in pairs {
                // A client that says the name and no flags takes it, as far as one can tell.
                if flags.as_number().is_none_or(|n| n as u32 & (CAN_DECODE | CAN_FORWARD) != 0) {
                    said.take(name);
                }
            }
        }
        let caps = connect.get("capsEx").and_then(Value::as_number).unwrap_or(0.0);
        said.reconnects = caps as u32 & RECONNECT != 0;
        said.multitrack = caps as u32 & MULTITRACK != 0;
        said
    }

    fn take(&mut self, name: &str) {
        if name == "*" {
            self.takes = Codec::ALL.into_iter().fold(self.takes, CodecSet::with);
        } else if let Some(codec) = codec_of(name.as_bytes()) {
            self.takes = self.takes.with(codec);
        }
    }

    /// Players that take more but have no way to say so in `connect` say it in the name's query, as `audio=opus` or
    /// `video=hvc1,av01` (FourCCs in any case, or the names that people use).
    pub(super) fn query(&mut self, query: &str) {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        for (_, list) in pairs.filter(|(name, _)| matches!(*name, "audio" | "video")) {
            for word in list.split(',') {
                let found = Codec::ALL.into_iter().find(|c| {
                    let name = c.name().replace('.', "");
                    name.eq_ignore_ascii_case(word)
                        || fourcc(*c).is_some_and(|f| f.eq_ignore_ascii_case(word.as_bytes()))
                });
                let hevc = word.eq_ignore_ascii_case("hevc").then_some(Codec::H265);
                if let Some(codec) = found.or(hevc) {
                    self.takes = self.takes.with(codec);
                }
            }
        }
    }
}

/// What this node says of itself in the answer to `connect`, to a client that speaks Enhanced RTMP.
pub(super) fn ours() -> Vec<(&'static str, Value)> {
    let name = |c: Codec| fourcc(c).and_then(|f| std::str::from_utf8(f).ok());
    let map = |video: bool| {
        let all = Codec::ALL.into_iter().filter(|c| c.is_video() == video).filter_map(name);
        Value::object(all.map(|n| (n, Value::Number(f64::from(CAN_FORWARD)))))
    };
    let list = Codec::ALL.into_iter().filter_map(name).map(Value::string).collect();
    vec![
        ("fourCcList", Value::StrictArray(list)),
        ("videoFourCcInfoMap", map(true)),
        ("audioFourCcInfoMap", map(false)),
        ("capsEx", Value::Number(f64::from(RECONNECT | MULTITRACK | MOD_EX | NANOS))),
    ]
}

/// What our own playing client says of itself: what it takes, and what players of old said.
pub(super) fn ours_as_player() -> Vec<(&'static str, Value)> {
    let number = |n: u32| Value::Number(f64::from(n));
    let mut all = vec![
        ("fpad", Value::Boolean(false)),
        ("capabilities", number(239)),
        ("audioCodecs", number(0x0fff)),
        ("videoCodecs", number(252)),
        ("videoFunction", number(1)),
        ("objectEncoding", number(0)),
    ];
    all.extend(ours().into_iter().filter(|(name, _)| *name != "capsEx"));
    all.push(("capsEx", number(MULTITRACK | MOD_EX | NANOS)));
    all
}

/// What our own publishing client says of itself: what it sends, and whether it obeys a request to reconnect.
pub(super) fn ours_as_publisher(obeys: bool) -> Vec<(&'static str, Value)> {
    let names = Codec::ALL.into_iter().filter_map(|c| std::str::from_utf8(fourcc(c)?).ok());
    let mut all = vec![("fourCcList", Value::StrictArray(names.map(Value::string).collect()))];
    if obeys {
        all.push(("capsEx", Value::Number(f64::from(RECONNECT))));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken beyond what everyone takes.
    fn more(said: Said) -> String {
        let names = Codec::ALL.into_iter().filter(|c| said.takes.has(*c) && !CLASSIC.has(*c));
        names.map(Codec::name).collect::<Vec<_>>().join(" ")
    }

    fn list(names: &[&str]) -> String {
        let list = names.iter().copied().map(Value::string).collect();
        more(Said::read(&Value::object([("fourCcList", Value::StrictArray(list))])))
    }

    #[test]
    fn what_a_client_takes_is_what_it_lists() {
        assert_eq!(list(&[]), "");
        assert_eq!(list(&["hvc1", "Opus", "xyz1"]), "H.265 Opus");
        assert_eq!(list(&["*"]), "H.265 VP8 VP9 AV1 Opus");
        let map = Value::object([
            ("av01", Value::Number(1.0)),
            ("vp09", Value::Number(2.0)),
            ("hvc1", Value::Null),
        ]);
        let said = Said::read(&Value::object([("videoFourCcInfoMap", map), ("capsEx", Value::Number(3.0))]));
        assert_eq!(more(said), "H.265 AV1", "what it can only encode it does not take");
        assert!(said.reconnects && said.enhanced && said.multitrack);
        assert_eq!(Said::read(&Value::Null), Said::default());
    }

    #[test]
    fn a_query_says_it_too() {
        let mut said = Said::default();
        said.query("token=x&audio=opus&video=hevc,AV1,vp09");
        assert_eq!(more(said), "H.265 VP9 AV1 Opus");
    }
}
