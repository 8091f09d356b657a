//! Players by HTTP-FLV: the messages that an RTMP player would get, as the tags of a file that has no end (Adobe "Video File
//! Format Specification 10", annex E).

use super::egress::{Form, Player};
use super::negotiation::Said;
use crate::hub::delivery::Delivery;
use crate::media::track::CodecSet;
use crate::wire::amf0::emit_all;
use crate::wire::flv::{FILE_HEADER, file_tag};
use crate::wire::rtmp_message::kind;
use bytes::Bytes;

/// One player's view of a stream.
#[derive(Debug)]
pub struct FlvPlayer {
    player: Player,
    takes: CodecSet,
    begun: bool,
}

impl FlvPlayer {
    /// A player that takes what everyone takes, and what its query says (`audio=opus&video=h265`) as with RTMP.
    pub fn new(query: &str) -> FlvPlayer {
        let mut said = Said::default();
        said.query(query);
        FlvPlayer { player: Player::new(Form::File, said.takes, false), takes: said.takes, begun: false }
    }

    /// The codecs that it takes.
    pub fn takes(&self) -> CodecSet {
        self.takes
    }

    /// Gives what the player must be sent for a delivery to `put`, in order.
    pub fn deliver(&mut self, delivery: &Delivery, mut put: impl FnMut(Bytes)) {
        let rendered = self.player.deliver(delivery);
        let nothing = rendered.headers.is_empty() && rendered.frame.is_empty();
        if !nothing && !std::mem::replace(&mut self.begun, true) {
            // Both kinds are announced: what is there is seen by its tags, and a track may come later.
            put(Bytes::from_static(&FILE_HEADER));
        }
        if let Some(values) = rendered.metadata {
            put(file_tag(kind::DATA, 0, &emit_all(&values)));
        }
        rendered.headers.into_iter().for_each(&mut put);
        if !rendered.frame.is_empty() {
            put(rendered.frame);
        }
    }
}
