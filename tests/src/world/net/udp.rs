//! Datagrams between parties.

use crate::world::actors::In;
use crate::world::event::Event;
use crate::world::{ClientId, HostId, Party, World};
use bytes::Bytes;
use proto_core::io::{Batch, Input, SocketId};
use std::net::SocketAddr;
use std::time::Duration;

impl World {
    /// Puts a node's batch on its way, datagram by datagram.
    pub(in crate::world) fn batch(&mut self, host: HostId, from: SocketAddr, batch: &Batch) {
        for item in &batch.items {
            let bytes = &batch.buf[item.start..item.start + item.len];
            for datagram in bytes.chunks(item.segment_size.max(1)) {
                self.datagram(Party::Host(host), from, item.dst, Bytes::copy_from_slice(datagram));
            }
        }
    }

    /// Puts one datagram on its way.
    pub(in crate::world) fn datagram(&mut self, by: Party, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        self.overheard(by, from, to, &bytes);
        if self.is_cut(by, self.party_at(to.ip()).unwrap_or(Party::Nowhere)) {
            return;
        }
        self.datagrams += 1;
        let micros = 500 + self.draw("datagram", self.datagrams, by.number()) % 5_000;
        self.at(self.now + Duration::from_micros(micros), Event::Datagram { to, from, bytes });
    }

    /// A datagram reaches its address.
    pub(in crate::world) fn datagram_arrives(&mut self, to: SocketAddr, from: SocketAddr, bytes: &Bytes) {
        match self.party_at(to.ip()) {
            Some(party) if self.cut.contains(&party) => {}
            Some(Party::Host(HostId(n))) => {
                let open = self.hosts[n].run.as_ref().filter(|r| r.udp == Some(to)).map(|r| r.number);
                if let Some(run) = open {
                    let (socket, stride, bytes) = (SocketId(0), bytes.len(), &bytes[..]);
                    let input = Input::Datagram { socket, local: to, remote: from, stride, bytes };
                    self.node(HostId(n), run, input);
                }
            }
            Some(Party::Client(ClientId(n))) => {
                self.client(ClientId(n), In::Datagram { port: to.port(), from, bytes });
            }
            _ => {}
        }
    }
}
