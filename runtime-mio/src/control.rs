//! What other threads may do to a running loop, and the counters they may read.

use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};

const DRAIN: u8 = 1;
const STOP: u8 = 2;

/// Drains or stops a loop from another thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RemoteControl {
    wishes: Arc<AtomicU8>,
    waker: Arc<Waker>,
    pub(crate) counters: Arc<Counters>,
}

impl RemoteControl {
    pub(crate) fn new(waker: Arc<Waker>) -> RemoteControl {
        RemoteControl { wishes: Arc::default(), waker, counters: Arc::default() }
    }

    /// Asks the node to finish what runs and to take nothing new (`Input::Drain`). The loop ends when it has.
    pub fn drain(&self) {
        self.wish(DRAIN);
    }

    /// Ends the loop at once, without asking the node.
    pub fn stop(&self) {
        self.wish(STOP);
    }

    /// The loop's counters as they stand.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    fn wish(&self, wish: u8) {
        self.wishes.fetch_or(wish, Relaxed);
        self.wake();
    }

    /// Wakes the loop. A failure means that the loop is gone or that a wake-up is already on its way.
    pub(crate) fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// Takes the wishes since the last call: (drain, stop).
    pub(crate) fn take(&self) -> (bool, bool) {
        // A plain load first: the swap would dirty a shared cache line every turn.
        if self.wishes.load(Relaxed) == 0 {
            return (false, false);
        }
        let wishes = self.wishes.swap(0, Relaxed);
        (wishes & DRAIN != 0, wishes & STOP != 0)
    }
}

/// Loops that end together: one whose node has drained goes on, for whoever asks how things stand or ends a session of another,
/// until the nodes of all have.
#[derive(Clone, Debug)]
pub(crate) struct Together(Arc<Party>);

#[derive(Debug)]
struct Party {
    left: AtomicUsize,
    all: Vec<RemoteControl>,
}

impl Together {
    pub(crate) fn new(all: Vec<RemoteControl>) -> Together {
        Together(Arc::new(Party { left: AtomicUsize::new(all.len()), all }))
    }

    /// One more has drained, which is said once for each.
    pub(crate) fn one_less(&self) {
        if self.0.left.fetch_sub(1, AcqRel) == 1 {
            self.0.all.iter().for_each(RemoteControl::wake);
        }
    }

    /// Whether all have.
    pub(crate) fn is_over(&self) -> bool {
        self.0.left.load(Acquire) == 0
    }
}

/// Declares the counters once: atomics for the loop, plain numbers for readers.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of a loop since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats { $($(#[doc = $doc])+ pub $name: u64,)+ }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)+ }

        impl Counters {
            fn read(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Nanoseconds in which the loop did not sleep.
    busy_nanos,
    /// Connections that listeners took.
    accepted,
    /// Connections that were closed unheard because the process had no file descriptor left.
    accept_refused,
    /// Other errors of `accept`.
    accept_errors,
    /// Connections that the node dialled.
    dialled,
    /// Bytes received over TCP.
    tcp_bytes_in,
    /// Bytes that the kernel took over TCP.
    tcp_bytes_out,
    /// The most bytes ever held for the sending side of one connection.
    tcp_held_most,
    /// Bytes that the node sent beyond its credit: a defect of the node.
    tcp_over_credit,
    /// Connections that ended by an error or by the peer's reset.
    tcp_failed,
    /// UDP messages received (one may hold several datagrams).
    udp_messages_in,
    /// Bytes received over UDP.
    udp_bytes_in,
    /// UDP messages that the kernel took (one may hold several datagrams).
    udp_messages_out,
    /// Bytes that the kernel took over UDP.
    udp_bytes_out,
    /// Transmits that the kernel refused.
    udp_refused,
    /// Transmits dropped because the socket's queue was full.
    udp_overflow,
    /// Receive errors of UDP sockets.
    udp_receive_errors,
    /// Host names looked up.
    lookups,
}

/// A counter with one writer, the loop's thread.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn raise_to(&self, n: u64) {
        if n > self.0.load(Relaxed) {
            self.0.store(n, Relaxed);
        }
    }
}
