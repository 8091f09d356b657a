//! H.265 as the media model sees it: a track's parameters out of its parameter sets.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::track::CodecParams;
use crate::wire::h265::SpsInfo;
use bytes::Bytes;

/// The parameters of a track from its parameter sets (bare NAL units with header). Size and order of showing are those of
/// the first sequence parameter set that can be read.
pub fn h265_params(vps: Vec<Bytes>, sps: Vec<Bytes>, pps: Vec<Bytes>) -> CodecParams {
    let info = sps.iter().find_map(|nal| SpsInfo::parse(nal));
    CodecParams::H265 {
        vps,
        sps,
        pps,
        size: info.map(|i| (i.width, i.height)),
        reorders: info.is_some_and(|i| i.reorder > 0),
    }
}
