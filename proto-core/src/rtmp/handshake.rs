//! The RTMP handshake (Adobe RTMP 1.0, section 5.2), and the form with digests that Flash and what descends from it
//! speak (described by the RTMFP/RTMPE reverse engineering of 2009; nginx-rtmp and SRS do the same).

use crate::error::Reason;
use crate::rand::Rng;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Bytes of C1, C2, S1 and S2.
pub const PACKET: usize = 1536;
const DIGEST: usize = 32;

const SECRET: [u8; 32] = [
    0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57, 0x6e,
    0xec, 0x5d, 0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
];
const SERVER_NAME: &[u8] = b"Genuine Adobe Flash Media Server 001";
const PLAYER_NAME: &[u8] = b"Genuine Adobe Flash Player 001";

/// HMAC-SHA256 (RFC 2104) with a key of any length over the parts, one after the other.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST] {
    let mut block = [0; 64];
    let hashed: [u8; DIGEST];
    let key = if key.len() > block.len() {
        hashed = Sha256::digest(key).into();
        &hashed
    } else {
        key
    };
    for (slot, byte) in block.iter_mut().zip(key) {
        *slot = *byte;
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Where the digest of a packet stands, for the two layouts.
fn digest_at(packet: &[u8; PACKET], schema: u8) -> usize {
    let (from, base) = if schema == 0 { (8, 12) } else { (772, 776) };
    let sum: usize = packet.iter().skip(from).take(4).map(|b| usize::from(*b)).sum();
    sum % 728 + base
}

fn digest_of(packet: &[u8; PACKET], at: usize, key: &[u8]) -> [u8; DIGEST] {
    let before = packet.get(..at).unwrap_or_default();
    let after = packet.get(at + DIGEST..).unwrap_or_default();
    hmac(key, &[before, after])
}

/// The layout and digest of a C1, if it has one.
fn find_digest(c1: &[u8; PACKET]) -> Option<(u8, [u8; DIGEST])> {
    [1, 0].into_iter().find_map(|schema| {
        let at = digest_at(c1, schema);
        let digest = digest_of(c1, at, PLAYER_NAME);
        (c1.get(at..at + DIGEST) == Some(&digest[..])).then_some((schema, digest))
    })
}

/// What is still to come of a handshake: collects exactly that many bytes and no more.
#[derive(Debug)]
struct Collect {
    bytes: Vec<u8>,
    want: usize,
}

impl Collect {
    fn new(want: usize) -> Collect {
        Collect { bytes: Vec::new(), want }
    }

    /// Takes from the front of `input`. `true` when all is there.
    fn fill(&mut self, input: &mut &[u8]) -> bool {
        let n = self.want.saturating_sub(self.bytes.len()).min(input.len());
        let (head, tail) = input.split_at_checked(n).unwrap_or((input, &[]));
        self.bytes.extend_from_slice(head);
        *input = tail;
        self.bytes.len() == self.want
    }
}

/// The server's side.
#[derive(Debug)]
pub struct ServerHandshake {
    step: ServerStep,
    collect: Collect,
    digest: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum ServerStep {
    C0C1,
    C2,
    Done,
}

impl Default for ServerHandshake {
    fn default() -> Self {
        ServerHandshake { step: ServerStep::C0C1, collect: Collect::new(1 + PACKET), digest: false }
    }
}

impl ServerHandshake {
    /// Whether the peer proved to know the digest form.
    pub fn is_digest(&self) -> bool {
        self.digest
    }

    /// Whether C2 has come; from here on chunks follow.
    pub fn is_done(&self) -> bool {
        self.step == ServerStep::Done
    }

    /// Takes bytes from the front of `input`, never past C2; answers what must be sent (S0, S1, S2 in one).
    ///
    /// # Errors
    /// The peer speaks no RTMP, or a form of it that we do not take.
    pub fn receive(&mut self, input: &mut &[u8], rng: &mut Rng) -> Result<Option<Vec<u8>>, Reason> {
        if self.step == ServerStep::C0C1 {
            let whole = self.collect.fill(input);
            // A wrong first byte is told at once; whoever sends it will not send 1,537.
            if let Some(&version) = self.collect.bytes.first() {
                check_version(version)?;
            }
            if !whole {
                return Ok(None);
            }
            let answer = match self.collect.bytes.get(1..).and_then(|b| b.first_chunk::<PACKET>()) {
                Some(c1) => {
                    let digest = find_digest(c1);
                    self.digest = digest.is_some();
                    answer(c1, digest, rng)
                }
                None => Vec::new(),
            };
            self.collect = Collect::new(PACKET);
            self.step = ServerStep::C2;
            return Ok(Some(answer));
        }
        // C2 echoes S1; peers fill it carelessly, and nothing depends on it.
        if self.step == ServerStep::C2 && self.collect.fill(input) {
            self.collect = Collect::new(0);
            self.step = ServerStep::Done;
        }
        Ok(None)
    }
}

fn check_version(version: u8) -> Result<(), Reason> {
    let text = match version {
        3 => return Ok(()),
        6 | 8 => {
            "the peer wants RTMPE (encrypted RTMP), which is not secure and not supported; use rtmp://".into()
        }
        0x16 => {
            "the peer speaks TLS (rtmps://) on the RTMP port; use rtmp://, or the port for it (rtmps.port)"
                .into()
        }
        b'G' | b'P' | b'O' | b'H' => "the peer speaks HTTP on the RTMP port; use the HTTP port".into(),
        n => format!("the peer begins with byte {n}; RTMP begins with 3"),
    };
    Err(Reason::peer("rtmp_version", text))
}

fn answer(c1: &[u8; PACKET], digest: Option<(u8, [u8; DIGEST])>, rng: &mut Rng) -> Vec<u8> {
    let mut s1: [u8; PACKET] = rng.bytes();
    let mut s2: [u8; PACKET] = *c1;
    let head: [u8; 8] = match digest {
        // Any version above 0 makes the peer look for our digest.
        Some(_) => [0, 0, 0, 0, 4, 5, 0, 1],
        None => [0; 8],
    };
    copy(&mut s1, 0, &head);
    if let Some((schema, peer)) = digest {
        let at = digest_at(&s1, schema);
        let own = digest_of(&s1, at, SERVER_NAME);
        copy(&mut s1, at, &own);
        s2 = rng.bytes();
        let key = hmac(&[SERVER_NAME, &SECRET].concat(), &[&peer]);
        let end = PACKET - DIGEST;
        let signature = hmac(&key, &[s2.get(..end).unwrap_or_default()]);
        copy(&mut s2, end, &signature);
    }
    let mut out = Vec::with_capacity(1 + 2 * PACKET);
    out.push(3);
    out.extend_from_slice(&s1);
    out.extend_from_slice(&s2);
    out
}

fn copy(packet: &mut [u8; PACKET], at: usize, bytes: &[u8]) {
    for (slot, byte) in packet.iter_mut().skip(at).zip(bytes) {
        *slot = *byte;
    }
}

/// The client's side, in the simple form.
#[derive(Debug)]
pub struct ClientHandshake {
    collect: Collect,
    done: bool,
}

impl ClientHandshake {
    /// Begins; the bytes are C0 and C1.
    pub fn new(rng: &mut Rng) -> (ClientHandshake, Vec<u8>) {
        let mut c1: [u8; PACKET] = rng.bytes();
        copy(&mut c1, 0, &[0; 8]);
        let mut out = vec![3];
        out.extend_from_slice(&c1);
        (ClientHandshake { collect: Collect::new(1 + 2 * PACKET), done: false }, out)
    }

    /// Whether S2 has come; from here on chunks follow.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Takes bytes from the front of `input`, never past S2; answers C2 when it is due.
    ///
    /// # Errors
    /// The peer speaks no RTMP.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, Reason> {
        let whole = self.collect.fill(input);
        if let Some(&version) = self.collect.bytes.first() {
            check_version(version)?;
        }
        if self.done || !whole {
            return Ok(None);
        }
        self.done = true;
        Ok(self.collect.bytes.get(1..=PACKET).map(<[u8]>::to_vec))
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn rng() -> Rng {
        Rng::new([9; 32])
    }

    /// A C1 as Flash, librtmp with SWF verification and gstreamer make it.
    fn digest_c1(schema: u8) -> [u8; PACKET] {
        let mut c1: [u8; PACKET] = rng().bytes();
        copy(&mut c1, 0, &[0, 0, 0, 0, 9, 0, 124, 2]);
        let at = digest_at(&c1, schema);
        let digest = digest_of(&c1, at, PLAYER_NAME);
        copy(&mut c1, at, &digest);
        c1
    }

    #[test]
    fn simple_sides_meet_and_leave_what_follows() {
        let mut server = ServerHandshake::default();
        let (mut client, c0c1) = ClientHandshake::new(&mut rng());
        let s = server.receive(&mut &c0c1[..], &mut rng()).unwrap().unwrap();
        assert_eq!(s.len(), 1 + 2 * PACKET);
        assert_eq!(s[1 + PACKET..], c0c1[1..], "S2 echoes C1");
        assert!(!server.is_digest());
        let mut s_and_more = [&s[..], b"more"].concat();
        let mut rest = &s_and_more[..];
        let mut c2 = client.receive(&mut rest).unwrap().unwrap();
        assert_eq!((rest, client.is_done()), (&b"more"[..], true));
        assert_eq!(c2[..], s[1..=PACKET]);
        c2.extend_from_slice(b"chunks");
        let mut rest = &c2[..];
        assert_eq!(server.receive(&mut rest, &mut rng()).unwrap(), None);
        assert_eq!((rest, server.is_done()), (&b"chunks"[..], true));
        s_and_more.clear();
    }

    #[test]
    fn digests_of_both_layouts_are_answered_with_ours() {
        for schema in [0, 1] {
            let c1 = digest_c1(schema);
            let mut server = ServerHandshake::default();
            // One byte at a time.
            let mut answer = None;
            for b in [&[3][..], &c1].concat() {
                answer = server.receive(&mut &[b][..], &mut rng()).unwrap();
            }
            let s = answer.unwrap();
            assert!(server.is_digest());
            let s1 = s[1..].first_chunk::<PACKET>().unwrap();
            let s2 = s[1 + PACKET..].first_chunk::<PACKET>().unwrap();
            let at = digest_at(s1, schema);
            assert_eq!(s1[at..at + DIGEST], digest_of(s1, at, SERVER_NAME));
            let (_, peer) = find_digest(&c1).unwrap();
            let key = hmac(&[SERVER_NAME, &SECRET].concat(), &[&peer]);
            assert_eq!(s2[PACKET - DIGEST..], hmac(&key, &[&s2[..PACKET - DIGEST]]));
        }
    }

    #[test]
    fn a_spoilt_digest_falls_back_to_the_simple_form() {
        let mut c1 = digest_c1(1);
        c1[20] ^= 1;
        let mut server = ServerHandshake::default();
        let s = server.receive(&mut &[&[3][..], &c1].concat()[..], &mut rng()).unwrap().unwrap();
        assert!(!server.is_digest());
        assert_eq!(s[1 + PACKET..], c1);
    }

    #[test]
    fn other_protocols_are_recognised_by_their_first_byte() {
        for (byte, word) in [(b'G', "HTTP"), (0x16, "TLS"), (6, "RTMPE"), (9, "byte 9")] {
            let e = ServerHandshake::default().receive(&mut &[byte][..], &mut rng()).unwrap_err();
            assert_eq!(e.code, "rtmp_version");
            assert!(e.text.contains(word), "{e}");
        }
    }

    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        // Test case 2, and test case 6 with a key longer than the block.
        assert_eq!(hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"])[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        let long = hmac(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(long[..4], [0x60, 0xe4, 0x31, 0x59]);
    }
}
