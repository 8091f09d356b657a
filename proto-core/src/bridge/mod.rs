//! What the node asks its driver to do for a bridge of sound or pictures: decode one codec, encode another, keep the times.
//! The codecs themselves are not part of the core; the driver answers with [`crate::io::Answer::Bridged`].

mod workshop;

pub use workshop::{Convert, Workshop};

use crate::media::h264::h264_of_record;
use crate::media::track::{Codec, CodecParams};
use bytes::Bytes;

/// A bridge, numbered by the node, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeId(pub u64);

/// One packet of sound, or one coded picture, with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Presentation time of it, or of its first sample, on the stream's clock, nanoseconds.
    pub pts: i64,
    /// The coded bytes, in the form that its codec says.
    pub data: Bytes,
}

/// Work for one bridge. The driver does the works of a bridge in the order in which they were asked, and answers each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeWork {
    /// The bridge.
    pub bridge: BridgeId,
    /// What to do.
    pub job: BridgeJob,
}

/// What a bridge is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeJob {
    /// Begin, or begin anew because the source's configuration changed.
    Open {
        /// What comes in.
        from: CodecParams,
        /// What is to come out.
        to: Codec,
    },
    /// Convert packets. Times may have gaps, jump and drift; see the driver's bridge for how they are followed.
    Convert(Vec<Packet>),
    /// Of pictures: the next one that comes out is to be a key frame.
    KeyFrame,
    /// Forget the bridge.
    Close,
    /// Forget the bridge, and the thread that it is on: it has not answered for too long and is not waited for any more.
    /// Nobody waits for an answer to this either.
    Abandon,
}

/// What a decoder of a bridge's packets must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The AudioSpecificConfig (ISO 14496-3, 1.6.2.1) where the bridge makes AAC, the AVCDecoderConfigurationRecord (ISO
    /// 14496-15, 5.2.4.1) where it makes H.264; else empty.
    pub config: Bytes,
    /// Samples a second; 0 for pictures.
    pub rate: u32,
    /// Channels; 0 for pictures.
    pub channels: u8,
}

impl Made {
    /// As the parameters of a track of `codec`; `None` if no bridge makes that.
    pub fn params(&self, codec: Codec) -> Option<CodecParams> {
        match codec {
            Codec::Opus => Some(CodecParams::Opus { channels: self.channels }),
            Codec::Aac => {
                Some(CodecParams::Aac { asc: self.config.clone(), rate: self.rate, channels: self.channels })
            }
            Codec::H264 => h264_of_record(&self.config),
            Codec::Pcma => Some(CodecParams::Pcma { channels: self.channels }),
            Codec::Pcmu => Some(CodecParams::Pcmu { channels: self.channels }),
            _ => None,
        }
    }
}

/// What came of a [`BridgeWork`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridged {
    /// The configuration of what comes out: after `Open` where it is sound, with the first picture (and where it changes) else.
    pub made: Option<Made>,
    /// Converted packets, times rising.
    pub packets: Vec<Packet>,
    /// Packets or pictures that could not be decoded; silence stands in for the former, the latter are missing.
    pub undecodable: u64,
    /// Why the bridge cannot go on; it is gone.
    pub failed: Option<String>,
}
