//! Datagrams of RTSP where they leave a node (A11): only to an address from which a connection of RTSP stands, and which was
//! heard lately.

use super::broken;
use crate::world::{HostId, World};
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A11: nothing was heard for 30 s. And a moment for the timer.
const HEARD: Duration = Duration::from_millis(31_000);
/// The last words of a session may follow its connection. A session says something every five seconds.
const GONE: Duration = Duration::from_millis(6_000);

/// What is known of the addresses at each node.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// When something came from there, by connection or datagram.
    heard: BTreeMap<(HostId, IpAddr), Time>,
    /// When a connection from there was last seen to stand.
    stood: BTreeMap<(HostId, IpAddr), Time>,
}

impl Lanes {
    pub(super) fn forget(&mut self, host: HostId) {
        self.heard.retain(|(h, _), _| *h != host);
        self.stood.retain(|(h, _), _| *h != host);
    }
}

impl World {
    fn is_rtsp(&self, host: HostId, port: u16) -> bool {
        let config = &self.hosts[host.0].config;
        port == config.rtsp.port || port == config.rtsps.port
    }

    /// Bytes come to a node on a connection.
    pub(super) fn rtsp_bytes(&mut self, host: HostId, pipe: u64) {
        let Some((here, there)) = self.net.pipes.get(pipe).map(|p| (p.ends[1].addr, p.ends[0].addr)) else {
            return;
        };
        if self.is_rtsp(host, here.port()) {
            self.rtsp_heard(host, there.ip());
        }
    }

    /// A datagram reaches a port of RTSP.
    pub(in crate::world) fn rtsp_heard(&mut self, host: HostId, from: IpAddr) {
        self.checks.lanes.heard.insert((host, from), self.now);
    }

    /// A datagram leaves a port of RTSP.
    pub(in crate::world) fn rtsp_datagram_out(&mut self, host: HostId, to: IpAddr) {
        if self.checks.off {
            return;
        }
        let (now, ip) = (self.now, self.hosts[host.0].ip);
        let stands = self.net.pipes.iter().any(|(_, p)| {
            let [there, here] = &p.ends;
            here.owner.is_some()
                && here.addr.ip() == ip
                && there.addr.ip() == to
                && self.is_rtsp(host, here.addr.port())
        });
        let lanes = &mut self.checks.lanes;
        if stands {
            lanes.stood.insert((host, to), now);
        }
        let age = |at: Option<&Time>| at.map(|at| now.since(*at));
        let (stood, heard) = (age(lanes.stood.get(&(host, to))), age(lanes.heard.get(&(host, to))));
        let found = match (stood, heard) {
            (Some(stood), Some(heard)) if stood <= GONE && heard <= HEARD => Ok(()),
            (Some(stood), _) if stood > GONE => {
                let text = format!(
                    "media of RTSP goes to {to}, whose connection is gone for {} ms",
                    stood.as_millis()
                );
                broken("S9", text)
            }
            (None, _) => broken("S9", format!("media of RTSP goes to {to}, from where no connection stands")),
            (_, heard) => {
                let text = format!("media of RTSP goes to {to}, from where nothing came for {heard:?}");
                broken("S9", text)
            }
        };
        if found.is_err() {
            self.found(Some(host), found);
        }
    }
}
