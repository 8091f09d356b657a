//! What the manager gave out lately: only that may be named as a target.

use crate::cluster::NodeId;
use crate::http::event::Action;
use crate::limits::Limits;
use crate::media::key::StreamKey;
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// One thing that was given out: an address, for what, and (to publishers and viewers apart) for which stream.
type What = (String, bool, StreamKey);

/// Addresses that were given out, for as long as they may be used.
#[derive(Debug, Default)]
pub(crate) struct Given {
    exact: BTreeMap<What, (NodeId, Time)>,
    /// For viewers by the app alone: the first generation's websocket does not name their stream.
    apps: BTreeMap<(String, String), (NodeId, Time)>,
    order: VecDeque<(Time, What)>,
}

impl Given {
    /// Remembers that `host`, the address of `node`, was given out.
    pub(super) fn add(
        &mut self,
        limits: &Limits,
        host: String,
        action: Action,
        key: &StreamKey,
        node: &NodeId,
        now: Time,
    ) {
        let until = now + Duration::from_millis(limits.proxy_grant_ms);
        if action == Action::Subscribe {
            self.apps.insert((host.clone(), key.app().to_owned()), (node.clone(), until));
        }
        let what = (host, action == Action::Broadcast, key.clone());
        self.exact.insert(what.clone(), (node.clone(), until));
        self.order.push_back((until, what));
        while self.order.len() > limits.proxy_grants || self.order.front().is_some_and(|(at, _)| *at <= now) {
            let Some((until, what)) = self.order.pop_front() else { break };
            // It may have been given out again since.
            if self.exact.get(&what).is_some_and(|(_, at)| *at <= until) {
                self.exact.remove(&what);
            }
            let app = (what.0, what.2.app().to_owned());
            if !what.1 && self.apps.get(&app).is_some_and(|(_, at)| *at <= until) {
                self.apps.remove(&app);
            }
        }
    }

    /// The node whose address `host` was given out for exactly this.
    pub(super) fn find(&self, host: &str, action: Action, key: &StreamKey, now: Time) -> Option<NodeId> {
        let what = (host.to_owned(), action == Action::Broadcast, key.clone());
        self.exact.get(&what).filter(|(_, until)| now < *until).map(|(node, _)| node.clone())
    }

    /// The node whose address `host` was given out to a viewer of some stream of this app.
    pub(super) fn find_app(&self, host: &str, app: &str, now: Time) -> Option<NodeId> {
        let app = (host.to_owned(), app.to_owned());
        self.apps.get(&app).filter(|(_, until)| now < *until).map(|(node, _)| node.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_out_is_found_and_not_for_ever() {
        let limits = Limits { proxy_grants: 2, ..Limits::default() };
        let key = |name: &str| StreamKey::parse(name).unwrap();
        let node = NodeId("o1".to_owned());
        let mut given = Given::default();
        let mut add = |action, name: &str, ms| {
            given.add(&limits, "10.0.0.1".to_owned(), action, &key(name), &node, Time::from_millis(ms));
        };
        add(Action::Broadcast, "live/a", 0);
        add(Action::Subscribe, "live/a", 10);
        let at = Time::from_millis(100);
        assert_eq!(given.find("10.0.0.1", Action::Broadcast, &key("live/a"), at), Some(node.clone()));
        assert_eq!(given.find("10.0.0.1", Action::Broadcast, &key("live/b"), at), None);
        assert_eq!(given.find("10.0.0.2", Action::Broadcast, &key("live/a"), at), None);
        assert_eq!(given.find_app("10.0.0.1", "live", at), Some(node.clone()));
        assert_eq!(given.find_app("10.0.0.1", "other", at), None);
        let later = Time::from_millis(limits.proxy_grant_ms);
        assert_eq!(given.find("10.0.0.1", Action::Broadcast, &key("live/a"), later), None);
        assert_eq!(given.find("10.0.0.1", Action::Subscribe, &key("live/a"), later), Some(node.clone()));
        // A third pushes the first out.
        given.add(&limits, "10.0.0.1".to_owned(), Action::Broadcast, &key("live/c"), &node, at);
        assert_eq!(given.find("10.0.0.1", Action::Broadcast, &key("live/a"), at), None);
        assert_eq!((given.exact.len(), given.order.len()), (2, 2));
    }
}
