//! How a call is signalled in the stream-manager dialect: over a websocket at the node or through the manager, and over the
//! data channel once that stands. What clients say, and in which order, is in the project's design; none of it is taken
//! from a client's code.

use crate::world::actors::socket::{Heard, Line};
use crate::world::actors::{Conn, In, Out};
use proto_core::time::Time;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// The label of the data channel.
pub(super) const CHANNEL: &str = proto_core::signalling::CHANNEL;
/// The number of the client's only TCP connection.
const CONN: Conn = 0;
/// How long a client waits before it goes over to the data channel.
const SWITCH: Duration = Duration::from_secs(1);

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make an offer and [`Dialect::offer`] it.
    MakeOffer,
    /// Take the node's offer, and [`Dialect::answer`] it.
    Offered(String),
    /// Take the node's answer.
    Answered(String),
    /// Say this over the data channel.
    Say(String),
    /// The call is over, and why.
    Over(String),
}

/// The signalling of one call.
pub(super) struct Dialect {
    line: Line,
    name: String,
    publishes: bool,
    /// When it goes over to the data channel.
    switches: Option<Time>,
    switched: bool,
    over: bool,
    /// What came of the last switch to another stream.
    pub(super) called: Option<Result<String, String>>,
    /// What to do next.
    pub(super) steps: VecDeque<Step>,
}

impl Dialect {
    /// A call of `stream` (`app/name`), the `nth` of its client. `managed`: through the manager at `to`, which chooses the
    /// node.
    pub(super) fn new(to: SocketAddr, stream: &str, publishes: bool, managed: bool, nth: u64) -> Dialect {
        let (app, name) = stream.split_once('/').unwrap_or(("live", stream));
        let id = if publishes { name.to_owned() } else { format!("subscriber-{nth}") };
        let path = match (managed, publishes) {
            (false, _) => format!("/{app}/?id={id}"),
            (true, true) => format!("/as/v1/proxy/ws/publish/{stream}?id={id}&nodeGroup=default"),
            (true, false) => format!("/as/v1/proxy/ws/subscribe/{stream}?id={id}&nodeGroup=default"),
        };
        Dialect {
            line: Line::new(CONN, to, path),
            name: name.to_owned(),
            publishes,
            switches: None,
            switched: false,
            over: false,
            called: None,
            steps: VecDeque::new(),
        }
    }

    fn say(&mut self, message: &Value, now: Time) {
        let text = message.to_string();
        match self.switched {
            true => self.steps.push_back(Step::Say(text)),
            false => self.line.send(&text, now),
        }
    }

    fn describe(&mut self, member: &str, kind: &str, sdp: &str, now: Time) {
        let name = self.name.clone();
        self.say(&json!({ member: name, "data": { "sdp": { "type": kind, "sdp": sdp } } }), now);
    }

    pub(super) fn offer(&mut self, sdp: &str, now: Time) {
        self.describe("handleOffer", "offer", sdp, now);
    }

    pub(super) fn answer(&mut self, sdp: &str, now: Time) {
        self.describe("handleAnswer", "answer", sdp, now);
    }

    /// The publisher sends nothing for a while, or goes on.
    pub(super) fn mute(&mut self, muted: bool, now: Time) {
        self.say(&json!({ "mute": { "muteAudio": muted, "muteVideo": muted } }), now);
    }

    /// A viewer wants to go on with another stream.
    pub(super) fn switch(&mut self, path: &str, now: Time) {
        self.called = None;
        let call = json!({ "method": "switchStreams", "arguments": [{ "path": path }] });
        self.say(&json!({ "callAdapter": call, "id": "1", "async": true }), now);
    }

    /// Takes what the client was told.
    pub(super) fn on(&mut self, input: &In<'_>, now: Time) {
        self.line.on(input, now);
        if self.switches.is_some_and(|at| at <= now) {
            self.switches = None;
            self.say(&json!({ "switchChannel": CHANNEL }), now);
            self.switched = true;
            self.line.close(now);
        }
        while let Some(heard) = self.line.heard.pop_front() {
            match heard {
                Heard::Opened | Heard::Ended(_) => {}
                Heard::Text(text) => self.text(&text, now),
                Heard::Closed(_) if self.switched => {}
                Heard::Closed(why) => self.end(format!("the websocket is over: {why}")),
            }
        }
    }

    fn end(&mut self, why: String) {
        if !std::mem::replace(&mut self.over, true) {
            self.steps.push_back(Step::Over(why));
        }
    }

    /// Takes a message, over whatever it came.
    pub(super) fn text(&mut self, text: &str, now: Time) {
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            return self.end(format!("the node says what is no JSON: {text}"));
        };
        let name = self.name.clone();
        if let Some(there) = message["isAvailable"].as_bool() {
            match (self.publishes, there) {
                (true, true) => self.end("the name is taken".to_owned()),
                (true, false) => self.steps.push_back(Step::MakeOffer),
                (false, false) => self.end("the stream is not live".to_owned()),
                (false, true) => {
                    self.say(
                        &json!({ "requestOffer": name, "datachannel": true, "doNotSwitch": false }),
                        now,
                    );
                }
            }
            return;
        }
        let data = &message["data"];
        if message["id"] == "1" {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let refused = message.get("error").map(text);
            self.called = Some(refused.map_or_else(|| Ok(text(&data["message"])), Err));
            return;
        }
        if let Some(sdp) = data["sdp"]["sdp"].as_str() {
            self.steps.push_back(match self.publishes {
                true => Step::Answered(sdp.to_owned()),
                false => Step::Offered(sdp.to_owned()),
            });
        }
        if data["type"] == "error" {
            self.end(format!("refused: {}", data["message"].as_str().unwrap_or_default()));
        }
        match data["code"].as_str() {
            Some("NetConnection.Connect.Success") if self.publishes => {
                self.say(&json!({ "isAvailable": name, "bundle": true }), now);
            }
            Some("NetConnection.Connect.Success") => self.say(&json!({ "isAvailable": name }), now),
            Some("NetConnection.ICE.TrickleCompleted") => {
                let word = if self.publishes { "publish" } else { "subscribe" };
                self.say(&json!({ word: name }), now);
            }
            Some("NetConnection.DataChannel.Available") => self.switches = Some(now + SWITCH),
            Some("NetConnection.Connect.Closed") => self.end("the node closed the call".to_owned()),
            _ => {}
        }
    }

    /// Says goodbye: a publisher says that its stream is over. Whether the websocket is still there to say it on.
    pub(super) fn leave(&mut self, now: Time) -> bool {
        (self.over, self.switches) = (true, None);
        if self.publishes {
            let name = self.name.clone();
            self.say(&json!({ "unpublish": name }), now);
        }
        if !self.switched {
            self.line.close(now);
        }
        !self.switched
    }

    /// Whether the call ends with its websocket.
    pub(super) fn needs_socket(&self) -> bool {
        !self.switched
    }

    /// Goes without a word.
    pub(super) fn drop(&mut self) {
        self.over = true;
        self.line.drop();
    }

    pub(super) fn poll(&mut self) -> Option<Out> {
        self.line.out.pop_front()
    }

    pub(super) fn wake(&self) -> Option<Time> {
        [self.line.wake(), self.switches].into_iter().flatten().min()
    }
}
