//! The legal order of requests (RFC 2326, appendix A.2), as one table.

use crate::wire::rtsp::Method;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing was asked for.
    Init,
    /// The client knows what the stream consists of.
    Described,
    /// A track at least is set up to be received, or the client paused.
    PlayReady,
    /// Media goes to the client.
    Playing,
    /// The client said what it is going to send.
    Announced,
    /// A track at least is set up to be sent, or the client paused.
    RecordReady,
    /// Media comes from the client.
    Recording,
}

use State::{Announced, Described, Init, PlayReady, Playing, RecordReady, Recording};

/// Every state.
pub const STATES: [State; 7] = [Init, Described, PlayReady, Playing, Announced, RecordReady, Recording];

/// Where each method may be used. REDIRECT is the server's.
pub const TABLE: [(Method, &[State]); 11] = [
    (Method::Options, &STATES),
    (Method::GetParameter, &STATES),
    (Method::SetParameter, &STATES),
    (Method::Describe, &[Init, Described]),
    (Method::Announce, &[Init, Announced]),
    // From Init: players that know the usual names of tracks.
    (Method::Setup, &[Init, Described, PlayReady, Announced, RecordReady]),
    (Method::Play, &[PlayReady, Playing]),
    (Method::Record, &[RecordReady]),
    (Method::Pause, &[PlayReady, Playing, RecordReady, Recording]),
    (Method::Teardown, &[Described, PlayReady, Playing, Announced, RecordReady, Recording]),
    (Method::Redirect, &[]),
];

/// Whether a method may be used in a state.
pub fn is_legal(method: Method, state: State) -> bool {
    TABLE.iter().any(|(m, states)| *m == method && states.contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_one_row() {
        for method in Method::ALL {
            assert_eq!(TABLE.iter().filter(|(m, _)| *m == method).count(), 1, "{}", method.name());
        }
        assert!(!is_legal(Method::Play, Recording) && !is_legal(Method::Record, Playing));
        assert!(STATES.iter().all(|s| !is_legal(Method::Redirect, *s)));
    }
}
