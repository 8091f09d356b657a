//! Offers of ours, for viewers that want to be offered something (the stream-manager dialect).
//!
//! str0m answers offers; that is the one road that is well trodden here. So the viewer that the offer is for is imagined
//! first: [`seed`] is what it would have offered. str0m's answer to that, with both DTLS roles open, is our offer. When
//! the real viewer answers, its ICE credentials and fingerprint take the place of the imagined ones; until then nothing
//! that it sends is taken.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::codecs::{self, Plan};
use crate::media::track::Codec;
use std::fmt::Write;

/// Our payload types in offers: pictures, their retransmissions, Opus.
const VIDEO: u8 = 102;
const RTX: u8 = 103;
const OPUS: u8 = 111;
/// A fingerprint that no certificate has.
const NOBODY: &str =
    "00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00";

/// What a viewer would offer that takes exactly what a stream has: sound, pictures, and data channels if `channel`.
pub(super) fn seed(plan: &Plan, channel: bool) -> String {
    let mut out = format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:imagined\r\n\
         a=ice-pwd:imagined-imagined-imagined\r\na=fingerprint:sha-256 {NOBODY}\r\na=setup:active\r\n"
    );
    let mut mid = 0;
    let mut section = |out: &mut String, media: &str, rest: &str| {
        let _ = write!(out, "m={media} 9 {rest}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n");
        mid += 1;
    };
    let rtp = "a=recvonly\r\na=rtcp-mux\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
    if let Some(codec) = plan.audio {
        let pt = match codec {
            Codec::Pcmu => 0,
            Codec::Pcma => 8,
            _ => OPUS,
        };
        section(&mut out, "audio", &format!("UDP/TLS/RTP/SAVPF {pt}"));
        let _ = write!(out, "{rtp}a=rtpmap:{pt} {}\r\n", codecs::rtpmap(codec));
    }
    if let Some(pictures) = plan.video {
        section(&mut out, "video", &format!("UDP/TLS/RTP/SAVPF {VIDEO} {RTX}"));
        let profile = pictures.profile.unwrap_or(0);
        let fmtp = match pictures.codec {
            Codec::H264 => {
                "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned()
            }
            Codec::Vp9 => format!("profile-id={profile}"),
            Codec::Av1 => format!("profile={profile}"),
            _ => String::new(),
        };
        let _ = write!(out, "{rtp}a=rtpmap:{VIDEO} {}\r\n", codecs::rtpmap(pictures.codec));
        if !fmtp.is_empty() {
            let _ = write!(out, "a=fmtp:{VIDEO} {fmtp}\r\n");
        }
        let _ = write!(
            out,
            "a=rtcp-fb:{VIDEO} nack\r\na=rtcp-fb:{VIDEO} nack pli\r\na=rtcp-fb:{VIDEO} ccm fir\r\n\
             a=rtpmap:{RTX} rtx/90000\r\na=fmtp:{RTX} apt={VIDEO}\r\n"
        );
    }
    if channel {
        section(&mut out, "application", "UDP/DTLS/SCTP webrtc-datachannel");
        out.push_str("a=sctp-port:5000\r\na=max-message-size:65536\r\n");
    }
    out
}

/// Makes our offer of the answer to the imagined viewer.
pub(super) fn offer(answer: &str) -> String {
    answer.replace("a=setup:passive\r\n", "a=setup:actpass\r\n")
}
