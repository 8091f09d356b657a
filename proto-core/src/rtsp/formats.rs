//! Payload formats in session descriptions: what a section offers, and how a track is described.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::media::h264::h264_params;
use crate::media::h265::h265_params;
use crate::media::payload::Format;
use crate::media::track::CodecParams;
use crate::wire::sdp::{RtpMap, Section, Writer};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use std::fmt::Write as _;

/// A payload type that can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its number.
    pub payload_type: u8,
    /// What it means.
    pub format: Format,
    /// Parameter sets that the description tells.
    pub preset: Option<CodecParams>,
}

/// The first format of a section that can be taken.
///
/// # Errors
/// Words for what the section has instead.
pub fn offered(section: &Section) -> Result<Offered, String> {
    if !matches!(section.profile.as_str(), "RTP/AVP" | "RTP/AVPF" | "RTP/AVP/TCP" | "RTP/AVP/UDP") {
        return Err(format!("profile {}", crate::error::quote(&section.profile)));
    }
    let mut names = Vec::new();
    for &payload_type in &section.formats {
        let Some(map) = section.rtpmap(payload_type) else {
            names.push(format!("payload type {payload_type} without rtpmap"));
            continue;
        };
        match format(section, payload_type, &map) {
            Some((format, preset)) => return Ok(Offered { payload_type, format, preset }),
            None => names.push(crate::error::quote(&map.encoding)),
        }
    }
    Err(if names.is_empty() { "no format".to_owned() } else { names.join(", ") })
}

fn format(section: &Section, pt: u8, map: &RtpMap) -> Option<(Format, Option<CodecParams>)> {
    let fmtp = section.fmtp(pt);
    let get = |name: &str| fmtp.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    let number = |name: &str| get(name).map_or(Some(0), |v| v.parse::<u8>().ok());
    let channels = map.channels;
    let video = section.media == "video";
    let format = match map.encoding.to_ascii_uppercase().as_str() {
        "H264" if video => {
            // Mode 2 interleaves pictures (RFC 6184, 5.6); nobody sends it.
            if number("packetization-mode")? > 1 {
                return None;
            }
            let sets = base64_list(get("sprop-parameter-sets").unwrap_or_default());
            let of = |kind: u8| -> Vec<Bytes> {
                sets.iter().filter(|s| s.first().is_some_and(|b| b & 0x1f == kind)).cloned().collect()
            };
            let (sps, pps) = (of(7), of(8));
            let preset = (!sps.is_empty() && !pps.is_empty()).then(|| h264_params(sps, pps));
            return Some((Format::H264, preset));
        }
        "H265" if video => {
            if get("sprop-max-don-diff").is_some_and(|d| d != "0") {
                return None;
            }
            let list = |name| base64_list(get(name).unwrap_or_default());
            let (vps, sps, pps) = (list("sprop-vps"), list("sprop-sps"), list("sprop-pps"));
            let all = ![&vps, &sps, &pps].iter().any(|l| l.is_empty());
            return Some((Format::H265, all.then(|| h265_params(vps, sps, pps))));
        }
        "VP8" if video => Format::Vp8,
        "VP9" if video => Format::Vp9,
        "AV1" if video => Format::Av1,
        "OPUS" if !video => Format::Opus,
        "PCMA" if !video && map.rate == 8_000 => Format::Pcma { channels },
        "PCMU" if !video && map.rate == 8_000 => Format::Pcmu { channels },
        "MPA" if !video => Format::Mp3,
        "MPEG4-GENERIC" if !video => {
            let asc = hex(get("config")?).filter(|c| !c.is_empty())?;
            Format::Mpeg4Generic {
                asc,
                clock_rate: map.rate,
                size_length: number("sizelength")?,
                index_length: number("indexlength")?,
                index_delta_length: number("indexdeltalength")?,
            }
        }
        "MP4A-LATM" if !video => {
            let in_band = get("cpresent").is_none_or(|c| c != "0");
            let config = if in_band { None } else { Some(hex(get("config")?)?) };
            Format::Latm { config, clock_rate: map.rate }
        }
        _ => return None,
    };
    Some((format, None))
}

fn base64_list(text: &str) -> Vec<Bytes> {
    let decode = |s: &str| STANDARD.decode(s).or_else(|_| STANDARD_NO_PAD.decode(s)).ok();
    text.split(',').map(str::trim).filter_map(decode).filter(|s| !s.is_empty()).map(Bytes::from).collect()
}

fn hex(text: &str) -> Option<Bytes> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02X}");
        out
    })
}

/// Writes the section of a track. `control`: the name by which it is set up.
pub fn describe(out: &mut Writer, params: &CodecParams, payload_type: u8, control: &str) {
    let format = Format::of(params);
    let media = if params.codec().is_video() { "video" } else { "audio" };
    let rate = format.clock_rate();
    let mut map = format!("{payload_type} {}/{rate}", format.encoding());
    match params {
        // RFC 7587, 7: always two.
        CodecParams::Opus { .. } => map.push_str("/2"),
        // The clock of MPA is not the sampling rate, and its channels stand in the frames (RFC 3551, 4.5.13).
        CodecParams::Mp3 { .. } => {}
        _ => {
            if let Some((_, channels @ 2..)) = params.sound() {
                let _ = write!(map, "/{channels}");
            }
        }
    }
    out.section(media, payload_type).attribute("rtpmap", &map);
    let list = |sets: &[Bytes]| sets.iter().map(|s| STANDARD.encode(s)).collect::<Vec<_>>().join(",");
    let fmtp = match params {
        CodecParams::H264 { sps, pps, .. } => {
            let mut text = "packetization-mode=1".to_owned();
            if let Some([_, profile, constraints, level, ..]) = sps.first().map(|s| &s[..]) {
                let _ = write!(text, "; profile-level-id={}", to_hex(&[*profile, *constraints, *level]));
            }
            let all: Vec<Bytes> = sps.iter().chain(pps).cloned().collect();
            if !all.is_empty() {
                let _ = write!(text, "; sprop-parameter-sets={}", list(&all));
            }
            text
        }
        CodecParams::H265 { vps, sps, pps, .. } => {
            format!("sprop-vps={}; sprop-sps={}; sprop-pps={}", list(vps), list(sps), list(pps))
        }
        CodecParams::Aac { asc, .. } => format!(
            "streamtype=5; profile-level-id=1; mode=AAC-hbr; sizelength=13; indexlength=3; indexdeltalength=3; config={}",
            to_hex(asc)
        ),
        CodecParams::Opus { channels } => format!("sprop-stereo={}", u8::from(*channels > 1)),
        _ => String::new(),
    };
    if !fmtp.is_empty() {
        out.attribute("fmtp", &format!("{payload_type} {fmtp}"));
    }
    out.attribute("control", control);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::wire::sdp::{Bounds, Description};

    const BOUNDS: Bounds = Bounds { lines: 50, sections: 4, formats: 8 };

    fn one(lines: &str) -> Result<Offered, String> {
        offered(&Description::parse(&format!("v=0\n{lines}"), BOUNDS).unwrap().sections[0])
    }

    #[test]
    fn what_clients_announce_is_taken() {
        let aac = one("m=audio 0 RTP/AVP 97\na=rtpmap:97 MPEG4-GENERIC/48000/2\n\
            a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=119056E500")
            .unwrap();
        let Format::Mpeg4Generic { asc, size_length: 13, .. } = aac.format else { panic!() };
        assert_eq!(&asc[..2], [0x11, 0x90]);
        let latm = one(
            "m=audio 0 RTP/AVP 96\na=rtpmap:96 MP4A-LATM/48000\na=fmtp:96 cpresent=0;config=400023203fc0",
        )
        .unwrap();
        assert!(matches!(latm.format, Format::Latm { config: Some(c), clock_rate: 48_000 } if c.len() == 6));
        assert_eq!(one("m=audio 0 RTP/AVP 8").unwrap().format, Format::Pcma { channels: 1 });
        let h264 = one("m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n\
            a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LADNkDxWhAAAADAEAAAAwDxQqS,aMuMsg==")
        .unwrap();
        assert!(
            matches!(h264.preset, Some(CodecParams::H264 { sps, pps, .. }) if sps.len() == 1 && pps.len() == 1)
        );
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        for (lines, word) in [
            ("m=video 0 RTP/AVP 96\na=rtpmap:96 THEORA/90000", "THEORA"),
            ("m=video 0 RTP/AVP 96", "without rtpmap"),
            ("m=video 0 RTP/AVP", "no format"),
            ("m=video 0 RTP/SAVP 96\na=rtpmap:96 H264/90000", "SAVP"),
            ("m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=2", "H264"),
            ("m=audio 0 RTP/AVP 96\na=rtpmap:96 mpeg4-generic/48000\na=fmtp:96 config=1", "mpeg4"),
            ("m=audio 0 RTP/AVP 96\na=rtpmap:96 H264/90000", "H264"),
        ] {
            let error = one(lines).unwrap_err();
            assert!(error.contains(word), "{lines}: {error}");
        }
    }

    #[test]
    fn what_is_described_is_understood() {
        let sps = Bytes::from_static(&[0x67, 66, 0xc0, 12, 0xd9, 3]);
        let pps = Bytes::from_static(&[0x68, 0xcb, 0x8c]);
        let all = [
            h264_params(vec![sps], vec![pps]),
            CodecParams::Opus { channels: 2 },
            CodecParams::Aac { asc: Bytes::from_static(&[0x11, 0x90]), rate: 48_000, channels: 2 },
            CodecParams::Pcma { channels: 1 },
            CodecParams::Pcmu { channels: 2 },
            CodecParams::Mp3 { rate: 44_100, channels: 2 },
            CodecParams::Vp8 { size: None },
        ];
        for params in all {
            let mut w = Writer::new(1, "x");
            describe(&mut w, &params, 96, "video");
            let d = Description::parse(&w.finish(), BOUNDS).unwrap();
            let got = offered(&d.sections[0]).unwrap();
            assert_eq!((got.payload_type, got.format), (96, Format::of(&params)));
            assert_eq!(got.preset, matches!(params, CodecParams::H264 { .. }).then(|| params.clone()));
        }
    }
}
