//! RTP and RTCP (RFC 3550) and AAC in RTP (RFC 3640, mode AAC-hbr), written anew for the clients.

/// What the world's wall clocks read when it begins, nanoseconds since 1970.
pub(super) const EPOCH: u64 = 1_700_000_000_000_000_000;
/// Seconds from 1900 to 1970.
const NTP_OFFSET: u64 = 2_208_988_800;

/// An RTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rtp {
    pub(super) kind: u8,
    pub(super) marker: bool,
    pub(super) seq: u16,
    pub(super) stamp: u32,
    pub(super) ssrc: u32,
    pub(super) payload: Vec<u8>,
}

impl Rtp {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = vec![0x80, u8::from(self.marker) << 7 | self.kind];
        out.extend(self.seq.to_be_bytes());
        out.extend(self.stamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        out.extend(&self.payload);
        out
    }

    /// # Errors
    /// What is wrong with it. Servers here have no use for extensions, padding and sources.
    pub(super) fn read(bytes: &[u8]) -> Result<Rtp, String> {
        let [0x80, second, a, b, c, d, e, f, g, h, i, j, payload @ ..] = bytes else {
            return Err(format!("no plain RTP: {:?}", bytes.get(..12)));
        };
        Ok(Rtp {
            kind: second & 0x7f,
            marker: second & 0x80 != 0,
            seq: u16::from_be_bytes([*a, *b]),
            stamp: u32::from_be_bytes([*c, *d, *e, *f]),
            ssrc: u32::from_be_bytes([*g, *h, *i, *j]),
            payload: payload.to_vec(),
        })
    }
}

/// What an RTCP packet of the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rtcp {
    /// A sender's clock: its stream, nanoseconds since 1970, the timestamp at that moment.
    Sender(u32, i128, u32),
    /// A key frame is wanted.
    KeyFrame,
    /// The stream is over.
    Bye,
}

/// Reads a compound packet.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_rtcp(mut bytes: &[u8]) -> Result<Vec<Rtcp>, String> {
    let mut out = Vec::new();
    if !matches!(bytes.get(1), Some(200 | 201)) {
        return Err("a compound that does not begin with a report".to_owned());
    }
    while let [first, kind, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low])) * 4;
        let (body, after) = rest.split_at_checked(len).ok_or("a report is cut short")?;
        let word = |n: usize| {
            let four = body.get(n * 4..n * 4 + 4).and_then(|w| w.try_into().ok());
            four.map(u32::from_be_bytes).ok_or("a report is too short")
        };
        match (kind, first & 0x1f) {
            (200, _) => {
                let seconds = u64::from(word(1)?).checked_sub(NTP_OFFSET).ok_or("a time before 1970")?;
                let nanos = (u64::from(word(2)?) * 1_000_000_000) >> 32;
                let at = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
                out.push(Rtcp::Sender(word(0)?, at, word(3)?));
            }
            (203, _) => out.push(Rtcp::Bye),
            (206, 1) => out.push(Rtcp::KeyFrame),
            _ => {}
        }
        bytes = after;
    }
    if bytes.is_empty() { Ok(out) } else { Err("a rest behind the reports".to_owned()) }
}

/// A sender's report, nanoseconds since 1970.
pub(super) fn sender_report(ssrc: u32, nanos: u64, stamp: u32, packets: u32, octets: u32) -> Vec<u8> {
    let seconds = (nanos / 1_000_000_000 + NTP_OFFSET) as u32;
    let fraction = ((nanos % 1_000_000_000) << 32) / 1_000_000_000;
    let mut out = vec![0x80, 200, 0, 6];
    for word in [ssrc, seconds, fraction as u32, stamp, packets, octets] {
        out.extend(word.to_be_bytes());
    }
    out
}

/// A receiver's report without blocks, and with it the wish for a key frame of a stream (RFC 4585, 6.3.1).
pub(super) fn receiver_report(own: u32, key_of: Option<u32>) -> Vec<u8> {
    let mut out = vec![0x80, 201, 0, 1];
    out.extend(own.to_be_bytes());
    if let Some(ssrc) = key_of {
        out.extend([0x81, 206, 0, 2]);
        out.extend(own.to_be_bytes());
        out.extend(ssrc.to_be_bytes());
    }
    out
}

/// One AAC frame as a payload.
pub(super) fn aac(frame: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 16];
    out.extend(((frame.len() as u16) << 3).to_be_bytes());
    out.extend(frame);
    out
}

/// The frames of a payload of AAC.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_aac(payload: &[u8]) -> Result<Vec<&[u8]>, String> {
    let (head, rest) = payload.split_first_chunk::<2>().ok_or("no headers")?;
    let bits = usize::from(u16::from_be_bytes(*head));
    if bits == 0 || bits % 16 != 0 {
        return Err(format!("{bits} bits of headers"));
    }
    let (heads, mut data) = rest.split_at_checked(bits / 8).ok_or("headers are cut short")?;
    let mut out = Vec::new();
    for head in heads.chunks_exact(2) {
        let size = usize::from(u16::from_be_bytes([head[0], head[1]]) >> 3);
        let (frame, after) = data.split_at_checked(size).ok_or("a frame is cut short")?;
        out.push(frame);
        data = after;
    }
    if data.is_empty() { Ok(out) } else { Err("a rest behind the frames".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let rtp =
            Rtp { kind: 96, marker: true, seq: 65_535, stamp: 7, ssrc: 0xdead_beef, payload: vec![1, 2] };
        assert_eq!(Rtp::read(&rtp.write()), Ok(rtp));
        let at = EPOCH + 5;
        let read = read_rtcp(&sender_report(9, at, 77, 1, 2)).unwrap();
        let [Rtcp::Sender(9, time, 77)] = read[..] else { panic!("{read:?}") };
        assert!((time - i128::from(at)).abs() < 2);
        assert_eq!(read_rtcp(&receiver_report(1, Some(2))), Ok(vec![Rtcp::KeyFrame]));
        assert_eq!(read_aac(&aac(b"frame")), Ok(vec![&b"frame"[..]]));
        assert!(read_aac(&[0, 16, 0, 8]).is_err() && read_rtcp(&[0x80, 200, 0, 9]).is_err());
    }
}
