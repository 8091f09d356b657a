//! What a publisher's offer says of its media, and what it wants to hear of it, in the plain form that `rtc/sdp.rs` writes.

use crate::rtc::codecs;
use crate::rtc::sdp::{LAYER_NAMES, Prepared};

/// The extension with a number that all packets of a session share.
pub(in crate::rtc) const TRANSPORT: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// A payload type that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) pt: u8,
    /// That of packets that are sent again.
    pub(super) rtx: Option<u8>,
    /// Ticks of its clock a second.
    pub(super) rate: u32,
    /// It carries pictures.
    pub(super) video: bool,
}

/// What is taken, and what is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::rtc) struct Wanted {
    pub(super) formats: Vec<Format>,
    /// The extension with a number that all packets of the session share.
    pub(super) transport: Option<u8>,
    /// The simulcast layers of the pictures; empty: there is one encoding.
    pub(super) layers: Vec<String>,
    /// The extension that names a packet's layer, and that of packets that are sent again.
    pub(super) layer_names: [Option<u8>; 2],
    pub(super) nack: bool,
    pub(super) picture_loss: bool,
    pub(super) full_intra: bool,
    /// It wants to be told the rate, and knows nothing better.
    pub(super) rate: bool,
}

impl Wanted {
    /// Reads a prepared offer of a publisher.
    pub(in crate::rtc) fn of(prepared: &Prepared) -> Wanted {
        let video = prepared.video.iter().map(|f| (f.codec, f.pt, f.rtx));
        let audio = prepared.audio.iter().map(|f| (f.codec, f.pt, None));
        let formats = video.chain(audio).filter_map(|(codec, pt, rtx)| {
            let rate = codecs::payload_format(codec)?.clock_rate();
            Some(Format { pt, rtx, rate, video: codec.is_video() })
        });
        let mut wanted =
            Wanted { formats: formats.collect(), layers: prepared.layers.clone(), ..Wanted::default() };
        let pictures = |pt: &str| prepared.video.iter().any(|f| pt.parse() == Ok(f.pt));
        for line in prepared.offer.lines() {
            if let Some((id, uri)) = line.strip_prefix("a=extmap:").and_then(|e| e.split_once(' ')) {
                let id = id.parse().ok();
                match uri {
                    TRANSPORT => wanted.transport = wanted.transport.or(id),
                    _ if Some(&uri) == LAYER_NAMES.first() => wanted.layer_names[0] = id,
                    _ if Some(&uri) == LAYER_NAMES.last() => wanted.layer_names[1] = id,
                    _ => {}
                }
            } else if let Some((_, what)) =
                line.strip_prefix("a=rtcp-fb:").and_then(|f| f.split_once(' ')).filter(|(pt, _)| pictures(pt))
            {
                match what {
                    "nack" => wanted.nack = true,
                    "nack pli" => wanted.picture_loss = true,
                    "ccm fir" => wanted.full_intra = true,
                    "goog-remb" => wanted.rate = true,
                    _ => {}
                }
            }
        }
        wanted.rate &= wanted.transport.is_none();
        wanted
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::rtc::sdp::{Wish, prepare};

    fn wanted(more: &str) -> Wanted {
        let offer = format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n\
             c=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
             a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n{more}",
            ["AA"; 32].join(":")
        );
        Wanted::of(&prepare(&offer, Wish::Publish, &Limits::default()).unwrap())
    }

    #[test]
    fn a_publisher_is_told_what_it_offers_to_hear() {
        let formats = vec![Format { pt: 96, rtx: Some(97), rate: 90_000, video: true }];
        assert_eq!(wanted(""), Wanted { formats: formats.clone(), ..Wanted::default() });
        let all = format!("a=extmap:3 {TRANSPORT}\r\na=extmap:4 urn:3gpp:video-orientation\r\n");
        let feedback =
            "a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\na=rtcp-fb:* goog-remb\r\n";
        let told = Wanted {
            formats,
            transport: None,
            nack: true,
            picture_loss: true,
            full_intra: true,
            rate: true,
            ..Wanted::default()
        };
        assert_eq!(wanted(feedback), told);
        // How the camera was held is not asked for, so that the publisher turns its pictures itself.
        let adapts = Wanted { transport: Some(3), rate: false, ..told };
        assert_eq!(wanted(&(all + feedback)), adapts);
    }
}
