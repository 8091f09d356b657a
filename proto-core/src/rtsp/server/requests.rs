//! What a server answers to each request.

use super::refusal::{status_of, words};
use super::{Announced, Described, Lane, NewLane, Output, Server, Shown, Told, Track, Wait, Way};
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::media::key::StreamKey;
use crate::media::track::TrackId;
use crate::rtsp::formats::{describe, offered};
use crate::rtsp::ingest::Ingester;
use crate::rtsp::order::{State, is_legal};
use crate::time::Time;
use crate::wire::rtsp::transport::{Lower, Mode, Transport};
use crate::wire::rtsp::url::Url;
use crate::wire::rtsp::{Method, Request, Response};
use crate::wire::sdp::{Bounds, Description, Section, Writer};

/// The methods that a client may use.
const PUBLIC: &str =
    "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// The payload type of the first described track; the others follow.
const FIRST_PAYLOAD_TYPE: u8 = 96;
/// Ports below are other services' (abuse A11).
const LOWEST_PORT: u16 = 1_024;
/// Bytes of a client's own name that are kept for the log.
const AGENT_BYTES: usize = 128;

/// Characters of a client's `Via` that are kept.
const VIA_CHARS: usize = 512;

/// A request is answered now, or once the node has answered.
type Answer = Option<Response>;

impl Server {
    pub(super) fn request(&mut self, request: Request, now: Time) {
        let cseq = match request.headers.get("CSeq") {
            Some(c) if !c.is_empty() && c.len() <= 10 && c.bytes().all(|b| b.is_ascii_digit()) => {
                c.to_owned()
            }
            other => {
                let text = if other.is_some() { "CSeq is no number" } else { "there is no CSeq header" };
                return self.respond("", words(400, text));
            }
        };
        if let Some(agent) = request.headers.get("User-Agent")
            && self.agent.is_empty()
        {
            self.agent = agent.chars().take(AGENT_BYTES).collect();
        }
        if let Some(via) = request.headers.get("Via") {
            self.via = via.chars().take(VIA_CHARS).collect();
        }
        let answer = self.answer(&cseq, request, now);
        if let Some(response) = answer {
            self.respond(&cseq, response);
        }
    }

    fn answer(&mut self, cseq: &str, request: Request, now: Time) -> Answer {
        let Some(method) = Method::parse(&request.method) else {
            let text = format!("{} is no method of RTSP", quote(&request.method));
            return Some(words(501, &text).with("Allow", PUBLIC));
        };
        if let Some(option) = request.headers.get("Require") {
            return Some(Response::new(551).with("Unsupported", option));
        }
        if let Some(refusal) = self.wrong_session(&request) {
            return Some(refusal);
        }
        if method == Method::Redirect {
            return Some(words(405, "only a server may redirect").with("Allow", PUBLIC));
        }
        if !is_legal(method, self.state) {
            let text = format!("{} cannot follow here", method.name());
            let status = if method == Method::Teardown { 454 } else { 455 };
            return Some(words(status, &text).with("Allow", PUBLIC));
        }
        match method {
            Method::Options => Some(self.ok().with("Public", PUBLIC)),
            Method::GetParameter => Some(self.ok()),
            Method::SetParameter if request.body.is_empty() => Some(self.ok()),
            Method::SetParameter => Some(words(451, "there is no parameter that can be set")),
            Method::Describe => self.describe(request),
            Method::Announce if self.guarded => self.ask_to_announce(request),
            Method::Announce => Some(self.announce(&request)),
            Method::Setup => self.setup(cseq, request, now),
            Method::Play => {
                if self.state == State::Playing {
                    return Some(self.ok());
                }
                if self.paused {
                    self.paused = false;
                    self.state = State::Playing;
                    self.report_at = Some(now);
                    self.events.push_back(Output::KeyFrameWanted);
                    return Some(self.ok().with("Range", "npt=now-"));
                }
                self.ask(Wait::Play { cseq: cseq.to_owned(), url: request.url }, Output::PlayRequested);
                None
            }
            Method::Record => {
                let (key, query) = self.key.clone()?;
                self.told = Told::Publishes;
                let shown = Shown::of(&request);
                self.ask(
                    Wait::Record { cseq: cseq.to_owned() },
                    Output::PublishRequested { key, query, shown },
                );
                None
            }
            Method::Pause => {
                match self.state {
                    State::Playing => {
                        self.state = State::PlayReady;
                        self.paused = true;
                        self.egress.pause();
                        self.report_at = None;
                    }
                    // The name is free until RECORD asks for it again.
                    State::Recording => {
                        self.end_role();
                        self.state = State::RecordReady;
                        self.since = now;
                        self.forgiven_until = now + super::GRACE;
                    }
                    _ => {}
                }
                Some(self.ok())
            }
            Method::Teardown => {
                let response = self.ok();
                self.reset(now);
                Some(response)
            }
            Method::Redirect => None,
        }
    }

    fn ok(&self) -> Response {
        match &self.session {
            Some(id) => {
                Response::new(200).with("Session", format!("{id};timeout={}", self.limits.rtsp_timeout_s))
            }
            None => Response::new(200),
        }
    }

    /// A12: a session belongs to its connection. Without the header it is the connection's.
    fn wrong_session(&self, request: &Request) -> Option<Response> {
        let named = request.headers.get("Session")?.split(';').next().unwrap_or_default().trim();
        if named.is_empty() || self.session.as_deref() == Some(named) {
            return None;
        }
        Some(words(454, "this connection has no such session"))
    }

    fn describe(&mut self, request: Request) -> Answer {
        if let Some(accept) = request.headers.get("Accept")
            && !accept.split(',').any(|a| {
                let kind = a.split(';').next().unwrap_or_default().trim();
                matches!(kind.to_ascii_lowercase().as_str(), "application/sdp" | "application/*" | "*/*")
            })
        {
            return Some(words(406, "a description can be had as application/sdp only"));
        }
        let (key, query) = match key_of(&request.url) {
            Ok(found) => found,
            Err(text) => return Some(words(400, &text)),
        };
        self.forget_description();
        self.key = Some((key.clone(), query.clone()));
        self.told = Told::Plays;
        let shown = Shown::of(&request);
        self.ask(Wait::Describe { request }, Output::DescribeRequested { key, query, shown });
        None
    }

    fn forget_description(&mut self) {
        self.end_role();
        self.described.clear();
        self.state = State::Init;
    }

    /// The node knows the tracks of the stream that was asked for.
    pub(super) fn tracks_known(&mut self, tracks: Vec<Track>, now: Time) {
        let request = match self.wait.take() {
            Some(Wait::Describe { request } | Wait::Setup { request }) => request,
            other => {
                self.wait = other;
                return;
            }
        };
        let (mut video, mut audio) = (false, false);
        self.described = tracks
            .into_iter()
            .map(|(id, config)| {
                let is_video = config.params.codec().is_video();
                let first = !std::mem::replace(if is_video { &mut video } else { &mut audio }, true);
                let control = match (first, is_video) {
                    (true, true) => "video".to_owned(),
                    (true, false) => "audio".to_owned(),
                    (false, _) => format!("track{}", id.0),
                };
                Described { id, config, control }
            })
            .collect();
        self.state = State::Described;
        self.since = now;
        let cseq = request.headers.get("CSeq").unwrap_or_default().to_owned();
        if Method::parse(&request.method) == Some(Method::Setup) {
            if let Some(response) = self.setup(&cseq, request, now) {
                self.respond(&cseq, response);
            }
        } else {
            let response = self.description(&request.url);
            self.respond(&cseq, response);
        }
        self.go_on(now);
    }

    fn description(&mut self, url: &str) -> Response {
        let name = self.key.as_ref().map_or(String::new(), |(key, _)| key.to_string());
        let mut w = Writer::new(self.rng.u32().into(), &name);
        w.attribute("control", "*").attribute("range", "npt=now-");
        for (track, pt) in self.described.iter().zip(FIRST_PAYLOAD_TYPE..) {
            describe(&mut w, &track.config.params, pt, &track.control);
        }
        let base = url.split('?').next().unwrap_or_default().trim_end_matches('/');
        Response::new(200)
            .with("Content-Base", format!("{base}/"))
            .with("Cache-Control", "no-cache")
            .with_body("application/sdp", w.finish())
    }

    /// Nothing of an announcement is read before its sender may publish.
    fn ask_to_announce(&mut self, request: Request) -> Answer {
        let (key, query) = match key_of(&request.url) {
            Ok(found) => found,
            Err(text) => return Some(words(400, &text)),
        };
        let shown = Shown::of(&request);
        self.ask(Wait::Announce { request }, Output::AnnounceRequested { key, query, shown });
        None
    }

    pub(super) fn announce_accepted(&mut self, now: Time) {
        let request = match self.wait.take() {
            Some(Wait::Announce { request }) => request,
            other => {
                self.wait = other;
                return;
            }
        };
        let response = self.announce(&request);
        let cseq = request.headers.get("CSeq").unwrap_or_default().to_owned();
        self.respond(&cseq, response);
        self.go_on(now);
    }

    /// The client has to show who it is. The session stays as it was: the same request comes again.
    pub(super) fn unauthorized(&mut self, challenges: &[String], reason: &Reason, now: Time) {
        let cseq = match self.wait.take() {
            Some(Wait::Describe { request } | Wait::Setup { request } | Wait::Announce { request }) => {
                request.headers.get("CSeq").unwrap_or_default().to_owned()
            }
            Some(Wait::Record { cseq }) => cseq,
            other => {
                self.wait = other;
                return;
            }
        };
        // The node has forgotten the question.
        self.told = Told::Nothing;
        let status = if challenges.is_empty() { 403 } else { 401 };
        let mut response = words(status, &reason.text);
        for challenge in challenges {
            response.headers.add("WWW-Authenticate", challenge);
        }
        self.respond(&cseq, response);
        self.go_on(now);
    }

    fn announce(&mut self, request: &Request) -> Response {
        if let Some(kind) = request.headers.get("Content-Type")
            && !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/sdp")
        {
            return words(415, "an announcement must be application/sdp");
        }
        let key = match key_of(&request.url) {
            Ok(found) => found,
            Err(text) => return words(400, &text),
        };
        let Ok(text) = std::str::from_utf8(&request.body) else {
            return words(400, "the description is no text in UTF-8");
        };
        let bounds = Bounds {
            lines: self.limits.sdp_lines,
            sections: self.limits.sdp_sections,
            formats: self.limits.sdp_payload_types,
        };
        let description = match Description::parse(text, bounds) {
            Ok(d) => d,
            Err(text) => return words(400, &text),
        };
        let (mut announced, mut other) = (Vec::new(), Vec::new());
        let (mut video, mut audio) = (false, false);
        for section in &description.sections {
            let taken = match offered(section) {
                Ok(o) => {
                    let seen = if o.format.codec().is_video() { &mut video } else { &mut audio };
                    if std::mem::replace(seen, true) {
                        other.push(format!("a second track of {}", section.media));
                        None
                    } else {
                        let video = o.format.codec().is_video();
                        Some((if video { TrackId::VIDEO } else { TrackId::AUDIO }, o))
                    }
                }
                Err(what) => {
                    other.push(format!("{} as {what}", quote(&section.media)));
                    None
                }
            };
            announced.push(Announced { media: section.media.clone(), control: control(section), taken });
        }
        if !announced.iter().any(|a| a.taken.is_some()) {
            let what = if other.is_empty() { "nothing".to_owned() } else { other.join(", ") };
            let text = format!(
                "{what} was announced, which cannot be taken; send H.264, H.265, VP8, VP9, AV1, Opus, AAC, MP3 or G.711"
            );
            return words(415, &text);
        }
        if !other.is_empty() {
            let text = format!("left out (counted as strange): {}", other.join(", "));
            self.log(Level::Warn, text);
        }
        self.key = Some(key);
        self.announced = announced;
        self.state = State::Announced;
        self.ok()
    }

    fn setup(&mut self, cseq: &str, request: Request, now: Time) -> Answer {
        let record = matches!(self.state, State::Announced | State::RecordReady);
        if self.state == State::Init {
            let Some(base) = without_control(&request.url) else {
                return Some(words(455, "SETUP must follow DESCRIBE or ANNOUNCE"));
            };
            let (key, query) = match key_of(base) {
                Ok(found) => found,
                Err(text) => return Some(words(400, &text)),
            };
            self.key = Some((key.clone(), query.clone()));
            self.told = Told::Plays;
            let shown = Shown::of(&request);
            self.ask(Wait::Setup { request }, Output::DescribeRequested { key, query, shown });
            return None;
        }
        let found = if record { self.announced_of(&request.url) } else { self.described_of(&request.url) };
        let Some(of) = found else {
            return Some(words(404, &format!("the stream has no track {}", quote(tail(&request.url)))));
        };
        if self.lanes.iter().any(|l| l.of == of) {
            // ffmpeg gives datagrams up for the connection this way: it paused, and begins anew without a session.
            if !(self.paused && request.headers.get("Session").is_none()) {
                return Some(words(455, "this track is set up already"));
            }
            self.drop_lanes(now);
            self.paused = true;
            self.session = None;
        }
        let header = request.headers.get("Transport").unwrap_or_default();
        let offers = Transport::parse_all(header);
        let (mut refused, mut chosen) =
            ("there is no transport among RTP/AVP and RTP/AVP/TCP, unicast", None);
        for t in offers {
            match self.acceptable(&t, record) {
                Ok(()) => {
                    chosen = Some(t);
                    break;
                }
                Err(why) => refused = why,
            }
        }
        let Some(chosen) = chosen else { return Some(words(461, refused)) };
        if self.session.is_none() {
            // 22 characters of 62 are 131 bits.
            self.session = Some(self.rng.token(22));
        }
        let lane = NewLane { of };
        match chosen.lower {
            Lower::Tcp => {
                let Some(channels) = self.free_channels(chosen.interleaved) else {
                    return Some(words(461, "no channel is free"));
                };
                Some(self.add_lane(
                    &lane,
                    Way::Channels(channels.0, channels.1),
                    Transport { interleaved: Some(channels), ..Transport::over(Lower::Tcp) },
                ))
            }
            Lower::Udp => {
                let ports = chosen.client_port?;
                let number = self.lanes.len();
                self.ask(
                    Wait::Udp { cseq: cseq.to_owned(), lane, ports },
                    Output::UdpWanted { lane: number, ports },
                );
                None
            }
        }
    }

    fn acceptable(&self, t: &Transport, record: bool) -> Result<(), &'static str> {
        if t.multicast {
            return Err("multicast is not spoken here");
        }
        if t.mode.is_some_and(|m| (m == Mode::Record) != record) {
            return Err("the mode of the transport does not fit: announce to record, describe to play");
        }
        if t.lower == Lower::Udp {
            if !self.udp {
                return Err("datagrams are not used here; use RTP/AVP/TCP");
            }
            let Some((rtp, rtcp)) = t.client_port else { return Err("client_port is missing") };
            if rtp < LOWEST_PORT || rtcp < LOWEST_PORT || rtp == rtcp {
                return Err("client_port must be two ports from 1024 up");
            }
            if self.lanes.iter().any(|l| matches!(l.way, Way::Channels(..))) {
                return Err("one session goes over the connection or over datagrams, not both");
            }
        } else if self.is_udp() {
            return Err("one session goes over the connection or over datagrams, not both");
        }
        Ok(())
    }

    fn free_channels(&self, wanted: Option<(u8, u8)>) -> Option<(u8, u8)> {
        let free =
            |(a, b): &(u8, u8)| a != b && !self.channels.contains_key(a) && !self.channels.contains_key(b);
        wanted.filter(free).or_else(|| (0..=127).map(|n| (2 * n, 2 * n + 1)).find(free))
    }

    /// Adds a lane that is agreed on, and answers the SETUP.
    fn add_lane(&mut self, lane: &NewLane, way: Way, mut agreed: Transport) -> Response {
        let number = self.lanes.len();
        if let Way::Channels(rtp, rtcp) = way {
            for (channel, rtcp) in [(rtp, false), (rtcp, true)] {
                self.channels.insert(channel, (number, rtcp));
                self.reader.set_channel(channel, true);
            }
        }
        self.lanes.push(Lane { of: lane.of, way });
        if matches!(self.state, State::Announced | State::RecordReady) {
            let taken = self.announced.get(lane.of).and_then(|a| a.taken.as_ref());
            let own = self.rng.u32();
            let ingest = self.ingest.get_or_insert_with(|| Ingester::new(&self.limits, own));
            ingest.add(taken.map(|(track, o)| (*track, o)), way == Way::Datagrams);
            agreed.mode = Some(Mode::Record);
            self.state = State::RecordReady;
        } else {
            if let Some(track) = self.described.get(lane.of) {
                let pt = FIRST_PAYLOAD_TYPE + lane.of as u8;
                self.egress.add(track.id, &track.config, pt, &mut self.rng);
            }
            agreed.ssrc = self.egress.ssrc(number);
            self.state = State::PlayReady;
        }
        self.ok().with("Transport", agreed.to_string())
    }

    pub(super) fn udp_answered(&mut self, granted: Option<(u16, u16)>, now: Time) {
        let Some(Wait::Udp { cseq, lane, ports }) = self.wait.take() else { return };
        let response = match granted {
            Some(ours) => {
                let agreed = Transport {
                    client_port: Some(ports),
                    server_port: Some(ours),
                    ..Transport::over(Lower::Udp)
                };
                self.add_lane(&lane, Way::Datagrams, agreed)
            }
            None => words(461, "no ports for datagrams are free; use RTP/AVP/TCP"),
        };
        self.respond(&cseq, response);
        self.go_on(now);
    }

    /// The announced section that a SETUP means.
    fn announced_of(&self, url: &str) -> Option<usize> {
        let tail = tail(url);
        let exact = self.announced.iter().position(|a| {
            !a.control.is_empty() && (url == a.control || tail.eq_ignore_ascii_case(last(&a.control)))
        });
        exact
            .or_else(|| self.announced.iter().position(|a| a.media.eq_ignore_ascii_case(tail)))
            .or_else(|| numbered(tail).filter(|n| *n < self.announced.len()))
            .or_else(|| (self.announced.len() == 1).then_some(0))
    }

    /// The described track that a SETUP means.
    fn described_of(&self, url: &str) -> Option<usize> {
        let tail = tail(url);
        let exact = self.described.iter().position(|d| d.control.eq_ignore_ascii_case(tail));
        let name = self.key.as_ref().map(|(key, _)| key.name());
        exact
            .or_else(|| numbered(tail).filter(|n| *n < self.described.len()))
            .or_else(|| (self.described.len() == 1 && name == Some(tail)).then_some(0))
    }

    pub(super) fn play_accepted(&mut self, now: Time) {
        let Some(Wait::Play { cseq, url }) = self.wait.take() else { return };
        self.state = State::Playing;
        self.report_at = None;
        let base = url.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        let lanes = self.lanes.iter().enumerate().filter_map(|(n, lane)| {
            let (seq, time) = self.egress.start(n)?;
            let control = &self.described.get(lane.of)?.control;
            Some(format!("url={base}/{control};seq={seq};rtptime={time}"))
        });
        let info = lanes.collect::<Vec<_>>().join(",");
        let response = self.ok().with("Range", "npt=now-").with("RTP-Info", info);
        self.respond(&cseq, response);
        self.go_on(now);
    }

    pub(super) fn publish_accepted(&mut self, now: Time) {
        let Some(Wait::Record { cseq }) = self.wait.take() else { return };
        self.state = State::Recording;
        self.report_at = Some(now + super::REPORT_EVERY);
        let response = self.ok();
        self.respond(&cseq, response);
        self.go_on(now);
    }

    /// The node will not have it. It knows that it refused, and need not be told that the request is over.
    pub(super) fn refused(&mut self, reason: &Reason, now: Time) {
        self.turned_away(words(status_of(reason), &reason.text), now);
    }

    /// The node sends the peer to another (RFC 2326, section 11.3).
    pub(super) fn elsewhere(&mut self, url: &str, now: Time) {
        // A query may hold a secret, and people read the words.
        let shown = url.split('?').next().unwrap_or_default();
        self.turned_away(words(302, &format!("go to {shown}")).with("Location", url), now);
    }

    fn turned_away(&mut self, response: Response, now: Time) {
        let cseq = match self.wait.take() {
            Some(Wait::Describe { request } | Wait::Setup { request } | Wait::Announce { request }) => {
                request.headers.get("CSeq").unwrap_or_default().to_owned()
            }
            Some(Wait::Play { cseq, .. } | Wait::Record { cseq }) => cseq,
            other => {
                self.wait = other;
                return;
            }
        };
        self.told = Told::Nothing;
        self.respond(&cseq, response);
        self.reset(now);
        self.go_on(now);
    }

    /// Tells a peer that is in the midst of it where it would be better served (RFC 2326, section 10.10). Most clients
    /// answer that they do not know the request, and stay.
    pub(super) fn redirect(&mut self, base: &str) {
        let (Some(session), Some((key, query)), State::Playing | State::Recording) =
            (&self.session, &self.key, self.state)
        else {
            return;
        };
        let mark = if query.is_empty() { "" } else { "?" };
        let location = format!("{base}/{key}{mark}{query}");
        self.asked += 1;
        let mut request = Request {
            method: Method::Redirect.name().to_owned(),
            url: location.clone(),
            headers: Default::default(),
            body: Default::default(),
        };
        request.headers.add("CSeq", self.asked.to_string());
        request.headers.add("Session", session.clone());
        request.headers.add("Location", location);
        self.outbox.push(request.to_bytes());
    }
}

/// The stream that a URL names, and its query.
fn key_of(url: &str) -> Result<(StreamKey, String), String> {
    let path_query = if url.starts_with('/') { url.to_owned() } else { Url::parse(url)?.path_query };
    let (path, query) = path_query.split_once('?').unwrap_or((&path_query, ""));
    Ok((StreamKey::parse(path)?, query.to_owned()))
}

/// What follows the last slash of a URL.
fn tail(url: &str) -> &str {
    last(url.trim_end_matches('/'))
}

fn last(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or_default()
}

/// `trackID=1`, `streamid=1`, `track1` and their like.
fn numbered(tail: &str) -> Option<usize> {
    let lower = tail.to_ascii_lowercase();
    let names = ["trackid=", "streamid=", "stream=", "track"];
    let digits = names.iter().find_map(|n| lower.strip_prefix(n))?;
    digits.parse().ok().filter(|_| digits.len() <= 2)
}

/// A URL without the name of a track at its end, if it has one that every stream knows.
fn without_control(url: &str) -> Option<&str> {
    let url = url.trim_end_matches('/');
    let name = tail(url);
    let known = matches!(name.to_ascii_lowercase().as_str(), "audio" | "video") || numbered(name).is_some();
    known.then(|| url.get(..url.len() - name.len())).flatten()
}

fn control(section: &Section) -> String {
    match section.attribute("control") {
        Some("*") | None => String::new(),
        Some(c) => c.trim_end_matches('/').to_owned(),
    }
}
