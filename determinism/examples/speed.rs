//! What the cryptography of the simulator costs beside aws-lc, and what linking this crate costs a reading of the clock:
//!
//! ```text
//! cargo run --release -p determinism --example speed
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use determinism::crypto;
use std::hint::black_box;
use std::time::{Duration, Instant};
use str0m::config::DtlsVersion;
use str0m::crypto::CryptoProvider;
use str0m::crypto::dtls::{DtlsCert, DtlsOutput, DtlsProvider};

/// Payload of the packets, bytes.
const PAYLOAD: usize = 200;

/// Nanoseconds for one call of `f`, the best of some rounds.
fn nanos(mut f: impl FnMut()) -> u128 {
    const CALLS: u32 = 20_000;
    let round = |_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| f());
        start.elapsed()
    };
    (0..7).map(round).min().unwrap_or(Duration::ZERO).as_nanos() / u128::from(CALLS)
}

fn line(what: &str, [ours, theirs]: [u128; 2], unit: &str) {
    println!("{what:40} {ours:8} {theirs:8} {unit}");
}

fn ciphers(p: &CryptoProvider) -> [u128; 4] {
    let (aad, plain) = ([7u8; 12], [9u8; PAYLOAD]);
    let mut sealed = [0u8; PAYLOAD + 16];
    let mut opened = [0u8; PAYLOAD];
    let mut gcm = p.srtp_provider.aead_aes_128_gcm().create_cipher([1; 16], true);
    let seal = nanos(|| gcm.encrypt(&[3; 12], &aad, black_box(&plain), &mut sealed).expect("it fits"));
    let open = nanos(|| {
        gcm.decrypt(&[3; 12], &[&aad], black_box(&sealed), &mut opened).expect("it is authentic");
    });
    let mut counter = p.srtp_provider.aes_128_cm_sha1_80().create_cipher([1; 16], true);
    let count = nanos(|| counter.encrypt(&[3; 16], black_box(&plain), &mut sealed).expect("it fits"));
    let mac = nanos(|| {
        black_box(p.sha1_hmac_provider.sha1_hmac(&[1; 20], &[black_box(&plain), &[0; 4]]));
    });
    [seal, open, count, mac]
}

/// A whole DTLS handshake, both ends.
fn handshake(p: &dyn DtlsProvider, certificate: &DtlsCert) {
    let now = Instant::now();
    let new = |active| {
        let mut dtls = p.new_dtls(certificate, now, DtlsVersion::Dtls12, None).expect("a session");
        dtls.set_active(active);
        dtls.handle_timeout(now).expect("it begins");
        dtls
    };
    let mut ends = [new(true), new(false)];
    let (mut buf, mut keys) = (vec![0; 4_096], 0);
    for turn in (0..100).map(|n| n % 2) {
        let (a, b) = ends.split_at_mut(1);
        let (from, to) = if turn == 0 { (&mut a[0], &mut b[0]) } else { (&mut b[0], &mut a[0]) };
        loop {
            match from.poll_output(&mut buf) {
                DtlsOutput::Packet(packet) => to.handle_packet(packet).expect("it is well-formed"),
                DtlsOutput::KeyingMaterial(..) => keys += 1,
                DtlsOutput::Timeout(_) => break,
                _ => {}
            }
        }
        if keys == 2 {
            return;
        }
    }
    panic!("the handshake does not end");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    determinism::os::check()?;
    println!("first check of a process: {:?}", began.elapsed());
    let providers = [crypto::str0m_provider(crypto::dtls_provider()?), str0m::crypto::from_feature_flags()];

    println!("{:40} {:>8} {:>8}", "", "ours", "aws-lc");
    let [ours, theirs] = providers.each_ref().map(ciphers);
    let names = ["AES-128-GCM, sealing", "AES-128-GCM, opening", "AES-128-CM", "HMAC-SHA1"];
    for (i, name) in names.iter().enumerate() {
        line(&format!("{name}, {PAYLOAD} bytes"), [ours[i], theirs[i]], "ns");
    }
    let certificate = crypto::certificate([1; 32])?;
    let shakes = providers.each_ref().map(|p| {
        const TIMES: u32 = 50;
        let start = Instant::now();
        (0..TIMES).for_each(|_| handshake(p.dtls_provider, &certificate));
        (start.elapsed() / TIMES).as_micros()
    });
    line("DTLS handshake, both ends (see below)", shakes, "us");
    println!("(str0m's own provider builds and tests a configuration for each end)");

    println!("certificate: {} us", nanos_few(|| drop(crypto::certificate([2; 32]))) / 1_000);
    println!("run: {} us", nanos_few(|| drop(determinism::os::run([2; 32], || ()))) / 1_000);
    println!("Instant::now(): {} ns", nanos(|| _ = black_box(Instant::now())));
    Ok(())
}

/// As [`nanos`], for what takes long.
fn nanos_few(f: impl FnMut()) -> u128 {
    const TIMES: usize = 200;
    let start = Instant::now();
    std::iter::repeat_with(f).take(TIMES).count();
    start.elapsed().as_nanos() / TIMES as u128
}
