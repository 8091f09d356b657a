//! What a server's answers mean.

use super::{ALIVE_LEAST, Client, Kind, Output, Pending, Planned, REPORT_EVERY, Way, What, status_words};
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::media::frame::Ingest;
use crate::media::track::TrackId;
use crate::rtsp::digest::{Challenge, strongest};
use crate::rtsp::formats::offered;
use crate::rtsp::ingest::Ingester;
use crate::time::Time;
use crate::wire::rtsp::Response;
use crate::wire::rtsp::transport::{Lower, Transport};
use crate::wire::sdp::{Bounds, Description, Section, attribute};
use std::time::Duration;

/// Characters of a session's name that are kept; a longer one is none.
const SESSION_CHARS: usize = 256;
/// Seconds of a session's timeout that are believed at most.
const TIMEOUT_MOST: u64 = 3_600;

impl Client {
    pub(super) fn response(&mut self, response: Response, now: Time) {
        if response.status < 200 {
            return;
        }
        let Some(pending) = self.pending.take() else { return };
        // Cameras that leave CSeq out answer in order all the same.
        if let Some(cseq) = response.headers.get("CSeq")
            && cseq.parse::<u32>().is_ok_and(|n| n != pending.cseq)
        {
            self.pending = Some(pending);
            return;
        }
        self.learn_session(&response);
        match response.status {
            401 => self.unauthorized(pending, &response, now),
            301..=303 | 305 | 307 | 308 if !self.active => {
                let location = response.headers.get("Location").unwrap_or_default().to_owned();
                self.moved(&location, now);
            }
            _ => self.answered(pending, response, now),
        }
    }

    fn learn_session(&mut self, response: &Response) {
        let Some(header) = response.headers.get("Session") else { return };
        let mut parts = header.split(';').map(str::trim);
        let id = parts.next().unwrap_or_default();
        if id.is_empty() || id.len() > SESSION_CHARS {
            return;
        }
        self.session = Some(id.to_owned());
        let timeout = parts.filter_map(|p| p.split_once('=')).find(|(n, _)| n.trim() == "timeout");
        if let Some(seconds) = timeout.and_then(|(_, v)| v.trim().parse::<u64>().ok()).filter(|s| *s > 0) {
            self.timeout = Duration::from_secs(seconds.min(TIMEOUT_MOST));
        }
    }

    /// The server wants to know who we are, or does not believe it.
    fn unauthorized(&mut self, pending: Pending, response: &Response, now: Time) {
        let close = |client: &mut Client, text: &str| {
            client.close(Reason::peer("remote_unauthorized", text.to_owned()), now);
        };
        let Some(challenge) = strongest(response.headers.all("WWW-Authenticate")) else {
            return close(self, "the server wants a proof of identity of a kind that is not known here");
        };
        if self.url.user.is_none() {
            return close(self, "the server wants a name and a password; put them into the URL");
        }
        let stale = matches!(&challenge, Challenge::Digest(d) if d.stale);
        // A new nonce that is not called stale either: some servers give one with every refusal.
        if pending.proved && (!stale || self.stales >= super::STALES_MOST) {
            return close(self, "the server refused the name or the password of the URL");
        }
        self.stales = self.stales.saturating_add(u32::from(pending.proved));
        self.challenge = Some((challenge, 0));
        self.ask_again(pending.kind, pending.request, now);
    }

    fn answered(&mut self, pending: Pending, response: Response, now: Time) {
        let ok = (200..300).contains(&response.status);
        match pending.kind {
            Kind::Options => {
                // Who does not know OPTIONS may know the rest.
                let public = response.headers.get("Public").unwrap_or_default();
                self.has_get_parameter =
                    public.split(',').any(|m| m.trim().eq_ignore_ascii_case("GET_PARAMETER"));
                self.introduce(now);
            }
            // A session that is gone shows in what is sent no more.
            Kind::Alive => {
                if response.status == 454 {
                    self.session = None;
                    let text = "the server says that the session is gone".to_owned();
                    self.close(Reason::peer("rtsp_session_gone", text), now);
                }
            }
            Kind::Setup(_) => self.set_up_answered(&response, now),
            _ if !ok => {
                let text = format!(
                    "the server answered {} with {}",
                    pending.request.method,
                    status_words(&response)
                );
                self.close(Reason::peer("remote_refused", text), now);
            }
            Kind::Describe => self.described(&response, now),
            Kind::Announce => self.set_up_next(now),
            Kind::Start => {
                self.active = true;
                self.since = now;
                self.alive_at = Some(now + (self.timeout / 2).max(ALIVE_LEAST));
                self.report_at = Some(now + REPORT_EVERY);
                self.events.push_back(Output::Ready);
                self.announce_tracks();
                self.report(now);
            }
        }
    }

    /// What the description says of tracks is told at once: viewers of a camera that begins with sound, or with pictures that
    /// nobody can decode, shall not take it for one that has nothing else.
    fn announce_tracks(&mut self) {
        let received = self.planned.iter().filter_map(|p| match &p.what {
            What::Received(track, offered) => {
                Some((*track, offered.preset.clone().or_else(|| offered.format.described())?))
            }
            What::Sent(..) => None,
        });
        let configs = received.map(|(track, params)| Output::Media(Ingest::Config { track, params }));
        self.events.extend(configs);
    }

    fn described(&mut self, response: &Response, now: Time) {
        let kept = |name| response.headers.get(name).map(str::trim).filter(|b| b.contains("://"));
        if let Some(base) = kept("Content-Base").or_else(|| kept("Content-Location")) {
            self.base = base.to_owned();
        }
        let bounds = Bounds {
            lines: self.limits.sdp_lines,
            sections: self.limits.sdp_sections,
            formats: self.limits.sdp_payload_types,
        };
        let text = String::from_utf8_lossy(&response.body);
        let description = match Description::parse(&text, bounds) {
            Ok(d) => d,
            Err(why) => {
                let text = format!("the server's description cannot be used: {why}");
                return self.close(Reason::peer("remote_description", text), now);
            }
        };
        self.aggregate = join(&self.base, attribute(&description.attributes, "control").unwrap_or("*"));
        let mut other = Vec::new();
        for section in &description.sections {
            if let Err(what) = self.plan(section) {
                other.push(what);
            }
        }
        let list = if other.is_empty() { "nothing".to_owned() } else { other.join(", ") };
        if self.planned.is_empty() {
            let text = format!(
                "the server has {list}, which cannot be taken; have it send H.264, H.265, VP8, VP9, AV1, Opus, AAC, MP3 \
                 or G.711"
            );
            return self.close(Reason::peer("unsupported_codec", text), now);
        }
        if !other.is_empty() {
            self.log(Level::Warn, format!("left out: {list}"));
        }
        self.set_up_next(now);
    }

    /// Plans to receive a section of the description.
    fn plan(&mut self, section: &Section) -> Result<(), String> {
        let offered = offered(section).map_err(|what| format!("{} as {what}", quote(&section.media)))?;
        let track = if offered.format.codec().is_video() { TrackId::VIDEO } else { TrackId::AUDIO };
        if self.planned.iter().any(|p| matches!(p.what, What::Received(t, _) if t == track)) {
            return Err(format!("a second track of {}", quote(&section.media)));
        }
        let control = join(&self.base, section.attribute("control").unwrap_or("*"));
        self.planned.push(Planned { what: What::Received(track, Box::new(offered)), control });
        Ok(())
    }

    pub(super) fn udp_answered(&mut self, granted: Option<(u16, u16)>, now: Time) {
        if self.asking.take().is_none() {
            return;
        }
        match granted {
            Some(ports) => {
                self.set_up(Transport { client_port: Some(ports), ..Transport::over(Lower::Udp) }, now);
            }
            None => self.not_this_way("this node has no ports for datagrams (rtsp.udp_pairs)", now),
        }
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.received(&held, now);
        }
    }

    fn set_up_answered(&mut self, response: &Response, now: Time) {
        let udp = self.ways.front() == Some(&Lower::Udp);
        if !(200..300).contains(&response.status) {
            return self.not_this_way(&format!("the server answered {}", status_words(response)), now);
        }
        let header = response.headers.get("Transport").unwrap_or_default();
        let agreed = Transport::parse_all(header).into_iter().next();
        let lane = self.lanes.len();
        let way = match (udp, agreed) {
            (_, Some(t)) if t.multicast => {
                return self.not_this_way("the server wants to send to a group of addresses", now);
            }
            // Some servers repeat less than they agree to.
            (true, None) => Way::Datagrams,
            (true, Some(t)) if t.lower == Lower::Udp => {
                if let Some(ports) = t.server_port {
                    self.events.push_back(Output::UdpPeer { lane, ports });
                }
                Way::Datagrams
            }
            (false, agreed) if agreed.as_ref().is_none_or(|t| t.lower == Lower::Tcp) => {
                let n = u8::try_from(2 * lane).unwrap_or(0);
                let (rtp, rtcp) = agreed.and_then(|t| t.interleaved).unwrap_or((n, n.wrapping_add(1)));
                if rtp == rtcp || self.channels.contains_key(&rtp) || self.channels.contains_key(&rtcp) {
                    return self.not_this_way("the server gives a channel twice", now);
                }
                for (channel, is_rtcp) in [(rtp, false), (rtcp, true)] {
                    self.channels.insert(channel, (lane, is_rtcp));
                    self.reader.set_channel(channel, true);
                }
                Way::Channels(rtp, rtcp)
            }
            _ => return self.not_this_way("the server agreed to another transport than was asked for", now),
        };
        self.lanes.push(way);
        match self.planned.get(self.next).map(|p| &p.what) {
            Some(What::Received(track, offered)) => {
                let own = self.rng.u32();
                let ingest = self.ingest.get_or_insert_with(|| Ingester::new(&self.limits, own));
                ingest.add(Some((*track, offered)), way == Way::Datagrams);
            }
            Some(What::Sent(track, pt)) => self.egress.add(track.0, &track.1, *pt, &mut self.rng),
            None => {}
        }
        self.next += 1;
        self.set_up_next(now);
    }

    /// A track cannot be had this way: it is left out if there are others, else another way is tried.
    fn not_this_way(&mut self, why: &str, now: Time) {
        let over = if self.ways.front() == Some(&Lower::Udp) { "datagrams" } else { "the connection" };
        if !self.lanes.is_empty() {
            self.log(Level::Warn, format!("a track is left out: over {over}, {why}"));
            self.next += 1;
            return self.set_up_next(now);
        }
        self.ways.pop_front();
        self.events.push_back(Output::UdpDone);
        if self.ways.is_empty() {
            let text = format!("no way for media is left: over {over}, {why}");
            return self.close(Reason::peer("remote_transport", text), now);
        }
        self.log(Level::Info, format!("media does not go over {over} ({why}); the other way is tried"));
        self.set_up_next(now);
    }
}

/// The URL that a control attribute means (RFC 2326, appendix C.1.1, as servers really mean it: what is relative is
/// appended, also to a query).
fn join(base: &str, control: &str) -> String {
    if control.is_empty() || control == "*" {
        base.to_owned()
    } else if control.contains("://") {
        control.to_owned()
    } else {
        let slash = if base.ends_with('/') || control.starts_with('?') { "" } else { "/" };
        format!("{base}{slash}{}", control.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn controls_are_joined_as_servers_mean_them() {
        for (base, control, wanted) in [
            ("rtsp://c/live/", "*", "rtsp://c/live/"),
            ("rtsp://c/live", "", "rtsp://c/live"),
            ("rtsp://c/live", "trackID=1", "rtsp://c/live/trackID=1"),
            ("rtsp://c/live/", "trackID=1", "rtsp://c/live/trackID=1"),
            ("rtsp://c/live", "/trackID=1", "rtsp://c/live/trackID=1"),
            ("rtsp://c/cam?channel=1&subtype=0", "trackID=0", "rtsp://c/cam?channel=1&subtype=0/trackID=0"),
            ("rtsp://c/live", "rtsp://10.0.0.9/other/1", "rtsp://10.0.0.9/other/1"),
            ("rtsp://c/live", "?ctype=video", "rtsp://c/live?ctype=video"),
        ] {
            assert_eq!(join(base, control), wanted, "{base} {control}");
        }
    }
}
