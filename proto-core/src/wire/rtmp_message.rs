//! RTMP messages (Adobe RTMP 1.0, sections 5.4, 6 and 7.1): their types, protocol control and user control.

use bytes::{BufMut, Bytes, BytesMut};

/// Message type ids.
pub mod kind {
    /// Set Chunk Size (5.4.1).
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message (5.4.2).
    pub const ABORT: u8 = 2;
    /// Acknowledgement (5.4.3).
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control (6.2).
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size (5.4.4).
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth (5.4.5).
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio (7.1.4).
    pub const AUDIO: u8 = 8;
    /// Video (7.1.5).
    pub const VIDEO: u8 = 9;
    /// Data in AMF3 (7.1.2).
    pub const DATA_AMF3: u8 = 15;
    /// Shared object in AMF3 (7.1.3).
    pub const SHARED_OBJECT_AMF3: u8 = 16;
    /// Command in AMF3 (7.1.1).
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0 (7.1.2).
    pub const DATA: u8 = 18;
    /// Shared object in AMF0 (7.1.3).
    pub const SHARED_OBJECT: u8 = 19;
    /// Command in AMF0 (7.1.1).
    pub const COMMAND: u8 = 20;
    /// Aggregate (7.1.6).
    pub const AGGREGATE: u8 = 22;
}

/// User control event types (7.1.7).
pub mod event {
    /// A stream became usable; carries its id.
    pub const STREAM_BEGIN: u16 = 0;
    /// Playback of a stream is over; carries its id.
    pub const STREAM_EOF: u16 = 1;
    /// No more data for now; carries its id.
    pub const STREAM_DRY: u16 = 2;
    /// A player's buffer length.
    pub const SET_BUFFER_LENGTH: u16 = 3;
    /// Asks for [`PING_RESPONSE`] with the same 4 bytes.
    pub const PING_REQUEST: u16 = 6;
    /// Answers [`PING_REQUEST`].
    pub const PING_RESPONSE: u16 = 7;
}

/// A whole RTMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The chunk stream that it came on.
    pub csid: u32,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    /// Message type id, see [`kind`].
    pub kind: u8,
    /// Message stream id; 0 is the control stream.
    pub stream: u32,
    /// The payload.
    pub payload: Bytes,
}

/// The payload of a user control message: an event and one 32-bit number.
pub fn user_control(event: u16, number: u32) -> [u8; 6] {
    let mut out = [0; 6];
    let (head, tail) = out.split_at_mut(2);
    head.copy_from_slice(&event.to_be_bytes());
    tail.copy_from_slice(&number.to_be_bytes());
    out
}

/// Event and first number of a user control message. `None` if it is cut short.
pub fn parse_user_control(payload: &[u8]) -> Option<(u16, u32)> {
    let (event, rest) = payload.split_first_chunk::<2>()?;
    let (number, _) = rest.split_first_chunk::<4>()?;
    Some((u16::from_be_bytes(*event), u32::from_be_bytes(*number)))
}

/// The messages inside an aggregate (7.1.6): FLV tags with back pointers. Their times are moved so that the first
/// has the aggregate's own.
///
/// Ends without an error at the first tag that is cut short: what stands whole before it is good media.
pub fn split_aggregate(aggregate: &Message) -> impl Iterator<Item = Message> + '_ {
    let mut rest = aggregate.payload.clone();
    let mut offset = None;
    std::iter::from_fn(move || {
        let (&[kind, s0, s1, s2, t0, t1, t2, t3, _, _, _], _) = rest.split_first_chunk::<11>()?;
        let size = usize::try_from(u32::from_be_bytes([0, s0, s1, s2])).ok()?;
        if rest.len() < size.saturating_add(11) {
            return None;
        }
        let time = u32::from_be_bytes([t3, t0, t1, t2]);
        let offset = *offset.get_or_insert(aggregate.timestamp.wrapping_sub(time));
        let payload = rest.slice(11..size.saturating_add(11));
        // The back pointer may be missing after the last tag.
        rest = rest.slice(size.saturating_add(15).min(rest.len())..);
        Some(Message {
            csid: aggregate.csid,
            timestamp: time.wrapping_add(offset),
            kind,
            stream: aggregate.stream,
            payload,
        })
    })
}

/// Builds an aggregate's payload out of messages.
pub fn join_aggregate(messages: &[Message]) -> Bytes {
    let mut out = BytesMut::new();
    for m in messages {
        out.put_u8(m.kind);
        out.put_uint(m.payload.len() as u64 & 0xff_ffff, 3);
        out.put_uint(u64::from(m.timestamp & 0xff_ffff), 3);
        out.put_u8((m.timestamp >> 24) as u8);
        out.put_uint(0, 3);
        out.put_slice(&m.payload);
        out.put_u32(m.payload.len() as u32 + 11);
    }
    out.freeze()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn message(timestamp: u32, kind: u8, payload: &'static [u8]) -> Message {
        Message { csid: 6, timestamp, kind, stream: 1, payload: Bytes::from_static(payload) }
    }

    #[test]
    fn an_aggregate_splits_into_messages_on_its_own_time() {
        let inner = [message(500, kind::VIDEO, b"vvv"), message(520, kind::AUDIO, b"aa")];
        let mut whole = message(9_000, kind::AGGREGATE, b"");
        whole.payload = join_aggregate(&inner);
        let split: Vec<Message> = split_aggregate(&whole).collect();
        assert_eq!(split, [message(9_000, kind::VIDEO, b"vvv"), message(9_020, kind::AUDIO, b"aa")]);
        for n in 0..whole.payload.len() {
            let cut = Message { payload: whole.payload.slice(..n), ..whole.clone() };
            assert!(split_aggregate(&cut).count() <= 2);
        }
    }

    #[test]
    fn user_control_round_trips() {
        assert_eq!(parse_user_control(&user_control(6, 77)), Some((6, 77)));
        assert_eq!(parse_user_control(&[0, 6, 0]), None);
    }
}
