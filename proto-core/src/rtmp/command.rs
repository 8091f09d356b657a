//! Commands (Adobe RTMP 1.0, section 7.2): reading them within the limits, and the ones that we send.

use super::{OUR_CHUNK_SIZE, csid};
use crate::error::Reason;
use crate::limits::Limits;
use crate::wire::amf0::{self, Bounds, Value};
use crate::wire::rtmp_chunk::write_message;
use crate::wire::rtmp_message::{Message, event, kind, user_control};
use bytes::{Bytes, BytesMut};

/// A command message, taken apart.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: String,
    /// 0 where no answer is wanted.
    pub(super) transaction: f64,
    /// The command object.
    pub(super) object: Value,
    /// What follows the command object.
    pub(super) args: Vec<Value>,
}

impl Command {
    /// Reads a command of type 20, or of type 17 (whose first byte says "AMF0 follows").
    pub(super) fn parse(message: &Message, limits: &Limits, accepted: bool) -> Result<Command, Reason> {
        let most = if accepted { limits.amf_command_bytes } else { limits.amf_command_bytes_before };
        if message.payload.len() > most {
            return Err(Reason::limit(
                "amf_command_bytes",
                format!("a command of {} bytes; the limit is {most} here", message.payload.len()),
            ));
        }
        let mut payload: &[u8] = &message.payload;
        if message.kind == kind::COMMAND_AMF3 {
            payload = match payload.split_first() {
                Some((0, rest)) => rest,
                // Some clients leave the byte out; a command begins with a string (marker 2) all the same.
                Some((2, _)) => payload,
                _ => {
                    let text = "a command in pure AMF3: it must begin with a byte 0 and be AMF0, with AMF3 values in it";
                    return Err(Reason::peer("amf", text));
                }
            };
        }
        let values = amf0::parse(payload, Bounds::of(limits, accepted)).map_err(amf_reason)?;
        let mut values = values.into_iter();
        let name = values.next().and_then(|v| v.as_str().map(str::to_owned));
        let Some(name) = name else {
            return Err(Reason::peer("amf", "a command message without a command name"));
        };
        let transaction = values.next().and_then(|v| v.as_number()).unwrap_or(0.0);
        let object = values.next().unwrap_or(Value::Null);
        Ok(Command { name, transaction, object, args: values.collect() })
    }

    pub(super) fn arg(&self, i: usize) -> Option<&Value> {
        self.args.get(i)
    }

    pub(super) fn text(&self, i: usize) -> Option<&str> {
        self.arg(i).and_then(Value::as_str)
    }
}

/// What an AMF0 error means for the connection.
pub(super) fn amf_reason(e: amf0::AmfError) -> Reason {
    use amf0::AmfError::{Depth, Properties, StringLength};
    match e {
        Depth | Properties | StringLength => Reason::limit("amf_size", e.to_string()),
        _ => Reason::peer("amf", e.to_string()),
    }
}

/// Messages on their way out, one after the other. The buffer is cut off with [`Writer::take`].
#[derive(Debug)]
pub(super) struct Writer {
    out: BytesMut,
    chunk_size: u32,
}

impl Writer {
    /// A writer with the protocol's first chunk size.
    pub(super) fn new() -> Writer {
        Writer { out: BytesMut::new(), chunk_size: crate::wire::rtmp_chunk::DEFAULT_CHUNK_SIZE }
    }

    pub(super) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    pub(super) fn message(&mut self, csid: u32, time: u32, kind: u8, stream: u32, payload: &[u8]) {
        write_message(&mut self.out, csid, time, kind, stream, payload, self.chunk_size);
    }

    pub(super) fn number(&mut self, kind: u8, number: u32) {
        self.message(csid::CONTROL, 0, kind, 0, &number.to_be_bytes());
    }

    /// Announces our chunk size and uses it from here on.
    pub(super) fn set_chunk_size(&mut self) {
        self.number(kind::SET_CHUNK_SIZE, OUR_CHUNK_SIZE);
        self.chunk_size = OUR_CHUNK_SIZE;
    }

    pub(super) fn user_control(&mut self, event: u16, number: u32) {
        self.message(csid::CONTROL, 0, kind::USER_CONTROL, 0, &user_control(event, number));
    }

    /// A player's buffer length, milliseconds (7.1.7): the one event with two numbers.
    pub(super) fn buffer_length(&mut self, stream: u32, millis: u32) {
        let mut payload = user_control(event::SET_BUFFER_LENGTH, stream).to_vec();
        payload.extend_from_slice(&millis.to_be_bytes());
        self.message(csid::CONTROL, 0, kind::USER_CONTROL, 0, &payload);
    }

    /// A command; those of the connection itself go on stream 0.
    pub(super) fn command(&mut self, stream: u32, values: &[Value]) {
        let csid = if stream == 0 { csid::COMMAND } else { csid::STREAM };
        self.message(csid, 0, kind::COMMAND, stream, &amf0::emit_all(values));
    }

    /// Data about the stream as a whole, at time 0: ffmpeg takes metadata with any other time for a subtitle track.
    pub(super) fn data(&mut self, stream: u32, values: &[Value]) {
        self.message(csid::STREAM, 0, kind::DATA, stream, &amf0::emit_all(values));
    }

    pub(super) fn result(&mut self, transaction: f64, values: impl IntoIterator<Item = Value>) {
        self.answer("_result", transaction, values);
    }

    pub(super) fn error(&mut self, transaction: f64, code: &str, description: &str) {
        self.answer("_error", transaction, [Value::Null, status("error", code, description, &[])]);
    }

    fn answer(&mut self, name: &str, transaction: f64, values: impl IntoIterator<Item = Value>) {
        let mut all = vec![Value::string(name), Value::Number(transaction)];
        all.extend(values);
        self.command(0, &all);
    }

    /// `onStatus` on a message stream.
    pub(super) fn on_status(&mut self, stream: u32, level: &str, code: &str, description: &str) {
        let info = status(level, code, description, &[]);
        self.command(stream, &[Value::string("onStatus"), Value::Number(0.0), Value::Null, info]);
    }
}

/// An information object.
pub(super) fn status(level: &str, code: &str, description: &str, more: &[(&str, Value)]) -> Value {
    let mut pairs = vec![
        ("level", Value::string(level)),
        ("code", Value::string(code)),
        ("description", Value::string(description)),
    ];
    pairs.extend(more.iter().cloned());
    Value::object(pairs)
}
