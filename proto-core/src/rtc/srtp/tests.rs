//! Against the RFCs' vectors, against the nonces of another implementation, and against itself through loss and replay.

use super::replay::WINDOW;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use str0m::crypto::{AeadAes128Gcm, AeadAes256Gcm, Aes128CmSha1_80};

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AEAD_AES_256_GCM, SrtpProfile::AES128_CM_SHA1_80];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

fn crypto() -> CryptoProvider {
    str0m::crypto::from_feature_flags()
}

/// Keys as the RFCs' examples give them, after derivation.
fn given(profile: SrtpProfile, key: &[u8], salt: &[u8], encrypt: bool) -> Keys {
    let provider = crypto().srtp_provider;
    let cipher = match profile {
        SrtpProfile::AEAD_AES_128_GCM => {
            Cipher::Gcm128(provider.aead_aes_128_gcm().create_cipher(key.try_into().unwrap(), encrypt))
        }
        _ => Cipher::Gcm256(provider.aead_aes_256_gcm().create_cipher(key.try_into().unwrap(), encrypt)),
    };
    let mut padded = [0; 14];
    padded[..salt.len()].copy_from_slice(salt);
    Keys { cipher, salt: padded }
}

/// RFC 3711, B.3.
#[test]
fn keys_are_derived_as_in_the_rfc() {
    let (key, salt) = (hex("E1F97A0D3E018BE0D64FA32C06DE4139"), hex("0EC675AD498AFEEBB6960B3AABE6"));
    let master = Master { profile: SrtpProfile::AES128_CM_SHA1_80, key: &key, salt: &salt };
    let provider = crypto().srtp_provider;
    let [encryption, authentication, salting] = Label::RTP;
    assert_eq!(master.bytes::<16>(encryption, provider), array("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(master.bytes::<14>(salting, provider), array("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(
        master.bytes::<20>(authentication, provider),
        array("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")
    );
}

const TEXT: &str = "Gallia est omnis divisa in partes tres";

/// RFC 7714, 16.1.1 and 16.2.1.
#[test]
fn rtp_is_sealed_as_in_the_rfc() {
    let header: [u8; 12] = array("8040f17b 8041f8d3 5501a0b2");
    let salt = hex("51756964 2070726f 2071756f");
    let cases = [
        (
            SrtpProfile::AEAD_AES_128_GCM,
            hex("000102030405060708090a0b0c0d0e0f"),
            "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 \
             6a9152cf 765ee439 0cce",
        ),
        (
            SrtpProfile::AEAD_AES_256_GCM,
            (0..32).collect(),
            "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff \
             d6b0f9bb 7878d7a7 6c13",
        ),
    ];
    for (profile, key, sealed) in cases {
        let [rtp, rtcp] = [(); 2].map(|()| given(profile, &key, &salt, true));
        let mut sealer = Sealer { rtp, rtcp, rtcp_index: 0 };
        let mut out = b"before".to_vec();
        sealer.rtp(&header, 0, TEXT.as_bytes(), &mut out).unwrap();
        assert_eq!(out, [b"before".to_vec(), header.to_vec(), hex(sealed)].concat(), "{profile:?}");
    }
}

/// RFC 7714, 17.1.
#[test]
fn rtcp_is_sealed_as_in_the_rfc() {
    let plain = hex(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef deadbeef \
         deadbeef",
    );
    let sealed = hex(
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded \
         0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
    );
    let (key, salt) = (hex("000102030405060708090a0b0c0d0e0f"), hex("51756964 2070726f 2071756f"));
    let of = |encrypt| given(SrtpProfile::AEAD_AES_128_GCM, &key, &salt, encrypt);
    let mut sealer = Sealer { rtp: of(true), rtcp: of(true), rtcp_index: 0x5d4 };
    let mut out = Vec::new();
    sealer.rtcp(&plain, &mut out).unwrap();
    assert_eq!(out, sealed);
    let mut opener = Opener { rtcp: of(false), window: Window::default() };
    let mut opened = Vec::new();
    opener.rtcp(&sealed, &mut opened).unwrap();
    assert_eq!(opened, plain);
    assert_eq!(opener.rtcp(&sealed, &mut opened), Err(Refused::Replayed));
}

fn pair(profile: SrtpProfile, material: &[u8]) -> (Sealer, Opener) {
    let crypto = crypto();
    let (sealer, _) = keys(material, profile, false, &crypto).unwrap();
    let (_, opener) = keys(material, profile, true, &crypto).unwrap();
    (sealer, opener)
}

#[test]
fn cuts_changes_and_plain_packets_are_refused_and_change_nothing() {
    let packet = [&[0x81, 201, 0, 7][..], &[7; 28]].concat();
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile, &[9; 120]);
        let mut sealed = Vec::new();
        sealer.rtcp(&packet, &mut sealed).unwrap();
        let mut out = Vec::new();
        for n in 0..sealed.len() {
            assert_eq!(
                opener.rtcp(&sealed[..n], &mut out),
                Err(Refused::Unauthentic),
                "{profile:?} cut at {n}"
            );
            let mut wrong = sealed.clone();
            wrong[n] ^= 1;
            assert_eq!(
                opener.rtcp(&wrong, &mut out),
                Err(Refused::Unauthentic),
                "{profile:?} changed at {n}"
            );
            assert!(out.is_empty());
        }
        assert_eq!(opener.rtcp(&packet, &mut out), Err(Refused::Unauthentic));
        opener.rtcp(&sealed, &mut out).unwrap();
        assert_eq!(out, packet);
    }
}

#[test]
fn a_key_serves_no_more_packets_of_rtcp_than_it_may() {
    let (mut sealer, _) = pair(SrtpProfile::AEAD_AES_128_GCM, &[9; 120]);
    sealer.rtcp_index = ENCRYPTED - 1;
    let mut out = Vec::new();
    sealer.rtcp(&[0x80; 12], &mut out).unwrap();
    let len = out.len();
    assert_eq!(sealer.rtcp(&[0x80; 12], &mut out), Err(Refused::Broken));
    assert_eq!(out.len(), len);
    assert!(keys(&[9; 20], SrtpProfile::AEAD_AES_128_GCM, true, &crypto()).is_err());
}

proptest! {
    /// str0m's own.
    #[test]
    fn nonces_agree_with_another_implementation(salt: [u8; 14], ssrc: u32, roc: u32, seq: u16, index in 0u32..1 << 31) {
        let key = given(SrtpProfile::AEAD_AES_128_GCM, &[0; 16], &salt, true);
        let twelve: [u8; 12] = salt[..12].try_into().unwrap();
        let rest = u64::from(roc) << 16 | u64::from(seq);
        prop_assert_eq!(key.gcm_iv(ssrc, rest), AeadAes128Gcm::rtp_iv(twelve, ssrc, roc, seq));
        prop_assert_eq!(key.gcm_iv(ssrc, rest), AeadAes256Gcm::rtp_iv(twelve, ssrc, roc, seq));
        prop_assert_eq!(key.gcm_iv(ssrc, u64::from(index)), AeadAes128Gcm::rtcp_iv(twelve, ssrc, index));
        prop_assert_eq!(key.counter_iv(ssrc, rest), Aes128CmSha1_80::rtp_iv(salt, ssrc, rest));
    }

    /// Sealed in counter mode as str0m does it, of whose parts a packet is put together here: the provider's cipher, which
    /// expands its key for each packet, and str0m's nonces and tags.
    #[test]
    fn counter_mode_agrees_with_another_implementation(
        material in proptest::collection::vec(any::<u8>(), 60),
        payload in proptest::collection::vec(any::<u8>(), 0..1_400),
        ssrc: u32, roc: u32, seq: u16,
    ) {
        let (crypto, provider) = (crypto(), crypto().srtp_provider);
        let profile = SrtpProfile::AES128_CM_SHA1_80;
        let [_, server] = Master::split(&material, profile).unwrap();
        let mac = |key: &[u8], parts: &[&[u8]]| crypto.sha1_hmac_provider.sha1_hmac(key, parts);
        let encrypted = |[key, _, _]: [Label; 3], iv: [u8; 16], plain: &[u8]| {
            let mut out = vec![0; plain.len()];
            let mut cipher = provider.aes_128_cm_sha1_80().create_cipher(server.bytes(key, provider), true);
            cipher.encrypt(&iv, plain, &mut out).unwrap();
            out
        };
        let [_, authentication, salt] = Label::RTP;
        let mut header = [0x80, 96, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&seq.to_be_bytes());
        header[8..].copy_from_slice(&ssrc.to_be_bytes());
        let index = u64::from(roc) << 16 | u64::from(seq);
        let iv = Aes128CmSha1_80::rtp_iv(server.bytes(salt, provider), ssrc, index);
        let mut theirs = [&header[..], &encrypted(Label::RTP, iv, &payload), &[0; SHA1_TAG]].concat();
        let end = theirs.len() - SHA1_TAG;
        let key: [u8; 20] = server.bytes(authentication, provider);
        Aes128CmSha1_80::rtp_hmac(mac, &key, &mut theirs, index, end);
        let (mut sealer, _) = pair(profile, &material);
        let mut ours = Vec::new();
        sealer.rtp(&header, roc, &payload, &mut ours).unwrap();
        prop_assert_eq!(ours, theirs);

        let [_, authentication, salt] = Label::RTCP;
        let report = [&[0x80, 200, 0, 0][..], &ssrc.to_be_bytes(), &payload].concat();
        for index in 0..2u32 {
            let iv = Aes128CmSha1_80::rtp_iv(server.bytes(salt, provider), ssrc, u64::from(index));
            let sealed = encrypted(Label::RTCP, iv, &payload);
            let trailer = (index | ENCRYPTED).to_be_bytes();
            let mut theirs = [&report[..RTCP_CLEAR], &sealed, &trailer, &[0; SHA1_TAG]].concat();
            let end = theirs.len() - SHA1_TAG;
            let key: [u8; 20] = server.bytes(authentication, provider);
            Aes128CmSha1_80::rtcp_hmac(mac, &key, &mut theirs, end);
            let mut ours = Vec::new();
            sealer.rtcp(&report, &mut ours).unwrap();
            prop_assert_eq!(ours, theirs);
        }
    }

    /// What is sealed opens, each once, in any order within the window.
    #[test]
    fn rtcp_opens_once(
        material in proptest::collection::vec(any::<u8>(), 120),
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 8..60), 1..12),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        for profile in PROFILES {
            let (mut sealer, mut opener) = pair(profile, &material);
            let sealed: Vec<Vec<u8>> = bodies.iter().map(|b| {
                let mut out = Vec::new();
                sealer.rtcp(b, &mut out).unwrap();
                out
            }).collect();
            let mut seen = BTreeSet::new();
            let mut out = Vec::new();
            for at in &order {
                let n = at.index(sealed.len());
                let expected = if seen.insert(n) { Ok(()) } else { Err(Refused::Replayed) };
                prop_assert_eq!(opener.rtcp(&sealed[n], &mut out), expected);
                if expected.is_ok() {
                    prop_assert_eq!(&out, &bodies[n]);
                }
            }
        }
    }

    /// Against the obvious one: a set of all that were seen.
    #[test]
    fn the_window_does_what_a_set_would(steps in proptest::collection::vec((any::<bool>(), 0u64..3_000, 0u64..40), 1..200)) {
        let (mut window, mut all, mut newest) = (Window::default(), BTreeSet::new(), 0u64);
        for (forward, far, near) in steps {
            let number = if forward { newest + far.min(far % 1_500) } else { newest.saturating_sub(far / 2 + near) };
            let fresh = !all.contains(&number) && (all.is_empty() || number + WINDOW > newest);
            prop_assert_eq!(window.is_new(number), fresh, "{} of {}", number, newest);
            if fresh {
                window.seen(number);
                all.insert(number);
                newest = newest.max(number);
            }
        }
    }
}

/// What is sealed opens, each once, over wraps of the numbers, with losses and packets that swap places; and changed bytes
/// open nothing and are forgotten.
#[test]
fn rtp_opens_once_over_wraps_and_losses() {
    let header = |seq: u64, ssrc: u32| {
        let mut header = [0x80, 96, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&(seq as u16).to_be_bytes());
        header[8..].copy_from_slice(&ssrc.to_be_bytes());
        header
    };
    for profile in PROFILES {
        let crypto = crypto();
        let (mut sealer, ..) = keys(&[9; 120], profile, false, &crypto).unwrap();
        let (.., mut receiver) = receive::keys(&[9; 120], profile, true, &crypto, 2).unwrap();
        let mut seal = |seq: u64, ssrc: u32| {
            let mut out = Vec::new();
            sealer.rtp(&header(seq, ssrc), (seq >> 16) as u32, &seq.to_be_bytes(), &mut out).unwrap();
            out
        };
        let mut out = Vec::new();
        let mut seq = 65_000;
        while seq < 3 << 16 {
            for n in [seq + 1, seq] {
                let sealed = seal(n, 7);
                let mut wrong = sealed.clone();
                *wrong.last_mut().unwrap() ^= 1;
                assert_eq!(receiver.open(&wrong, &mut out), Err(Refused::Unauthentic));
                assert_eq!(receiver.open(&sealed, &mut out), Ok((7, n)), "{profile:?}");
                assert_eq!(out, n.to_be_bytes());
                assert_eq!(receiver.open(&sealed, &mut out), Err(Refused::Replayed));
                assert!(out.is_empty());
            }
            // Now and then many are lost.
            seq += if seq % 5 == 0 { 9_001 } else { 97 };
        }
        let old = seal(receiver.newest(7).unwrap() - 2_000, 7);
        assert_eq!(receiver.open(&old, &mut out), Err(Refused::Replayed));
        receiver.open(&seal(0, 8), &mut out).unwrap();
        assert_eq!(receiver.open(&seal(0, 9), &mut out), Err(Refused::TooMany));
        for cut in 0..20 {
            assert!(receiver.open(&old[..cut], &mut out).is_err());
        }
    }
}
