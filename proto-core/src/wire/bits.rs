//! Bits of a header, most significant first, as the standards of ISO, ITU and AOM write them.

/// Reads bits from the front of a buffer. All reads answer `None` past its end.
#[derive(Clone, Debug)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    /// Starts at the first bit.
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0 }
    }

    /// The next `n` bits (at most 32) as a number.
    pub fn take(&mut self, n: usize) -> Option<u32> {
        debug_assert!(n <= 32);
        let end = self.at.checked_add(n)?;
        if end > self.bytes.len().saturating_mul(8) {
            return None;
        }
        let mut value = 0u32;
        for at in self.at..end {
            let byte = self.bytes.get(at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - at % 8) & 1);
        }
        self.at = end;
        Some(value)
    }

    /// The next bit.
    pub fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|b| b == 1)
    }

    /// Leaves out `n` bits.
    pub fn skip(&mut self, n: usize) -> Option<()> {
        self.at = self.at.checked_add(n).filter(|end| *end <= self.bytes.len().saturating_mul(8))?;
        Some(())
    }

    /// An unsigned Exp-Golomb number, `ue(v)` (ITU-T H.264, 9.1). `None` above 2^32 - 2 as well.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.take(zeros)?;
        Some((1u32 << zeros) - 1 + rest)
    }

    /// How many bits were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bits are left.
    pub fn left(&self) -> usize {
        self.bytes.len().saturating_mul(8).saturating_sub(self.at)
    }
}

/// Writes bits, most significant first. The last byte is filled up with zeros.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    used: usize,
}

impl BitWriter {
    /// Appends the `n` low bits (at most 32) of `value`.
    pub fn put(&mut self, n: usize, value: u32) {
        debug_assert!(n <= 32);
        for i in (0..n).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> i & 1) as u8;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The first bytes of a NAL unit's payload, at most `most`, without the emulation prevention bytes (ITU-T H.264,
/// 7.4.1; H.265, 7.4.2).
pub fn unescape(nal: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(most.min(nal.len()));
    let mut zeros = 0;
    for &byte in nal {
        if out.len() >= most {
            break;
        }
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_golomb_numbers_are_read() {
        let ue = |bytes: &[u8]| Bits::new(bytes).ue();
        assert_eq!(ue(&[0x80]), Some(0));
        assert_eq!(ue(&[0b0101_1111]), Some(1));
        assert_eq!(ue(&[0b0001_0000]), Some(7));
        assert_eq!(ue(&[0; 3]), None);
        assert_eq!(ue(&[0; 9]), None);
        assert_eq!(ue(&[]), None);
        assert_eq!(ue(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), Some(u32::MAX - 1));
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3], 99), [1, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(unescape(&[1, 2, 3], 2), [1, 2]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec((1usize..=32, any::<u32>()), 0..20)) {
            let mut w = BitWriter::default();
            for (n, value) in &values {
                w.put(*n, *value);
            }
            let bytes = w.finish();
            let mut r = Bits::new(&bytes);
            for (n, value) in &values {
                prop_assert_eq!(r.take(*n), Some(value & (u32::MAX >> (32 - n))));
            }
            prop_assert!(r.left() < 8);
            prop_assert_eq!(r.take(8), None);
        }
    }
}
