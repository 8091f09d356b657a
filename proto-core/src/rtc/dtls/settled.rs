//! What is left of DTLS once a handshake stands, where only the keys for SRTP were wanted: to hear the peer's goodbye, to say ours, and
//! to repeat the last flight for a peer that did not get it (RFC 6347, 4.2.4).

use super::ciphers::Kept;
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// The last flight is not repeated before so much time has passed: as often as a peer's first timer runs out at the least.
const AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a record's head: type, version, epoch and number, length (RFC 6347, 4.1).
const HEAD: usize = 13;
const VERSION: [u8; 2] = [0xfe, 0xfd];

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// An alert (RFC 5246, 7.2): of level "warning", and "close_notify".
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const FATAL: u8 = 2;

/// What a datagram said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rtc) enum Said {
    /// Nothing that is authentic.
    Nothing,
    /// Something that changes nothing.
    Taken,
    /// Its last flight once more: it has not got ours.
    Flight,
    /// Goodbye.
    Goodbye,
    /// That the session is broken.
    Broken,
}

/// A session whose handshake is over.
#[derive(Debug)]
pub(in crate::rtc) struct Settled {
    ours: Arc<Kept>,
    theirs: Arc<Kept>,
    /// Our last flight, where it was the last of the handshake.
    flight: Vec<Vec<u8>>,
    again: Time,
}

impl Settled {
    pub(super) fn new(ours: Arc<Kept>, theirs: Arc<Kept>, flight: Vec<Vec<u8>>) -> Settled {
        Settled { ours, theirs, flight, again: Time::ZERO }
    }

    /// Takes a datagram: records, one behind the other.
    pub(in crate::rtc) fn take(&self, mut datagram: &[u8]) -> Said {
        let mut said = Said::Nothing;
        while let Some((record, rest)) = record(datagram) {
            datagram = rest;
            match self.heard(&record) {
                Said::Nothing => {}
                Said::Taken if said != Said::Nothing => {}
                end @ (Said::Goodbye | Said::Broken) => return end,
                other => said = other,
            }
        }
        said
    }

    fn heard(&self, record: &Record<'_>) -> Said {
        if record.number >> 48 == 0 {
            // In the clear: nobody knows who says it. Of a peer with keys it can only be its flight.
            let flight = matches!(record.content, CHANGE_CIPHER_SPEC | HANDSHAKE);
            return if flight { Said::Flight } else { Said::Nothing };
        }
        let Some(bytes) = self.theirs.open(record.number, record.content, record.fragment) else {
            return Said::Nothing;
        };
        match (record.content, &bytes[..]) {
            (HANDSHAKE, _) => Said::Flight,
            (ALERT, [_, 0]) => Said::Goodbye,
            (ALERT, [FATAL, _]) => Said::Broken,
            (ALERT | APPLICATION_DATA, _) => Said::Taken,
            _ => Said::Nothing,
        }
    }

    /// Our last flight, if it is time to repeat it.
    pub(in crate::rtc) fn flight(&mut self, now: Time) -> &[Vec<u8>] {
        if now < self.again {
            return &[];
        }
        self.again = now + AGAIN;
        &self.flight
    }

    /// A record that says goodbye.
    pub(in crate::rtc) fn goodbye(&self) -> Option<Vec<u8>> {
        let (number, fragment) = self.ours.seal(ALERT, &CLOSE_NOTIFY)?;
        let mut record = vec![ALERT];
        record.extend_from_slice(&VERSION);
        record.extend_from_slice(&number.to_be_bytes());
        record.extend_from_slice(&u16::try_from(fragment.len()).ok()?.to_be_bytes());
        record.extend_from_slice(&fragment);
        Some(record)
    }
}

/// A record on the wire.
struct Record<'a> {
    content: u8,
    /// Epoch and sequence number.
    number: u64,
    fragment: &'a [u8],
}

/// The first record of a datagram, and what follows it.
fn record(datagram: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (head, rest) = datagram.split_first_chunk::<HEAD>()?;
    let [content, _, _, number @ .., high, low] = *head;
    let (fragment, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some((Record { content, number: u64::from_be_bytes(number), fragment }, rest))
}
