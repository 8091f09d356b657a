//! What no server can do without, measured in the same run: sealing packets and handing them to the kernel in messages of
//! GSO, and writing shared bytes to connections. Whatever a server costs beyond is its own.
//!
//! It is done as a server would have to: for as many players, of whom another thread reads everything, for the same
//! pictures and sound at the same rate, and on the server's processors where its process is known.

use super::source::{SOUND_BYTES, SOUND_MS};
use crate::bench::host;
use mio::{Events, Interest, Poll, Token};
use proto_core::io::{Batch, SocketId};
use proto_core::media::payload::PAYLOAD_BYTES;
use proto_core::rtc::srtp;
use runtime_mio::bare::{self, Sender};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use str0m::crypto::dtls::SrtpProfile;

/// How often readers look whether it is over.
const TICK: Duration = Duration::from_millis(20);
/// Bytes of a packet before and behind its payload.
const HEADER: usize = 12;
const TAG: usize = 16;
/// A batch leaves once it has so many bytes, as the server's do.
const BATCH_BYTES: usize = 192 << 10;
/// Datagrams of one message, at most.
const SEGMENTS: usize = 64;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Who plays what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) by_udp: usize,
    pub(super) by_tcp: usize,
    /// Bytes of a picture, and how many a second.
    pub(super) picture: usize,
    pub(super) fps: u64,
    /// The server.
    pub(super) pid: Option<u32>,
    /// How long each is measured.
    pub(super) span: Duration,
}

/// Microseconds of processor for one player and second; `None` where none plays that way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floor {
    /// The bare cipher (AES-256-GCM) and the bare call.
    pub(super) sealed: Option<f64>,
    /// The same with the node's own functions for it: headers, SRTP, batches.
    pub(super) ours: Option<f64>,
    /// One write a picture, of bytes that all share.
    pub(super) written: Option<f64>,
}

/// Measures.
///
/// # Errors
/// There are no sockets to be had, or the server's process cannot be asked.
pub(super) fn measure(crowd: &Crowd) -> Result<Floor, String> {
    let fail = |e: std::io::Error| format!("the bare costs cannot be measured: {e}");
    let mut floor = Floor::default();
    if crowd.by_udp > 0 {
        let mut sinks = Vec::new();
        for _ in 0..crowd.by_udp {
            sinks.push(mio::net::UdpSocket::bind((LOOPBACK, 0).into()).map_err(fail)?);
        }
        let places: Vec<SocketAddr> = sinks.iter().filter_map(|s| s.local_addr().ok()).collect();
        let drain = |socket: &mut mio::net::UdpSocket, buffer: &mut [u8]| socket.recv(buffer);
        let (bare, ours) = while_read(sinks, drain, crowd, || {
            Ok((sealed(crowd, &places, bare_cipher()?)?, sealed(crowd, &places, own_functions()?)?))
        })?;
        (floor.sealed, floor.ours) = (Some(bare), Some(ours));
    }
    if crowd.by_tcp > 0 {
        let listener = TcpListener::bind((LOOPBACK, 0)).map_err(fail)?;
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for _ in 0..crowd.by_tcp {
            let reader = TcpStream::connect(listener.local_addr().map_err(fail)?).map_err(fail)?;
            reader.set_nonblocking(true).map_err(fail)?;
            readers.push(mio::net::TcpStream::from_std(reader));
            let (writer, _) = listener.accept().map_err(fail)?;
            writer.set_nodelay(true).and_then(|()| writer.set_nonblocking(true)).map_err(fail)?;
            writers.push(writer);
        }
        let drain = |socket: &mut mio::net::TcpStream, buffer: &mut [u8]| socket.read(buffer);
        floor.written = Some(while_read(readers, drain, crowd, move || written(crowd, &mut writers))?);
    }
    Ok(floor)
}

/// Has `work` done on a thread of its own, where the server runs, while this one reads what comes.
fn while_read<S: mio::event::Source, T: Send>(
    mut sockets: Vec<S>,
    mut drain: impl FnMut(&mut S, &mut [u8]) -> std::io::Result<usize>,
    crowd: &Crowd,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let fail = |e: std::io::Error| format!("the bare costs cannot be measured: {e}");
    let mut poll = Poll::new().map_err(fail)?;
    for (n, socket) in sockets.iter_mut().enumerate() {
        poll.registry().register(socket, Token(n), Interest::READABLE).map_err(fail)?;
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let beside = crowd.pid.map_or(Ok(()), bare::run_beside).map_err(fail);
            let done = beside.and_then(|()| work());
            over.store(true, Relaxed);
            done
        });
        let (mut events, mut buffer) = (Events::with_capacity(1_024), vec![0; 64 << 10]);
        while !over.load(Relaxed) {
            match poll.poll(&mut events, Some(TICK)) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(fail(e)),
                _ => {}
            }
            for event in &events {
                if let Some(socket) = sockets.get_mut(event.token().0) {
                    while drain(socket, &mut buffer).is_ok_and(|n| n > 0) {}
                }
            }
        }
        worker.join().unwrap_or_else(|_| Err("a defect".to_owned()))
    })
}

/// Rounds at the pictures' rate, each told how many packets of sound are due with it. Answers microseconds of processor for
/// each of `of` and second.
fn rounds(crowd: &Crowd, of: usize, mut round: impl FnMut(u64) -> Result<(), String>) -> Result<f64, String> {
    let gap = Duration::from_nanos(1_000_000_000 / crowd.fps);
    let sounds = |n: u64| (gap * n as u32).as_millis() as u64 / SOUND_MS;
    let (mut pause, mut none) = (Poll::new().map_err(|e| e.to_string())?, Events::with_capacity(1));
    let (begun, cpu, mut count) = (Instant::now(), host::own()?, 0u64);
    while begun.elapsed() < crowd.span || count < 4 {
        round(sounds(count + 1) - sounds(count))?;
        count += 1;
        // What took longer than a picture lasts goes on at once: what counts is the work of each round.
        while let Some(rest) = (gap * count as u32).checked_sub(begun.elapsed()) {
            let _ = pause.poll(&mut none, Some(rest));
        }
    }
    let spent = (host::own()? - cpu) as f64 / 1e3;
    Ok(spent / (of as f64 * count as f64 / crowd.fps as f64))
}

/// Puts a sealed packet behind others: number, payload.
type Seal = Box<dyn FnMut(u64, &[u8], &mut Vec<u8>) -> Result<(), String>>;

fn bare_cipher() -> Result<Seal, String> {
    let srtp = str0m::crypto::from_feature_flags().srtp_provider;
    let mut cipher = srtp.aead_aes_256_gcm().create_cipher([7; 32], true);
    Ok(Box::new(move |number, payload, out| {
        let at = out.len() + HEADER;
        out.resize(at + payload.len() + TAG, 0x80);
        let mut iv = [0; 12];
        iv[4..].copy_from_slice(&number.to_be_bytes());
        let body = out.get_mut(at..).unwrap_or_default();
        cipher.encrypt(&iv, &[0x80; HEADER], payload, body).map_err(|e| e.to_string())
    }))
}

fn own_functions() -> Result<Seal, String> {
    let crypto = str0m::crypto::from_feature_flags();
    let profile = SrtpProfile::AEAD_AES_256_GCM;
    let (mut sealer, _) = srtp::keys(&[9; 88], profile, false, &crypto).map_err(|e| e.to_string())?;
    Ok(Box::new(move |number, payload, out| {
        let [.., q0, q1] = number.to_be_bytes();
        let header = [0x80, 96, q0, q1, 0, 0, 0, 1, 0, 0, 0, 5];
        sealer.rtp(&header, (number >> 16) as u32, payload, out).map_err(|e| format!("{e:?}"))
    }))
}

/// Seals each picture, and sound behind it, for everybody, and sends it.
fn sealed(crowd: &Crowd, places: &[SocketAddr], mut seal: Seal) -> Result<f64, String> {
    let fail = |e: std::io::Error| format!("the bare costs cannot be measured: {e}");
    let mut sender = Sender::open(LOOPBACK).map_err(fail)?;
    let packets = crowd.picture.div_ceil(PAYLOAD_BYTES).max(1);
    let payload = vec![5; crowd.picture.div_ceil(packets)];
    let sound = payload.get(..SOUND_BYTES).unwrap_or(&payload);
    let most = runtime_mio::host::most_segments().map_err(fail)?.clamp(1, SEGMENTS);
    let mut batch = Batch::new(SocketId(0));
    batch.buf.reserve(2 * BATCH_BYTES);
    let mut number = 0;
    rounds(crowd, places.len(), |sounds| {
        for place in places {
            let pictures = std::iter::repeat_n(payload.as_slice(), packets);
            for payload in pictures.chain(std::iter::repeat_n(sound, sounds as usize)) {
                let start = batch.buf.len();
                number += 1;
                seal(number, payload, &mut batch.buf)?;
                batch.commit(None, *place, start, most);
            }
            if batch.buf.len() >= BATCH_BYTES {
                sender.send(&batch).map_err(fail)?;
                batch.clear();
            }
        }
        sender.send(&batch).map_err(fail)?;
        batch.clear();
        Ok(())
    })
}

/// Writes each picture, and the sound that is due with it, to every connection.
fn written(crowd: &Crowd, connections: &mut [TcpStream]) -> Result<f64, String> {
    let bytes = vec![5; crowd.picture + SOUND_BYTES * 16];
    let n = connections.len();
    rounds(crowd, n, |sounds| {
        let len = crowd.picture + SOUND_BYTES * sounds as usize;
        let bytes = bytes.get(..len).unwrap_or(&bytes);
        for connection in &mut *connections {
            match connection.write(bytes) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err("the bare costs cannot be measured: the readers do not keep up".to_owned());
                }
                Err(e) => return Err(format!("the bare costs cannot be measured: {e}")),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_measured_and_nothing_else() {
        let (span, pid) = (Duration::from_millis(100), Some(std::process::id()));
        let crowd = Crowd { by_udp: 3, by_tcp: 0, picture: 8_000, fps: 30, pid, span };
        let floor = measure(&crowd).unwrap();
        assert!(floor.sealed.unwrap() > 0.0 && floor.ours.unwrap() > 0.0 && floor.written.is_none());
        let floor = measure(&Crowd { by_udp: 0, by_tcp: 2, ..crowd }).unwrap();
        assert!(floor.written.unwrap() > 0.0 && floor.sealed.is_none());
        assert!(measure(&Crowd { pid: Some(u32::MAX), ..crowd }).is_err());
    }
}
