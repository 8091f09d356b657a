//! How a recording is written.

use super::{BATCHES_OUT, BLOCK_BYTES, CHECKPOINT_INPUTS, End, FORMAT, Header, MAGIC, Trace};
use crate::bridge::Bridged;
use crate::error::{Fault, Reason};
use crate::io::{Answer, Batch, ConnId, Input, Output, Service};
use crate::time::Time;
use crate::trace::{Digest, xxh64};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// Turns the inputs of a node into the bytes of a recording.
#[derive(Clone, Debug)]
pub struct Writer {
    ready: Vec<u8>,
    entries: Vec<u8>,
    inputs_in_block: u64,
    check: u64,
    trace: Trace,
    /// Number and fingerprint of the batches that the node has out.
    batches_out: VecDeque<(u64, u64)>,
    batches: u64,
    total: u64,
}

impl Writer {
    /// A recording that begins with `header`.
    ///
    /// # Errors
    /// `recording_header` if the configuration cannot be written down, which its tests rule out.
    pub fn new(header: &Header) -> Result<Writer, Reason> {
        let config = serde_json::to_string(&header.config).map_err(|e| {
            Reason::local("recording_header", format!("the configuration cannot be written down: {e}"))
        })?;
        let mut body = Vec::new();
        text(&mut body, &header.version);
        text(&mut body, &config);
        body.extend(header.node_seed);
        body.extend(header.crypto_seed);
        let check = xxh64(&body, 0);
        let mut ready = MAGIC.to_vec();
        ready.extend(FORMAT.to_be_bytes());
        framed(&mut ready, check, &body);
        Ok(Writer {
            total: ready.len() as u64,
            ready,
            entries: Vec::new(),
            inputs_in_block: 0,
            check,
            trace: Trace::default(),
            batches_out: VecDeque::new(),
            batches: 0,
        })
    }

    /// Takes an input, before the node gets it.
    pub fn input(&mut self, input: &Input<'_>, now: Time) {
        if self.inputs_in_block >= CHECKPOINT_INPUTS || self.entries.len() >= BLOCK_BYTES {
            self.checkpoint();
        }
        let since = now.since(self.trace.at);
        number(&mut self.entries, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        self.entries.extend(self.trace.mark().to_be_bytes());
        self.inputs_in_block += 1;
        self.trace.input(input, now);
        self.fields(input);
    }

    /// Takes an output, in its order.
    pub fn output(&mut self, output: &Output) {
        self.trace.output(output);
        if let Output::Datagrams(batch) = output {
            if self.batches_out.len() >= BATCHES_OUT {
                self.batches_out.pop_front();
            }
            self.batches_out.push_back((self.batches, fingerprint(batch)));
            self.batches += 1;
        }
    }

    /// Ends the block, if it has inputs: what comes before can then be read and checked without what comes after. To
    /// be called when all outputs to the last input have been taken.
    pub fn checkpoint(&mut self) {
        if self.inputs_in_block > 0 {
            self.end_block(0);
        }
    }

    /// Ends the recording; nothing may follow.
    pub fn finish(&mut self, end: End) {
        self.end_block(match end {
            End::Ended => 1,
            End::Cut => 2,
        });
    }

    /// The bytes that are ready, for the driver to take out (`drain`, `clear`).
    pub const fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }

    /// Bytes of the recording so far, with those of the block that has not ended.
    pub const fn len(&self) -> u64 {
        self.total + self.entries.len() as u64 + 32
    }

    /// Never: a recording begins with its header.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether inputs wait for the end of their block.
    pub const fn has_block(&self) -> bool {
        self.inputs_in_block > 0
    }

    /// The digest of all inputs and outputs so far.
    pub const fn digest(&self) -> u64 {
        self.trace.digest.value()
    }

    fn end_block(&mut self, end: u8) {
        let mut payload = Vec::with_capacity(self.entries.len() + 16);
        number(&mut payload, self.inputs_in_block);
        payload.push(end);
        payload.append(&mut self.entries);
        payload.extend(self.digest().to_be_bytes());
        self.inputs_in_block = 0;
        self.check = xxh64(&payload, self.check);
        let before = self.ready.len();
        framed(&mut self.ready, self.check, &payload);
        self.total += self.ready.len().saturating_sub(before) as u64;
    }

    fn fields(&mut self, input: &Input<'_>) {
        let returned = match input {
            Input::Sent { batch, .. } => self.returned(batch),
            _ => None,
        };
        let out = &mut self.entries;
        match input {
            Input::Tick => out.push(0),
            Input::Busy { permille } => {
                out.push(1);
                number(out, u64::from(*permille));
            }
            Input::WallClock(wall) => {
                out.push(2);
                number(out, wall.0);
            }
            Input::HostAddresses(addresses) => {
                out.push(3);
                number(out, addresses.len() as u64);
                addresses.iter().for_each(|a| ip(out, *a));
            }
            Input::Accepted { conn, service, local, remote } => {
                out.push(4);
                connection(out, *conn);
                out.push(match service {
                    Service::Http => 0,
                    Service::Rtmp => 1,
                    Service::Link => 2,
                    Service::Https => 3,
                    Service::Rtmps => 4,
                    Service::Rtsp => 5,
                    Service::Rtsps => 6,
                    Service::IceTcp => 7,
                    Service::Door => 8,
                });
                address(out, *local);
                address(out, *remote);
            }
            Input::Connected { conn, local, remote } => {
                out.push(5);
                connection(out, *conn);
                address(out, *local);
                address(out, *remote);
            }
            Input::Received { conn, bytes } => {
                out.push(6);
                connection(out, *conn);
                blob(out, bytes);
            }
            Input::Writable { conn, free } => {
                out.push(7);
                connection(out, *conn);
                number(out, *free as u64);
            }
            Input::PeerFinished { conn } => {
                out.push(8);
                connection(out, *conn);
            }
            Input::Closed { conn, reason: why } => {
                out.push(9);
                connection(out, *conn);
                reason(out, why);
            }
            Input::UdpOpened { socket, local, max_segments } => {
                out.push(10);
                number(out, u64::from(socket.0));
                address(out, *local);
                number(out, *max_segments as u64);
            }
            Input::UdpFailed { socket, reason: why } => {
                out.push(11);
                number(out, u64::from(socket.0));
                reason(out, why);
            }
            Input::Datagram { socket, local, remote, stride, bytes } => {
                out.push(12);
                number(out, u64::from(socket.0));
                address(out, *local);
                address(out, *remote);
                number(out, *stride as u64);
                blob(out, bytes);
            }
            Input::Sent { batch, refused } => {
                match returned {
                    Some(n) => {
                        out.push(13);
                        number(out, n);
                    }
                    None => {
                        out.push(16);
                        whole_batch(out, batch);
                    }
                }
                number(out, *refused as u64);
            }
            Input::Answer { ask, answer: Answer::Resolved(found) } => {
                out.push(14);
                number(out, ask.0);
                match found {
                    Ok(found) => {
                        out.push(1);
                        number(out, found.len() as u64);
                        found.iter().for_each(|a| address(out, *a));
                    }
                    Err(why) => {
                        out.push(0);
                        text(out, why);
                    }
                }
            }
            Input::Answer { ask, answer: Answer::File(found) } => {
                out.push(17);
                number(out, ask.0);
                match found {
                    Ok(bytes) => {
                        out.push(1);
                        blob(out, bytes);
                    }
                    Err(why) => {
                        out.push(0);
                        text(out, why);
                    }
                }
            }
            Input::Drain => out.push(15),
            Input::Answer { ask, answer: Answer::Checked(right) } => {
                out.push(19);
                number(out, ask.0);
                match right {
                    Ok(right) => out.push(u8::from(*right)),
                    Err(why) => {
                        out.push(2);
                        text(out, why);
                    }
                }
            }
            Input::Answer { ask, answer: Answer::Bridged(done) } => {
                out.push(18);
                number(out, ask.0);
                bridged(out, done);
            }
        }
    }

    /// The number of a batch that comes back, if the node sent it.
    fn returned(&mut self, batch: &Batch) -> Option<u64> {
        let print = fingerprint(batch);
        let at = self.batches_out.iter().position(|(_, p)| *p == print)?;
        self.batches_out.remove(at).map(|(number, _)| number)
    }
}

fn fingerprint(batch: &Batch) -> u64 {
    let mut d = Digest::new();
    d.batch(batch);
    d.value()
}

fn framed(out: &mut Vec<u8>, check: u64, payload: &[u8]) {
    // A payload beyond 4 GiB cannot be: a block holds one input more than `BLOCK_BYTES`.
    out.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(check.to_be_bytes());
    out.extend_from_slice(payload);
}

fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn connection(out: &mut Vec<u8>, conn: ConnId) {
    // The top bit of a dialled one would make every number ten bytes long.
    number(out, conn.0.rotate_left(1));
}

fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, text: &str) {
    blob(out, text.as_bytes());
}

fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend(v6.octets());
        }
    }
}

fn address(out: &mut Vec<u8>, address: SocketAddr) {
    ip(out, address.ip());
    out.extend(address.port().to_be_bytes());
    if let SocketAddr::V6(v6) = address {
        number(out, u64::from(v6.flowinfo()));
        number(out, u64::from(v6.scope_id()));
    }
}

fn bridged(out: &mut Vec<u8>, done: &Bridged) {
    let Bridged { made, packets, undecodable, failed } = done;
    out.push(u8::from(made.is_some()));
    if let Some(made) = made {
        blob(out, &made.config);
        number(out, u64::from(made.rate));
        out.push(made.channels);
    }
    number(out, packets.len() as u64);
    for p in packets {
        out.extend(p.pts.to_be_bytes());
        blob(out, &p.data);
    }
    number(out, *undecodable);
    out.push(u8::from(failed.is_some()));
    if let Some(why) = failed {
        text(out, why);
    }
}

fn reason(out: &mut Vec<u8>, reason: &Reason) {
    out.push(match reason.fault {
        Fault::Peer => 0,
        Fault::Local => 1,
        Fault::Limit => 2,
    });
    text(out, reason.code);
    text(out, &reason.text);
}

fn whole_batch(out: &mut Vec<u8>, batch: &Batch) {
    number(out, u64::from(batch.socket.0));
    blob(out, &batch.buf);
    number(out, batch.items.len() as u64);
    for item in &batch.items {
        match item.src {
            Some(src) => ip(out, src),
            None => out.push(0),
        }
        address(out, item.dst);
        number(out, item.start as u64);
        number(out, item.len as u64);
        number(out, item.segment_size as u64);
    }
}
