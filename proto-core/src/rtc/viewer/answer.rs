//! What is read of a viewer's offer, in the plain form that `rtc/sdp.rs` writes, and our answer to it.

use super::lane::{Carried, Lane};
use crate::error::Reason;
use crate::rtc::codecs;
use crate::rtc::intake::TRANSPORT;
use crate::rtc::sdp::Prepared;
use std::fmt::Write;
use str0m::{Candidate, IceCreds};

/// A viewer's offer as far as it matters here.
#[derive(Debug)]
pub(super) struct Offered {
    /// SHA-256 of the certificate that the viewer will show.
    pub(super) fingerprint: [u8; 32],
    /// The viewer waits for our handshake (`a=setup:passive`); else it begins its own.
    pub(super) waits: bool,
    pub(super) video: Option<Carried>,
    pub(super) audio: Option<Carried>,
    /// When packets came is told, for a viewer that can be given less or more.
    pub(super) adapts: bool,
    /// In place of that the viewer says itself what it takes its link to carry: the line that agrees to it.
    pub(super) rate: Option<String>,
    sections: Vec<(String, Vec<Line>)>,
}

/// Feedback and format of a payload type, as offered.
#[derive(Debug)]
struct Line {
    pt: u8,
    text: String,
}

fn bad(text: &str) -> Reason {
    Reason::peer("bad_sdp", format!("the SDP offer cannot be answered: {text}"))
}

fn print(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let mut bytes = text.strip_prefix("sha-256 ")?.split(':');
    for slot in &mut out {
        *slot = u8::from_str_radix(bytes.next()?, 16).ok()?;
    }
    Some(out)
}

/// Feedback of what came.
const ARRIVALS: &str = "transport-cc";
/// What a viewer takes its link to carry.
const RATE: &str = "goog-remb";
/// What we do with feedback of these kinds is known; nothing else is agreed to.
const FEEDBACK: [&str; 4] = ["nack", "nack pli", "ccm fir", ARRIVALS];

impl Offered {
    /// Reads a prepared offer.
    ///
    /// # Errors
    /// `bad_sdp` for what the preparation should not have let through.
    pub(super) fn read(prepared: &Prepared, adapts: bool) -> Result<Offered, Reason> {
        let mut video: Option<Carried> =
            prepared.video_mid.as_ref().zip(prepared.video.first()).and_then(|(mid, f)| {
                let rate = codecs::payload_format(f.codec)?.clock_rate();
                let (mid, codec, pt, rtx) = (mid.clone(), f.codec, f.pt, f.rtx);
                Some(Carried { mid, codec, pt, rtx, nack: false, rate, transport: None })
            });
        let mut audio = prepared.audio_mid.as_ref().zip(prepared.audio).and_then(|(mid, f)| {
            let rate = codecs::payload_format(f.codec)?.clock_rate();
            let (mid, codec, pt) = (mid.clone(), f.codec, f.pt);
            Some(Carried { mid, codec, pt, rtx: None, nack: false, rate, transport: None })
        });
        let (mut fingerprint, mut setup) = (None, "actpass");
        let mut rate = None;
        let mut sections: Vec<(String, Vec<Line>)> = Vec::new();
        for line in prepared.offer.lines() {
            if line.starts_with("m=") {
                sections.push((String::new(), Vec::new()));
            }
            let Some((mid, lines)) = sections.last_mut() else { continue };
            let Some((name, value)) = line.strip_prefix("a=").and_then(|a| a.split_once(':')) else {
                continue;
            };
            match name {
                "mid" => value.clone_into(mid),
                "fingerprint" => fingerprint = fingerprint.or(print(value)),
                "setup" => setup = value,
                "extmap" => {
                    // The short form of extensions has no others (RFC 8285, 4.2).
                    let id = value.strip_suffix(TRANSPORT).and_then(|id| id.trim_end().parse().ok());
                    let id = id.filter(|id| (1..15).contains(id));
                    if let Some(carried) = video.as_mut().filter(|v| v.mid == *mid && v.rtx.is_some()) {
                        carried.transport = carried.transport.or(id);
                    }
                }
                "rtpmap" | "fmtp" => {
                    if let Some(pt) = value.split(' ').next().and_then(|pt| pt.parse().ok()) {
                        lines.push(Line { pt, text: line.to_owned() });
                    }
                }
                "rtcp-fb" => {
                    if let Some((pt, what)) = value.split_once(' ')
                        && let Ok(pt) = pt.parse()
                    {
                        if adapts && what == RATE && video.as_ref().is_some_and(|v| v.pt == pt) {
                            rate = Some(line.to_owned());
                        }
                        for carried in [&mut video, &mut audio].into_iter().flatten() {
                            carried.nack |= what == "nack" && carried.mid == *mid && carried.pt == pt;
                        }
                        if FEEDBACK.contains(&what) {
                            lines.push(Line { pt, text: line.to_owned() });
                        }
                    }
                }
                _ => {}
            }
        }
        // A number without feedback is of no use.
        let told = |v: &Carried| {
            let feedback = format!("a=rtcp-fb:{} {ARRIVALS}", v.pt);
            sections.iter().any(|(mid, lines)| *mid == v.mid && lines.iter().any(|l| l.text == feedback))
        };
        if let Some(carried) = video.as_mut().filter(|v| !told(v)) {
            carried.transport = None;
        }
        let fingerprint = fingerprint.ok_or_else(|| bad("it has no fingerprint"))?;
        if video.is_none() && audio.is_none() {
            return Err(bad("it has neither pictures nor sound that can be sent"));
        }
        let adapts = adapts && video.as_ref().is_some_and(|v| v.transport.is_some());
        let rate = rate.filter(|_| !adapts);
        // Left to us, the viewer begins: the one that is asked to chooses the SRTP profile, and a browser that chooses takes
        // one without GCM (Chromium 156), which costs nearly half as much again for every packet.
        let waits = setup == "passive";
        Ok(Offered { fingerprint, waits, video, audio, adapts, rate, sections })
    }

    /// Our answer, a section for each that is taken; [`Prepared::answer`] puts it together with the rest.
    pub(super) fn answer(
        &self,
        lanes: [Option<&Lane>; 2],
        creds: &IceCreds,
        fingerprint: &[u8; 32],
        cname: &str,
        candidates: &[Candidate],
    ) -> Result<String, Reason> {
        let mut out = "v=0\r\n".to_owned();
        let print = fingerprint.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
        let setup = if self.waits { "active" } else { "passive" };
        for (n, (mid, lines)) in self.sections.iter().enumerate() {
            let lane = lanes.into_iter().flatten().find(|l| l.carried.mid == *mid);
            let lane = lane.ok_or_else(|| bad("a section was taken that nothing is sent in"))?;
            let Carried { codec, pt, rtx, .. } = &lane.carried;
            let kind = if codec.is_video() { "video" } else { "audio" };
            let formats: Vec<u8> = [Some(*pt), *rtx].into_iter().flatten().collect();
            let listed = formats.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
            let _ = write!(
                out,
                "m={kind} 9 UDP/TLS/RTP/SAVPF {listed}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n"
            );
            if n == 0 {
                for candidate in candidates {
                    let _ = write!(out, "a={}\r\n", candidate.to_sdp_string().trim_start_matches("a="));
                }
            }
            let _ = write!(
                out,
                "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {print}\r\na=setup:{setup}\r\na=mid:{mid}\r\n\
                 a=sendonly\r\na=rtcp-mux\r\n",
                creds.ufrag, creds.pass
            );
            if let Some(id) = lane.carried.transport {
                let _ = write!(out, "a=extmap:{id} {TRANSPORT}\r\n");
            }
            let told = |l: &&Line| lane.carried.transport.is_some() || !l.text.ends_with(ARRIVALS);
            for line in lines.iter().filter(|l| formats.contains(&l.pt)).filter(told) {
                let _ = write!(out, "{}\r\n", line.text);
            }
            for line in self.rate.iter().filter(|_| codec.is_video()) {
                let _ = write!(out, "{line}\r\n");
            }
            let _ = write!(out, "a=msid:{cname} {kind}\r\n");
            if rtx.is_some() {
                let _ = write!(out, "a=ssrc-group:FID {} {}\r\n", lane.ssrc, lane.rtx_ssrc);
            }
            let _ = write!(out, "a=ssrc:{} cname:{cname}\r\n", lane.ssrc);
            if rtx.is_some() {
                let _ = write!(out, "a=ssrc:{} cname:{cname}\r\n", lane.rtx_ssrc);
            }
        }
        Ok(out)
    }
}
