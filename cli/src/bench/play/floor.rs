//! What no server can do without, measured in the same run: sealing packets, and handing them to the kernel in messages of
//! GSO. Whatever a server costs beyond is its own.

use crate::bench::host;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Packets of a message.
const SEGMENTS: usize = 8;
/// Bytes of a packet's payload, and of what leaves.
const PAYLOAD: usize = 1_050;
const PACKET: usize = 12 + PAYLOAD + 16;
/// How long each is measured.
const SPAN: Duration = Duration::from_millis(300);

/// Microseconds of processor for a packet of some 1,080 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// AES-128-GCM.
    pub(super) seal: f64,
    /// A message of eight to a socket of this host that nobody reads.
    pub(super) send: f64,
}

/// Measures, on one thread that does nothing else.
///
/// # Errors
/// There is no socket to be had.
pub(super) fn measure() -> Result<Floor, String> {
    let fail = |e: std::io::Error| format!("the bare costs cannot be measured: {e}");
    let srtp = str0m::crypto::from_feature_flags().srtp_provider;
    let mut cipher = srtp.aead_aes_128_gcm().create_cipher([7; 16], true);
    let (payload, header, mut out) = ([5; PAYLOAD], [0x80; 12], [0; PAYLOAD + 16]);
    let (mut count, begun, cpu) = (0u64, Instant::now(), host::own()?);
    while begun.elapsed() < SPAN {
        for _ in 0..64 {
            let mut iv = [0; 12];
            iv[..8].copy_from_slice(&count.to_be_bytes());
            cipher.encrypt(&iv, &header, &payload, &mut out).map_err(|e| e.to_string())?;
            count += 1;
        }
    }
    let seal = (host::own()? - cpu) as f64 / 1e3 / count as f64;
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fail)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fail)?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(fail)?;
    let (to, message) = (sink.local_addr().map_err(fail)?, [9; PACKET * SEGMENTS]);
    let segments = SEGMENTS.min(state.max_gso_segments().max(1));
    let contents = message.get(..PACKET * segments).unwrap_or_default();
    let transmit =
        Transmit { destination: to, ecn: None, contents, segment_size: Some(PACKET), src_ip: None };
    let (mut count, begun, cpu) = (0u64, Instant::now(), host::own()?);
    while begun.elapsed() < SPAN {
        // What does not fit is not counted.
        count += u64::from(state.try_send(UdpSockRef::from(&socket), &transmit).is_ok()) * segments as u64;
    }
    let send = (host::own()? - cpu) as f64 / 1e3 / count.max(1) as f64;
    Ok(Floor { seal, send })
}
