//! MP3, as LAME writes it, and G.711.

use super::*;
use proto_core::wire::mp3::Mp3Header;

/// The tone and the pips of [`sample`] for three seconds, 44.1 kHz, one channel: `ffmpeg -f lavfi -i aevalsrc=… -c:a
/// libmp3lame -b:a 48k -write_xing 0 -id3v2_version 0`.
const MP3: &[u8] = include_bytes!("pips.mp3");
/// The same at 22.05 kHz (MPEG-2, half as many samples a frame), two channels, 32 kbit/s.
const MP3_LOW: &[u8] = include_bytes!("pips-low.mp3");
/// Samples that LAME and the decoder put in front.
const MP3_AHEAD: i64 = 576 + 529;

fn mp3(mut file: &[u8]) -> (CodecParams, Vec<Packet>) {
    let first = Mp3Header::parse(file).unwrap();
    let frame = i64::from(first.samples);
    let mut out = Vec::new();
    while let Some(header) = Mp3Header::parse(file) {
        let (packet, rest) = file.split_at(header.bytes.min(file.len()));
        let at = (out.len() as i64 * frame - MP3_AHEAD) * SECOND / i64::from(first.rate);
        out.push(Packet { pts: BASE + at, data: Bytes::copy_from_slice(packet) });
        file = rest;
    }
    (CodecParams::Mp3 { rate: first.rate, channels: first.channels }, out)
}

/// G.711 by the formulas of the recommendation, not by the tables of a library.
pub(super) fn mu_law(byte: u8) -> f32 {
    let byte = !byte;
    let magnitude =
        ((f32::from(byte & 0x0f) * 2.0 + 33.0) * 2f32.powi(i32::from(byte >> 4 & 7)) - 33.0) / 8_159.0;
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// See [`mu_law`].
pub(super) fn a_law(byte: u8) -> f32 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = (i32::from(byte >> 4 & 7), f32::from(byte & 0x0f) * 2.0 + 1.0);
    let magnitude =
        if exponent == 0 { mantissa } else { (mantissa + 32.0) * 2f32.powi(exponent - 1) } / 4_096.0;
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

/// The byte of a law that is nearest to a sample.
fn nearest(law: fn(u8) -> f32, sample: f32) -> u8 {
    (0..=u8::MAX).min_by(|a, b| (law(*a) - sample).abs().total_cmp(&(law(*b) - sample).abs())).unwrap()
}

fn g711(law: fn(u8) -> f32, packet: usize) -> Vec<Packet> {
    let bytes: Vec<u8> = (0..24_000).map(|n| nearest(law, sample(f64::from(n) / 8_000.0))).collect();
    let at = |n: usize| BASE + (n * packet) as i64 * SECOND / 8_000;
    let packets = bytes.chunks(packet).enumerate();
    packets.map(|(n, data)| Packet { pts: at(n), data: Bytes::copy_from_slice(data) }).collect()
}

/// Converts, and looks at pips, tone and steps of what comes out.
fn sounds_right(what: &str, params: &CodecParams, sound: Vec<Packet>, to: Codec) {
    let mut shop = Workshop::default();
    let made = open(&mut shop, params, to);
    let done = convert(&mut shop, sound);
    assert_eq!((done.failed, done.undecodable), (None, 0), "{what}");
    let step = match to {
        Codec::Aac => 1_024,
        _ => 960,
    };
    steady(&done.packets, step);
    let heard = heard(&made, to, &done.packets);
    let (worst, count) = offsets(&heard);
    let what = format!("{what} to {}", to.name());
    assert!(worst < 4.0 && (5..=6).contains(&count), "{what}: {count} pips, the worst {worst:.1} ms off");
    let tone = frequency(&heard);
    assert!((tone - 440.0).abs() < 8.0, "{what}: a tone of {tone:.1} Hz");
}

#[test]
fn mp3_is_heard_at_its_time_whatever_is_made_of_it() {
    for (what, file) in [("MP3", MP3), ("MP3 at 22 kHz", MP3_LOW)] {
        let (params, sound) = mp3(file);
        assert!(sound.len() > 110, "{what}: {} frames", sound.len());
        for to in [Codec::Opus, Codec::Aac, Codec::Pcmu] {
            sounds_right(what, &params, sound.clone(), to);
        }
    }
}

#[test]
fn g711_is_heard_at_its_time_whatever_is_made_of_it() {
    for packet in [80, 160, 800] {
        for to in [Codec::Opus, Codec::Aac, Codec::Pcmu] {
            sounds_right("A-law", &CodecParams::Pcma { channels: 1 }, g711(a_law, packet), to);
        }
        sounds_right("µ-law", &CodecParams::Pcmu { channels: 1 }, g711(mu_law, packet), Codec::Opus);
    }
}

#[test]
fn aac_and_opus_are_heard_by_those_who_take_g711_alone() {
    for to in [Codec::Pcma, Codec::Pcmu] {
        let (params, sound) = aac(44_100, 2, 3, false);
        sounds_right("AAC", &params, sound, to);
        let (params, sound) = opus(2, 3, 960);
        sounds_right("Opus", &params, sound, to);
    }
}

#[test]
fn what_a_telephone_cannot_carry_does_not_come_back_as_another_tone() {
    // 5 kHz is above what 8,000 samples a second can carry; a filter that is too short folds it down to 3 kHz.
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
    let sound = (0..100i64).map(|n| {
        let at = |i: i64| (TAU * 5_000.0 * (n * 960 + i) as f64 / 48_000.0).sin() as f32 * 0.8;
        let pcm: Vec<f32> = (0..960).map(at).collect();
        let data = Bytes::from(encoder.encode_vec_float(&pcm, 1_500).unwrap());
        Packet { pts: BASE + n * 20 * MS, data }
    });
    let sound = sound.collect();
    let mut shop = Workshop::default();
    open(&mut shop, &CodecParams::Opus { channels: 1 }, Codec::Pcmu);
    let done = convert(&mut shop, sound);
    let loudest = done.packets[20..90].iter().flat_map(|s| s.data.iter()).map(|b| mu_law(*b).abs());
    let loudest = loudest.fold(0.0, f32::max);
    assert!(loudest < 0.02, "{loudest}");
}

#[test]
fn the_first_mp3_frame_after_a_join_may_lean_on_what_nobody_saw() {
    let (params, sound) = mp3(MP3);
    let mut shop = Workshop::default();
    let made = open(&mut shop, &params, Codec::Opus);
    let done = convert(&mut shop, sound[40..].to_vec());
    assert_eq!((done.failed, done.undecodable), (None, 0));
    let (worst, count) = offsets(&heard(&made, Codec::Opus, &done.packets));
    assert!(worst < 4.0 && count >= 3, "{count} pips, the worst {worst:.1} ms off");
}

#[test]
fn broken_mp3_is_silence_and_counted() {
    let (params, mut sound) = mp3(MP3);
    sound[50].data = Bytes::from_static(b"\xff\xfb");
    sound[51].data = Bytes::from(vec![0x55; 150]);
    let mut shop = Workshop::default();
    let made = open(&mut shop, &params, Codec::Opus);
    let done = convert(&mut shop, sound);
    assert_eq!((done.failed, done.undecodable), (None, 2));
    steady(&done.packets, 960);
    let (worst, count) = offsets(&heard(&made, Codec::Opus, &done.packets));
    assert!(worst < 4.0 && count >= 4, "{count} pips, the worst {worst:.1} ms off");
}
