//! VP8 frame headers (RFC 6386, section 9.1), as far as a server asks.

/// What the first bytes of a frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Frame {
    /// A key frame's width and height in pixels; `None` for a frame that refers to others.
    pub key: Option<(u32, u32)>,
}

impl Vp8Frame {
    /// Reads the frame tag and, of a key frame, its size. `None` if it is cut short, has a reserved version, or is a key
    /// frame without start code or without size.
    pub fn parse(frame: &[u8]) -> Option<Vp8Frame> {
        let (&[first, _, _], rest) = frame.split_first_chunk::<3>()?;
        // Versions 0 to 3 are defined.
        if first >> 1 & 7 > 3 {
            return None;
        }
        if first & 1 == 1 {
            return Some(Vp8Frame { key: None });
        }
        let (&[0x9d, 0x01, 0x2a, w0, w1, h0, h1], _) = rest.split_first_chunk::<7>()? else { return None };
        // The two highest bits are a hint for upscaling.
        let size = |a, b| u32::from(u16::from_le_bytes([a, b]) & 0x3fff);
        let (width, height) = (size(w0, w1), size(h0, h1));
        (width > 0 && height > 0).then_some(Vp8Frame { key: Some((width, height)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_told_apart() {
        let key = [0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 0x42, 0x68, 0x01, 9];
        assert_eq!(Vp8Frame::parse(&key), Some(Vp8Frame { key: Some((640, 360)) }));
        assert_eq!(Vp8Frame::parse(&[0x11, 2, 0]), Some(Vp8Frame { key: None }));
        assert!((0..10).all(|n| key.get(..n).and_then(Vp8Frame::parse).is_none()));
        assert_eq!(Vp8Frame::parse(&[0x18, 2, 0, 0x9d, 1, 0x2a, 0x80, 0x42, 0x68, 0x01]), None, "version 4");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let _ = Vp8Frame::parse(&bytes);
        }
    }
}
