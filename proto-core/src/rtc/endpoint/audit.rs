//! The endpoint's numbers for checkers, and whether its tables agree (S7) and its limits hold (S6).

use super::{Endpoint, SessionId};
use crate::error::Broken;

/// An endpoint as a checker sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointAudit {
    /// Sessions.
    pub sessions: usize,
    /// Those that have not connected yet.
    pub handshaking: usize,
    /// ICE user names that lead to a session.
    pub ufrags: usize,
    /// Addresses that lead to a session.
    pub paths: usize,
    /// TCP connections that bring datagrams.
    pub streams: usize,
    /// Timers.
    pub timers: usize,
    /// Handshake datagrams that wait for the next turn.
    pub waiting: usize,
}

impl Endpoint {
    /// How it stands.
    pub fn audit(&self) -> EndpointAudit {
        EndpointAudit {
            sessions: self.sessions.len(),
            handshaking: self.handshaking,
            ufrags: self.by_ufrag.len(),
            paths: self.by_path.len(),
            streams: self.streams.all.len(),
            timers: self.timers.len(),
            waiting: self.waiting.len(),
        }
    }

    /// Whether there is such a session.
    pub fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whether its tables agree (S7) and its limits hold (S6).
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<(), Broken> {
        let limits = &self.limits;
        let n = self.sessions.len();
        let (mut paths, mut handshaking) = (0, 0);
        for (id, s) in &self.sessions {
            Broken::unless(self.by_ufrag.get(&s.ufrag) == Some(id), "S7", || {
                format!("the ICE user name of {id} leads to {:?}", self.by_ufrag.get(&s.ufrag))
            })?;
            Broken::unless(s.paths.len() <= limits.sdp_candidates, "S6", || {
                format!("{id} has {} addresses, the limit is {}", s.paths.len(), limits.sdp_candidates)
            })?;
            paths += s.paths.iter().filter(|p| self.by_path.get(p) == Some(id)).count();
            handshaking += usize::from(s.handshaking);
        }
        let names = self.by_ufrag.len();
        Broken::unless(names == n, "S7", || format!("{names} ICE user names of {n} WebRTC sessions"))?;
        let known = self.by_path.len();
        Broken::unless(known == paths, "S7", || {
            format!("{known} addresses lead to WebRTC sessions, which have {paths}")
        })?;
        let lost = self
            .streams
            .all
            .iter()
            .find(|(_, s)| s.session.is_some_and(|id| !self.sessions.contains_key(&id)));
        Broken::unless(lost.is_none(), "S7", || {
            format!("a TCP connection of a WebRTC session that is gone: {:?}", lost.map(|(conn, _)| conn))
        })?;
        let proven = self.streams.all.values().filter(|s| s.session.is_some()).count();
        Broken::unless(proven == self.streams.proven, "S7", || {
            format!("{proven} TCP connections of WebRTC sessions, counted are {}", self.streams.proven)
        })?;
        let of_ips: usize = self.handshakes.values().sum();
        Broken::unless(handshaking == self.handshaking && handshaking == of_ips, "S7", || {
            format!(
                "{handshaking} WebRTC sessions shake hands, counted are {} in all and {of_ips} by address",
                self.handshaking
            )
        })?;
        let timers = self.timers.keys().filter(|id| !self.sessions.contains_key(id)).count();
        Broken::unless(timers == 0, "S7", || format!("{timers} timers of WebRTC sessions that are gone"))?;
        let within = n <= limits.rtc_sessions
            && handshaking <= limits.rtc_handshakes
            && self.waiting.len() <= limits.rtc_handshake_queue;
        Broken::unless(within, "S6", || {
            format!(
                "{n} WebRTC sessions, {handshaking} of them shaking hands, {} datagrams waiting; the limits are \
                 {}, {} and {}",
                self.waiting.len(),
                limits.rtc_sessions,
                limits.rtc_handshakes,
                limits.rtc_handshake_queue
            )
        })
    }
}
