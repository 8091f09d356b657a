//! Which codecs of an offer are taken, and how they are written down.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::sdp::{Prepared, Section, Wish};
use crate::error::Reason;
use crate::media::payload::Format;
use crate::media::track::{Codec, CodecParams, CodecSet};
use crate::wire::av1::{Obu, SequenceHeader};
use str0m::format::{CodecConfig, FormatParams};
use str0m::media::{Frequency, Pt};
use str0m::rtp::{Extension, ExtensionMap};

/// A payload type for pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFormat {
    /// Its payload type.
    pub pt: u8,
    /// The payload type of its retransmissions (RFC 4588), if offered.
    pub rtx: Option<u8>,
    /// What it carries.
    pub codec: Codec,
    /// Its `a=fmtp`, as far as it matters, in our words. May be empty.
    pub fmtp: String,
    /// The codec's profile as this codec counts it; 0 where it has none.
    pub profile: u32,
}

/// A payload type for sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioFormat {
    /// Its payload type.
    pub pt: u8,
    /// Opus or G.711.
    pub codec: Codec,
}

/// The pictures that a viewer is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pictures {
    /// The stream's codec.
    pub codec: Codec,
    /// The stream's profile (VP9, AV1), where a viewer must offer that one.
    pub profile: Option<u32>,
    /// The stream has no pictures so far; this is what they probably will be.
    pub guessed: bool,
    /// There are several renditions of them: what the viewer's link carries matters.
    pub adapts: bool,
}

/// The payload format of a codec over WebRTC. `None` for what it does not carry.
pub(super) const fn payload_format(codec: Codec) -> Option<Format> {
    Some(match codec {
        Codec::H264 => Format::H264,
        Codec::H265 => Format::H265,
        Codec::Vp8 => Format::Vp8,
        Codec::Vp9 => Format::Vp9,
        Codec::Av1 => Format::Av1,
        Codec::Opus => Format::Opus,
        Codec::Pcma => Format::Pcma { channels: 1 },
        Codec::Pcmu => Format::Pcmu { channels: 1 },
        Codec::Aac | Codec::Mp3 => return None,
    })
}

impl Pictures {
    /// Where nothing is known yet: H.264, or whatever else is offered.
    pub const GUESS: Pictures = Pictures { codec: Codec::H264, profile: None, guessed: true, adapts: false };

    /// The pictures of a track.
    pub fn of(params: &CodecParams) -> Pictures {
        let profile = match params {
            CodecParams::Vp9 { format, .. } => Some(u32::from(format.profile)),
            CodecParams::Av1 { sequence_header, .. } => Obu::parse(sequence_header)
                .and_then(|(obu, _)| SequenceHeader::parse(obu.payload))
                .map(|h| u32::from(h.profile)),
            _ => None,
        };
        Pictures { codec: params.codec(), profile, guessed: false, adapts: false }
    }
}

/// Everything that WebRTC can carry.
pub const CARRIED: CodecSet = CodecSet::NONE
    .with(Codec::H264)
    .with(Codec::H265)
    .with(Codec::Vp8)
    .with(Codec::Vp9)
    .with(Codec::Av1)
    .with(Codec::Opus)
    .with(Codec::Pcma)
    .with(Codec::Pcmu)
    .in_order();

/// Sound that WebRTC can carry, the most welcome first.
pub const SOUND: [Codec; 3] = [Codec::Opus, Codec::Pcmu, Codec::Pcma];

/// The encoding name and clock of `a=rtpmap`. Empty for what WebRTC does not carry.
pub(super) const fn rtpmap(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "H264/90000",
        Codec::H265 => "H265/90000",
        Codec::Vp8 => "VP8/90000",
        Codec::Vp9 => "VP9/90000",
        Codec::Av1 => "AV1/90000",
        Codec::Opus => "opus/48000/2",
        Codec::Pcma => "PCMA/8000",
        Codec::Pcmu => "PCMU/8000",
        Codec::Aac | Codec::Mp3 => "",
    }
}

/// What a viewer of a stream is to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) video: Option<Pictures>,
    pub(super) audio: Option<Codec>,
    /// Why it will hear nothing although there is sound.
    pub(super) no_sound: Option<String>,
    pub(super) takes: CodecSet,
}

impl Plan {
    /// By the stream's tracks. A kind that is not there yet may come, and there is no second negotiation: then H.264 and
    /// Opus are taken for granted.
    pub(super) fn of<'a>(tracks: impl Iterator<Item = &'a CodecParams> + Clone) -> Result<Plan, Reason> {
        let pictures = tracks.clone().find(|p| p.codec().is_video());
        let sound = SOUND.into_iter().find(|s| tracks.clone().any(|p| p.codec() == *s));
        let other = tracks.clone().map(CodecParams::codec).find(|c| !c.is_video() && !SOUND.contains(c));
        let (audio, no_sound) = match (sound, other) {
            (Some(codec), _) => (Some(codec), None),
            (None, None) => (Some(Codec::Opus), None),
            (None, Some(codec)) => {
                let text = format!(
                    "the stream's sound is {}, which WebRTC cannot carry, and this node does not convert it now (its log says \
                     why); publish with Opus to be heard here",
                    codec.name()
                );
                if pictures.is_none() {
                    return Err(Reason::local("nothing_to_play", text));
                }
                (None, Some(text))
            }
        };
        let mut video = pictures.map_or(Pictures::GUESS, Pictures::of);
        video.adapts = tracks.filter(|p| p.codec() == video.codec).count() > 1;
        let mut takes = CodecSet::NONE.with(video.codec).in_order();
        if let Some(codec) = audio {
            takes = takes.with(codec);
        }
        Ok(Plan { video: Some(video), audio, no_sound, takes })
    }
}

/// Whether a viewer would get anything of a stream with these tracks (none: not known yet) by what was taken of its offer.
///
/// # Errors
/// `nothing_asked_for`: it takes pictures alone and there is only sound, or the other way round.
pub(super) fn has_use_for(
    prepared: &Prepared,
    tracks: impl Iterator<Item = Codec> + Clone,
) -> Result<(), Reason> {
    let taken = |c: Codec| {
        if c.is_video() { prepared.video_mid.is_some() } else { prepared.audio_mid.is_some() }
    };
    let Some(there) = tracks.clone().next().filter(|_| !tracks.clone().any(taken)) else { return Ok(()) };
    let [has, lacks] = if there.is_video() { ["pictures", "sound"] } else { ["sound", "pictures"] };
    Err(Reason::peer(
        "nothing_asked_for",
        format!(
            "the stream has {has} only ({}), and this viewer takes {lacks} only: offer to receive {has} as well, or have \
             the publisher send {lacks}",
            there.name()
        ),
    ))
}

/// str0m's name of a codec.
pub(super) const fn of_str0m(codec: Codec) -> str0m::format::Codec {
    use str0m::format::Codec as S;
    match codec {
        Codec::H264 => S::H264,
        Codec::H265 => S::H265,
        Codec::Vp8 => S::Vp8,
        Codec::Vp9 => S::Vp9,
        Codec::Av1 => S::Av1,
        Codec::Opus => S::Opus,
        Codec::Pcma => S::PCMA,
        Codec::Pcmu => S::PCMU,
        Codec::Aac | Codec::Mp3 => S::Unknown,
    }
}

/// Tells str0m the formats that were taken, in the same words in which they stand in the plain offer.
pub(super) fn configure(config: &mut CodecConfig, prepared: &Prepared) {
    for f in &prepared.video {
        let format = FormatParams::parse_line(&f.fmtp);
        let rtx = f.rtx.map(Pt::from);
        config.add_config(f.pt.into(), rtx, of_str0m(f.codec), Frequency::NINETY_KHZ, None, format);
    }
    if let Some(AudioFormat { pt, codec }) = prepared.audio {
        let (rate, channels, format) = match codec {
            Codec::Opus => {
                let format =
                    FormatParams { min_p_time: Some(10), use_inband_fec: Some(true), ..Default::default() };
                (Frequency::FORTY_EIGHT_KHZ, Some(2), format)
            }
            _ => (Frequency::EIGHT_KHZ, None, FormatParams::default()),
        };
        config.add_config(pt.into(), None, of_str0m(codec), rate, channels, format);
    }
}

/// What a publisher is told to send: H.264 where it is offered, since every player of this node takes it, else the one
/// codec that the offer names first.
pub(super) fn for_publisher(s: &Section<'_>) -> Vec<VideoFormat> {
    let h264 = video_formats(s, Codec::H264);
    if !h264.is_empty() {
        return h264;
    }
    let others = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H265];
    let first = s.payload_types().into_iter().find_map(|pt| {
        let map = s.of_format("rtpmap", pt)?;
        others.into_iter().find(|c| map.eq_ignore_ascii_case(rtpmap(*c)))
    });
    first.map(|codec| video_formats(s, codec)).unwrap_or_default()
}

/// The formats in which a viewer can be sent these pictures.
pub(super) fn for_viewer(s: &Section<'_>, pictures: Pictures) -> Vec<VideoFormat> {
    if pictures.guessed {
        return for_publisher(s);
    }
    let mut formats = video_formats(s, pictures.codec);
    formats.retain(|f| pictures.profile.is_none_or(|p| p == f.profile));
    formats
}

/// What to publish for a viewer who takes no pictures of `codec`, in the imperative: what it offers, H.264 first.
pub(super) fn instead_of(codec: Codec, s: &Section<'_>) -> String {
    let others = [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H265];
    let taken: Vec<Codec> =
        others.into_iter().filter(|c| *c != codec && !video_formats(s, *c).is_empty()).collect();
    let names: Vec<&str> = taken.iter().map(|c| c.name()).collect();
    match names.as_slice() {
        [] | ["H.264", ..] => Codec::H264.remedy().to_owned(),
        [only] => format!("publish {only}, which it takes"),
        [some @ .., last] => format!("publish {} or {last}, which it takes", some.join(", ")),
    }
}

/// The first of these codecs that is offered.
pub(super) fn audio_format(s: &Section<'_>, wanted: &[Codec]) -> Option<AudioFormat> {
    let pts = s.payload_types();
    wanted.iter().find_map(|&codec| {
        // RFC 3551, 6: types 0 and 8 need no rtpmap.
        let fixed = match codec {
            Codec::Pcmu => Some(0),
            Codec::Pcma => Some(8),
            _ => None,
        };
        let is = |pt: u8| match s.of_format("rtpmap", pt) {
            Some(map) => map.strip_suffix("/1").unwrap_or(map).eq_ignore_ascii_case(rtpmap(codec)),
            None => fixed == Some(pt),
        };
        pts.iter().copied().find(|pt| is(*pt)).map(|pt| AudioFormat { pt, codec })
    })
}

fn video_formats(s: &Section<'_>, codec: Codec) -> Vec<VideoFormat> {
    let pts = s.payload_types();
    let apt = |pt: u8| {
        pts.iter().copied().find(|rtx| {
            s.of_format("rtpmap", *rtx).is_some_and(|m| m.eq_ignore_ascii_case("rtx/90000"))
                && s.of_format("fmtp", *rtx)
                    .is_some_and(|f| parameter(f, "apt").and_then(|a| a.parse().ok()) == Some(pt))
        })
    };
    let mut out: Vec<VideoFormat> = Vec::new();
    for &pt in &pts {
        let Some(map) = s.of_format("rtpmap", pt) else { continue };
        if !map.eq_ignore_ascii_case(rtpmap(codec)) {
            continue;
        }
        let fmtp = s.of_format("fmtp", pt).unwrap_or_default();
        let Some((fmtp, profile)) = said(codec, fmtp) else { continue };
        // One format a profile: which level it names matters to nobody, and str0m must be able to tell formats apart
        // by profile.
        if !out.iter().any(|f| f.pt == pt || f.rtx == Some(pt) || f.profile == profile) {
            let used = |n: u8| n == pt || out.iter().any(|f| f.pt == n || f.rtx == Some(n));
            let rtx = apt(pt).filter(|rtx| !used(*rtx));
            out.push(VideoFormat { pt, rtx, codec, fmtp, profile });
        }
    }
    // H.264: Constrained Baseline first, for it has no B-frames and every player takes it. Others: the plainest first.
    out.sort_by_key(|f| f.profile);
    out
}

/// What a format's parameters say, in our words, and its profile. `None` if it is one that cannot be taken.
fn said(codec: Codec, fmtp: &str) -> Option<(String, u32)> {
    let number = |name: &str, most: u32, default: u32| match parameter(fmtp, name) {
        None => Some(default),
        Some(text) => text.parse().ok().filter(|n| *n <= most),
    };
    Some(match codec {
        Codec::H264 => {
            if parameter(fmtp, "packetization-mode") != Some("1") {
                return None;
            }
            // RFC 6184, 8.1: without the parameter, Baseline level 1 is meant; libwebrtc takes it for level 3.1.
            let id = match parameter(fmtp, "profile-level-id") {
                None => 0x42_00_1f,
                Some(text) => u32::from_str_radix(text, 16).ok().filter(|id| *id <= 0xff_ff_ff)?,
            };
            let words = format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={id:06x}");
            (words, Profile::of(id)? as u32)
        }
        Codec::H265 => {
            // RFC 7798, 7.1. Decoding order numbers are not taken.
            if number("sprop-max-don-diff", 32_767, 0)? != 0 {
                return None;
            }
            let profile = number("profile-id", 31, 1)?;
            let (tier, level) = (number("tier-flag", 1, 0)?, number("level-id", 255, 93)?);
            (format!("level-id={level};profile-id={profile};tier-flag={tier}"), profile)
        }
        Codec::Vp9 => {
            let profile = number("profile-id", 3, 0)?;
            (format!("profile-id={profile}"), profile)
        }
        Codec::Av1 => {
            let (profile, level) = (number("profile", 2, 0)?, number("level-idx", 31, 5)?);
            let tier = number("tier", 1, 0)?;
            (format!("level-idx={level};profile={profile};tier={tier}"), profile)
        }
        _ => (String::new(), 0),
    })
}

/// The profiles of H.264 that browsers and encoders offer, the most welcome first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
}

impl Profile {
    /// From `profile_idc` and `profile-iop` (RFC 6184, 8.1, table 5).
    fn of(profile_level_id: u32) -> Option<Profile> {
        let iop = profile_level_id >> 8 & 0xff;
        match (profile_level_id >> 16, iop) {
            (0x42, _) if iop & 0x4f == 0x40 => Some(Profile::ConstrainedBaseline),
            (0x4d, _) if iop & 0x8f == 0x80 => Some(Profile::ConstrainedBaseline),
            (0x42, _) if iop & 0x4f == 0 => Some(Profile::Baseline),
            (0x4d, _) if iop & 0xaf == 0 => Some(Profile::Main),
            (0x64, 0x0c) => Some(Profile::ConstrainedHigh),
            (0x64, 0) => Some(Profile::High),
            _ => None,
        }
    }
}

fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|p| {
        let (n, v) = p.trim().split_once('=')?;
        n.trim().eq_ignore_ascii_case(name).then(|| v.trim())
    })
}

/// The header extensions that are taken of an offer. Transport-wide feedback is for publishers, who adapt to it; a
/// viewer of a broadcast would only cost work by it.
pub(super) fn extensions(wish: Wish, simulcast: bool) -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    map.set(4, Extension::RtpMid);
    if wish == Wish::Publish {
        map.set(2, Extension::AbsoluteSendTime);
        map.set(3, Extension::TransportSequenceNumber);
    }
    if simulcast {
        map.set(10, Extension::RtpStreamId);
        map.set(11, Extension::RepairedRtpStreamId);
    }
    map
}
