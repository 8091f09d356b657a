//! The cluster's keys while the node runs: a file that holds them is read again, and what changed is used at once.

use super::conns::Proto;
use super::links::Asked;
use super::{Alarm, Node};
use crate::cluster::keys::Keys;
use crate::error::Reason;
use crate::io::{AskId, ConnId, Level, Output, Work};
use crate::time::Deadline;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

impl Node {
    /// Asks for the file with the keys, and sets the time to do so again.
    pub(super) fn read_cluster_keys(&mut self) {
        let path = self.config.cluster.key_file.clone();
        if path.is_empty() {
            return;
        }
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        self.asks.retain(|_, asked| *asked != Asked::ClusterKeys);
        self.asks.insert(ask, Asked::ClusterKeys);
        self.out.push_back(Output::Ask { ask, work: Work::ReadFile { path } });
        let next = self.now + Duration::from_millis(self.limits.tls_reload_ms);
        self.timers
            .set(Alarm::ClusterKeys, Deadline::new(next, "the file of the cluster's keys is looked at"));
    }

    /// The file was read, or could not be.
    pub(super) fn cluster_keys_read(&mut self, found: &Result<Bytes, String>) {
        let path = &self.config.cluster.key_file;
        let read = match found {
            Ok(bytes) => Keys::lines(bytes).map_err(|what| format!("{path} {what}")),
            Err(what) => Err(what.clone()),
        };
        match read {
            Err(what) if self.keys_wrong.as_ref() == Some(&what) => {}
            Err(what) => {
                let text = format!("{what} (cluster.key_file); the keys before stay in force");
                self.log(Level::Error, "cluster", "cluster_keys", text);
                self.keys_wrong = Some(what);
            }
            Ok(lines) => {
                self.keys_wrong = None;
                let keys =
                    Keys::new(lines.first().copied().unwrap_or_default(), lines.iter().skip(1).copied());
                if keys == *self.keys {
                    return;
                }
                if self.config.auth.secret.reveal().is_empty() {
                    self.authority.policy.set_cluster_keys(lines);
                }
                self.use_keys(keys);
            }
        }
    }

    /// Links prove and accept these keys from now on. Those that stand on a key that is accepted no longer are dialled anew.
    fn use_keys(&mut self, keys: Keys) {
        let fresh = if keys.shown() == self.keys.shown() { "the same is shown" } else { "another is shown" };
        let text = format!("the cluster's keys changed: {} accepted now, {fresh}", keys.len());
        self.log(Level::Info, "cluster", "cluster_keys", text);
        self.keys = Arc::new(keys);
        let keys = self.keys.clone();
        let retired: Vec<ConnId> = self
            .conns
            .iter_mut()
            .filter_map(|(id, conn)| match &mut conn.proto {
                Proto::Link { machine: Some(m), .. } => (!m.set_keys(keys.clone())).then_some(*id),
                _ => None,
            })
            .collect();
        for conn in retired {
            let reason = Reason::local("link_key_retired", "the key of this link is accepted no longer");
            self.end_conn(conn, reason, Some(false));
        }
    }
}
