//! The bare calls to the kernel that carrying media comes down to, without a node: what no server can do without, for those
//! who measure one (`headwater bench play`). Elsewhere than on Linux datagrams leave one by one.

#[cfg(target_os = "linux")]
use crate::many::{MESSAGES, Many};
use proto_core::io::Batch;
use std::io;
use std::net::{IpAddr, UdpSocket};

/// A UDP socket that batches leave through as the runtime's do: many messages with one call.
pub struct Sender {
    socket: UdpSocket,
    #[cfg(target_os = "linux")]
    many: Many,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Sender {
    /// Opens a socket of this address.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(at: IpAddr) -> io::Result<Sender> {
        let socket = UdpSocket::bind((at, 0))?;
        socket2::SockRef::from(&socket).set_send_buffer_size(crate::host::KERNEL_BUFFER)?;
        Ok(Sender {
            socket,
            #[cfg(target_os = "linux")]
            many: Many::new(),
        })
    }

    /// Sends all messages of a batch, waiting where the socket has no room.
    ///
    /// # Errors
    /// Why one did not leave.
    #[cfg(target_os = "linux")]
    pub fn send(&mut self, batch: &Batch) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let mut rest = batch.items.as_slice();
        while !rest.is_empty() {
            let some = rest.get(..MESSAGES).unwrap_or(rest);
            let sent = self.many.send(self.socket.as_raw_fd(), &batch.buf, some, |to| to)?;
            rest = rest.get(sent.max(1)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends all datagrams of a batch.
    ///
    /// # Errors
    /// Why one did not leave.
    #[cfg(not(target_os = "linux"))]
    pub fn send(&mut self, batch: &Batch) -> io::Result<()> {
        for item in &batch.items {
            let bytes = batch.buf.get(item.start..item.start + item.len).unwrap_or_default();
            for datagram in bytes.chunks(item.segment_size.max(1)) {
                self.socket.send_to(datagram, item.dst)?;
            }
        }
        Ok(())
    }
}

/// Has the calling thread run from now on where a process may: on the same processors.
///
/// # Errors
/// There is no such process, or the operating system forbids it.
#[cfg(target_os = "linux")]
pub fn run_beside(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a set of processors is plain integers, of which all may be zero.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of_val(&set);
    // SAFETY: `set` is a valid, writable set of `size` bytes for both calls; 0 is the calling thread.
    let done = unsafe {
        libc::sched_getaffinity(pid, size, &raw mut set) == 0
            && libc::sched_setaffinity(0, size, &raw const set) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the calling thread run from now on where a process may.
///
/// # Errors
/// Always: this system cannot be asked.
#[cfg(not(target_os = "linux"))]
pub fn run_beside(_pid: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use proto_core::io::SocketId;

    #[test]
    fn a_batch_leaves_whole_and_a_thread_stays_where_it_may_be() {
        run_beside(std::process::id()).unwrap();
        assert!(run_beside(u32::MAX).is_err());
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = Batch::new(SocketId(0));
        for n in 0..40 {
            // Each a message: a shorter datagram ends one.
            batch.push(None, sink.local_addr().unwrap(), &vec![n; 41 - n as usize], 1);
        }
        Sender::open([127, 0, 0, 1].into()).unwrap().send(&batch).unwrap();
        let mut buffer = [0; 64];
        for n in 0..40 {
            assert_eq!(sink.recv(&mut buffer).unwrap(), 41 - n as usize);
            assert_eq!(buffer[0], n);
        }
    }
}
