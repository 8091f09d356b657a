//! WebRTC clients through webrtc-rs's sans-IO crate `rtc`: ICE, DTLS, SRTP, SDP and RTP payloads are all its own, so that
//! none of it is shared with the server under test.

mod peer;
mod reorder;
mod signal;
mod whep;
mod whip;

pub use whep::{RtcPlayer, Whep};
pub use whip::{RtcPublisher, Whip};

/// When the `n`-th sound frame is due, nanoseconds from the start: Opus in frames of 20 ms.
const fn opus_at(n: u64) -> i64 {
    n as i64 * 20_000_000
}
