//! Datagrams where they leave and reach a node: no media without a check and consent (S9), no amplification (S10).

use super::{Found, broken};
use crate::world::{HostId, World};
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// RFC 7675, section 5.1: consent that was not renewed for this long is over. And a moment for the timer.
const CONSENT: Duration = Duration::from_millis(31_000);

/// What passed between a node and one address.
#[derive(Clone, Copy, Debug)]
struct Flow {
    bytes_in: u64,
    bytes_out: u64,
    /// The node answered a connectivity check from there with success.
    checked: bool,
    heard: Time,
}

/// All flows of all nodes.
#[derive(Debug, Default)]
pub(super) struct Flows(BTreeMap<(HostId, SocketAddr), Flow>);

impl Flows {
    pub(super) fn forget(&mut self, host: HostId) {
        self.0.retain(|(h, _), _| *h != host);
    }
}

/// A Binding success response (RFC 8489, section 5).
fn is_success(bytes: &[u8]) -> bool {
    matches!(bytes, [0x01, 0x01, _, _, 0x21, 0x12, 0xa4, 0x42, ..])
}

/// The answer to an anonymous question where its sender is: the one thing that may be larger than what it answers, within
/// limits of its own (A13).
fn is_mapped_address(bytes: &[u8]) -> bool {
    is_success(bytes) && matches!((bytes.len(), bytes.get(20..22)), (32 | 44, Some([0, 0x20])))
}

fn is_media(bytes: &[u8]) -> bool {
    // RFC 7983, section 7.
    matches!(bytes.first(), Some(128..=191))
}

impl World {
    /// A datagram reaches a node.
    pub(in crate::world) fn datagram_in(&mut self, host: HostId, from: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let flow = self.checks.datagrams.0.entry((host, from)).or_insert(Flow {
            bytes_in: 0,
            bytes_out: 0,
            checked: false,
            heard: now,
        });
        flow.bytes_in += bytes.len() as u64;
        flow.heard = now;
    }

    /// A datagram leaves a node.
    pub(in crate::world) fn datagram_out(&mut self, host: HostId, to: SocketAddr, bytes: &[u8]) {
        if self.checks.off {
            return;
        }
        let found = self.may_leave(host, to, bytes);
        if found.is_err() {
            self.found(Some(host), found);
        }
    }

    /// A node would have sent a datagram, and its kernel refused it: lost, as on the way.
    pub(in crate::world) fn datagram_refused(&mut self, host: HostId, to: SocketAddr, bytes: &[u8]) {
        if let Some(flow) = self.checks.datagrams.0.get_mut(&(host, to)) {
            flow.checked |= is_success(bytes);
        }
    }

    fn may_leave(&mut self, host: HostId, to: SocketAddr, bytes: &[u8]) -> Found {
        let (now, n) = (self.now, bytes.len());
        let Some(flow) = self.checks.datagrams.0.get_mut(&(host, to)) else {
            return broken("S10", format!("{n} bytes go to {to}, from where nothing ever came"));
        };
        if is_mapped_address(bytes) {
            return Ok(());
        }
        flow.bytes_out += n as u64;
        if !flow.checked {
            if flow.bytes_out > flow.bytes_in {
                let (out, got) = (flow.bytes_out, flow.bytes_in);
                let text = format!("{out} bytes went to {to}, {got} came from there, and it passed no check");
                return broken("S10", text);
            }
            if is_media(bytes) {
                return broken("S9", format!("media goes to {to}, which has passed no connectivity check"));
            }
            flow.checked = is_success(bytes);
        }
        let silent = now.since(flow.heard);
        if is_media(bytes) && silent > CONSENT {
            let text = format!("media goes to {to}, from where nothing came for {} ms", silent.as_millis());
            return broken("S9", text);
        }
        Ok(())
    }
}
