//! ICE for an agent that only answers (RFC 8445, 2.5): checks with our password are answered, and the pair that the peer
//! nominates is where media goes.

use super::Viewer;
use crate::io::ConnId;
use crate::rtc::path::Path;
use crate::rtc::peer::{MOVED, Verdict};
use crate::time::Time;
use is::stun::StunMessage;

/// Room for an answer: header, mapped address, integrity, fingerprint.
const ANSWER: usize = 128;

/// The pair that the peer chose.
#[derive(Clone, Debug)]
pub(super) struct Nominated {
    pub(super) path: Path,
    /// What the peer said the pair is worth to it.
    pub(super) priority: u32,
    /// When the peer was last heard on it.
    pub(super) heard: Time,
}

impl Viewer {
    /// Takes a STUN message whose user name is ours.
    pub(in crate::rtc) fn check(&mut self, path: Path, room: bool, datagram: &[u8], now: Time) -> Verdict {
        let crypto = self.crypto.clone();
        let hmac = |key: &[u8], parts: &[&[u8]]| crypto.sha1_hmac_provider.sha1_hmac(key, parts);
        let password = self.password.as_bytes();
        let check = StunMessage::parse(datagram).ok();
        let Some(check) = check.filter(|m| m.is_binding_request() && m.verify(password, hmac)) else {
            return Verdict::Unauthentic;
        };
        if !room {
            return Verdict::TooManyPaths;
        }
        self.heard = now;
        self.stats.bytes_in += datagram.len() as u64;
        let mut answer = vec![0; ANSWER];
        let reply = StunMessage::binding_reply(check.trans_id(), path.remote());
        if let Ok(len) = reply.to_bytes(Some(password), &mut answer, hmac) {
            answer.truncate(len);
            self.stats.bytes_out += len as u64;
            self.sent.push_back((path, answer));
        }
        self.nominate(path, check.prio().unwrap_or(0), check.use_candidate(), now);
        if self.client && !self.shaken {
            // We begin the handshake, as soon as there is somebody to shake hands with.
            self.shake(path, now);
        } else {
            self.connect(now);
        }
        Verdict::Authentic
    }

    /// Among pairs that the peer nominates the one counts that is worth most to it (RFC 8445, 8.1.1), but a peer that was
    /// not heard on its pair for a while has moved: its translator forgot it, or it is in another network.
    fn nominate(&mut self, path: Path, priority: u32, nominates: bool, now: Time) {
        match &mut self.nominated {
            Some(n) if n.path == path => n.heard = now,
            Some(n) if !nominates || (priority <= n.priority && now.since(n.heard) < MOVED) => {}
            None if !nominates => {}
            _ => self.nominated = Some(Nominated { path, priority, heard: now }),
        }
    }

    /// The TCP connection that the peer chose as its path, if it is one.
    pub(in crate::rtc) fn over(&self) -> Option<ConnId> {
        self.nominated.as_ref().and_then(|n| n.path.conn())
    }

    /// A TCP connection of the peer's is gone: the next path that it chooses is taken at once.
    pub(in crate::rtc) fn lost(&mut self, conn: ConnId) {
        if let Some(n) = self.nominated.as_mut().filter(|n| n.path.conn() == Some(conn)) {
            n.priority = 0;
        }
    }
}
