//! Pictures for viewers who show them as they come: which of a stream's tracks they can be given.

use super::Node;
use crate::error::Reason;
use crate::hub::{CodecSet, StreamId};
use crate::media::picture_order::Reordering;
use crate::media::track::{CodecConfig, TrackId};
use std::sync::Arc;

impl Node {
    /// The tracks of a stream, without pictures that someone who takes `accepts` would only see damaged: B-frames that others
    /// refer to.
    pub(super) fn showable(&self, stream: StreamId, accepts: CodecSet) -> Vec<(TrackId, Arc<CodecConfig>)> {
        let mut tracks = self.hub.tracks(stream);
        if !accepts.has_reordered() {
            tracks.retain(|(id, _)| self.hub.reordering(stream, *id) != Reordering::Referenced);
        }
        tracks
    }

    /// Whether anything of a stream can be shown to, or heard by, someone who takes `accepts`.
    ///
    /// # Errors
    /// `b_frames` if there are pictures only, and none that can be shown.
    pub(super) fn playable(&self, stream: StreamId, accepts: CodecSet) -> Result<(), Reason> {
        if self.showable(stream, accepts).is_empty() && !self.hub.tracks(stream).is_empty() {
            return Err(Reason::local(
                "b_frames",
                "the stream's pictures have B-frames that other pictures refer to, which WebRTC does not know, and there is \
                 no sound; publish without B-frames (ffmpeg: -bf 0; x264: bframes=0; OBS: 'Max B-frames' 0)",
            ));
        }
        Ok(())
    }
}
