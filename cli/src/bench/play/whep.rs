//! Players by WHEP: real ICE and DTLS by str0m. Most only count what comes; a few, the probes, decrypt it and read stamps.

use super::source::ages;
use super::{Count, Place};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session that would play pictures and sound, and its offer.
///
/// # Errors
/// The address cannot be a candidate.
pub(in crate::bench) fn offer(local: SocketAddr) -> Result<(Rtc, String, SdpPendingOffer), String> {
    let mut rtc = Rtc::builder().set_rtp_mode(true).build(Instant::now());
    rtc.add_local_candidate(Candidate::host(local, "udp").map_err(|e| e.to_string())?);
    let mut changes = rtc.sdp_api();
    changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
    let (offer, pending) = changes.apply().ok_or("there is nothing to offer")?;
    Ok((rtc, offer.to_sdp_string(), pending))
}

/// Takes the answer to an offer.
///
/// # Errors
/// It does not answer it.
pub(in crate::bench) fn accept(rtc: &mut Rtc, pending: SdpPendingOffer, sdp: &str) -> Result<(), String> {
    let answer = SdpAnswer::from_sdp_string(sdp).map_err(|e| format!("the answer is no SDP: {e}"))?;
    rtc.sdp_api().accept_answer(pending, answer).map_err(|e| format!("the answer does not fit: {e}"))
}

/// The address by which this host reaches another.
///
/// # Errors
/// There is no way to it.
pub(in crate::bench) fn own_address(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let way = std::net::UdpSocket::bind((any, 0))?;
    way.connect(to)?;
    Ok(way.local_addr()?.ip())
}

/// One player.
pub(super) struct Player {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    wake: Instant,
    probe: bool,
    last: Option<(u16, u16)>,
    pub(super) connected: bool,
    pub(super) count: Count,
}

impl Player {
    /// Posts an offer and takes the answer.
    ///
    /// # Errors
    /// What the server or the host says against it.
    pub(super) fn open(
        place: &Place,
        probe: bool,
        token: Token,
        registry: &Registry,
    ) -> Result<Player, String> {
        let fail = |e: std::io::Error| format!("a UDP socket cannot be had: {e}");
        let mut found = (place.host.as_str(), place.port).to_socket_addrs().map_err(fail)?;
        let server = found.next().ok_or_else(|| format!("{} has no address", place.host))?;
        let ip = own_address(server).map_err(fail)?;
        let socket = std::net::UdpSocket::bind((ip, 0)).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let local = socket.local_addr().map_err(fail)?;
        let mut socket = UdpSocket::from_std(socket);
        registry.register(&mut socket, token, Interest::READABLE).map_err(fail)?;
        let (mut rtc, offer, pending) = offer(local)?;
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .proxy(None)
                .http_status_as_error(false)
                .timeout_global(Some(PATIENCE))
                .build(),
        );
        let silent = |e: ureq::Error| format!("{} does not answer: {e}", place.url);
        let request = agent.post(&place.url).header("Content-Type", "application/sdp");
        let mut response = request.send(offer).map_err(silent)?;
        let body = response.body_mut().read_to_string().map_err(silent)?;
        if response.status() != 201 {
            return Err(format!("{} answers {}: {}", place.url, response.status(), body.trim()));
        }
        accept(&mut rtc, pending, &body)?;
        let (wake, count) = (Instant::now(), Count::default());
        let mut player = Player { rtc, socket, local, wake, probe, last: None, connected: false, count };
        player.drain(&mut Vec::new());
        Ok(player)
    }

    /// Reads what there is.
    pub(super) fn ready(&mut self, buffer: &mut [u8], latencies: &mut Vec<u64>) {
        loop {
            let (n, from) = match self.socket.recv_from(buffer) {
                Ok(got) => got,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            let rtp = bytes.first().is_some_and(|b| b >> 6 == 2) && !matches!(bytes.get(1), Some(192..=223));
            if rtp {
                self.note(bytes);
                if !self.probe {
                    continue;
                }
            }
            if let Ok(receive) = Receive::new(Protocol::Udp, from, self.local, bytes) {
                self.count.dead |= self.rtc.handle_input(Input::Receive(Instant::now(), receive)).is_err();
                self.drain(latencies);
            }
        }
    }

    /// Counts a packet of RTP, and what is missing before it: of the payload type that comes most, for numbers are per
    /// SSRC.
    fn note(&mut self, bytes: &[u8]) {
        self.count.bytes += bytes.len() as u64;
        self.count.packets += 1;
        let (Some(pt), Some(&[a, b])) = (bytes.get(1), bytes.get(2..4).and_then(|s| s.first_chunk::<2>()))
        else {
            return;
        };
        let (pt, seq) = (u16::from(pt & 0x7f), u16::from_be_bytes([a, b]));
        match self.last {
            Some((of, before)) if of == pt => {
                let step = seq.wrapping_sub(before);
                if (1..0x8000).contains(&step) {
                    self.count.lost += u64::from(step) - 1;
                    self.last = Some((pt, seq));
                }
            }
            // Pictures are what comes in packets of some size.
            None if bytes.len() > 600 => self.last = Some((pt, seq)),
            _ => {}
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant, latencies: &mut Vec<u64>) {
        if self.wake <= now && !self.count.dead {
            self.count.dead |= self.rtc.handle_input(Input::Timeout(now)).is_err();
            self.drain(latencies);
        }
    }

    fn drain(&mut self, latencies: &mut Vec<u64>) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => return self.wake = at,
                Ok(Output::Transmit(t)) => drop(self.socket.send_to(&t.contents, t.destination)),
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(Event::RtpPacket(p))) => {
                    latencies.extend(ages(&p.payload, super::source::wall()));
                }
                Ok(Output::Event(_)) => {}
                Err(_) => return self.count.dead = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_from_an_address_of_its_family() {
        for to in ["127.0.0.1:9", "[::1]:9"] {
            let to: SocketAddr = to.parse().unwrap();
            match own_address(to) {
                Ok(own) => assert_eq!(own, to.ip()),
                Err(e) => assert!(to.is_ipv6(), "{e}: only IPv6 may be missing here"),
            }
        }
    }
}
