//! WebRTC: sessions on str0m, one UDP port, our own demux, DTLS provider and egress.

pub mod codecs;
pub mod dtls;
pub mod egress;
pub mod endpoint;
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

/// Our candidates for these addresses, each as `candidate:…` (RFC 8839, 5.1).
pub fn candidate_lines(addresses: &[std::net::SocketAddr]) -> Vec<String> {
    let candidates = addresses.iter().filter_map(|a| str0m::Candidate::host(*a, "udp").ok());
    candidates.map(|c| c.to_sdp_string()).collect()
}

pub use dtls::Identity;
pub use endpoint::{Drops, Endpoint, EndpointConfig, Input, Offer, Output, Playing, SessionId};
pub use peer::{PeerEvent, SIGNAL_CHANNEL, SessionStats};
