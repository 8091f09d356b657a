//! The commands that encoders and players send (Adobe RTMP 1.0, section 7.2, and what Flash Media Server taught
//! them besides), and what each does.

use super::roles::Role;
use super::{Output, Peer, Server, greet};
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::media::key::StreamKey;
use crate::rtmp::command::{Command, status};
use crate::rtmp::negotiation::{Said, ours};
use crate::time::Time;
use crate::wire::amf0::Value;

/// Splits `live/demo?token=x` at the question mark.
fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

fn join_queries(a: &str, b: &str) -> String {
    match (a.is_empty(), b.is_empty()) {
        (_, true) => a.to_owned(),
        (true, false) => b.to_owned(),
        _ => format!("{a}&{b}"),
    }
}

/// What a client shows in `connect` itself, as a query: `username`, `password` and `token` among its properties, or the first
/// arguments after them, user and password, or a token.
fn shown(command: &Command) -> String {
    let property =
        |name: &str| command.object.get(name).and_then(Value::as_str).map(|v| (name.to_owned(), v));
    let mut pairs: Vec<(String, &str)> =
        ["username", "password", "token"].into_iter().filter_map(property).collect();
    match (command.text(0), command.text(1)) {
        (Some(user), Some(password)) => {
            pairs.extend([("username".to_owned(), user), ("password".to_owned(), password)]);
        }
        (Some(token), None) => pairs.push(("token".to_owned(), token)),
        (None, _) => {}
    }
    let encoded = pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| format!("{n}={}", encode(v)));
    encoded.collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Server {
    /// Does one command. `stream` is the message stream that it came on.
    pub(super) fn command(&mut self, command: &Command, stream: u32, now: Time) -> Result<(), Reason> {
        let name = command.name.as_str();
        if self.peer.is_none() && name != "connect" {
            return Err(Reason::peer(
                "rtmp_not_connected",
                format!("the peer sent the command {} before connect", quote(name)),
            ));
        }
        match name {
            "connect" => self.connect(command, now),
            "createStream" => self.create_stream(command),
            "publish" => self.ask(command, stream, true, now),
            "play" => self.ask(command, stream, false, now),
            "releaseStream" | "_checkbw" | "getStreamLength" | "setPlaylist" => {
                let value = if name == "getStreamLength" { Value::Number(0.0) } else { Value::Undefined };
                self.answer(command, value);
                Ok(())
            }
            "FCPublish" | "FCSubscribe" | "FCUnpublish" | "FCUnsubscribe" => {
                self.fc(command, name, now);
                Ok(())
            }
            "deleteStream" => {
                let id = command.arg(0).and_then(Value::as_number).unwrap_or(0.0) as u32;
                self.leave(id, now);
                self.streams.remove(&id);
                Ok(())
            }
            "closeStream" => {
                self.leave(stream, now);
                Ok(())
            }
            "pause" | "pauseRaw" => {
                self.pause(command, stream);
                Ok(())
            }
            "receiveAudio" | "receiveVideo" => {
                let on = command.arg(0).and_then(Value::as_bool).unwrap_or(true);
                if let Some(player) = self.roles.player(stream) {
                    if name == "receiveAudio" {
                        player.audio = on;
                    } else {
                        player.video = on;
                    }
                }
                Ok(())
            }
            "seek" => {
                let text = "a live stream cannot be sought";
                self.writer.on_status(stream, "error", "NetStream.Seek.Failed", text);
                Ok(())
            }
            "play2" => {
                let text = "play2 (switching between renditions) is not supported; use play";
                self.writer.on_status(stream, "error", "NetStream.Play.Failed", text);
                Ok(())
            }
            // Answers to what we never asked, and pings of old encoders.
            "_result" | "_error" | "onStatus" | "onBWDone" | "_onbwdone" | "_onbwcheck" => Ok(()),
            _ => {
                self.log(Level::Debug, format!("the peer sent the unknown command {}", quote(name)));
                if command.transaction != 0.0 {
                    let text = format!("the command {} is not known here", quote(name));
                    self.writer.error(command.transaction, "NetConnection.Call.Failed", &text);
                }
                Ok(())
            }
        }
    }

    fn answer(&mut self, command: &Command, value: Value) {
        if command.transaction != 0.0 {
            self.writer.result(command.transaction, [Value::Null, value]);
        }
    }

    fn connect(&mut self, command: &Command, now: Time) -> Result<(), Reason> {
        if self.peer.is_some() {
            self.writer.error(command.transaction, "NetConnection.Connect.Rejected", "connected already");
            return Ok(());
        }
        let text = |name: &str| command.object.get(name).and_then(Value::as_str).unwrap_or_default();
        let (app, app_query) = split_query(text("app"));
        let (_, url_query) = split_query(text("tcUrl"));
        // Clients repeat the query of the URL in the app, or leave it out of one of the two.
        let query = if app_query.is_empty() { url_query } else { app_query };
        let path = app.trim_matches('/').to_owned();
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let query = join_queries(query, &shown(command));
        let peer = Peer {
            app: app.trim_matches('/').to_owned(),
            path,
            query,
            flash_ver: text("flashVer").to_owned(),
            via: text("via").chars().take(512).collect(),
        };
        greet(&mut self.writer);
        if peer.app.is_empty() {
            let text = "the URL names no app; it must look like rtmp://host/live/name";
            self.writer.error(command.transaction, "NetConnection.Connect.InvalidApp", text);
            self.close(Reason::peer("rtmp_invalid_app", text), now);
            return Ok(());
        }
        self.peer = Some(peer);
        self.said = Said::read(&command.object);
        let properties = Value::object([
            ("fmsVer", Value::string("FMS/3,5,7,7009")),
            ("capabilities", Value::Number(31.0)),
            ("mode", Value::Number(1.0)),
        ]);
        // Whatever the peer asked for: commands go in AMF0, which every peer can read.
        let mut more = vec![("objectEncoding", Value::Number(0.0))];
        if self.said.enhanced {
            more.extend(ours());
        }
        let info = status("status", "NetConnection.Connect.Success", "Connection succeeded.", &more);
        self.writer.result(command.transaction, [properties, info]);
        let text = format!("connected: {}", self.peer_description());
        self.log(Level::Debug, text);
        Ok(())
    }

    fn create_stream(&mut self, command: &Command) -> Result<(), Reason> {
        if self.streams.len() >= self.limits.rtmp_streams {
            return Err(Reason::limit(
                "rtmp_streams",
                format!("more than {} message streams (limits.rtmp_streams)", self.limits.rtmp_streams),
            ));
        }
        // A connection that creates, deletes and creates again gets its first number again: it is the one whose
        // renderings are shared.
        let id = (1..=u32::MAX).find(|id| !self.streams.contains(id) && !self.roles.has(*id)).unwrap_or(1);
        self.streams.insert(id);
        self.answer(command, Value::Number(f64::from(id)));
        Ok(())
    }

    /// `publish` and `play`: the node decides.
    fn ask(&mut self, command: &Command, stream: u32, publish: bool, now: Time) -> Result<(), Reason> {
        let code = if publish { "NetStream.Publish.BadName" } else { "NetStream.Play.Failed" };
        let verb = if publish { "publish" } else { "play" };
        if !self.streams.contains(&stream) {
            let text = format!("{verb} on message stream {stream}, which createStream did not make");
            self.writer.on_status(stream, "error", code, &text);
            return Ok(());
        }
        if self.roles.has(stream) {
            let text =
                format!("message stream {stream} publishes or plays already; createStream makes another");
            self.writer.on_status(stream, "error", code, &text);
            return Ok(());
        }
        let (name, name_query) = split_query(command.text(0).unwrap_or_default());
        let name = name.strip_prefix("mp4:").or_else(|| name.strip_prefix("flv:")).unwrap_or(name);
        let peer = self.peer.as_ref();
        let app = peer.map_or("", |p| p.app.as_str());
        let query = join_queries(peer.map_or("", |p| p.query.as_str()), name_query);
        if name.is_empty() {
            let text = "the URL names no stream; it must look like rtmp://host/live/name";
            self.writer.on_status(stream, "error", code, text);
            self.misnamed(Reason::peer("stream_name", text), now);
            return Ok(());
        }
        let key = match StreamKey::join(app, name) {
            Ok(key) => key,
            Err(text) => {
                self.writer.on_status(stream, "error", code, &text);
                self.misnamed(Reason::peer("stream_name", text), now);
                return Ok(());
            }
        };
        self.said.query(&query);
        if publish && let Some(how @ ("record" | "append")) = command.text(1) {
            self.log(Level::Info, format!("the publisher asked to {how}; it is published live"));
        }
        self.think(stream, key.clone(), publish);
        self.events.push_back(if publish {
            Output::PublishRequested { stream, key, query }
        } else {
            Output::PlayRequested { stream, key, query }
        });
        Ok(())
    }

    /// A name that no stream can have ends the connection, unless others are on it.
    fn misnamed(&mut self, reason: Reason, now: Time) {
        if self.roles.is_empty() {
            self.close(reason, now);
        }
    }

    /// The commands that Flash Media Live Encoder and its heirs put around publish and play.
    fn fc(&mut self, command: &Command, name: &str, now: Time) {
        self.answer(command, Value::Undefined);
        let (reply, code) = match name {
            "FCPublish" => ("onFCPublish", "NetStream.Publish.Start"),
            "FCSubscribe" => ("onFCSubscribe", "NetStream.Play.Start"),
            "FCUnpublish" => ("onFCUnpublish", "NetStream.Unpublish.Success"),
            _ => ("onFCUnsubscribe", "NetStream.Play.Stop"),
        };
        let info = status("status", code, command.text(0).unwrap_or_default(), &[]);
        self.writer.command(0, &[Value::string(reply), Value::Number(0.0), Value::Null, info]);
        if name == "FCUnpublish"
            && let Some(stream) = self.roles.publishes(split_query(command.text(0).unwrap_or_default()).0)
        {
            self.leave(stream, now);
        }
    }

    /// Ends the publish or play on a message stream, if there is one.
    pub(super) fn leave(&mut self, id: u32, now: Time) {
        let code = match self.roles.0.get_mut(id) {
            Some(Role::Publisher { .. }) => "NetStream.Unpublish.Success",
            Some(Role::Player(_)) => "NetStream.Play.Stop",
            Some(Role::Asked { left, .. }) => {
                *left = true;
                return;
            }
            None => return,
        };
        self.writer.on_status(id, "status", code, "Ended.");
        self.end_role(id, now);
    }

    fn pause(&mut self, command: &Command, stream: u32) {
        let on = command.arg(0).and_then(Value::as_bool).unwrap_or(true);
        if let Some(player) = self.roles.player(stream) {
            player.paused = on;
            let (code, text) = if on {
                ("NetStream.Pause.Notify", "Paused.")
            } else {
                ("NetStream.Unpause.Notify", "Goes on at the next key frame.")
            };
            self.writer.on_status(stream, "status", code, text);
        }
    }
}
