//! Websocket frames and the two keys of the handshake (RFC 6455).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use sha1::{Digest, Sha1};

/// The most bytes that the header of a frame may have.
pub const MOST_HEADER: usize = 14;

/// The most bytes that a control frame may carry (RFC 6455 section 5.5).
pub const MOST_CONTROL: usize = 125;

/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message before it.
    Continuation,
    /// Begins a message of text.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// The sender sends no more.
    Close,
    /// Asks for a sign of life.
    Ping,
    /// The sign of life.
    Pong,
}

impl Opcode {
    fn read(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    /// Close, ping and pong may stand between the parts of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The key under which the payload is masked: clients mask, servers do not.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub len: u64,
}

/// Why the bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A reserved bit is set, and no extension was agreed on.
    Reserved,
    /// The opcode has no meaning.
    Opcode(u8),
    /// The length is not written in as few bytes as it could be, or has its highest bit set.
    Length,
    /// A control frame in parts, or larger than [`MOST_CONTROL`].
    Control,
}

impl Header {
    /// Reads a header and says how many bytes it has; `None` if there are too few yet.
    ///
    /// # Errors
    /// If these bytes begin no frame, as soon as that can be known.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Malformed::Reserved);
        }
        let opcode = Opcode::read(first & 0x0f).ok_or(Malformed::Opcode(first & 0x0f))?;
        let fin = first & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(Malformed::Control);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MOST_CONTROL {
            return Err(Malformed::Control);
        }
        let (len, mut at) = match short {
            126 => match bytes.get(2..4).and_then(|b| <[u8; 2]>::try_from(b).ok()) {
                Some(b) => (u64::from(u16::from_be_bytes(b)), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|b| <[u8; 8]>::try_from(b).ok()) {
                Some(b) => (u64::from_be_bytes(b), 10),
                None => return Ok(None),
            },
            n => (u64::from(n), 2),
        };
        let minimal = match short {
            126 => len > 125,
            127 => len > 0xffff && len < 1 << 63,
            _ => true,
        };
        if !minimal {
            return Err(Malformed::Length);
        }
        let mask = if second & 0x80 != 0 {
            let key = bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            at += 4;
            match key {
                Some(key) => Some(key),
                None => return Ok(None),
            }
        } else {
            None
        };
        Ok(Some((Header { fin, opcode, mask, len }, at)))
    }
}

/// Writes one whole frame. `mask` is the key of a client; a server has none.
pub fn frame(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + MOST_HEADER);
    out.put_u8(0x80 | opcode.bits());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(n), _) if usize::from(n) <= MOST_CONTROL => out.put_u8(masked | n),
        (_, Ok(n)) => {
            out.put_u8(masked | 126);
            out.put_u16(n);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(payload.len() as u64);
        }
    }
    let Some(key) = mask else {
        out.put_slice(payload);
        return out.freeze();
    };
    out.put_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out.freeze()
}

/// Masks or unmasks a payload (RFC 6455 section 5.3).
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Whether a code may stand in a close frame (RFC 6455 section 7.4, and the registry of IANA).
pub const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a close frame: the code, then words, cut where they would be too long.
pub fn close_payload(code: u16, words: &str) -> Vec<u8> {
    let mut cut = words.len().min(MOST_CONTROL - 2);
    while !words.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut out = code.to_be_bytes().to_vec();
    out.extend_from_slice(words.as_bytes().get(..cut).unwrap_or_default());
    out
}

/// What a server answers to a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &str) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// The `Sec-WebSocket-Key` of a client, out of 16 random bytes.
pub fn client_key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Whether a `Sec-WebSocket-Key` is one: 16 bytes in base64.
pub fn is_client_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 6455 sections 1.3 and 5.7.
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let text = |bytes: &[u8]| Header::parse(bytes).unwrap().unwrap();
        let plain = [0x81, 0x05, b'H', b'e', b'l', b'l', b'o'];
        assert_eq!(text(&plain), (Header { fin: true, opcode: Opcode::Text, mask: None, len: 5 }, 2));
        assert_eq!(&frame(Opcode::Text, b"Hello", None)[..], plain);
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(&frame(Opcode::Text, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]))[..], masked);
        assert!(!text(&[0x01, 0x03]).0.fin);
        assert_eq!(text(&[0x82, 0x7e, 1, 0]).0.len, 256);
        assert_eq!(text(&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]).0.len, 65_536);
    }

    #[test]
    fn what_is_no_frame_is_known_early() {
        for (bytes, why) in [
            (&[0xc1][..], Malformed::Reserved),
            (&[0x83], Malformed::Opcode(3)),
            (&[0x8f], Malformed::Opcode(15)),
            (&[0x09], Malformed::Control),
            (&[0x88, 0x7e], Malformed::Control),
            (&[0x81, 0x7e, 0, 125], Malformed::Length),
            (&[0x81, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Malformed::Length),
            (&[0x81, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], Malformed::Length),
        ] {
            assert_eq!(Header::parse(bytes), Err(why), "{bytes:x?}");
        }
    }

    #[test]
    fn close_codes_and_words_fit() {
        assert!([1000, 1001, 1003, 1011, 3000, 4999].into_iter().all(is_close_code));
        assert!(![0, 999, 1004, 1005, 1006, 1015, 2999, 5000].into_iter().any(is_close_code));
        let long = close_payload(1000, &"ü".repeat(100));
        assert!(long.len() <= MOST_CONTROL && std::str::from_utf8(&long[2..]).is_ok());
        assert!(is_client_key(&client_key([7; 16])));
        assert!(!is_client_key("") && !is_client_key("dGhlIHNhbXBsZQ==") && !is_client_key("***"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            payload in proptest::collection::vec(any::<u8>(), 0..70_000),
            key in proptest::option::of(any::<[u8; 4]>()),
            cut in any::<proptest::sample::Index>(),
        ) {
            let out = frame(Opcode::Binary, &payload, key);
            let (header, at) = Header::parse(&out).unwrap().unwrap();
            prop_assert_eq!(header, Header { fin: true, opcode: Opcode::Binary, mask: key, len: payload.len() as u64 });
            let mut got = out[at..].to_vec();
            if let Some(key) = key {
                mask(&mut got, key);
            }
            prop_assert_eq!(got, payload);
            prop_assert_eq!(Header::parse(&out[..cut.index(at)]), Ok(None));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = Header::parse(&bytes);
        }
    }
}
