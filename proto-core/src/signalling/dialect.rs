//! One client of the dialect: which message may follow which, and what is answered.
//!
//! The node is asked for what only it can know or do, one thing at a time, and answers by an [`Input`]. Candidates of the
//! client are counted and otherwise left alone, however early they come: an ICE-lite agent learns where its peer is from
//! the peer's own checks.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{CHANNEL, data, says};
use crate::auth::credentials::Credentials;
use crate::auth::secret::Secret;
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::time::{Deadline, Time};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What a message goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The websocket.
    Socket,
    /// The data channel.
    Channel,
}

/// What a player is told about its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// It has pictures.
    pub video: bool,
    /// It has sound.
    pub audio: bool,
    /// Width and height of the pictures, where they are known.
    pub size: Option<(u32, u32)>,
}

/// What a [`Dialect`] is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time passed.
    Tick,
    /// The websocket stands.
    Opened,
    /// The client said something.
    Text {
        /// Over what.
        way: Way,
        /// What.
        text: &'a str,
    },
    /// The websocket is gone.
    SocketClosed,
    /// The client's data channel stands.
    ChannelOpened,
    /// The client's data channel is gone.
    ChannelClosed,
    /// To [`Output::AskName`] (is it taken?) and [`Output::Find`] (is it live?).
    Available(bool),
    /// To [`Output::Publish`]: our answer. To [`Output::Offer`]: our offer.
    Described {
        /// The SDP.
        sdp: &'a str,
        /// Our candidates, each as `candidate:…`.
        candidates: &'a [String],
    },
    /// To [`Output::Answer`]: it was taken.
    AnswerTaken,
    /// To [`Output::Start`]: the stream as it is now.
    Started(About),
    /// To [`Output::Switch`]: the name of the stream that plays now and what it is, or why the one before goes on.
    Switched(Result<(&'a str, About), &'a Reason>),
    /// What was asked for cannot be had.
    Failed(&'a Reason),
    /// The client may not have what it asked for: it is told so, and its websocket is closed.
    Rejected(&'a Reason),
    /// The publisher of the stream sends this to its viewers: the payload of a data frame.
    Data(&'a [u8]),
    /// The stream that is played has ended.
    Unpublished,
    /// The session was ended by the node.
    Ended(&'a Reason),
}

/// What a [`Dialect`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the client.
    Say {
        /// Over what.
        way: Way,
        /// What.
        text: String,
    },
    /// Close the websocket in good order, for this reason.
    CloseSocket(Reason),
    /// The client shows who it is.
    Shown(Credentials),
    /// Is the name taken by another publisher?
    AskName(String),
    /// Publish under this name by this offer.
    Publish {
        /// The name.
        name: String,
        /// The SDP.
        sdp: String,
    },
    /// Find the stream of this name.
    Find(String),
    /// Find it, and make an offer for it.
    Offer {
        /// The name.
        name: String,
        /// With a section for data channels.
        channel: bool,
    },
    /// The client's answer to our offer.
    Answer(String),
    /// It publishes or plays from now on.
    Start,
    /// Play this stream (`app/name`) instead, in the same session.
    Switch(String),
    /// The publisher wants key frames in its stream this often.
    KeyFrames(Duration),
    /// Data of the publisher for its viewers: the payload of a data frame.
    Data(Bytes),
    /// End the session: its client is gone, or wants it.
    End(Reason),
    /// A line for the operator.
    Log(Level, String),
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Publisher,
    Viewer,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It may ask for a name.
    Greeted,
    /// It offered something, or asked for an offer.
    Asked,
    /// It has our offer and owes an answer (viewers only).
    Offered,
    /// It has all that it needs to connect.
    Agreed,
    /// It was told that it publishes or plays.
    Started,
    /// Its session is over.
    Over,
}

/// One client of the dialect. A [`Machine`]; it never panics, whatever it is told.
#[derive(Debug)]
pub struct Dialect {
    limits: Arc<Limits>,
    id: String,
    role: Option<Role>,
    name: Option<String>,
    stage: Stage,
    /// The node owes the answer to [`Output::AskName`] or [`Output::Find`].
    asking: bool,
    /// `publish` or `subscribe` came before everything was agreed on.
    start_early: bool,
    /// The client does not want to go on over the data channel.
    stays: bool,
    socket: bool,
    channel: bool,
    /// The client goes on over the data channel; the websocket is no life line any more.
    switched: bool,
    /// Its session is another protocol's, which says when it ends.
    borrowed: bool,
    /// The `id` of a call that is not answered yet.
    call: Option<Value>,
    candidates: Vec<String>,
    mid: String,
    remote_candidates: usize,
    muted: (bool, bool),
    messages: (u64, u32),
    opened: Time,
    outputs: VecDeque<Output>,
}

impl Dialect {
    /// A client whose websocket was asked for with this `id`: a publisher's stream name, or `subscriber-…`.
    pub fn new(limits: Arc<Limits>, id: &str, now: Time) -> Dialect {
        Dialect {
            limits,
            id: id.to_owned(),
            role: None,
            name: None,
            stage: Stage::Greeted,
            asking: false,
            start_early: false,
            stays: false,
            socket: false,
            channel: false,
            switched: false,
            borrowed: false,
            call: None,
            candidates: Vec::new(),
            mid: "0".to_owned(),
            remote_candidates: 0,
            muted: (false, false),
            messages: (0, 0),
            opened: now,
            outputs: VecDeque::new(),
        }
    }

    /// A client of WHIP or WHEP whose data channel has opened: it publishes or plays `name` already.
    pub fn over_channel(limits: Arc<Limits>, publishes: bool, name: &str, now: Time) -> Dialect {
        let mut dialect = Dialect::new(limits, name, now);
        dialect.role = Some(if publishes { Role::Publisher } else { Role::Viewer });
        dialect.name = Some(name.to_owned());
        dialect.stage = Stage::Started;
        (dialect.channel, dialect.borrowed) = (true, true);
        dialect
    }

    /// Whether nothing connects it with its client any more.
    pub fn is_gone(&self) -> bool {
        !self.socket && !self.channel
    }

    fn say(&mut self, text: String) {
        let way = if self.channel && (self.switched || !self.socket) { Way::Channel } else { Way::Socket };
        if !self.is_gone() {
            self.outputs.push_back(Output::Say { way, text });
        }
    }

    fn fail(&mut self, reason: &Reason) {
        self.say(says::error(reason));
    }

    fn wrong(&mut self, text: impl Into<std::borrow::Cow<'static, str>>) {
        self.fail(&Reason::peer("bad_message", text));
    }

    /// A message may come now (A17, and against floods).
    fn may_speak(&mut self, now: Time) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if self.messages.0 != second {
            self.messages = (second, 0);
        }
        self.messages.1 += 1;
        self.messages.1 <= self.limits.signalling_messages_per_s
    }

    /// JSON values of one message; who publishes or plays may say what he likes, as long as the message fits.
    fn may_hold(&self) -> usize {
        if self.role.is_some() { usize::MAX } else { self.limits.signalling_values }
    }

    fn text(&mut self, way: Way, text: &str, now: Time) {
        if self.stage == Stage::Over && self.role.is_none() {
            return;
        }
        if !self.may_speak(now) {
            let most = self.limits.signalling_messages_per_s;
            let text = format!(
                "more than {most} signalling messages in a second (limits.signalling_messages_per_s)"
            );
            return self.end(Reason::limit("signalling_flood", text));
        }
        let Some(Value::Object(message)) = read(text, self.may_hold()) else {
            return self.wrong("the message is no JSON object");
        };
        let named = |member: &str| message.get(member).and_then(Value::as_str).map(str::to_owned);
        if let Some(credentials) = shown(&message) {
            self.outputs.push_back(Output::Shown(credentials));
        }
        if let Some(name) = named("isAvailable") {
            self.is_available(name, &message);
        } else if let Some(name) = named("handleOffer") {
            self.handle_offer(name, &message);
        } else if let Some(name) = named("requestOffer") {
            self.request_offer(name, &message);
        } else if let Some(name) = named("handleAnswer") {
            self.handle_answer(&name, &message);
        } else if message.contains_key("handleCandidate") {
            self.handle_candidate();
        } else if let Some(name) = named("publish") {
            self.publish(&name, &message);
        } else if let Some(name) = named("subscribe") {
            self.start(Role::Viewer, &name);
        } else if let Some(name) = named("unpublish") {
            self.unpublish(&name);
        } else if let Some(label) = named("switchChannel") {
            self.switch(way, &label);
        } else if let Some(send) = message.get("send") {
            self.send(send);
        } else if let Some(mute) = message.get("mute") {
            self.mute(mute);
        } else if let Some(call) = message.get("callAdapter") {
            self.call(call, message.get("id").unwrap_or(&Value::Null));
        } else if let Some(text) = named("message").filter(|_| message.contains_key("log")) {
            self.outputs.push_back(Output::Log(Level::Debug, format!("the client says {}", quote(&text))));
        } else if shown(&message).is_none() {
            let known = message.keys().next().map(|k| quote(k)).unwrap_or_default();
            let text = format!("a message that is not known here and was passed over: {known}");
            self.outputs.push_back(Output::Log(Level::Debug, text));
        }
    }

    /// A call by name: of those that there are, one is known here.
    fn call(&mut self, call: &Value, id: &Value) {
        let method = call.get("method").and_then(Value::as_str).unwrap_or_default();
        let path = || call.get("arguments")?.get(0)?.get("path")?.as_str().filter(|p| !p.is_empty());
        let plays = self.role == Some(Role::Viewer) && (Stage::Agreed..Stage::Over).contains(&self.stage);
        let refused = match (method, path()) {
            ("switchStreams", None) => {
                "switchStreams needs the stream to switch to, as [{\"path\": \"app/name\"}]".to_owned()
            }
            ("switchStreams", _) if !plays => {
                "only a viewer that plays can switch to another stream".to_owned()
            }
            ("switchStreams", _) if self.call.is_some() => "the switch before is not over yet".to_owned(),
            ("switchStreams", Some(path)) => {
                self.call = Some(id.clone());
                return self.outputs.push_back(Output::Switch(path.to_owned()));
            }
            _ => format!("{} is not offered by this server", quote(method)),
        };
        self.say(says::called(id, Err(&refused)));
    }

    /// Whether the node owes the end of a switch.
    pub fn is_switching(&self) -> bool {
        self.call.is_some()
    }

    fn switched(&mut self, result: Result<(&str, About), &Reason>) {
        let Some(id) = self.call.take() else { return };
        match result {
            Ok((name, about)) => {
                self.name = Some(name.to_owned());
                self.say(says::called(&id, Ok("Stream switch: Success")));
                self.say(says::metadata(&about));
            }
            Err(reason) => self.say(says::called(&id, Err(&reason.text))),
        }
    }

    /// Whether the client is `role`, and this the name that it uses: the first word decides.
    fn takes(&mut self, role: Role, name: &str) -> bool {
        let what = match role {
            Role::Publisher => "publish",
            Role::Viewer => "play",
        };
        if self.stage == Stage::Over {
            self.fail(&Reason::peer("session_over", "this session is over; open another websocket"));
            return false;
        }
        if *self.role.get_or_insert(role) != role {
            self.wrong(format!("this websocket does not {what}; open another for that"));
            return false;
        }
        let known = self.name.get_or_insert_with(|| name.to_owned());
        if known != name {
            let text = format!("this websocket is about {}, not {}", quote(known), quote(name));
            self.wrong(text);
            return false;
        }
        true
    }

    fn is_available(&mut self, name: String, message: &Map<String, Value>) {
        let publishes =
            !self.id.starts_with("subscriber-") && (message.contains_key("bundle") || self.id == name);
        let role = if publishes { Role::Publisher } else { Role::Viewer };
        if self.asking {
            return self.wrong("the question before is not answered yet");
        }
        // An earlier question decides nothing yet: clients retry with another name.
        if self.stage == Stage::Greeted {
            (self.role, self.name) = (None, None);
        }
        if !self.takes(role, &name) {
            return;
        }
        self.asking = true;
        self.outputs.push_back(if publishes { Output::AskName(name) } else { Output::Find(name) });
    }

    fn handle_offer(&mut self, name: String, message: &Map<String, Value>) {
        let Some(sdp) = description(message, "offer") else {
            return self
                .wrong("handleOffer needs data.sdp.sdp with an SDP offer, and data.sdp.type \"offer\"");
        };
        if !self.takes(Role::Publisher, &name) {
            return;
        }
        if self.stage != Stage::Greeted {
            return self.wrong("this session has its offer already; renegotiation is not supported");
        }
        self.stage = Stage::Asked;
        self.outputs.push_back(Output::Publish { name, sdp });
    }

    fn request_offer(&mut self, name: String, message: &Map<String, Value>) {
        if !self.takes(Role::Viewer, &name) {
            return;
        }
        if self.stage != Stage::Greeted || self.asking {
            return self.wrong("this session waits for something else, or has its offer already");
        }
        let is = |member: &str| message.get(member).and_then(Value::as_bool) == Some(true);
        self.stays = is("doNotSwitch");
        self.stage = Stage::Asked;
        self.outputs.push_back(Output::Offer { name, channel: is("datachannel") });
    }

    fn handle_answer(&mut self, name: &str, message: &Map<String, Value>) {
        let Some(sdp) = description(message, "answer") else {
            return self
                .wrong("handleAnswer needs data.sdp.sdp with an SDP answer, and data.sdp.type \"answer\"");
        };
        if !self.takes(Role::Viewer, name) {
            return;
        }
        if self.stage != Stage::Offered {
            return self.wrong("there is no offer that this could answer");
        }
        self.outputs.push_back(Output::Answer(sdp));
    }

    /// Also the end of candidates, which has an empty one and often comes before our answer.
    fn handle_candidate(&mut self) {
        self.remote_candidates += 1;
        // The end of candidates, and each candidate for each section.
        if self.remote_candidates == (self.limits.sdp_candidates + 1) * self.limits.sdp_sections {
            let text =
                format!("more candidates than limits.sdp_candidates = {} allows", self.limits.sdp_candidates);
            self.end(Reason::limit("too_many_candidates", text));
        }
    }

    fn agreed(&mut self) {
        self.stage = Stage::Agreed;
        for candidate in std::mem::take(&mut self.candidates) {
            let text = says::candidate(&candidate, &self.mid);
            self.say(text);
        }
        // Once: each makes the client say `publish` or `subscribe`.
        self.say(says::status("NetConnection.ICE.TrickleCompleted"));
        if std::mem::take(&mut self.start_early) {
            self.outputs.push_back(Output::Start);
        }
        self.announce();
    }

    /// Tells the client that its data channel can be used from now on. It waits a second, says `switchChannel`, and closes
    /// the websocket.
    fn announce(&mut self) {
        if self.channel
            && self.socket
            && !self.stays
            && self.stage >= Stage::Agreed
            && self.stage < Stage::Over
        {
            self.say(says::channel_available());
        }
    }

    fn publish(&mut self, name: &str, message: &Map<String, Value>) {
        let period = message.get("keyFramerate").and_then(Value::as_u64);
        if self.role == Some(Role::Publisher)
            && let Some(ms) = period.filter(|ms| *ms >= 100)
        {
            self.outputs.push_back(Output::KeyFrames(Duration::from_millis(ms)));
        }
        self.start(Role::Publisher, name);
    }

    fn start(&mut self, role: Role, name: &str) {
        if !self.takes(role, name) {
            return;
        }
        match self.stage {
            Stage::Greeted => self.wrong("nothing was offered yet"),
            Stage::Asked | Stage::Offered => self.start_early = true,
            _ => self.outputs.push_back(Output::Start),
        }
    }

    fn started(&mut self, about: &About) {
        let (Some(role), Some(name)) = (self.role, &self.name) else { return };
        let code = match role {
            Role::Publisher => "NetStream.Publish.Start",
            Role::Viewer => "NetStream.Play.Start",
        };
        let text = says::status_with(code, &format!("{name} starting"));
        self.stage = Stage::Started;
        self.say(text);
        if role == Role::Viewer {
            self.say(says::metadata(about));
        }
    }

    /// Without the answer, `unpublish()` of clients hangs for ever; so it is given whether or not anything was published.
    fn unpublish(&mut self, name: &str) {
        self.say(says::status_with("NetStream.Unpublish.Success", &format!("{name} stopping")));
        if self.role == Some(Role::Publisher) && self.stage < Stage::Over {
            self.over(Reason::peer("unpublished", "the publisher stopped publishing"));
        }
    }

    fn switch(&mut self, way: Way, label: &str) {
        if way == Way::Socket && label == CHANNEL && self.channel {
            self.switched = true;
        } else {
            self.wrong("there is no open data channel of that label to switch to");
        }
    }

    fn send(&mut self, send: &Value) {
        let Some(method) = send.get("method").and_then(Value::as_str).filter(|m| !m.is_empty()) else {
            return self.wrong("send needs the name of a method as its member `method`");
        };
        if self.role != Some(Role::Publisher) || !(Stage::Agreed..Stage::Over).contains(&self.stage) {
            return self.wrong("only a publisher can send to the viewers");
        }
        self.data(method, send.get("data").unwrap_or(&Value::Null));
    }

    fn data(&mut self, method: &str, data: &Value) {
        match data::to_frame(method, data, &self.limits) {
            Some(payload) => self.outputs.push_back(Output::Data(payload)),
            None => self
                .wrong("the data is nested too deep, or too large (limits.amf_depth, limits.amf_properties)"),
        }
    }

    /// A publisher on standby: its viewers are told what is left.
    fn mute(&mut self, mute: &Value) {
        let is = |member: &str, before: bool| mute.get(member).and_then(Value::as_bool).unwrap_or(before);
        if self.role != Some(Role::Publisher) || !(Stage::Agreed..Stage::Over).contains(&self.stage) {
            return;
        }
        self.muted = (is("muteAudio", self.muted.0), is("muteVideo", self.muted.1));
        let mode = match self.muted {
            (false, false) => "Video/Audio",
            (true, false) => "Video",
            (false, true) => "Audio",
            (true, true) => "Empty",
        };
        self.data("onMetaData", &json!({ "streamingMode": mode }));
    }

    /// The client, or its line, is no more.
    fn end(&mut self, reason: Reason) {
        if self.stage < Stage::Over {
            self.fail(&reason);
            self.over(reason.clone());
        }
        if self.socket {
            self.outputs.push_back(Output::CloseSocket(reason));
            self.socket = false;
        }
    }

    fn over(&mut self, reason: Reason) {
        self.stage = Stage::Over;
        self.outputs.push_back(Output::End(reason));
    }

    fn described(&mut self, sdp: &str, candidates: &[String]) {
        if self.stage != Stage::Asked {
            return;
        }
        self.candidates = candidates.to_vec();
        let mid = sdp.lines().find_map(|l| l.strip_prefix("a=mid:"));
        mid.unwrap_or("0").trim().clone_into(&mut self.mid);
        if self.role == Some(Role::Publisher) {
            self.say(says::description("answer", sdp));
            self.agreed();
        } else {
            self.stage = Stage::Offered;
            self.say(says::description("offer", sdp));
        }
    }

    fn available(&mut self, available: bool) {
        if let Some(name) = self.name.clone().filter(|_| std::mem::take(&mut self.asking)) {
            self.say(says::available(&name, available));
        }
    }

    fn failed(&mut self, reason: &Reason) {
        self.fail(reason);
        if self.stage < Stage::Agreed {
            self.stage = Stage::Over;
        }
    }

    fn rejected(&mut self, reason: &Reason) {
        self.asking = false;
        self.say(says::rejected());
        self.fail(reason);
        self.stage = Stage::Over;
        if std::mem::take(&mut self.socket) {
            self.outputs.push_back(Output::CloseSocket(reason.clone()));
        }
    }

    fn waits_until(&self) -> Option<Time> {
        let idle = self.socket && matches!(self.stage, Stage::Greeted | Stage::Over);
        idle.then(|| self.opened + Duration::from_millis(self.limits.signalling_wait_ms))
    }
}

/// What a message shows of its client: a member `token`, or `username` and `password`.
fn shown(message: &Map<String, Value>) -> Option<Credentials> {
    let secret = |member: &str| message.get(member).and_then(Value::as_str).filter(|v| !v.is_empty());
    let credentials = Credentials {
        token: secret("token").map(Secret::new),
        password: secret("username").zip(secret("password")).map(|(u, p)| (u.to_owned(), Secret::new(p))),
        ..Credentials::default()
    };
    (!credentials.is_empty()).then_some(credentials)
}

/// `data.sdp` of a message, if it is of this kind.
fn description(message: &Map<String, Value>, kind: &str) -> Option<String> {
    let sdp = message.get("data")?.get("sdp")?;
    let fits = sdp.get("type").and_then(Value::as_str).is_none_or(|t| t == kind);
    sdp.get("sdp").and_then(Value::as_str).filter(|_| fits).map(str::to_owned)
}

impl Machine for Dialect {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        match input {
            Input::Tick => {
                if self.waits_until().is_some_and(|at| at <= now) {
                    let s = self.limits.signalling_wait_ms / 1000;
                    let text = format!("nothing was published or played on this websocket for {s} s");
                    self.end(Reason::limit("signalling_idle", text));
                }
            }
            Input::Opened => {
                self.socket = true;
                self.say(says::status("NetConnection.Connect.Success"));
            }
            Input::Text { way, text } => self.text(way, text, now),
            Input::SocketClosed => {
                self.socket = false;
                if !self.switched && self.stage < Stage::Over {
                    self.over(Reason::peer("client_gone", "the client closed its websocket"));
                }
            }
            Input::ChannelOpened => {
                self.channel = true;
                self.announce();
            }
            Input::ChannelClosed => {
                self.channel = false;
                if self.is_gone() && !self.borrowed && self.stage < Stage::Over {
                    self.over(Reason::peer("client_gone", "the client closed its data channel"));
                }
            }
            Input::Available(available) => self.available(available),
            Input::Described { sdp, candidates } => self.described(sdp, candidates),
            Input::AnswerTaken if self.stage == Stage::Offered => self.agreed(),
            Input::AnswerTaken => {}
            Input::Started(about) => self.started(&about),
            Input::Switched(result) => self.switched(result),
            Input::Failed(reason) => self.failed(reason),
            Input::Rejected(reason) => self.rejected(reason),
            Input::Data(payload) => {
                if self.role == Some(Role::Viewer)
                    && let Some((method, data)) = data::of_frame(payload, &self.limits)
                {
                    let text = says::sent(&method, &data, self.name.as_deref().unwrap_or_default());
                    self.say(text);
                }
            }
            Input::Unpublished if self.role == Some(Role::Viewer) => {
                self.say(says::status("NetStream.Play.UnpublishNotify"));
            }
            Input::Unpublished => {}
            Input::Ended(reason) if self.stage < Stage::Over => {
                self.fail(reason);
                self.stage = Stage::Over;
                self.say(says::status("NetConnection.Connect.Closed"));
                if std::mem::take(&mut self.socket) {
                    self.outputs.push_back(Output::CloseSocket(reason.clone()));
                }
            }
            Input::Ended(_) => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        self.waits_until().map(|at| Deadline::new(at, "a websocket without a session"))
    }
}

/// The JSON in a message, if it is some and has no more than `most` values: one of two bytes takes as much memory as one of
/// thirty.
fn read(text: &str, most: usize) -> Option<Value> {
    let (mut values, mut quoted, mut escaped) = (1usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    if values > most { None } else { serde_json::from_str(text).ok() }
}
