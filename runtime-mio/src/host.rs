//! What this host offers a node, for those who want to know before one runs.

use quinn_udp::{UdpSockRef, UdpSocketState};
use std::io;
use std::net::{IpAddr, UdpSocket};

pub use crate::udp::KERNEL_BUFFER;

/// The host's own addresses, loopback and link-local ones left out, in the order of its interfaces.
pub fn addresses() -> Vec<IpAddr> {
    crate::io::host_addresses()
}

/// The most datagrams that one message to this kernel can carry (UDP_SEGMENT); 1: it cannot cut messages.
///
/// # Errors
/// The operating system's, if there is no UDP at all.
pub fn most_segments() -> io::Result<usize> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    Ok(UdpSocketState::new(UdpSockRef::from(&socket))?.max_gso_segments())
}

/// Whether the system's clock is kept right by others (NTP or alike). `None` where the kernel does not say.
#[cfg(target_os = "linux")]
pub fn clock_is_kept() -> Option<bool> {
    // SAFETY: all-zero bytes are a valid `timex`: plain integers.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid, writable `timex` for the whole call; with `modes` zero the call only reads the clock.
    let told = unsafe { libc::adjtimex(&raw mut state) };
    (told >= 0).then_some(told != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

/// Whether the system's clock is kept right by others. This kernel does not say.
#[cfg(not(target_os = "linux"))]
pub fn clock_is_kept() -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_told_as_it_is() {
        assert!(most_segments().unwrap() >= 1);
        assert!(addresses().iter().all(|a| !a.is_loopback()));
        // Whatever it says, asking changes nothing.
        assert_eq!(clock_is_kept(), clock_is_kept());
    }
}
