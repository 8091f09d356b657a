//! The Transport header (RFC 2326, section 12.39).

use std::fmt;

/// How many proposals of one header are looked at.
const MOST: usize = 16;

/// What carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    /// Datagrams.
    Udp,
    /// The RTSP connection itself.
    Tcp,
}

/// What the client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Receive.
    Play,
    /// Send.
    Record,
}

/// One proposal, or what was agreed. `destination`, `source` and all else that is not here is passed over: packets go
/// only where the connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// What carries the packets.
    pub lower: Lower,
    /// Sent to a group.
    pub multicast: bool,
    /// Channels of RTP and RTCP.
    pub interleaved: Option<(u8, u8)>,
    /// The client's ports of RTP and RTCP.
    pub client_port: Option<(u16, u16)>,
    /// The server's ports of RTP and RTCP.
    pub server_port: Option<(u16, u16)>,
    /// The SSRC of the packets.
    pub ssrc: Option<u32>,
    /// What for; none was said: play.
    pub mode: Option<Mode>,
}

impl Transport {
    /// A unicast transport that says nothing more.
    pub const fn over(lower: Lower) -> Transport {
        Transport {
            lower,
            multicast: false,
            interleaved: None,
            client_port: None,
            server_port: None,
            ssrc: None,
            mode: None,
        }
    }

    /// The proposals of a header, best first. Those of other profiles than RTP/AVP are left out, and so are those with
    /// a parameter that cannot be read.
    pub fn parse_all(header: &str) -> Vec<Transport> {
        split_quoted(header, ',').take(MOST).filter_map(parse).collect()
    }
}

/// Splits at a character that stands outside of quotes.
fn split_quoted(text: &str, at: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == at && !quoted
    })
}

fn parse(spec: &str) -> Option<Transport> {
    let mut parts = split_quoted(spec, ';').map(str::trim);
    let profile = parts.next()?.to_ascii_uppercase();
    let lower = match profile.as_str() {
        "RTP/AVP" | "RTP/AVP/UDP" => Lower::Udp,
        "RTP/AVP/TCP" => Lower::Tcp,
        _ => return None,
    };
    let mut t = Transport::over(lower);
    for part in parts.take(MOST) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "multicast" => t.multicast = true,
            "interleaved" => t.interleaved = Some(pair(value)?),
            "client_port" => t.client_port = Some(pair(value)?),
            "server_port" => t.server_port = Some(pair(value)?),
            "ssrc" => t.ssrc = u32::from_str_radix(value, 16).ok(),
            "mode" => {
                t.mode = Some(match value.to_ascii_lowercase().as_str() {
                    "play" => Mode::Play,
                    // GStreamer and some cameras' tools; RFC 2326 has RECORD.
                    "record" | "receive" => Mode::Record,
                    _ => return None,
                });
            }
            _ => {}
        }
    }
    Some(t)
}

/// `a-b`, or `a` alone, which means `a` and the next.
fn pair<T: TryFrom<u32>>(value: &str) -> Option<(T, T)> {
    let number = |s: &str| {
        let s = s.trim();
        let digits = !s.is_empty() && s.len() <= 5 && s.bytes().all(|b| b.is_ascii_digit());
        s.parse::<u32>().ok().filter(|_| digits)
    };
    let (a, b) = match value.split_once('-') {
        Some((a, b)) => (number(a)?, number(b)?),
        None => (number(value)?, number(value)?.checked_add(1)?),
    };
    Some((T::try_from(a).ok()?, T::try_from(b).ok()?))
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lower {
            Lower::Udp => "RTP/AVP",
            Lower::Tcp => "RTP/AVP/TCP",
        })?;
        f.write_str(if self.multicast { ";multicast" } else { ";unicast" })?;
        if let Some((a, b)) = self.interleaved {
            write!(f, ";interleaved={a}-{b}")?;
        }
        if let Some((a, b)) = self.client_port {
            write!(f, ";client_port={a}-{b}")?;
        }
        if let Some((a, b)) = self.server_port {
            write!(f, ";server_port={a}-{b}")?;
        }
        if let Some(ssrc) = self.ssrc {
            write!(f, ";ssrc={ssrc:08X}")?;
        }
        match self.mode {
            None => Ok(()),
            Some(Mode::Play) => f.write_str(";mode=play"),
            Some(Mode::Record) => f.write_str(";mode=record"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_clients_send_is_read() {
        let one = |s: &str| Transport::parse_all(s).into_iter().next().unwrap();
        let t = one("RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
        assert_eq!((t.lower, t.interleaved, t.mode), (Lower::Tcp, Some((0, 1)), Some(Mode::Record)));
        let t = one("RTP/AVP;unicast;client_port=4588-4589;mode=\"PLAY\"");
        assert_eq!((t.client_port, t.mode), (Some((4588, 4589)), Some(Mode::Play)));
        assert_eq!(one("RTP/AVP/UDP;unicast;client_port=5000").client_port, Some((5000, 5001)));
        let all = Transport::parse_all("RTP/SAVP;unicast,RTP/AVP;multicast, RTP/AVP/TCP ; interleaved = 2-3");
        assert_eq!(all.len(), 2);
        assert!(all[0].multicast);
        assert_eq!(all[1].interleaved, Some((2, 3)));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for bad in [
            "",
            "RAW/RAW/UDP",
            "RTP/AVP;client_port=70000-70001",
            "RTP/AVP/TCP;interleaved=255-256",
            "RTP/AVP/TCP;interleaved=a-b",
            "RTP/AVP;client_port=-1",
            "RTP/AVP;client_port=+5-6",
            "RTP/AVP;mode=dance",
            "RTP/AVP/TCP;interleaved=255",
        ] {
            assert_eq!(Transport::parse_all(bad), [], "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            tcp: bool, multicast: bool, channels: Option<(u8, u8)>, client: Option<(u16, u16)>,
            server: Option<(u16, u16)>, ssrc: Option<u32>, record: Option<bool>,
        ) {
            let t = Transport {
                lower: if tcp { Lower::Tcp } else { Lower::Udp },
                multicast,
                interleaved: channels,
                client_port: client,
                server_port: server,
                ssrc,
                mode: record.map(|r| if r { Mode::Record } else { Mode::Play }),
            };
            prop_assert_eq!(Transport::parse_all(&t.to_string()), vec![t]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            prop_assert!(Transport::parse_all(&text).len() <= MOST);
        }
    }
}
