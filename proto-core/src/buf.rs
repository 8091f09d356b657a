//! Byte queues shared by every machine that speaks over a byte stream.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Appends to a buffer that will hold `whole` bytes at most: it grows with what arrives, as buffers do, and never beyond.
pub fn extend_up_to(whole: usize, buf: &mut Vec<u8>, bytes: &[u8]) {
    let needed = buf.len().saturating_add(bytes.len());
    if needed > buf.capacity() {
        let roomy = needed.max(buf.capacity().saturating_mul(2).min(whole));
        buf.reserve_exact(roomy.saturating_sub(buf.len()));
    }
    buf.extend_from_slice(bytes);
}

/// Bytes on their way out, held in the machine until the driver has room for them (the credit of
/// `Input::Writable`). What happens to a slow reader is therefore decided in the core.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    queued: usize,
    credit: usize,
}

impl Outbox {
    /// Appends bytes. Cheap: the buffer is shared, not copied.
    pub fn push(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Says how many bytes the driver can take now. Replaces the former credit, it does not add to it.
    pub fn set_credit(&mut self, free: usize) {
        self.credit = free;
    }

    /// Takes out the next bytes that the credit covers, splitting the last buffer where it must.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.credit == 0 {
            return None;
        }
        let mut front = self.queue.pop_front()?;
        if front.len() > self.credit {
            let rest = front.split_off(self.credit);
            self.queue.push_front(rest);
        }
        self.credit -= front.len();
        self.queued -= front.len();
        Some(front)
    }

    /// Bytes that wait here (not counting what the driver holds).
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes that the driver would take at once.
    pub fn credit(&self) -> usize {
        self.credit
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets what waits and answers how many bytes that were.
    pub fn clear(&mut self) -> usize {
        self.queue.clear();
        std::mem::take(&mut self.queued)
    }
}

/// Received bytes that do not yet make a whole message. Grows with the data, never by a length that a peer
/// declared, and never past the cap it was made with.
#[derive(Debug)]
pub struct Inbox {
    bytes: BytesMut,
    cap: usize,
}

impl Inbox {
    /// An empty buffer that holds at most `cap` bytes.
    pub fn new(cap: usize) -> Inbox {
        Inbox { bytes: BytesMut::new(), cap }
    }

    /// Changes the cap; what is held already stays.
    pub fn set_cap(&mut self, cap: usize) {
        self.cap = cap;
    }

    /// Takes as much of `input` as fits and answers how many bytes that were.
    pub fn fill(&mut self, input: &[u8]) -> usize {
        let room = self.cap.saturating_sub(self.bytes.len()).min(input.len());
        self.bytes.extend_from_slice(input.get(..room).unwrap_or_default());
        room
    }

    /// What is held.
    pub fn peek(&self) -> &[u8] {
        &self.bytes
    }

    /// Drops `n` bytes from the front (all of them if fewer are held).
    pub fn consume(&mut self, n: usize) {
        self.bytes.advance(n.min(self.bytes.len()));
        if self.bytes.is_empty() {
            // An idle connection keeps no buffer.
            self.bytes = BytesMut::new();
        }
    }

    /// Takes `n` bytes from the front without copying (all of them if fewer are held).
    pub fn take(&mut self, n: usize) -> Bytes {
        self.bytes.split_to(n.min(self.bytes.len())).freeze()
    }

    /// How many bytes are held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_only_against_credit_and_in_order() {
        let mut o = Outbox::default();
        o.push(Bytes::from_static(b"hello"));
        o.push(Bytes::from_static(b"world"));
        assert_eq!(o.pop(), None);
        o.set_credit(7);
        assert_eq!(o.pop().as_deref(), Some(&b"hello"[..]));
        assert_eq!(o.pop().as_deref(), Some(&b"wo"[..]));
        assert_eq!(o.pop(), None);
        assert_eq!(o.queued(), 3);
        o.set_credit(100);
        assert_eq!(o.pop().as_deref(), Some(&b"rld"[..]));
        assert!(o.is_empty());
    }

    #[test]
    fn a_buffer_grows_with_what_arrives_and_not_beyond_the_whole() {
        let mut buf = Vec::new();
        for n in 1..=1_000 {
            extend_up_to(1_000, &mut buf, b"x");
            assert!(buf.len() == n && buf.capacity() <= 1_000.min(8.max(2 * n)), "{}", buf.capacity());
        }
        extend_up_to(1_000, &mut buf, b"more");
        assert_eq!(buf.len(), 1_004);
    }

    #[test]
    fn an_inbox_never_grows_past_its_cap() {
        let mut i = Inbox::new(4);
        assert_eq!(i.fill(b"abcdef"), 4);
        assert_eq!(i.fill(b"x"), 0);
        i.consume(2);
        assert_eq!(i.fill(b"xyz"), 2);
        assert_eq!(i.peek(), b"cdxy");
        assert_eq!(&i.take(9)[..], b"cdxy");
    }
}
