//! SDP offers (RFC 8866, RFC 8829) before str0m sees them, and answers before the peer sees them.
//!
//! An offer is counted against its limits, and what this node takes of it is written down anew in a plain form:
//! one section of H.264, one of Opus, and only the attributes that matter. What is not taken never reaches str0m,
//! and is refused in the answer. Candidates are left out as well: an ICE-lite agent sends no checks, it learns
//! where a peer is from the peer's own checks, so an offer cannot make this node send anything anywhere.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::error::{Reason, quote};
use crate::limits::Limits;
use std::fmt::Write;

/// What the peer wants of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To publish (WHIP, RFC 9725).
    Publish,
    /// To play (WHEP), as far as the stream has them: picture, sound.
    Play {
        /// The stream has pictures that can be sent.
        video: bool,
        /// The stream has sound that can be sent.
        audio: bool,
    },
}

/// An H.264 format of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H264Format {
    /// Its payload type.
    pub pt: u8,
    /// The payload type of its retransmissions (RFC 4588), if offered.
    pub rtx: Option<u8>,
    /// `profile-level-id` (RFC 6184, 8.1): profile, constraints, level.
    pub profile_level_id: u32,
}

/// An offer that has passed the limits, in the form that str0m is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The plain offer.
    pub offer: String,
    /// Taken H.264 formats, the most welcome first. Empty: no picture.
    pub h264: Vec<H264Format>,
    /// The taken Opus payload type, if any.
    pub opus: Option<u8>,
    /// `a=mid` of the section with pictures.
    pub video_mid: Option<String>,
    /// `a=mid` of the section with sound.
    pub audio_mid: Option<String>,
    sections: Vec<Answered>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answered {
    /// By the next section of str0m's answer.
    Taken,
    /// By a refusal: the m-line with port 0 and one of its formats, and what names it.
    Refused { media: String, rest: String, rtpmap: Option<String>, mid: Option<String> },
}

struct Section<'a> {
    media: &'a str,
    port: &'a str,
    proto: &'a str,
    formats: Vec<&'a str>,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Section<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter(move |(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn first(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|(n, _)| *n == name)
    }

    /// The value of an attribute that begins with a payload type, such as `rtpmap`.
    fn of_format(&self, name: &str, pt: u8) -> Option<&'a str> {
        self.all(name).find_map(|v| {
            let (n, rest) = v.split_once(' ')?;
            (n.parse() == Ok(pt)).then(|| rest.trim())
        })
    }

    fn payload_types(&self) -> Vec<u8> {
        self.formats.iter().filter_map(|f| f.parse().ok()).filter(|pt| *pt < 128).collect()
    }
}

fn bad(text: String) -> Reason {
    Reason::peer("bad_sdp", text)
}

fn too_many(what: &str, count: usize, most: usize) -> Reason {
    Reason::limit("sdp_too_large", format!("the SDP offer has {count} {what}; at most {most} are allowed"))
}

fn attribute(line: &str) -> (&str, &str) {
    line.split_once(':').unwrap_or((line, ""))
}

/// Characters of ice-char and token that occur in mids and ICE credentials (RFC 8839, 5.4; RFC 8866, 9).
fn plain(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// Session attributes by name and value, and the media sections.
type Parsed<'a> = (Vec<(&'a str, &'a str)>, Vec<Section<'a>>);

fn parse<'a>(sdp: &'a str, limits: &Limits) -> Result<Parsed<'a>, Reason> {
    if sdp.len() > limits.http_sdp_bytes {
        return Err(too_many("bytes", sdp.len(), limits.http_sdp_bytes));
    }
    let mut session = Vec::new();
    let mut sections: Vec<Section<'a>> = Vec::new();
    let (mut lines, mut candidates) = (0, 0);
    for (n, line) in sdp.split('\n').map(|l| l.trim_end_matches('\r')).enumerate() {
        if line.is_empty() {
            continue;
        }
        let Some((kind, value)) = line.split_once('=').filter(|(k, _)| k.len() == 1) else {
            return Err(bad(format!("line {} of the SDP offer is no SDP line: {}", n + 1, quote(line))));
        };
        if n == 0 && (kind, value) != ("v", "0") {
            return Err(bad("the SDP offer does not begin with v=0; is the request body SDP?".to_owned()));
        }
        lines += 1;
        if lines > limits.sdp_lines {
            return Err(too_many("lines in one section", lines, limits.sdp_lines));
        }
        match (kind, sections.last_mut()) {
            ("m", _) => {
                lines = 1;
                let mut words = value.split(' ').filter(|w| !w.is_empty());
                let (Some(media), Some(port), Some(proto)) = (words.next(), words.next(), words.next())
                else {
                    return Err(bad(format!("the media line {} of the SDP offer is cut short", quote(line))));
                };
                let formats: Vec<&str> = words.collect();
                if formats.len() > limits.sdp_payload_types {
                    return Err(too_many(
                        "payload types in one section",
                        formats.len(),
                        limits.sdp_payload_types,
                    ));
                }
                sections.push(Section { media, port, proto, formats, attributes: Vec::new() });
                if sections.len() > limits.sdp_sections {
                    return Err(too_many("media sections", sections.len(), limits.sdp_sections));
                }
            }
            ("a", section) => {
                let (name, value) = attribute(value);
                if name == "candidate" {
                    candidates += 1;
                    if candidates > limits.sdp_candidates {
                        return Err(too_many("candidates", candidates, limits.sdp_candidates));
                    }
                }
                section.map_or(&mut session, |s| &mut s.attributes).push((name, value));
            }
            _ => {}
        }
    }
    for s in &sections {
        let extmaps = s.all("extmap").count();
        if extmaps > limits.sdp_extmaps {
            return Err(too_many("header extensions in one section", extmaps, limits.sdp_extmaps));
        }
    }
    if sections.is_empty() {
        return Err(bad("the SDP offer has no media section (m= line)".to_owned()));
    }
    Ok((session, sections))
}

fn h264_formats(s: &Section<'_>) -> Vec<H264Format> {
    let pts = s.payload_types();
    let apt = |pt: u8| {
        pts.iter().copied().find(|rtx| {
            s.of_format("rtpmap", *rtx).is_some_and(|m| m.eq_ignore_ascii_case("rtx/90000"))
                && s.of_format("fmtp", *rtx)
                    .is_some_and(|f| parameter(f, "apt").and_then(|a| a.parse().ok()) == Some(pt))
        })
    };
    let mut out: Vec<H264Format> = Vec::new();
    for &pt in &pts {
        let Some(map) = s.of_format("rtpmap", pt) else { continue };
        let fmtp = s.of_format("fmtp", pt).unwrap_or_default();
        if !map.eq_ignore_ascii_case("H264/90000") || parameter(fmtp, "packetization-mode") != Some("1") {
            continue;
        }
        // RFC 6184, 8.1: without the parameter, Baseline level 1 is meant; libwebrtc takes it for level 3.1.
        let profile_level_id = match parameter(fmtp, "profile-level-id") {
            None => 0x42_00_1f,
            Some(text) => match u32::from_str_radix(text, 16) {
                Ok(id) if id <= 0xff_ff_ff => id,
                _ => continue,
            },
        };
        let Some(profile) = Profile::of(profile_level_id) else { continue };
        // One format a profile: which level it names matters to nobody, and str0m must be able to tell formats apart
        // by profile.
        let known = |f: &H264Format| {
            f.pt == pt || f.rtx == Some(pt) || Profile::of(f.profile_level_id) == Some(profile)
        };
        if !out.iter().any(known) {
            let used = |n: u8| n == pt || out.iter().any(|f| f.pt == n || f.rtx == Some(n));
            let rtx = apt(pt).filter(|rtx| !used(*rtx));
            out.push(H264Format { pt, rtx, profile_level_id });
        }
    }
    // Constrained Baseline first: it has no B-frames and every player takes it.
    out.sort_by_key(|f| Profile::of(f.profile_level_id));
    out
}

/// The profiles that browsers and encoders offer, the most welcome first.
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

fn opus_format(s: &Section<'_>) -> Option<u8> {
    s.payload_types()
        .into_iter()
        .find(|pt| s.of_format("rtpmap", *pt).is_some_and(|m| m.eq_ignore_ascii_case("opus/48000/2")))
}

/// What the peer offers of a section: (it sends, it receives).
fn direction(s: &Section<'_>, session: &[(&str, &str)]) -> (bool, bool) {
    let of = |has: &dyn Fn(&str) -> bool| {
        [("sendonly", (true, false)), ("recvonly", (false, true)), ("inactive", (false, false))]
            .into_iter()
            .find(|(name, _)| has(name))
            .map(|(_, d)| d)
            .or_else(|| has("sendrecv").then_some((true, true)))
    };
    of(&|n| s.has(n))
        .or_else(|| of(&|n| session.iter().any(|(name, _)| *name == n)))
        // RFC 8866, 6.7: sendrecv where nothing is said.
        .unwrap_or((true, true))
}

/// Counts an offer against the limits and writes down what this node takes of it.
///
/// # Errors
/// `bad_sdp`, `sdp_too_large`, `no_common_codec`, `nothing_offered`, with words that name the line or the lack.
pub fn prepare(sdp: &str, wish: Wish, limits: &Limits) -> Result<Prepared, Reason> {
    let (session, sections) = parse(sdp, limits)?;
    let (want_video, want_audio) = match wish {
        Wish::Publish => (true, true),
        Wish::Play { video, audio } => (video, audio),
    };
    let mut prepared = Prepared {
        offer: String::new(),
        h264: Vec::new(),
        opus: None,
        video_mid: None,
        audio_mid: None,
        sections: Vec::new(),
    };
    let (mut seen_video, mut seen_audio) = (false, false);
    let mut body = String::new();
    let mut mids: Vec<&str> = Vec::new();
    for s in &sections {
        let mid = s.first("mid").filter(|m| plain(m, 1..=16));
        let usable = s.port != "0" || s.has("bundle-only");
        let wanted = match (wish, direction(s, &session)) {
            (Wish::Publish, (sends, _)) => sends,
            (Wish::Play { .. }, (_, receives)) => receives,
        };
        let rtp = s.proto == "UDP/TLS/RTP/SAVPF";
        let mut taken = false;
        if usable && wanted && rtp && (s.media == "video" || s.media == "audio") {
            let Some(mid) = mid else {
                return Err(bad(format!(
                    "the {} section of the SDP offer has no a=mid of 1 to 16 characters (RFC 9143)",
                    quote(s.media)
                )));
            };
            if mids.contains(&mid) {
                return Err(bad(format!("the SDP offer uses a=mid:{} twice", quote(mid))));
            }
            if s.media == "video" && want_video && prepared.video_mid.is_none() {
                seen_video = true;
                prepared.h264 = h264_formats(s);
                if !prepared.h264.is_empty() {
                    taken = true;
                    prepared.video_mid = Some(mid.to_owned());
                    write_section(&mut body, s, &session, mid, (&prepared.h264, None), wish, limits)?;
                }
            } else if s.media == "audio" && want_audio && prepared.audio_mid.is_none() {
                seen_audio = true;
                if let Some(pt) = opus_format(s) {
                    taken = true;
                    prepared.opus = Some(pt);
                    prepared.audio_mid = Some(mid.to_owned());
                    write_section(&mut body, s, &session, mid, (&[], Some(pt)), wish, limits)?;
                }
            }
            if taken {
                mids.push(mid);
            }
        }
        prepared.sections.push(if taken {
            Answered::Taken
        } else {
            let first = s.formats.first().copied().unwrap_or("0");
            let rtpmap = first.parse().ok().and_then(|pt| s.of_format("rtpmap", pt));
            Answered::Refused {
                media: s.media.to_owned(),
                rest: format!("{} {first}", s.proto),
                rtpmap: rtpmap.map(|map| format!("{first} {map}")),
                mid: mid.map(str::to_owned),
            }
        });
    }
    refuse_useless(&prepared, wish, seen_video, seen_audio)?;
    // One transport, one meaning of a payload type (RFC 9143, 9.1). str0m takes this for granted.
    if let Some(pt) = prepared.opus
        && prepared.h264.iter().any(|f| f.pt == pt || f.rtx == Some(pt))
    {
        return Err(bad(format!("the SDP offer uses payload type {pt} for sound and for pictures")));
    }
    let mut offer = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".to_owned();
    let _ = write!(offer, "a=group:BUNDLE {}\r\n", mids.join(" "));
    if session.iter().any(|(n, _)| *n == "ice-lite") {
        offer.push_str("a=ice-lite\r\n");
    }
    offer.push_str(&body);
    prepared.offer = offer;
    Ok(prepared)
}

fn refuse_useless(p: &Prepared, wish: Wish, seen_video: bool, seen_audio: bool) -> Result<(), Reason> {
    if p.video_mid.is_some() {
        return Ok(());
    }
    let verb = if wish == Wish::Publish { "send" } else { "receive" };
    if seen_video {
        return Err(Reason::peer(
            "no_common_codec",
            format!(
                "the peer offers to {verb} video, but not as H.264 with packetization-mode=1; switch the client to \
                 H.264"
            ),
        ));
    }
    if p.audio_mid.is_some() {
        return Ok(());
    }
    Err(if seen_audio {
        Reason::peer(
            "no_common_codec",
            format!("the peer offers to {verb} audio, but not as Opus; switch the client to Opus"),
        )
    } else {
        let other = if wish == Wish::Publish { "WHEP" } else { "WHIP" };
        Reason::peer(
            "nothing_offered",
            format!(
                "the SDP offer has no section in which the peer would {verb} what this stream has; an offer in the \
                 other direction belongs to the {other} address"
            ),
        )
    })
}

fn write_section(
    out: &mut String,
    s: &Section<'_>,
    session: &[(&str, &str)],
    mid: &str,
    (h264, opus): (&[H264Format], Option<u8>),
    wish: Wish,
    limits: &Limits,
) -> Result<(), Reason> {
    let inherited = |name: &str| {
        s.first(name).or_else(|| session.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)).map(str::trim)
    };
    let (Some(ufrag), Some(pwd)) = (
        inherited("ice-ufrag").filter(|u| plain(u, 1..=256)),
        inherited("ice-pwd").filter(|p| plain(p, 1..=256)),
    ) else {
        return Err(bad("the SDP offer has no usable a=ice-ufrag and a=ice-pwd (RFC 8839, 5.4)".to_owned()));
    };
    let mut prints =
        s.all("fingerprint").chain(session.iter().filter(|(n, _)| *n == "fingerprint").map(|(_, v)| *v));
    let Some(print) = prints.find_map(sha256) else {
        return Err(bad("the SDP offer has no a=fingerprint with sha-256 (RFC 8122)".to_owned()));
    };
    let setup =
        inherited("setup").filter(|v| ["actpass", "active", "passive"].contains(v)).unwrap_or("actpass");
    let pts: Vec<u8> = h264.iter().flat_map(|f| [Some(f.pt), f.rtx]).chain([opus]).flatten().collect();
    let formats = pts.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
    let _ = write!(
        out,
        "m={} 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=ice-ufrag:{ufrag}\r\n\
         a=ice-pwd:{pwd}\r\na=fingerprint:sha-256 {print}\r\na=setup:{setup}\r\na={}\r\na=rtcp-mux\r\n",
        s.media,
        if wish == Wish::Publish { "sendonly" } else { "recvonly" }
    );
    for extmap in s.all("extmap") {
        let mut words = extmap.split(' ');
        if let (Some(id), Some(uri)) = (words.next(), words.next()) {
            let id = id.split('/').next().and_then(|n| n.parse::<u8>().ok()).filter(|n| (1..=14).contains(n));
            if let Some(id) = id.filter(|_| uri.bytes().all(|b| b.is_ascii_graphic())) {
                let _ = write!(out, "a=extmap:{id} {uri}\r\n");
            }
        }
    }
    for pt in pts {
        // Written anew, so that str0m reads out of it what was read here.
        let (map, fmtp) = match h264.iter().find(|f| f.pt == pt || f.rtx == Some(pt)) {
            Some(f) if f.pt == pt => (
                "H264/90000",
                format!(
                    "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={:06x}",
                    f.profile_level_id
                ),
            ),
            Some(f) => ("rtx/90000", format!("apt={}", f.pt)),
            None => ("opus/48000/2", "minptime=10;useinbandfec=1".to_owned()),
        };
        let _ = write!(out, "a=rtpmap:{pt} {map}\r\na=fmtp:{pt} {fmtp}\r\n");
        for fb in s.all("rtcp-fb") {
            if let Some((p, what)) = fb.split_once(' ')
                && (p == "*" || p.parse() == Ok(pt))
            {
                let _ = write!(out, "a=rtcp-fb:{pt} {what}\r\n");
            }
        }
    }
    if wish == Wish::Publish {
        write_ssrcs(out, s, limits)?;
    }
    Ok(())
}

/// `a=ssrc-group:FID` and `a=ssrc` (RFC 5576). With several encodings in one section (simulcast without RIDs) the
/// first is taken.
fn write_ssrcs(out: &mut String, s: &Section<'_>, limits: &Limits) -> Result<(), Reason> {
    let mut ssrcs: Vec<u32> = Vec::new();
    for n in s.all("ssrc").filter_map(|v| v.split(' ').next()?.parse().ok()) {
        if !ssrcs.contains(&n) {
            ssrcs.push(n);
        }
        if ssrcs.len() > limits.rtp_ssrcs {
            return Err(too_many("SSRCs in one section", ssrcs.len(), limits.rtp_ssrcs));
        }
    }
    let Some(&main) = ssrcs.first() else { return Ok(()) };
    let repair = s.all("ssrc-group").find_map(|g| {
        let mut words = g.strip_prefix("FID ")?.split(' ');
        (words.next()?.parse() == Ok(main)).then(|| words.next()?.parse::<u32>().ok())?
    });
    if let Some(repair) = repair {
        let _ = write!(out, "a=ssrc-group:FID {main} {repair}\r\na=ssrc:{repair} cname:-\r\n");
    }
    let _ = write!(out, "a=ssrc:{main} cname:-\r\n");
    Ok(())
}

fn sha256(fingerprint: &str) -> Option<&str> {
    let (hash, print) = fingerprint.trim().split_once(' ')?;
    let bytes = print.split(':').filter(|b| b.len() == 2 && b.bytes().all(|c| c.is_ascii_hexdigit()));
    (hash.eq_ignore_ascii_case("sha-256") && bytes.count() == 32 && print.len() == 95).then_some(print)
}

impl Prepared {
    /// Makes the peer's answer out of str0m's: a refusal for each section that was not taken, the session part of
    /// an ICE-lite agent whose candidates are all there. `session_id` goes into the `o=` line.
    pub fn answer(&self, from_str0m: &str, session_id: u64) -> String {
        let mut taken = Vec::new();
        for line in from_str0m.lines() {
            if line.starts_with("m=") {
                taken.push(String::new());
            }
            if let Some(section) = taken.last_mut()
                && !line.starts_with("a=ice-options:")
                && !line.is_empty()
            {
                section.push_str(line);
                section.push_str("\r\n");
            }
        }
        let mids: Vec<&str> =
            taken.iter().filter_map(|s| s.lines().find_map(|l| l.strip_prefix("a=mid:"))).collect();
        let mut out = format!(
            "v=0\r\no=- {} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE {}\r\n\
             a=msid-semantic: WMS *\r\n",
            session_id >> 2,
            mids.join(" ")
        );
        let mut taken = taken.into_iter().enumerate();
        for section in &self.sections {
            match section {
                Answered::Taken => {
                    if let Some((n, text)) = taken.next() {
                        out.push_str(&text);
                        if n == 0 {
                            out.push_str("a=end-of-candidates\r\n");
                        }
                    }
                }
                Answered::Refused { media, rest, rtpmap, mid } => {
                    let _ = write!(out, "m={media} 0 {rest}\r\nc=IN IP4 0.0.0.0\r\n");
                    if let Some(rtpmap) = rtpmap {
                        let _ = write!(out, "a=rtpmap:{rtpmap}\r\n");
                    }
                    if let Some(mid) = mid {
                        let _ = write!(out, "a=mid:{mid}\r\n");
                    }
                    out.push_str("a=inactive\r\n");
                }
            }
        }
        out
    }
}

#[cfg(test)]
#[path = "sdp_tests.rs"]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
