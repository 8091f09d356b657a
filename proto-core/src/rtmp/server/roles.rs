//! What the message streams of a connection do: publish, play, or wait for the node's answer. One's end is not the others'.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Output, Phase, Server};
use crate::error::Reason;
use crate::few::Few;
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::media::key::StreamKey;
use crate::media::track::Codec;
use crate::rtmp::command::status;
use crate::rtmp::egress::{Alike, Form, Player, SHARED_STREAM};
use crate::rtmp::ingest::{Demuxer, Taken};
use crate::time::Time;
use crate::wire::amf0::Value;
use crate::wire::rtmp_message::{Message, event};
use bytes::Bytes;

/// What a message stream does.
#[derive(Debug)]
pub(super) enum Role {
    /// The node has been asked.
    Asked {
        key: StreamKey,
        publish: bool,
        /// Media that came meanwhile, where the connection is read on for the sake of the others on it.
        held: Vec<Message>,
        /// Bytes of it.
        bytes: usize,
        /// The peer has ended it since; it hears so after the answer, as it would if it had waited for that.
        left: bool,
    },
    Publisher {
        key: StreamKey,
        demuxer: Box<Demuxer>,
    },
    Player(Box<Player>),
}

/// All that do something, by message stream.
#[derive(Debug, Default)]
pub(super) struct Roles(pub(super) Few<u32, Role>);

impl Roles {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, stream: u32) -> bool {
        self.0.has(stream)
    }

    /// How many publish or play.
    pub(super) fn accepted(&self) -> usize {
        self.0.iter().filter(|(_, r)| !matches!(r, Role::Asked { .. })).count()
    }

    pub(super) fn plays(&self) -> bool {
        self.0.iter().any(|(_, r)| matches!(r, Role::Player(_)))
    }

    /// The player that a command on this message stream is for: its own, or the only one (some clients use stream 0).
    pub(super) fn player(&mut self, stream: u32) -> Option<&mut Player> {
        let only = self.0.len() == 1;
        let own = |(n, _): &(u32, &mut Role)| *n == stream || only;
        match self.0.iter_mut().find(own) {
            Some((_, Role::Player(player))) => Some(player),
            _ => None,
        }
    }

    /// The message stream that publishes this name of the app: Flash Media Live Encoder ends it by name, on stream 0.
    pub(super) fn publishes(&self, name: &str) -> Option<u32> {
        let mut all = self.0.iter().filter_map(|(n, role)| match role {
            Role::Publisher { key, .. } => Some((n, key.to_string())),
            _ => None,
        });
        let ends = |key: &str| key.strip_suffix(name).is_some_and(|app| app.ends_with('/'));
        if self.0.len() == 1 { all.next() } else { all.find(|(_, key)| ends(key)) }.map(|(n, _)| n)
    }
}

/// What the log says of a player that will miss a track.
fn not_taken(codec: Codec) -> String {
    let (what, key) = if codec.is_video() { ("pictures", "video") } else { ("sound", "audio") };
    let name = codec.name();
    let word = name.replace('.', "").to_lowercase();
    format!(
        "the player gets no {what}: it is {name}, and the player did not say that it takes {name} over RTMP (Enhanced \
         RTMP, in ffmpeg -rtmp_enhanced_codecs); if it does, add ?{key}={word} to the stream's name, or {}",
        codec.remedy()
    )
}

impl Server {
    /// The node is asked whether a message stream may publish or play.
    pub(super) fn think(&mut self, stream: u32, key: StreamKey, publish: bool) {
        if self.roles.is_empty() {
            self.thinks = Some(stream);
            self.events.push_back(Output::Reading(false));
        }
        self.roles.0.insert(stream, Role::Asked { key, publish, held: Vec::new(), bytes: 0, left: false });
    }

    /// Ends what a message stream does and tells the node, once.
    pub(super) fn end_role(&mut self, stream: u32, now: Time) {
        match self.roles.0.remove(stream) {
            None => return,
            Some(Role::Asked { publish: true, .. } | Role::Publisher { .. }) => {
                self.events.push_back(Output::Unpublished(stream));
            }
            Some(Role::Asked { publish: false, .. } | Role::Player(_)) => {
                self.events.push_back(Output::Stopped(stream));
            }
        }
        self.role_ended(now);
    }

    fn role_ended(&mut self, now: Time) {
        self.since = now;
        if self.roles.accepted() == 0 {
            self.reader.set_partial_cap(self.limits.rtmp_partial_bytes_before);
        }
    }

    /// Ends all that is done here.
    pub(super) fn end_roles(&mut self, now: Time) {
        while let Some(stream) = self.roles.0.first() {
            self.end_role(stream, now);
        }
        self.thinks = None;
    }

    /// What a message stream did is over, and the peer was told why: the connection ends with its last.
    fn over(&mut self, reason: Reason, now: Time) {
        if self.roles.is_empty() {
            self.close(reason, now);
        } else {
            self.flush();
        }
    }

    pub(super) fn media(&mut self, message: Message, now: Time) -> Result<(), Reason> {
        let (stream, most) = (message.stream, self.may_hold());
        let taken = match self.roles.0.get_mut(stream) {
            Some(Role::Publisher { demuxer, .. }) => demuxer.take(&message, &self.limits),
            Some(Role::Asked { publish: true, held, bytes, left: false, .. }) => {
                *bytes = bytes.saturating_add(message.payload.len());
                if *bytes <= most {
                    held.push(message);
                    return Ok(());
                }
                let text = "the peer sent media before its publish was answered, more than may be held";
                Err(Reason::limit("rtmp_early_media", text))
            }
            _ => {
                self.drop_one("not_publishing", "media on a message stream that does not publish");
                return Ok(());
            }
        };
        match taken {
            Ok(Taken::Media(items)) => {
                self.events.extend(items.into_iter().map(|item| Output::Media(stream, item)));
            }
            Ok(Taken::Part(items, why)) => {
                self.events.extend(items.into_iter().map(|item| Output::Media(stream, item)));
                self.drop_one(why, why);
            }
            Ok(Taken::Dropped(why)) => self.drop_one(why, why),
            Err(reason) => {
                self.writer.on_status(stream, "error", "NetStream.Publish.Rejected", &reason.text);
                if self.roles.0.len() == 1 {
                    self.close(reason, now);
                } else {
                    self.log(
                        Level::Warn,
                        format!("the publisher on message stream {stream} is ended: {reason}"),
                    );
                    self.end_role(stream, now);
                }
            }
        }
        Ok(())
    }

    /// What the node answered; then what was held meanwhile.
    pub(super) fn answered(&mut self, stream: u32, accepted: Result<(), Reason>, publish: bool, now: Time) {
        let (key, early, left) = match self.roles.0.get_mut(stream) {
            Some(Role::Asked { key, publish: p, held, left, .. }) if *p == publish => {
                (key.clone(), std::mem::take(held), *left)
            }
            // The peer has left this publish or play already.
            _ => return,
        };
        match (accepted, publish) {
            (Ok(()), true) => {
                let text = format!("{key} is now published.");
                self.roles.0.insert(stream, Role::Publisher { key, demuxer: Box::default() });
                self.reader.set_partial_cap(self.limits.rtmp_partial_bytes);
                self.writer.user_control(event::STREAM_BEGIN, stream);
                self.writer.on_status(stream, "status", "NetStream.Publish.Start", &text);
            }
            (Ok(()), false) => {
                let player =
                    Box::new(Player::new(Form::Chunks(stream), self.said.takes, self.said.multitrack));
                self.roles.0.insert(stream, Role::Player(player));
                self.writer.user_control(event::STREAM_BEGIN, stream);
                let text = format!("Playing and resetting {key}.");
                self.writer.on_status(stream, "status", "NetStream.Play.Reset", &text);
                let text = format!("Started playing {key}.");
                self.writer.on_status(stream, "status", "NetStream.Play.Start", &text);
                let yes = Value::Boolean(true);
                self.writer.data(stream, &[Value::string("|RtmpSampleAccess"), yes.clone(), yes]);
            }
            (Err(reason), _) => {
                let code = match (publish, reason.code) {
                    // Encoders read it as "the name is taken".
                    (true, "name_busy" | "takeover_limited") => "NetStream.Publish.BadName",
                    (true, _) => "NetStream.Publish.Denied",
                    (false, "unauthorized" | "forbidden" | "auth_wait") => "NetStream.Play.Failed",
                    (false, _) => "NetStream.Play.StreamNotFound",
                };
                self.writer.on_status(stream, "error", code, &reason.text);
                // The node knows that it refused; it need not be told that the request is over.
                self.roles.0.remove(stream);
                self.role_ended(now);
                return self.over(reason, now);
            }
        }
        self.ever_accepted = true;
        self.commands = 0;
        self.flush();
        for message in early {
            if let Err(reason) = self.media(message, now) {
                self.close(reason, now);
            }
        }
        if left {
            self.leave(stream, now);
            self.flush();
        }
        if self.thinks == Some(stream) {
            self.thinks = None;
            self.events.push_back(Output::Reading(true));
            let held = std::mem::take(&mut self.held);
            self.received(&held, now);
        }
    }

    pub(super) fn deliver(&mut self, stream: u32, delivery: &Delivery) {
        let Some(Role::Player(player)) = self.roles.0.get_mut(stream) else { return };
        let rendered = player.deliver(delivery);
        if let Some(values) = rendered.metadata {
            self.writer.data(stream, &values);
            self.flush();
        }
        for bytes in rendered.headers {
            self.outbox.push(bytes);
        }
        self.outbox.push(rendered.frame);
        if let Some(codec) = rendered.refused {
            self.log(Level::Info, not_taken(codec));
        }
        if rendered.left_out {
            let count = self.drops.entry("player_asked").or_default();
            *count = count.saturating_add(1);
        }
    }

    /// What a connection that does nothing but play one stream has in common with others that are sent the same bytes, and how many
    /// bytes the driver takes of it now. `None` while anything waits or is special.
    pub fn in_step(&self) -> Option<(Alike, usize)> {
        let idle = matches!(self.phase, Phase::Open) && self.outbox.is_empty() && self.events.is_empty();
        match self.roles.0.get(SHARED_STREAM) {
            Some(Role::Player(player)) if idle && self.roles.0.len() == 1 => {
                Some((player.alike()?, self.outbox.credit()))
            }
            _ => None,
        }
    }

    /// The bytes of a frame for all who are alike ([`Server::in_step`]); nothing is kept to be sent here. Empty where they get
    /// none of it.
    pub fn render(&mut self, delivery: &Delivery) -> Bytes {
        match self.roles.0.get_mut(SHARED_STREAM) {
            Some(Role::Player(player)) => player.deliver(delivery).frame,
            _ => Bytes::new(),
        }
    }

    pub(super) fn stream_event(&mut self, stream: u32, event: u16) {
        if let Some(Role::Player(_)) = self.roles.0.get(stream) {
            self.writer.user_control(event, stream);
            self.flush();
        }
    }

    /// What a message stream plays is over.
    pub(super) fn ended(&mut self, stream: u32, reason: Reason, now: Time) {
        if let Some(Role::Player(_)) = self.roles.0.get(stream) {
            self.writer.on_status(stream, "status", "NetStream.Play.UnpublishNotify", &reason.text);
            self.writer.user_control(event::STREAM_EOF, stream);
        }
        self.end_role(stream, now);
        self.over(reason, now);
    }

    /// The node wants a message stream to end.
    pub(super) fn ended_by_us(&mut self, stream: u32, reason: Reason, now: Time) {
        let code = match self.roles.0.get(stream) {
            None => return,
            Some(_) if self.roles.0.len() == 1 => return self.say_goodbye(reason, now),
            Some(Role::Asked { publish: true, .. } | Role::Publisher { .. }) => "NetStream.Publish.Denied",
            Some(Role::Asked { .. } | Role::Player(_)) => "NetStream.Play.Failed",
        };
        self.writer.on_status(stream, "error", code, &reason.text);
        self.end_role(stream, now);
        self.over(reason, now);
    }

    /// Ends the connection, and says why.
    pub(super) fn say_goodbye(&mut self, reason: Reason, now: Time) {
        if matches!(self.phase, Phase::Open) && self.peer.is_some() {
            let info = status("error", "NetConnection.Connect.Closed", &reason.text, &[]);
            let name = Value::string("onStatus");
            self.writer.command(0, &[name, Value::Number(0.0), Value::Null, info]);
        }
        self.close(reason, now);
    }
}
