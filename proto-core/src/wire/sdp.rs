//! Session descriptions (RFC 8866) as RTSP has them: sections, their formats and attributes, and nothing else.

use crate::error::quote;
use std::fmt::Write as _;

/// How much of a description is looked at (abuse A16).
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Lines of one section, or before the first.
    pub lines: usize,
    /// Sections.
    pub sections: usize,
    /// Formats of one section.
    pub formats: usize,
}

/// One media section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `audio`, `video` or another word.
    pub media: String,
    /// The transport profile, such as `RTP/AVP`.
    pub profile: String,
    /// Payload types in their order; formats that are no numbers are left out.
    pub formats: Vec<u8>,
    /// Attributes: name and value (empty where there is none).
    pub attributes: Vec<(String, String)>,
}

/// A description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Attributes before the first section.
    pub attributes: Vec<(String, String)>,
    /// The sections.
    pub sections: Vec<Section>,
}

/// `a=rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpMap {
    /// The encoding's name as it was sent.
    pub encoding: String,
    /// Ticks a second.
    pub rate: u32,
    /// Channels; 1 where none are said.
    pub channels: u8,
}

impl Description {
    /// Reads a description. Lines end with LF, with or without CR; lines of kinds that are not looked at are passed over.
    ///
    /// # Errors
    /// A sentence: what is wrong or too much.
    pub fn parse(text: &str, bounds: Bounds) -> Result<Description, String> {
        let mut out = Description::default();
        let (mut in_section, mut any) = (0, false);
        for line in text.split('\n').map(|l| l.trim_end_matches('\r').trim_end()) {
            if line.is_empty() {
                continue;
            }
            if line.contains('\0') {
                return Err("the description has a NUL byte".to_owned());
            }
            in_section += 1;
            if in_section > bounds.lines {
                return Err(format!("a section of the description has more than {} lines", bounds.lines));
            }
            let Some((kind, value)) = line.split_once('=').filter(|(k, _)| k.len() == 1) else {
                return Err(format!("{} is no line of a description", quote(line)));
            };
            if !any && kind != "v" {
                return Err("the description does not begin with v=0".to_owned());
            }
            any = true;
            match kind {
                "m" => {
                    if out.sections.len() >= bounds.sections {
                        return Err(format!("the description has more than {} sections", bounds.sections));
                    }
                    out.sections.push(section(value, bounds)?);
                    in_section = 0;
                }
                "a" => {
                    let (name, value) = value.split_once(':').unwrap_or((value, ""));
                    let pair = (name.trim().to_owned(), value.trim().to_owned());
                    match out.sections.last_mut() {
                        Some(s) => s.attributes.push(pair),
                        None => out.attributes.push(pair),
                    }
                }
                _ => {}
            }
        }
        if any { Ok(out) } else { Err("the description is empty".to_owned()) }
    }
}

fn section(value: &str, bounds: Bounds) -> Result<Section, String> {
    let mut words = value.split_ascii_whitespace();
    let (Some(media), Some(_port), Some(profile)) = (words.next(), words.next(), words.next()) else {
        return Err(format!("m={} names no medium, port and profile", quote(value)));
    };
    let formats: Vec<&str> = words.take(bounds.formats + 1).collect();
    if formats.len() > bounds.formats {
        return Err(format!("a section of the description has more than {} formats", bounds.formats));
    }
    Ok(Section {
        media: media.to_ascii_lowercase(),
        profile: profile.to_ascii_uppercase(),
        formats: formats.iter().filter_map(|f| f.parse().ok()).filter(|pt| *pt < 128).collect(),
        attributes: Vec::new(),
    })
}

/// The value of the first attribute of a name.
pub fn attribute<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

impl Section {
    /// The value of the first attribute of a name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        attribute(&self.attributes, name)
    }

    /// What follows the payload type in the first attribute of a name that is about it.
    fn about(&self, name: &str, payload_type: u8) -> Option<&str> {
        self.attributes.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).find_map(|(_, value)| {
            let (pt, rest) = value.split_once(|c: char| c.is_ascii_whitespace())?;
            (pt.parse() == Ok(payload_type)).then(|| rest.trim())
        })
    }

    /// The encoding of a payload type, as an attribute or, for the fixed ones, RFC 3551 says it.
    pub fn rtpmap(&self, payload_type: u8) -> Option<RtpMap> {
        let fixed = |encoding: &str, rate| RtpMap { encoding: encoding.to_owned(), rate, channels: 1 };
        let Some(text) = self.about("rtpmap", payload_type) else {
            return match payload_type {
                0 => Some(fixed("PCMU", 8_000)),
                8 => Some(fixed("PCMA", 8_000)),
                14 => Some(fixed("MPA", 90_000)),
                _ => None,
            };
        };
        let mut parts = text.split('/');
        let encoding = parts.next()?.trim().to_owned();
        let rate = parts.next().map_or(Some(90_000), |r| r.trim().parse().ok()).filter(|r| *r > 0)?;
        let channels = parts.next().map_or(Some(1), |c| c.trim().parse().ok()).filter(|c| *c > 0)?;
        Some(RtpMap { encoding, rate, channels })
    }

    /// The parameters of a payload type (`a=fmtp`): names in lower case.
    pub fn fmtp(&self, payload_type: u8) -> Vec<(String, &str)> {
        let text = self.about("fmtp", payload_type).unwrap_or_default();
        let pairs = text.split(';').map(str::trim).filter(|p| !p.is_empty());
        pairs
            .map(|p| {
                let (name, value) = p.split_once('=').unwrap_or((p, ""));
                (name.trim().to_ascii_lowercase(), value.trim())
            })
            .collect()
    }
}

/// Writes descriptions.
#[derive(Debug)]
pub struct Writer(String);

impl Writer {
    /// The lines before the first section. `id` is the session's number, `name` what people read.
    pub fn new(id: u64, name: &str) -> Writer {
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        Writer(format!("v=0\r\no=- {id} 1 IN IP4 0.0.0.0\r\ns={name}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"))
    }

    /// An attribute.
    pub fn attribute(&mut self, name: &str, value: &str) -> &mut Writer {
        // Writing to a String cannot fail.
        let _ = if value.is_empty() {
            write!(self.0, "a={name}\r\n")
        } else {
            write!(self.0, "a={name}:{value}\r\n")
        };
        self
    }

    /// A section with one format.
    pub fn section(&mut self, media: &str, payload_type: u8) -> &mut Writer {
        let _ = write!(self.0, "m={media} 0 RTP/AVP {payload_type}\r\n");
        self
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { lines: 20, sections: 3, formats: 4 };

    #[test]
    fn what_ffmpeg_announces_is_read() {
        let text = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=No Name\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=tool:x\r\n\
            m=video 0 RTP/AVP 96\r\nb=AS:400\r\na=rtpmap:96 H264/90000\r\n\
            a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0,aM4=; profile-level-id=4D400D\r\n\
            a=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\na=control:streamid=1\r\n";
        let d = Description::parse(text, BOUNDS).unwrap();
        assert_eq!(attribute(&d.attributes, "tool"), Some("x"));
        let [v, a] = &d.sections[..] else { panic!() };
        assert_eq!(
            (v.media.as_str(), &v.formats[..], v.attribute("control")),
            ("video", &[96][..], Some("streamid=0"))
        );
        assert_eq!(v.fmtp(96)[1], ("sprop-parameter-sets".to_owned(), "Z0,aM4="));
        let map = a.rtpmap(97).unwrap();
        assert_eq!((map.encoding.as_str(), map.rate, map.channels), ("MPEG4-GENERIC", 48_000, 2));
        assert_eq!(a.rtpmap(96), None);
        assert_eq!(a.rtpmap(0).unwrap().encoding, "PCMU");
    }

    #[test]
    fn too_much_and_nonsense_are_refused_in_words() {
        let many = format!("v=0\n{}", "m=audio 0 RTP/AVP 0\n".repeat(4));
        let long = format!("v=0\n{}", "a=x\n".repeat(20));
        for (text, word) in [
            ("", "empty"),
            ("s=x", "begin"),
            ("v=0\nnonsense", "no line"),
            ("v=0\nm=audio", "names no medium"),
            ("v=0\nm=audio 0 RTP/AVP 1 2 3 4 5", "formats"),
            ("v=0\na=\0", "NUL"),
            (&many, "sections"),
            (&long, "lines"),
        ] {
            let error = Description::parse(text, BOUNDS).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(id: u64, pt in 0u8..128, names in proptest::collection::vec("[a-z]{1,9}", 0..5)) {
            let mut w = Writer::new(id, "live/x\r\na=evil");
            w.section("video", pt);
            for n in &names {
                w.attribute(n, &n.repeat(2));
            }
            let d = Description::parse(&w.finish(), BOUNDS).unwrap();
            prop_assert!(d.attributes.is_empty());
            let wanted: Vec<_> = names.iter().map(|n| (n.clone(), n.repeat(2))).collect();
            prop_assert_eq!(&d.sections[0].attributes, &wanted);
            prop_assert_eq!(&d.sections[0].formats, &vec![pt]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(v=0\n)?((m|a)=\\PC{0,40}\n|\\PC{0,20}\n){0,10}") {
            if let Ok(d) = Description::parse(&text, BOUNDS) {
                for s in &d.sections {
                    for pt in 0..128 {
                        let _ = (s.rtpmap(pt), s.fmtp(pt));
                    }
                }
            }
        }
    }
}
