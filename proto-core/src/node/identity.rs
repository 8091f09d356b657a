//! Who a node is towards its peers: what is handed in when it is made.

use crate::{rtc, tls};

/// The certificates and the cryptography of a node.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For WebRTC.
    pub rtc: rtc::Identity,
    /// For TLS; without it connections to TLS ports are refused.
    pub tls: Option<tls::Identity>,
}

impl From<rtc::Identity> for Identity {
    fn from(rtc: rtc::Identity) -> Identity {
        Identity { rtc, tls: None }
    }
}
