//! Sound with a tone and a pip each half second goes in; the tone's frequency and each pip's time are measured on what
//! comes out, by decoders that are not the bridge's own state.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod others;

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Made, Packet};
use proto_core::media::track::{Codec, CodecParams};
use std::f64::consts::TAU;

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
/// Where a source's times begin.
const BASE: i64 = 77 * SECOND;
/// Time from one pip to the next.
const PIPS: i64 = SECOND / 2;

/// A tone of 440 Hz, and a pip of 6 ms each half second.
fn sample(at: f64) -> f32 {
    let since_pip = at.rem_euclid(PIPS as f64 / 1e9);
    let pip = if since_pip < 0.006 { 0.7 * (TAU * 2_000.0 * since_pip).sin() } else { 0.0 };
    (0.1 * (TAU * 440.0 * at).sin() + pip) as f32
}

fn id() -> BridgeId {
    BridgeId(1)
}

fn open(shop: &mut Workshop, from: &CodecParams, to: Codec) -> Made {
    let job = BridgeJob::Open { from: from.clone(), to };
    let done = shop.work(BridgeWork { bridge: id(), job });
    assert_eq!(done.failed, None);
    done.made.unwrap()
}

fn convert(shop: &mut Workshop, sound: Vec<Packet>) -> Bridged {
    shop.work(BridgeWork { bridge: id(), job: BridgeJob::Convert(sound) })
}

/// AAC of `seconds` seconds whose samples stand at the times that the packets say.
fn aac(rate: u32, channels: usize, seconds: u32, he: bool) -> (CodecParams, Vec<Packet>) {
    let mut options =
        syom::EncodeOptions::adts().with_bitrate_bps(if he { 48_000 } else { 48_000 * channels as u32 });
    options.he = he;
    let mut encoder = syom::Encoder::new(rate, channels, &options).unwrap();
    let asc = Bytes::copy_from_slice(encoder.asc());
    let pcm: Vec<f32> = (0..rate * seconds).map(|n| sample(f64::from(n) / f64::from(rate))).collect();
    let planes: Vec<&[f32]> = vec![&pcm; channels];
    let mut out = Vec::new();
    // What an encoder puts in front (syom's documentation): one frame, with SBR 3,018 samples.
    let (frame, priming) = if he { (2_048, 3_018) } else { (1_024, 1_024) };
    encoder
        .feed(&planes, |unit| {
            let at = (out.len() as i64 * frame - priming) * SECOND / i64::from(rate);
            out.push(Packet { pts: BASE + at, data: Bytes::copy_from_slice(unit.payload) });
            Ok(())
        })
        .unwrap();
    (CodecParams::Aac { asc, rate: if he { rate / 2 } else { rate }, channels: channels as u8 }, out)
}

fn opus(channels: usize, seconds: u32, samples: usize) -> (CodecParams, Vec<Packet>) {
    let layout = if channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
    let mut encoder = opus::Encoder::new(48_000, layout, opus::Application::Audio).unwrap();
    let ahead = i64::from(encoder.get_lookahead().unwrap());
    let mut out = Vec::new();
    for n in 0..seconds as usize * 48_000 / samples {
        let woven: Vec<f32> = (0..samples)
            .flat_map(|i| std::iter::repeat_n(sample((n * samples + i) as f64 / 48_000.0), channels))
            .collect();
        let at = ((n * samples) as i64 - ahead) * SECOND / 48_000;
        let data = Bytes::from(encoder.encode_vec_float(&woven, 1_500).unwrap());
        out.push(Packet { pts: BASE + at, data });
    }
    (CodecParams::Opus { channels: channels as u8 }, out)
}

/// What a player hears: samples of the first channel at 48 kHz with their times.
fn heard(made: &Made, to: Codec, sound: &[Packet]) -> Vec<(i64, f32)> {
    let mut out = Vec::new();
    let mut put = |pts: i64, plane: &[f32]| {
        out.extend(plane.iter().enumerate().map(|(i, s)| (pts + i as i64 * SECOND / 48_000, *s)));
    };
    match to {
        Codec::Opus => {
            let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
            for s in sound {
                let mut pcm = vec![0.0; 5_760];
                let n = decoder.decode_float(&s.data, &mut pcm, false).unwrap();
                put(s.pts, &pcm[..n]);
            }
        }
        Codec::Pcma | Codec::Pcmu => {
            let law = if to == Codec::Pcma { others::a_law } else { others::mu_law };
            for s in sound {
                let pcm: Vec<f32> =
                    s.data.iter().flat_map(|byte| std::iter::repeat_n(law(*byte), 6)).collect();
                put(s.pts, &pcm);
            }
        }
        _ => {
            let mut decoder =
                syom::Decoder::from_asc(&made.config, syom::DecodeOptions::unbounded()).unwrap();
            for s in sound {
                let frame = |f: syom::Frame<'_>| {
                    put(s.pts, f.planar[0]);
                    Ok(())
                };
                decoder.decode_au(&s.data, frame).unwrap();
            }
        }
    }
    out
}

/// When pips begin.
fn pips(heard: &[(i64, f32)]) -> Vec<i64> {
    let mut out: Vec<i64> = Vec::new();
    for (at, s) in heard {
        if s.abs() > 0.35 && out.last().is_none_or(|last| at - last > 50 * MS) {
            out.push(*at);
        }
    }
    out
}

/// The worst distance of a pip from where it belongs, in milliseconds, and how many there were.
fn offsets(heard: &[(i64, f32)]) -> (f64, usize) {
    let all = pips(heard);
    // The first loud sample comes a tenth of a millisecond into the pip.
    let off = |at: &i64| ((at - BASE + PIPS / 2).rem_euclid(PIPS) - PIPS / 2) as f64 / 1e6;
    (all.iter().map(|at| off(at).abs()).fold(0.0, f64::max), all.len())
}

/// Crossings of zero a second between pips, halved: the frequency of the tone.
fn frequency(heard: &[(i64, f32)]) -> f64 {
    let quiet = heard.iter().filter(|(at, _)| (150 * MS..400 * MS).contains(&(at - BASE).rem_euclid(PIPS)));
    let (mut crossings, mut samples, mut last) = (0u32, 0u32, 0.0f32);
    for (_, s) in quiet {
        crossings += u32::from((last < 0.0) != (*s < 0.0));
        samples += 1;
        last = *s;
    }
    f64::from(crossings) / 2.0 / (f64::from(samples) / 48_000.0)
}

fn steady(sound: &[Packet], frame: i64) {
    for pair in sound.windows(2) {
        let step = pair[1].pts - pair[0].pts;
        assert!((step - frame * SECOND / 48_000).abs() <= 1, "a step of {step} ns");
    }
}

#[test]
fn aac_of_any_rate_and_layout_is_heard_as_opus_at_its_time() {
    let plain = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000].map(|r| (r, 1, false));
    let layouts = [(44_100, 2, false), (48_000, 2, false), (48_000, 6, false)];
    let he = [(48_000, 2, true), (44_100, 1, true)];
    for (rate, channels, he) in plain.into_iter().chain(layouts).chain(he) {
        let (params, sound) = aac(rate, channels, 3, he);
        let mut shop = Workshop::default();
        let made = open(&mut shop, &params, Codec::Opus);
        assert_eq!(made.channels, channels.min(2) as u8);
        let done = convert(&mut shop, sound);
        assert_eq!((done.failed, done.undecodable), (None, 0));
        steady(&done.packets, 960);
        let heard = heard(&made, Codec::Opus, &done.packets);
        let (worst, count) = offsets(&heard);
        let what = format!("{rate} Hz, {channels} channels, HE {he}");
        assert!(worst < 4.0 && (5..=6).contains(&count), "{what}: {count} pips, the worst {worst:.1} ms off");
        let tone = frequency(&heard);
        assert!((tone - 440.0).abs() < 8.0, "{what}: a tone of {tone:.1} Hz");
    }
}

#[test]
fn opus_of_any_packet_length_is_heard_as_aac_at_its_time() {
    for (channels, samples) in [(2, 960), (1, 960), (2, 480), (2, 120), (1, 2_880)] {
        let (params, sound) = opus(channels, 3, samples);
        let mut shop = Workshop::default();
        let made = open(&mut shop, &params, Codec::Aac);
        assert_eq!((made.channels, made.rate), (channels as u8, 48_000));
        let done = convert(&mut shop, sound);
        assert_eq!((done.failed, done.undecodable), (None, 0));
        steady(&done.packets, 1_024);
        let heard = heard(&made, Codec::Aac, &done.packets);
        let (worst, count) = offsets(&heard);
        assert!(
            worst < 4.0 && (5..=6).contains(&count),
            "{samples}: {count} pips, the worst {worst:.1} ms off"
        );
        let tone = frequency(&heard);
        assert!((tone - 440.0).abs() < 8.0, "{samples}: a tone of {tone:.1} Hz");
    }
}

/// The bridge of AAC at 44.1 kHz over packets whose times were changed.
fn through(change: impl Fn(usize, i64) -> Option<i64>, seconds: u32) -> Vec<(i64, f32)> {
    let (params, sound) = aac(44_100, 1, seconds, false);
    let changed =
        sound.into_iter().enumerate().filter_map(|(n, s)| Some(Packet { pts: change(n, s.pts)?, ..s }));
    let mut shop = Workshop::default();
    let made = open(&mut shop, &params, Codec::Opus);
    let done = convert(&mut shop, changed.collect());
    assert!(done.packets.windows(2).all(|p| p[0].pts < p[1].pts), "times rise");
    heard(&made, Codec::Opus, &done.packets)
}

#[test]
fn the_rounding_of_rtmp_is_smoothed() {
    let (params, sound) = aac(44_100, 1, 5, false);
    let rounded = sound.into_iter().map(|s| Packet { pts: s.pts.div_euclid(MS) * MS, ..s }).collect();
    let mut shop = Workshop::default();
    let made = open(&mut shop, &params, Codec::Opus);
    let done = convert(&mut shop, rounded);
    steady(&done.packets, 960);
    let (worst, count) = offsets(&heard(&made, Codec::Opus, &done.packets));
    assert!(worst < 4.0 && count >= 9, "{count} pips, the worst {worst:.1} ms off");
}

#[test]
fn a_source_that_drifts_is_followed() {
    // A thousandth too fast and too slow: what the pip says is on the source's clock, which runs away from its samples.
    for ppm in [-1_000i64, 1_000] {
        let drift = |at: i64| at + (at - BASE) * ppm / 1_000_000;
        let (params, sound) = aac(44_100, 1, 40, false);
        let drifted = sound.into_iter().map(|s| Packet { pts: drift(s.pts), ..s }).collect();
        let mut shop = Workshop::default();
        let made = open(&mut shop, &params, Codec::Opus);
        let done = convert(&mut shop, drifted);
        steady(&done.packets, 960);
        let all = pips(&heard(&made, Codec::Opus, &done.packets));
        assert!(all.len() >= 78, "{} pips", all.len());
        for (n, at) in all.iter().enumerate() {
            let off = (at - drift(BASE + n as i64 * PIPS)) as f64 / 1e6;
            assert!(off.abs() < 12.0, "{ppm} ppm: pip {n} is {off:.1} ms off");
        }
    }
}

#[test]
fn lost_packets_are_silence_and_what_follows_stands_at_its_time() {
    for lost in [1, 3, 20] {
        let heard = through(|n, pts| (!(60..60 + lost).contains(&n)).then_some(pts), 5);
        let (_, count) = offsets(&heard);
        let late: Vec<_> = heard.iter().copied().filter(|(at, _)| *at > BASE + 3 * SECOND).collect();
        let (worst, _) = offsets(&late);
        assert!(worst < 6.0 && count >= 8, "{lost} lost: {count} pips, the worst {worst:.1} ms off");
    }
}

#[test]
fn jumps_in_time_are_followed_at_once() {
    // Whole pips further or back, so that the measure holds. Back means that some is left out.
    for jump in [10 * SECOND, 2 * SECOND, PIPS, -PIPS, -2 * SECOND] {
        let heard = through(|n, pts| Some(if n < 100 { pts } else { pts + jump }), 8);
        let (worst, count) = offsets(&heard);
        assert!(worst < 6.0 && count >= 7, "{jump}: {count} pips, the worst {worst:.1} ms off");
        let last = heard.last().unwrap().0 - (BASE + 8 * SECOND + jump);
        assert!(last.abs() < 60 * MS, "the end is {} ms off", last / MS);
    }
}

#[test]
fn the_delay_that_a_bridge_adds_is_bounded() {
    // How far the end of what came out lies behind the end of what went in, at worst.
    let ends = |params: &CodecParams, sound: Vec<Packet>, to, long: i64, made_long: i64| {
        let mut shop = Workshop::default();
        open(&mut shop, params, to);
        let (mut worst, mut end) = (0, None);
        for s in sound {
            let through = s.pts + long * SECOND / 48_000;
            let done = convert(&mut shop, vec![s]);
            end = done.packets.last().map(|s| s.pts + made_long * SECOND / 48_000).or(end);
            worst = worst.max(end.map_or(0, |end| through - end));
        }
        worst
    };
    let (params, sound) = aac(48_000, 2, 2, false);
    let opus_late = ends(&params, sound, Codec::Opus, 1_024, 960);
    assert!(opus_late < 30 * MS, "{opus_late} ns towards Opus");
    let (params, sound) = opus(2, 2, 960);
    let aac_late = ends(&params, sound, Codec::Aac, 960, 1_024);
    assert!(aac_late < 60 * MS, "{aac_late} ns towards AAC");
}

#[test]
fn what_cannot_be_decoded_is_silence_and_counted() {
    let (params, mut sound) = aac(48_000, 2, 3, false);
    let cut = sound[50].data.len() / 2;
    sound[50].data.truncate(cut);
    let mut shop = Workshop::default();
    let made = open(&mut shop, &params, Codec::Opus);
    let done = convert(&mut shop, sound);
    assert_eq!((done.failed, done.undecodable), (None, 1));
    steady(&done.packets, 960);
    let (worst, count) = offsets(&heard(&made, Codec::Opus, &done.packets));
    assert!(worst < 4.0 && count >= 4, "{count} pips, the worst {worst:.1} ms off");
}

#[test]
fn a_configuration_that_changes_in_mid_stream_is_followed() {
    let (first, sound) = aac(44_100, 1, 3, false);
    let (second, more) = aac(48_000, 2, 3, false);
    let mut shop = Workshop::default();
    let made = open(&mut shop, &first, Codec::Opus);
    let mut all = convert(&mut shop, sound).packets;
    assert_eq!(open(&mut shop, &second, Codec::Opus).channels, 2);
    let later = more.into_iter().map(|s| Packet { pts: s.pts + 3 * SECOND, ..s }).collect();
    all.extend(convert(&mut shop, later).packets);
    assert!(all.windows(2).all(|p| p[0].pts < p[1].pts), "times rise");
    let (worst, count) = offsets(&heard(&made, Codec::Opus, &all));
    assert!(worst < 4.0 && count >= 10, "{count} pips, the worst {worst:.1} ms off");
}

#[test]
fn what_no_decoder_knows_is_refused_in_words() {
    let mut shop = Workshop::default();
    for asc in [&b""[..], b"\x00", b"\xff\xff", b"\x59\x10"] {
        let from = CodecParams::Aac { asc: Bytes::from_static(asc), rate: 48_000, channels: 2 };
        let job = BridgeJob::Open { from, to: Codec::Opus };
        let failed = shop.work(BridgeWork { bridge: id(), job }).failed;
        assert!(failed.as_deref().is_some_and(|f| f.contains("AAC")), "{asc:02x?}: {failed:?}");
        assert!(shop.is_empty());
    }
    let lost = convert(&mut shop, Vec::new()).failed;
    assert!(lost.is_some_and(|f| f.contains("no such bridge")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the packets are dealt out to works, the same comes out.
    #[test]
    fn any_dealing_gives_the_same(cuts in proptest::collection::vec(1usize..9, 1..60), to_opus in any::<bool>()) {
        let (params, sound, to) = match to_opus {
            true => { let (p, s) = aac(44_100, 1, 1, false); (p, s, Codec::Opus) }
            false => { let (p, s) = opus(2, 1, 960); (p, s, Codec::Aac) }
        };
        let mut whole = Workshop::default();
        open(&mut whole, &params, to);
        let expected = convert(&mut whole, sound.clone()).packets;
        let mut dealt = Workshop::default();
        open(&mut dealt, &params, to);
        let (mut got, mut rest) = (Vec::new(), &sound[..]);
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            got.extend(convert(&mut dealt, now.to_vec()).packets);
        }
        got.extend(convert(&mut dealt, rest.to_vec()).packets);
        prop_assert_eq!(got, expected);
    }

    /// Any bytes at any times: no panic gets out, times rise, and a workshop goes on.
    #[test]
    fn any_bytes_and_times_are_survived(
        packets in proptest::collection::vec((any::<i64>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
        near in any::<bool>(),
        to_opus in any::<bool>(),
    ) {
        let (params, to) = match to_opus {
            true => (aac(44_100, 2, 1, false).0, Codec::Opus),
            false => (CodecParams::Opus { channels: 2 }, Codec::Aac),
        };
        let mut shop = Workshop::default();
        open(&mut shop, &params, to);
        let spread = if near { 3 * SECOND } else { i64::MAX };
        let sound = packets.into_iter().map(|(pts, data)| Packet { pts: pts % spread, data: data.into() });
        let done = convert(&mut shop, sound.collect());
        prop_assert_eq!(&done.failed, &None);
        prop_assert!(done.packets.windows(2).all(|p| p[0].pts < p[1].pts));
    }
}
