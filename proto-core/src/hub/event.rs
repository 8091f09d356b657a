//! What the hub tells its node.

use super::rendition::Shown;
use super::stats::StreamStats;
use super::{SourceId, StreamId, SubscriberId};
use crate::error::Reason;
use crate::media::key::StreamKey;
use crate::media::track::TrackId;

/// One event of the hub.
#[derive(Clone, Debug, PartialEq)]
pub enum HubEvent {
    /// A subscriber that had taken everything has something new. Given once; the node calls `next` until `None`, or
    /// until the session is full and goes on when there is room, without another event.
    Ready(SubscriberId),
    /// The publisher should send a key frame. Already coalesced to `key_requests_per_s`.
    KeyFrameWanted {
        /// The stream.
        stream: StreamId,
        /// Its present source.
        source: SourceId,
        /// Of which of its tracks of pictures, where it has several; `None`: of each.
        track: Option<TrackId>,
    },
    /// A subscriber turned out too slow for its stream and is skipped ahead. Told once per subscriber, for its page
    /// and the log; it stays.
    Slow(SubscriberId, Reason),
    /// A subscriber of a stream with several renditions is shown another one, or key frames only, or all pictures again.
    Shown(SubscriberId, Shown),
    /// A subscriber was let go; its session must end. It is unknown to the hub from here on.
    Evict(SubscriberId, Reason),
    /// Another source took the stream over; the session of the old one must end.
    SourceDisplaced {
        /// The stream.
        stream: StreamId,
        /// The source that lost it.
        source: SourceId,
        /// Why, in words for its publisher.
        reason: Reason,
    },
    /// The source went; the stream and its subscribers stay for the hold time.
    SourceAway(StreamId),
    /// A source came to a stream that was held.
    SourceBack(StreamId),
    /// The stream is over. Its subscribers were let go by an `Evict` each just before.
    Ended {
        /// The stream.
        stream: StreamId,
        /// Its name.
        key: StreamKey,
        /// Why.
        reason: Reason,
        /// The last word on its numbers.
        stats: Box<StreamStats>,
    },
    /// Something that viewers or the publisher should know. Told once per source.
    Notice(StreamId, Notice),
}

/// A fact about a stream that explains what viewers see or hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Pictures are shown out of coding order; those that are late can be left out.
    BFrames,
    /// Pictures are shown out of coding order, and others refer to those that are late.
    ReferencedBFrames,
    /// The pictures are not coded anew for those who would need it.
    PicturesNotBridged,
    /// The sound is not converted for those who would need it.
    NotBridged,
}

impl Notice {
    /// The notice with a code.
    pub fn from_code(code: &str) -> Option<Notice> {
        const ALL: [Notice; 4] =
            [Notice::BFrames, Notice::ReferencedBFrames, Notice::PicturesNotBridged, Notice::NotBridged];
        ALL.into_iter().find(|n| n.code() == code)
    }

    /// A fixed word for counters, APIs and tests.
    pub const fn code(self) -> &'static str {
        match self {
            Notice::BFrames => "b_frames",
            Notice::ReferencedBFrames => "b_frames_referenced",
            Notice::PicturesNotBridged => "pictures_not_bridged",
            Notice::NotBridged => "sound_not_bridged",
        }
    }

    /// The words for page and log.
    pub const fn text(self) -> &'static str {
        match self {
            Notice::BFrames => {
                "the stream has B-frames, which WebRTC does not know: WebRTC viewers get it without them, undamaged but with \
                 fewer pictures a second; publish without them: -bf 0 (ffmpeg), bframes=0 (x264), in OBS set 'Max B-frames' \
                 to 0"
            }
            Notice::ReferencedBFrames => {
                "the stream has B-frames that other pictures refer to, which WebRTC does not know: for WebRTC viewers the \
                 pictures are coded anew where bridge.video allows it, later and less sharp; publish without B-frames: -bf 0 \
                 (ffmpeg), bframes=0 (x264), in OBS set 'Max B-frames' to 0"
            }
            Notice::PicturesNotBridged => {
                "WebRTC viewers get no picture: the stream is H.265, or has B-frames that other pictures refer to, and is not coded \
                 anew here (bridge.video is off, limits.video_bridges is reached, or they cannot be: the node's log says \
                 which); publish H.264 without B-frames: -c:v libx264 -bf 0 (ffmpeg), bframes=0 (x264), in OBS set 'Max B-frames' to 0"
            }
            Notice::NotBridged => {
                "the sound is not converted here (bridge.audio is off, limits.bridges is reached, or the codec cannot be \
                 decoded: the node's log says which): viewers whose protocol cannot carry it hear nothing"
            }
        }
    }
}
