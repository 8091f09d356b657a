//! How a simulation has a node speak as another version would: less than this one, or more.

use crate::simulation::Speech;
use crate::wire::link::{Encoded, Message, StreamFacts, encode};
use bytes::Bytes;

/// A field that no version knows: tag, length, value.
const FIELD: &[u8] = &[251, 3, b'n', b'e', b'w'];
/// A message that no version knows: length, type, a field.
const MESSAGE: &[u8] = &[0, 0, 0, 7, 0x7f, 0xff, 251, 3, b'n', b'e', b'w'];
/// Bytes of length and type.
const HEAD: usize = 6;

/// Renders a message as another version would.
pub(super) fn encode_as(message: &Message, speech: Speech) -> Encoded {
    match speech {
        Speech::Older => match message {
            Message::Report(report) => {
                let mut report = report.clone();
                report.streams.iter_mut().for_each(|s| s.about = StreamFacts::default());
                report.relayed.iter_mut().for_each(|s| s.hops = 0);
                encode(&Message::Report(report))
            }
            Message::Claim { req, key, .. } => {
                encode(&Message::Claim { req: *req, key: key.clone(), identity: String::new() })
            }
            Message::Register(info) => {
                let mut info = info.clone();
                info.advertised.rtmps = 0;
                encode(&Message::Register(info))
            }
            Message::Relocated { req, node, rtmp, .. } => {
                let (node, rtmp) = (node.clone(), rtmp.clone());
                encode(&Message::Relocated { req: *req, node, rtmp, rtmps: String::new() })
            }
            Message::Locate { req, key, .. } => {
                encode(&Message::Locate { req: *req, key: key.clone(), direct: false })
            }
            other => encode(other),
        },
        Speech::Newer => with_news(encode(message)),
        Speech::Foreign(..) => encode(message),
    }
}

/// The same message with a field that nobody knows before the others, and a message that nobody knows before it.
fn with_news(encoded: Encoded) -> Encoded {
    let Some((length, rest)) = encoded.head.split_first_chunk::<4>() else { return encoded };
    let (kind, fields) = rest.split_at(rest.len().min(HEAD - 4));
    let length = u32::from_be_bytes(*length).saturating_add(FIELD.len() as u32);
    let head = [MESSAGE, &length.to_be_bytes(), kind, FIELD, fields].concat();
    Encoded { head: Bytes::from(head), tail: encoded.tail }
}
