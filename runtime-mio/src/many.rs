//! Many messages with one call to the kernel (sendmmsg(2)), each of which may be several datagrams (UDP_SEGMENT, udp(7)).
//! Linux only; elsewhere, and for whatever fails here, messages leave one by one through quinn-udp.

use proto_core::io::Transmit;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

/// Messages of one call.
pub(crate) const MESSAGES: usize = 32;
/// Room for ancillary data of one message: source address and segment size.
const CONTROL: usize = 96;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// What the kernel is shown, kept from call to call.
pub(crate) struct Many {
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    addresses: Vec<socket2::SockAddr>,
    controls: Vec<Control>,
}

// SAFETY: the pointers in `headers` and `pieces` are written anew in each call of `send` and read only there.
unsafe impl Send for Many {}

impl Many {
    pub(crate) fn new() -> Many {
        Many {
            headers: Vec::with_capacity(MESSAGES),
            pieces: Vec::with_capacity(MESSAGES),
            addresses: Vec::with_capacity(MESSAGES),
            controls: Vec::with_capacity(MESSAGES),
        }
    }

    /// Sends the first of `items` (at most [`MESSAGES`]), whose bytes are in `buf`. `address` puts a destination into the
    /// family of the socket. Answers how many messages left, at least one.
    ///
    /// # Errors
    /// Why the first did not leave; `InvalidInput` for an item whose bytes are not in `buf`.
    pub(crate) fn send(
        &mut self,
        socket: RawFd,
        buf: &[u8],
        items: &[Transmit],
        address: impl Fn(SocketAddr) -> SocketAddr,
    ) -> io::Result<usize> {
        self.headers.clear();
        self.pieces.clear();
        self.addresses.clear();
        self.controls.clear();
        for item in items.iter().take(MESSAGES) {
            let bytes = item.start.checked_add(item.len).and_then(|end| buf.get(item.start..end));
            let Some(bytes) = bytes.filter(|b| !b.is_empty()) else { break };
            self.pieces
                .push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            self.addresses.push(address(item.dst).into());
            self.controls.push(Control([0; CONTROL]));
        }
        if self.pieces.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let parts = self.pieces.iter_mut().zip(&self.addresses).zip(&mut self.controls).zip(items);
        for (((piece, address), control), item) in parts {
            // SAFETY: all fields of a message header may be zero.
            let mut header: libc::msghdr = unsafe { mem::zeroed() };
            header.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_namelen = address.len();
            header.msg_iov = piece;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
            header.msg_controllen = fill(&header, item) as _;
            if header.msg_controllen == 0 {
                header.msg_control = std::ptr::null_mut();
            }
            self.headers.push(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        }
        let count = self.headers.len() as libc::c_uint;
        loop {
            // SAFETY: every header points to an address, a piece of `buf` and ancillary data that live until the call
            // returns, and whose lengths it states; none of the vectors is changed in between.
            let sent = unsafe { libc::sendmmsg(socket, self.headers.as_mut_ptr(), count, 0) };
            match usize::try_from(sent) {
                Ok(sent) => return Ok(sent),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// Writes ancillary data into the room that a header names. Answers how many bytes of it are used.
fn fill(header: &libc::msghdr, item: &Transmit) -> usize {
    let mut used = 0;
    // SAFETY: the header names `CONTROL` bytes, aligned for a control header and all zero; what is written below needs at
    // most CMSG_SPACE(20) + CMSG_SPACE(2) = 64 of them, and CMSG_NXTHDR answers null where there is no room.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        let mut put = |level, kind, bytes: &[u8]| {
            if at.is_null() {
                return;
            }
            (*at).cmsg_level = level;
            (*at).cmsg_type = kind;
            (*at).cmsg_len = libc::CMSG_LEN(bytes.len() as u32) as _;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), libc::CMSG_DATA(at), bytes.len());
            used += libc::CMSG_SPACE(bytes.len() as u32) as usize;
            at = libc::CMSG_NXTHDR(header, at);
        };
        match item.src {
            Some(IpAddr::V4(v4)) => {
                // struct in_pktinfo: interface (any), source, destination (not looked at).
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&v4.octets());
                put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(v6)) => {
                // struct in6_pktinfo: source, interface (any).
                let mut info = [0; 20];
                info[..16].copy_from_slice(&v6.octets());
                put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if item.len > item.segment_size
            && let Ok(segment) = u16::try_from(item.segment_size)
        {
            put(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
    }
    used
}
