//! WebRTC: sessions on str0m, one UDP port, our own demux, DTLS provider and egress.

pub mod codecs;
pub mod dtls;
pub mod egress;
pub mod endpoint;
pub mod frames;
mod intake;
mod offering;
pub mod path;
mod peer;
mod publisher;
pub mod sdp;
pub mod srtp;
mod stun_answers;
mod talk;
mod viewer;

pub use dtls::Identity;
pub use endpoint::{Drops, Endpoint, EndpointConfig, Input, Offer, Output, Playing, SessionId};
pub use peer::{PeerEvent, SIGNAL_CHANNEL, SessionStats};
