//! What an endpoint drops, counted by reason.

/// Datagrams (and sessions, for `panics`) dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// No protocol of this port, or cut short.
    pub unknown_protocol: u64,
    /// STUN that is no check with a user name: responses, indications, anonymous requests.
    pub not_a_check: u64,
    /// An anonymous request beyond the limits on those.
    pub stun_limit: u64,
    /// A check before the answer to our offer.
    pub too_early: u64,
    /// A check for a user that does not exist (any more).
    pub unknown_user: u64,
    /// A check without the password.
    pub unauthentic: u64,
    /// DTLS, RTP or RTCP from a session's own address that cannot be opened: forged, damaged, or without keys.
    pub unauthentic_media: u64,
    /// DTLS, RTP or RTCP from an address that no session has proven to be its own.
    pub unknown_path: u64,
    /// A check from yet another address of a session that has enough.
    pub too_many_paths: u64,
    /// Handshake datagrams beyond what may wait.
    pub handshake_queue: u64,
    /// Datagrams that were to leave before the socket stood.
    pub no_socket: u64,
    /// Datagrams that found no room on a TCP connection.
    pub stream_full: u64,
    /// Sessions ended by a defect of ours.
    pub panics: u64,
}

impl Drops {
    /// Each counter with its reason as a fixed word.
    pub fn by_reason(&self) -> [(&'static str, u64); 13] {
        [
            ("unknown_protocol", self.unknown_protocol),
            ("not_a_check", self.not_a_check),
            ("stun_limit", self.stun_limit),
            ("too_early", self.too_early),
            ("unknown_user", self.unknown_user),
            ("unauthentic", self.unauthentic),
            ("unauthentic_media", self.unauthentic_media),
            ("unknown_path", self.unknown_path),
            ("too_many_paths", self.too_many_paths),
            ("handshake_queue", self.handshake_queue),
            ("no_socket", self.no_socket),
            ("stream_full", self.stream_full),
            ("panic", self.panics),
        ]
    }
}
