//! What a client sends and receives once the server lets it, and how that ends.

use super::{Client, Output, Player, SET_UP, SILENT, STUCK, Step, Task};
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::media::frame::Ingest;
use crate::media::track::TrackId;
use crate::rtmp::egress::{Form, frame_message, metadata, sequence_header};
use crate::rtmp::ingest::Taken;
use crate::time::Time;
use crate::wire::amf0::Value;
use crate::wire::rtmp_message::{Message, kind, split_aggregate};

/// The first bytes of data messages that servers make themselves: AMF0 texts.
const OF_SERVERS: [&[u8]; 2] = [b"\x02\x00\x11|RtmpSampleAccess", b"\x02\x00\x08onStatus"];

impl Client {
    /// By this a server says that it begins.
    pub(super) fn begins(&self) -> &'static str {
        match self.task {
            Task::Publish => "NetStream.Publish.Start",
            Task::Play => "NetStream.Play.Start",
        }
    }

    pub(super) fn ready(&mut self, now: Time) {
        self.step = Step::Ready;
        self.media_at = now;
        if self.task == Task::Publish {
            self.player = Some(Box::new(Player::new(Form::Chunks(self.stream), self.takes, false)));
        }
        self.events.push_back(Output::Ready);
    }

    /// Media of the server.
    pub(super) fn played(&mut self, message: &Message, now: Time) -> Result<(), Reason> {
        match message.kind {
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => self.play_one(message, now),
            kind::AGGREGATE => {
                for inner in split_aggregate(message) {
                    if matches!(inner.kind, kind::AUDIO | kind::VIDEO | kind::DATA) && self.end.is_none() {
                        self.play_one(&inner, now)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn play_one(&mut self, message: &Message, now: Time) -> Result<(), Reason> {
        if !matches!(self.step, Step::Asking | Step::Ready) || message.stream != self.stream {
            return Ok(());
        }
        let media = matches!(message.kind, kind::AUDIO | kind::VIDEO);
        // What servers say to players, not what the publisher says to viewers.
        let data = message.payload.strip_prefix(&[0]).filter(|_| message.kind == kind::DATA_AMF3);
        let data = data.unwrap_or(&message.payload);
        if !media && OF_SERVERS.iter().any(|name| data.starts_with(name)) {
            return Ok(());
        }
        if media {
            // Some servers play without a word about it.
            if self.step == Step::Asking {
                self.ready(now);
            }
            self.media_at = now;
        }
        let (items, left_out) = match self.demuxer.take(message, &self.limits)? {
            Taken::Media(items) => (items, None),
            Taken::Dropped(why) => (Vec::new(), Some(why)),
            Taken::Part(items, why) => (items, Some(why)),
        };
        if self.step == Step::Ready {
            self.events.extend(items.into_iter().map(Output::Media));
        }
        if let Some(why) = left_out {
            let count = self.drops.entry(why).or_default();
            *count = count.saturating_add(1);
            if *count == 1 {
                let text = format!("left out: {why} (further ones are only counted)");
                self.events.push_back(Output::Log(Level::Warn, text));
            }
        }
        Ok(())
    }

    /// The next item of the stream that is sent.
    pub(super) fn media(&mut self, item: &Ingest) {
        // The first of a kind is sent as all servers know it.
        let number = |track: TrackId| Some(track.nth()).filter(|n| *n > 0);
        let message = match item {
            Ingest::Config { track, params } => {
                self.tracks.insert(*track, params.clone());
                let about = metadata(self.tracks.values());
                self.set_data_frame(about);
                sequence_header(params, number(*track), 0, self.stream)
            }
            Ingest::Frame(f) => {
                let params = self.tracks.get(&f.track);
                frame_message(params, (f.kind, number(f.track)), &f.payload, f.dts, f.pts, self.stream)
            }
        };
        if let Some(m) = message {
            self.writer.message(m.csid, m.timestamp, m.kind, m.stream, &m.payload);
        }
        self.flush();
    }

    fn set_data_frame(&mut self, about: [Value; 2]) {
        let mut values = vec![Value::string("@setDataFrame")];
        values.extend(about);
        self.writer.data(self.stream, &values);
    }

    /// The same out of the hub.
    pub(super) fn deliver(&mut self, delivery: &Delivery) {
        let Some(player) = &mut self.player else { return };
        let rendered = player.deliver(delivery);
        if let Some(about) = rendered.metadata {
            self.set_data_frame(about);
            self.flush();
        }
        for bytes in rendered.headers {
            self.outbox.push(bytes);
        }
        self.outbox.push(rendered.frame);
        if let Some(codec) = rendered.refused {
            let what = if codec.is_video() { "pictures" } else { "sound" };
            let text = format!(
                "the server gets no {what}: it is {}, and the server did not say that it takes that (Enhanced RTMP); {}",
                codec.name(),
                codec.remedy()
            );
            self.events.push_back(Output::Log(Level::Warn, text));
        }
        if rendered.left_out {
            let count = self.drops.entry("not_taken").or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Says that nothing more comes, and closes.
    pub(super) fn finish(&mut self, reason: Reason, now: Time) {
        if self.step == Step::Ready {
            if self.task == Task::Publish {
                let name = Value::string(self.target.stream.as_str());
                let id = Value::Number(6.0);
                self.writer.command(0, &[Value::string("FCUnpublish"), id, Value::Null, name]);
            }
            let stream = Value::Number(f64::from(self.stream));
            let id = Value::Number(7.0);
            self.writer.command(0, &[Value::string("deleteStream"), id, Value::Null, stream]);
        }
        self.close(reason, now);
    }

    /// Why a deadline ends the session.
    pub(super) fn late(&self, why: &'static str) -> Reason {
        let limits = &self.limits;
        match why {
            SET_UP => {
                let text = format!(
                    "the server did not let us begin within {} ms (limits.remote_setup_ms), while {}",
                    limits.remote_setup_ms,
                    match self.step {
                        Step::Handshake => "the handshake was under way",
                        Step::Connecting => "it was asked to connect",
                        Step::Creating => "it was asked for a stream",
                        _ => "it was asked to publish or play",
                    }
                );
                Reason::peer("remote_setup_timeout", text)
            }
            SILENT => {
                let text = format!(
                    "the server sent no picture or sound for {} ms (limits.remote_silent_ms)",
                    limits.remote_silent_ms
                );
                Reason::peer("remote_silent", text)
            }
            STUCK => {
                let text = format!(
                    "the server took no byte for {} ms while {} waited (limits.viewer_stuck_ms)",
                    limits.viewer_stuck_ms,
                    self.outbox.queued()
                );
                Reason::limit("viewer_stuck", text)
            }
            other => Reason::peer("rtmp_idle", format!("the server is silent ({other})")),
        }
    }
}
