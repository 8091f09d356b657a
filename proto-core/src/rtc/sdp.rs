//! SDP offers (RFC 8866, RFC 8829) before str0m sees them, and answers before the peer sees them.
//!
//! An offer is counted against its limits, and what this node takes of it is written down anew in a plain form:
//! one section of one codec of pictures, one of sound, and only the attributes that matter. What is not taken never reaches str0m,
//! and is refused in the answer. Candidates are left out as well: an ICE-lite agent sends no checks, it learns
//! where a peer is from the peer's own checks, so an offer cannot make this node send anything anywhere.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::codecs::{self, AudioFormat, Pictures, SOUND, VideoFormat};
use crate::error::{Reason, quote};
use crate::limits::Limits;
use crate::media::track::Codec;
use std::fmt::Write;

/// What the peer wants of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To publish (WHIP, RFC 9725).
    Publish,
    /// To play (WHEP), as far as the stream has them: picture, sound.
    Play {
        /// The stream's pictures, if it has any that can be sent.
        video: Option<Pictures>,
        /// The codec of the stream's sound, if it has any that can be sent.
        audio: Option<Codec>,
    },
}

/// An offer that has passed the limits, in the form that str0m is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The plain offer.
    pub offer: String,
    /// The peer's ICE user name.
    pub ufrag: String,
    /// Taken formats of pictures, all of one codec, the most welcome first. Empty: no picture.
    pub video: Vec<VideoFormat>,
    /// The taken format of sound, if any.
    pub audio: Option<AudioFormat>,
    /// `a=mid` of the section with pictures.
    pub video_mid: Option<String>,
    /// `a=mid` of the section with sound.
    pub audio_mid: Option<String>,
    /// `a=mid` of the section with data channels (RFC 8841), if there is one.
    pub channel_mid: Option<String>,
    /// The simulcast layers of the pictures that are taken (RFC 8853), by the names that their packets carry (RFC 8852).
    /// Empty: there is one encoding.
    pub layers: Vec<String>,
    sections: Vec<Answered>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answered {
    /// By the next section of str0m's answer.
    Taken,
    /// By a refusal: the m-line with port 0 and one of its formats, and what names it.
    Refused { media: String, rest: String, rtpmap: Option<String>, mid: Option<String> },
}

pub(super) struct Section<'a> {
    media: &'a str,
    port: &'a str,
    proto: &'a str,
    formats: Vec<&'a str>,
    attributes: Vec<(&'a str, &'a str)>,
    /// The attributes that begin with a payload type, with what follows it: browsers offer fifty types, and of each it is asked again
    /// and again what it is.
    of_formats: Vec<(&'a str, u8, &'a str)>,
}

impl<'a> Section<'a> {
    fn push(&mut self, name: &'a str, value: &'a str) {
        self.attributes.push((name, value));
        if matches!(name, "rtpmap" | "fmtp")
            && let Some((n, rest)) = value.split_once(' ')
            && let Ok(pt) = n.parse()
        {
            self.of_formats.push((name, pt, rest.trim()));
        }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter(move |(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn first(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|(n, _)| *n == name)
    }

    /// The value of an attribute that begins with a payload type: `rtpmap`, or `fmtp`.
    pub(super) fn of_format(&self, name: &str, pt: u8) -> Option<&'a str> {
        self.of_formats.iter().find(|(n, of, _)| *of == pt && *n == name).map(|(_, _, rest)| *rest)
    }

    pub(super) fn payload_types(&self) -> Vec<u8> {
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
                sections.push(Section {
                    media,
                    port,
                    proto,
                    formats,
                    attributes: Vec::new(),
                    of_formats: Vec::new(),
                });
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
                match section {
                    Some(section) => section.push(name, value),
                    None => session.push((name, value)),
                }
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
        Wish::Play { video, audio } => (video.is_some(), audio.is_some()),
    };
    let mut prepared = Prepared {
        offer: String::new(),
        ufrag: String::new(),
        video: Vec::new(),
        audio: None,
        video_mid: None,
        audio_mid: None,
        channel_mid: None,
        layers: Vec::new(),
        sections: Vec::new(),
    };
    let (mut seen_video, mut seen_audio) = (false, false);
    let mut instead = None;
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
                prepared.video = match wish {
                    Wish::Play { video: Some(pictures), .. } => codecs::for_viewer(s, pictures),
                    _ => codecs::for_publisher(s),
                };
                if let Wish::Play { video: Some(pictures), .. } = wish {
                    instead = Some(codecs::instead_of(pictures.codec, s));
                }
                if !prepared.video.is_empty() {
                    taken = true;
                    prepared.video_mid = Some(mid.to_owned());
                    if wish == Wish::Publish {
                        prepared.layers = layers(s, limits);
                    }
                    let simulcast = !prepared.layers.is_empty();
                    write_section(&mut body, s, &session, mid, (&prepared.video, None), (wish, simulcast))?;
                }
            } else if s.media == "audio" && want_audio && prepared.audio_mid.is_none() {
                seen_audio = true;
                let wanted = match &wish {
                    Wish::Play { audio: Some(codec), .. } => std::slice::from_ref(codec),
                    _ => &SOUND[..],
                };
                if let Some(format) = codecs::audio_format(s, wanted) {
                    taken = true;
                    prepared.audio = Some(format);
                    prepared.audio_mid = Some(mid.to_owned());
                    write_section(&mut body, s, &session, mid, (&[], Some(format)), (wish, false))?;
                }
            }
            if taken {
                mids.push(mid);
            }
        } else if usable
            && is_channel(s)
            && prepared.channel_mid.is_none()
            && let Some(mid) = mid.filter(|m| !mids.contains(m))
        {
            taken = true;
            prepared.channel_mid = Some(mid.to_owned());
            write_channel(&mut body, s, &session, mid, wish)?;
            mids.push(mid);
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
    prepared.ufrag = body.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:")).unwrap_or_default().to_owned();
    refuse_useless(&prepared, wish, (seen_video, seen_audio), instead.as_deref())?;
    // One transport, one meaning of a payload type (RFC 9143, 9.1). str0m takes this for granted.
    if let Some(AudioFormat { pt, .. }) = prepared.audio
        && prepared.video.iter().any(|f| f.pt == pt || f.rtx == Some(pt))
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

fn refuse_useless(
    p: &Prepared,
    wish: Wish,
    (seen_video, seen_audio): (bool, bool),
    instead: Option<&str>,
) -> Result<(), Reason> {
    if p.video_mid.is_some() {
        return Ok(());
    }
    let verb = if wish == Wish::Publish { "send" } else { "receive" };
    let guessed = matches!(wish, Wish::Play { video: Some(Pictures { guessed: true, .. }), .. });
    if seen_video && !(guessed && p.audio_mid.is_some()) {
        let text = match wish {
            Wish::Play { video: Some(Pictures { codec, .. }), .. } => format!(
                "the stream's pictures are {name}, and over WebRTC this viewer does not take {name} of their kind: watch \
                 with a client that does, or {}",
                instead.unwrap_or(codec.remedy()),
                name = codec.name()
            ),
            _ => "the peer offers to send video, but neither as H.264 with packetization-mode=1 nor as VP8, VP9, AV1 or \
                  H.265; switch the client to H.264"
                .to_owned(),
        };
        return Err(Reason::peer("no_common_codec", text));
    }
    if p.audio_mid.is_some() {
        return Ok(());
    }
    Err(if seen_audio {
        Reason::peer(
            "no_common_codec",
            match wish {
                Wish::Play { audio: Some(codec), .. } => format!(
                    "the stream's sound is {name}, and over WebRTC this viewer does not take {name}; {}",
                    codec.remedy(),
                    name = codec.name()
                ),
                _ => format!(
                    "the peer offers to {verb} audio, but neither as Opus nor as G.711; switch the client to Opus"
                ),
            },
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

/// How the camera was held (3GPP TS 26.114, 7.4.5). Whoever is not asked for it turns the pictures before coding them, so that
/// they stand upright at every player; neither RTMP nor RTSP could carry it on.
const ORIENTATION: &str = "urn:3gpp:video-orientation";

fn write_section(
    out: &mut String,
    s: &Section<'_>,
    session: &[(&str, &str)],
    mid: &str,
    (video, audio): (&[VideoFormat], Option<AudioFormat>),
    (wish, simulcast): (Wish, bool),
) -> Result<(), Reason> {
    let Transport { ufrag, pwd, print, setup } = Transport::of(s, session)?;
    let setup = role(setup, wish);
    let sound = audio.map(|f| f.pt);
    let pts: Vec<u8> = video.iter().flat_map(|f| [Some(f.pt), f.rtx]).chain([sound]).flatten().collect();
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
            let useless = uri == ORIENTATION || (!simulcast && LAYER_NAMES.contains(&uri));
            if let Some(id) = id.filter(|_| !useless && uri.bytes().all(|b| b.is_ascii_graphic())) {
                let _ = write!(out, "a=extmap:{id} {uri}\r\n");
            }
        }
    }
    for pt in pts {
        // Written anew, so that str0m reads out of it what was read here.
        let (map, fmtp) = match (video.iter().find(|f| f.pt == pt || f.rtx == Some(pt)), audio) {
            (Some(f), _) if f.pt == pt => (codecs::rtpmap(f.codec), f.fmtp.clone()),
            (Some(f), _) => ("rtx/90000", format!("apt={}", f.pt)),
            (None, Some(f)) if f.codec != Codec::Opus => (codecs::rtpmap(f.codec), String::new()),
            (None, _) => (codecs::rtpmap(Codec::Opus), "minptime=10;useinbandfec=1".to_owned()),
        };
        let _ = write!(out, "a=rtpmap:{pt} {map}\r\n");
        if !fmtp.is_empty() {
            let _ = write!(out, "a=fmtp:{pt} {fmtp}\r\n");
        }
        for fb in s.all("rtcp-fb") {
            if let Some((p, what)) = fb.split_once(' ')
                && (p == "*" || p.parse() == Ok(pt))
            {
                let _ = write!(out, "a=rtcp-fb:{pt} {what}\r\n");
            }
        }
    }
    Ok(())
}

/// The header extensions that name a packet's layer, and the layer that a packet repairs (RFC 8852).
pub(super) const LAYER_NAMES: [&str; 2] = [
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
];

/// The layers that a section offers to send (RFC 8853, 5.1), as many as a session has sources for: each may come with
/// packets that are sent again. Of alternatives the first is taken; one layer alone is none.
fn layers(s: &Section<'_>, limits: &Limits) -> Vec<String> {
    let most = (limits.rtp_ssrcs / 2).saturating_sub(1);
    let named = s.all("extmap").any(|e| e.split(' ').nth(1) == Some(LAYER_NAMES[0]));
    let simulcast = s.first("simulcast").unwrap_or_default();
    let mut words = simulcast.split(' ').filter(|w| !w.is_empty());
    let Some(list) = words.by_ref().find(|w| *w == "send").and_then(|_| words.next()).filter(|_| named)
    else {
        return Vec::new();
    };
    let sends = |id: &&str| {
        let is = |rid: &str| rid.strip_prefix(id).is_some_and(|r| r == " send" || r.starts_with(" send "));
        s.all("rid").any(is)
    };
    let name = |id: &&str| {
        // RFC 8851, 10; a header extension of one byte carries 16 of them.
        (1..=16).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let first = |choice: &'_ str| choice.split(',').next().map(|id| id.trim_start_matches('~').to_owned());
    let mut out: Vec<String> = Vec::new();
    for id in list.split(';').filter_map(first) {
        if name(&id.as_str()) && sends(&id.as_str()) && !out.contains(&id) && out.len() < most {
            out.push(id);
        }
    }
    if out.len() < 2 {
        out.clear();
    }
    out
}

/// Whether a section offers data channels (RFC 8841).
fn is_channel(s: &Section<'_>) -> bool {
    s.media == "application" && s.proto == "UDP/DTLS/SCTP" && s.formats == ["webrtc-datachannel"]
}

fn write_channel(
    out: &mut String,
    s: &Section<'_>,
    session: &[(&str, &str)],
    mid: &str,
    wish: Wish,
) -> Result<(), Reason> {
    let Transport { ufrag, pwd, print, setup } = Transport::of(s, session)?;
    let setup = role(setup, wish);
    let number =
        |name: &str, default: u32| s.first(name).and_then(|v| v.trim().parse().ok()).unwrap_or(default);
    // RFC 8841, 5 and 6: the port is 5000 and a message has 64 KiB where nothing is said.
    let (port, most) = (number("sctp-port", 5_000), number("max-message-size", 65_536));
    let _ = write!(
        out,
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=fingerprint:sha-256 {print}\r\na=setup:{setup}\r\n\
         a=sctp-port:{port}\r\na=max-message-size:{most}\r\n"
    );
    Ok(())
}

/// Where the peer leaves to us who begins the DTLS handshake, whoever sends media would best: the one that begins a handshake
/// is the last to end it (RFC 6347, 4.2.4), so all that it sends from then on is understood. Else the first packets may
/// overtake the last of the handshake, and are lost. For those that play it is left open here: lean sessions have more to
/// consider (`rtc/viewer/answer.rs`), others begin ([`Prepared::begin`]).
fn role(setup: &str, wish: Wish) -> &str {
    match (setup, wish) {
        ("actpass", Wish::Publish) => "active",
        (said, _) => said,
    }
}

/// What a section says about the way to its sender, itself or by the session part.
struct Transport<'a> {
    ufrag: &'a str,
    pwd: &'a str,
    print: &'a str,
    setup: &'a str,
}

impl<'a> Transport<'a> {
    fn of(s: &Section<'a>, session: &[(&'a str, &'a str)]) -> Result<Transport<'a>, Reason> {
        let inherited = |name: &str| {
            s.first(name).or_else(|| session.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)).map(str::trim)
        };
        let (Some(ufrag), Some(pwd)) = (
            inherited("ice-ufrag").filter(|u| plain(u, 1..=256)),
            inherited("ice-pwd").filter(|p| plain(p, 1..=256)),
        ) else {
            return Err(bad(
                "the SDP offer has no usable a=ice-ufrag and a=ice-pwd (RFC 8839, 5.4)".to_owned()
            ));
        };
        let mut prints =
            s.all("fingerprint").chain(session.iter().filter(|(n, _)| *n == "fingerprint").map(|(_, v)| *v));
        let Some(print) = prints.find_map(sha256) else {
            return Err(bad("the SDP offer has no a=fingerprint with sha-256 (RFC 8122)".to_owned()));
        };
        let setup =
            inherited("setup").filter(|v| ["actpass", "active", "passive"].contains(v)).unwrap_or("actpass");
        Ok(Transport { ufrag, pwd, print, setup })
    }
}

/// What a peer's answer to an offer of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    /// `sha-256` and the fingerprint.
    pub(super) fingerprint: String,
    /// The `a=mid` of each section that it takes.
    pub(super) mids: Vec<String>,
}

/// Reads the answer to an offer of ours. Both roles of DTLS were on offer, but an ICE-lite agent that has to begin would
/// need an address to begin with: the peer must be the active one, and every browser is.
///
/// # Errors
/// `bad_sdp`, `sdp_too_large`, with words that name the lack.
pub(super) fn accepted(sdp: &str, limits: &Limits) -> Result<Accepted, Reason> {
    // What is wrong with it is told in the same words, but it is no offer.
    let of_answer = |r: Reason| Reason { text: r.text.replace("SDP offer", "SDP answer").into(), ..r };
    let (session, sections) = parse(sdp, limits).map_err(of_answer)?;
    let mut taken = sections.iter().filter(|s| s.port != "0");
    let Some(first) = taken.clone().next() else {
        return Err(bad("the SDP answer refuses every section of the offer".to_owned()));
    };
    let t = Transport::of(first, &session).map_err(of_answer)?;
    if t.setup == "passive" {
        return Err(bad(
            "the SDP answer says a=setup:passive; answer with a=setup:active (RFC 8842, 5.3)".to_owned()
        ));
    }
    let mids = taken.by_ref().filter_map(|s| s.first("mid")).map(|m| m.trim().to_owned()).collect();
    let fingerprint = format!("sha-256 {}", t.print);
    Ok(Accepted { ufrag: t.ufrag.to_owned(), pwd: t.pwd.to_owned(), fingerprint, mids })
}

/// A fragment of SDP about ICE (RFC 8840, 9), as a PATCH brings it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// `a=ice-ufrag`: which ICE session it is about, or begins.
    pub ufrag: Option<String>,
    /// `a=ice-pwd`.
    pub pwd: Option<String>,
    /// How many candidates it has. An ICE-lite agent has no use for them.
    pub candidates: usize,
}

/// Reads a fragment.
///
/// # Errors
/// `bad_sdp`, `sdp_too_large`.
pub fn fragment(text: &str, limits: &Limits) -> Result<Fragment, Reason> {
    let too_large = |what: &str, n: usize, most: usize| {
        Reason::limit("sdp_too_large", format!("the fragment has {n} {what}; at most {most} are allowed"))
    };
    if text.len() > limits.http_sdp_bytes {
        return Err(too_large("bytes", text.len(), limits.http_sdp_bytes));
    }
    let mut fragment = Fragment::default();
    for (n, line) in text.split('\n').map(|l| l.trim_end_matches('\r')).enumerate() {
        if line.is_empty() {
            continue;
        }
        if n >= limits.sdp_lines {
            return Err(too_large("lines", n + 1, limits.sdp_lines));
        }
        let Some((kind, value)) = line.split_once('=').filter(|(k, _)| k.len() == 1) else {
            return Err(bad(format!("line {} of the fragment is no SDP line: {}", n + 1, quote(line))));
        };
        if kind != "a" {
            continue;
        }
        let (name, value) = attribute(value);
        let word = || Some(value.trim()).filter(|v| plain(v, 1..=256)).map(str::to_owned);
        match name {
            "ice-ufrag" if fragment.ufrag.is_none() => fragment.ufrag = word(),
            "ice-pwd" if fragment.pwd.is_none() => fragment.pwd = word(),
            "candidate" => {
                fragment.candidates += 1;
                if fragment.candidates > limits.sdp_candidates {
                    return Err(too_large("candidates", fragment.candidates, limits.sdp_candidates));
                }
            }
            _ => {}
        }
    }
    Ok(fragment)
}

fn sha256(fingerprint: &str) -> Option<&str> {
    let (hash, print) = fingerprint.trim().split_once(' ')?;
    let bytes = print.split(':').filter(|b| b.len() == 2 && b.bytes().all(|c| c.is_ascii_hexdigit()));
    (hash.eq_ignore_ascii_case("sha-256") && bytes.count() == 32 && print.len() == 95).then_some(print)
}

impl Prepared {
    /// The `a=mid` of the first section that was taken.
    pub(super) fn first_mid(&self) -> &str {
        let mut mids = self.offer.lines().filter_map(|l| l.strip_prefix("a=mid:"));
        mids.next().unwrap_or_default()
    }

    /// Has us begin the DTLS handshake where the peer left that to us.
    pub(super) fn begin(&mut self) {
        self.offer = self.offer.replace("a=setup:actpass\r\n", "a=setup:passive\r\n");
    }

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
                        let mid = text.lines().find_map(|l| l.strip_prefix("a=mid:"));
                        if !self.layers.is_empty() && mid == self.video_mid.as_deref() {
                            for layer in &self.layers {
                                let _ = write!(out, "a=rid:{layer} recv\r\n");
                            }
                            let _ = write!(out, "a=simulcast:recv {}\r\n", self.layers.join(";"));
                        }
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
