//! Pictures for viewers who show them as they come: which of a stream's tracks they can be given.

use super::Node;
use super::bridging::Wish;
use crate::error::Reason;
use crate::hub::{CodecSet, StreamId};
use crate::media::picture_order::Reordering;
use crate::media::track::{Codec, CodecConfig, TrackId};
use std::sync::Arc;

impl Node {
    fn is_damaged_for(&self, stream: StreamId, track: TrackId, accepts: CodecSet) -> bool {
        !accepts.has_reordered() && self.hub.reordering(stream, track) == Reordering::Referenced
    }

    /// What is to be made of a track of pictures for someone who takes `accepts`, if it is one that would be seen damaged or not
    /// at all, and anything can be made of it: H.264 without B-frames.
    pub(super) fn picture_wish(&self, stream: StreamId, track: TrackId, accepts: CodecSet) -> Option<Wish> {
        let tracks = self.hub.tracks(stream);
        let (_, config) = tracks.iter().find(|(id, _)| *id == track)?;
        let needs = match config.params.codec() {
            Codec::H264 => self.is_damaged_for(stream, track, accepts),
            Codec::H265 => !accepts.has(Codec::H265),
            _ => false,
        };
        (needs && accepts.has(Codec::H264)).then_some((stream, track, Codec::H264))
    }

    /// Takes the tracks out that someone who takes `accepts` would only see damaged.
    pub(super) fn leave_out_damaged(
        &self,
        stream: StreamId,
        accepts: CodecSet,
        tracks: &mut Vec<(TrackId, Arc<CodecConfig>)>,
    ) {
        tracks.retain(|(id, _)| !self.is_damaged_for(stream, *id, accepts));
    }

    /// What someone who takes `accepts` takes of a stream if it does not take H.265: where that can be made into H.264 here, it
    /// is not given to such a player.
    pub(super) fn without_h265(&self, stream: StreamId, accepts: CodecSet) -> Option<CodecSet> {
        let other = accepts.without(Codec::H265);
        let mut wishes = self.hub.tracks(stream).into_iter().filter_map(|(id, config)| {
            self.picture_wish(stream, id, other).filter(|_| config.params.codec() == Codec::H265)
        });
        wishes.any(|wish| self.may_bridge(wish)).then_some(other)
    }

    /// Whether anything of a stream can be shown to, or heard by, someone who takes `accepts`.
    ///
    /// # Errors
    /// `b_frames` if there are pictures only, and none that can be shown.
    pub(super) fn playable(&self, stream: StreamId, accepts: CodecSet) -> Result<(), Reason> {
        if self.tracks_for(stream, accepts).is_empty() && !self.hub.tracks(stream).is_empty() {
            return Err(Reason::local(
                "b_frames",
                "the stream's pictures have B-frames that other pictures refer to, which WebRTC does not know, they are not \
                 coded anew here (bridge.video), and there is no sound; publish without B-frames (ffmpeg: -bf 0; x264: bframes=0; OBS: 'Max B-frames' 0)",
            ));
        }
        Ok(())
    }
}
