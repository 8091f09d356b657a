//! Against another implementation of the same: the aws-lc provider of str0m.

use super::*;
use dimpl::crypto::CryptoProvider as DimplProvider;
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::Digest;
use std::sync::Arc;
use std::time::Instant;
use str0m::crypto::dtls::{DtlsCert, DtlsOutput};

fn ours() -> CryptoProvider {
    str0m_provider(dtls_provider().unwrap())
}

fn theirs() -> CryptoProvider {
    str0m::crypto::from_feature_flags()
}

/// A packet as SRTP seals it: key, nonce, what is only authenticated, what is encrypted.
fn packet<const KEY: usize, const IV: usize>()
-> impl Strategy<Value = ([u8; KEY], [u8; IV], Vec<u8>, Vec<u8>)> {
    (any::<[u8; KEY]>(), any::<[u8; IV]>(), vec(any::<u8>(), 12..80), vec(any::<u8>(), 0..1_500))
}

macro_rules! gcm_agrees {
    ($name:ident, $of:ident, $key:literal) => {
        proptest! {
            #[test]
            fn $name((key, iv, aad, plain) in packet::<$key, 12>(), cut in 0usize..12, flip in any::<prop::sample::Index>()) {
                let [mut ours, mut theirs] =
                    [ours(), theirs()].map(|p| p.srtp_provider.$of().create_cipher(key, true));
                let mut sealed = [vec![0; plain.len() + 16], vec![0; plain.len() + 16]];
                ours.encrypt(&iv, &aad, &plain, &mut sealed[0]).unwrap();
                theirs.encrypt(&iv, &aad, &plain, &mut sealed[1]).unwrap();
                prop_assert_eq!(&sealed[0], &sealed[1]);

                let mut opened = vec![0; plain.len()];
                let parts = [&aad[..cut], &aad[cut..]];
                prop_assert_eq!(ours.decrypt(&iv, &parts, &sealed[1], &mut opened).unwrap(), plain.len());
                prop_assert_eq!(&opened, &plain);
                prop_assert_eq!(ours.decrypt(&iv, &[&aad], &sealed[1], &mut opened).unwrap(), plain.len());
                prop_assert_eq!(&opened, &plain);

                let at = flip.index(sealed[0].len());
                sealed[0][at] ^= 1;
                prop_assert!(ours.decrypt(&iv, &[&aad], &sealed[0], &mut opened).is_err());
            }
        }
    };
}

gcm_agrees!(aes_128_gcm_agrees, aead_aes_128_gcm, 16);
gcm_agrees!(aes_256_gcm_agrees, aead_aes_256_gcm, 32);

proptest! {
    #[test]
    fn counter_mode_agrees_also_over_the_wrap_of_its_counter(
        (key, mut iv, _, plain) in packet::<16, 16>(),
        wraps in any::<bool>(),
    ) {
        if wraps {
            iv[1..].fill(0xff);
        }
        let [mut ours, mut theirs] =
            [ours(), theirs()].map(|p| p.srtp_provider.aes_128_cm_sha1_80().create_cipher(key, true));
        // Output may be longer than input.
        let mut out = [vec![0; plain.len() + 10], vec![0; plain.len() + 10]];
        ours.encrypt(&iv, &plain, &mut out[0]).unwrap();
        theirs.encrypt(&iv, &plain, &mut out[1]).unwrap();
        prop_assert_eq!(&out[0], &out[1]);
        let mut back = vec![0; plain.len()];
        ours.decrypt(&iv, &out[0][..plain.len()], &mut back).unwrap();
        prop_assert_eq!(back, plain);
    }

    #[test]
    fn key_derivation_rounds_agree(key in any::<[u8; 32]>(), input in any::<[u8; 16]>()) {
        let mut out = [[0u8; 32]; 4];
        for (i, p) in [ours(), theirs()].iter().enumerate() {
            p.srtp_provider.srtp_aes_128_ecb_round(&key[..16], &input, &mut out[2 * i]);
            p.srtp_provider.srtp_aes_256_ecb_round(&key, &input, &mut out[2 * i + 1]);
        }
        prop_assert_eq!(&out[0][..16], &out[2][..16]);
        prop_assert_eq!(&out[1][..16], &out[3][..16]);
        prop_assert_ne!(&out[0][..16], &out[1][..16]);
    }

    #[test]
    fn hashes_agree(key in vec(any::<u8>(), 0..100), parts in vec(vec(any::<u8>(), 0..200), 0..4)) {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (ours, theirs) = (ours(), theirs());
        prop_assert_eq!(
            ours.sha1_hmac_provider.sha1_hmac(&key, &parts),
            theirs.sha1_hmac_provider.sha1_hmac(&key, &parts)
        );
        let all = parts.concat();
        prop_assert_eq!(ours.sha1_provider.sha1(&all), theirs.sha1_provider.sha1(&all));
        prop_assert_eq!(ours.sha256_provider.sha256(&all), theirs.sha256_provider.sha256(&all));
    }
}

/// RFC 2202, section 3, test case 2.
#[test]
fn hmac_of_the_rfc() {
    let got = ours().sha1_hmac_provider.sha1_hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
    let hex: String = got.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
}

#[test]
fn a_packet_shorter_than_its_tag_or_its_room_is_an_error() {
    let mut gcm = ours().srtp_provider.aead_aes_128_gcm().create_cipher([1; 16], false);
    assert!(gcm.decrypt(&[0; 12], &[&[0; 12]], &[0; 15], &mut [0; 15]).is_err());
    assert!(gcm.decrypt(&[0; 12], &[&[0; 12]], &[0; 20], &mut [0; 3]).is_err());
    assert!(gcm.encrypt(&[0; 12], &[0; 12], &[0; 20], &mut [0; 35]).is_err());
    let mut counter = ours().srtp_provider.aes_128_cm_sha1_80().create_cipher([1; 16], true);
    assert!(counter.encrypt(&[0; 16], &[0; 20], &mut [0; 19]).is_err());
}

#[test]
fn a_certificate_follows_from_its_seed() {
    let [one, again, other] = [[1; 32], [1; 32], [2; 32]].map(|seed| certificate(seed).unwrap());
    assert!(one.certificate == again.certificate && one.private_key == again.private_key);
    assert!(one.certificate != other.certificate && one.private_key != other.private_key);
    // Pinned: a recording holds the seed of its certificate and lives longer than a build.
    let hash: [u8; 32] = sha2::Sha256::digest(&one.certificate).into();
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "fce234a0eaeccf513e6d6d1c6798e8e84a4d679cab855671a25e4ae84e849197");
}

fn session(provider: DimplProvider, certificate: DtlsCert, active: bool, now: Instant) -> dimpl::Dtls {
    let config = dimpl::Config::builder().with_crypto_provider(provider).use_server_cookie(false).build();
    let mut dtls = dimpl::Dtls::new_12(Arc::new(config.unwrap()), certificate, now);
    dtls.set_active(active);
    dtls.handle_timeout(now).unwrap();
    dtls
}

/// Which certificate a session saw, and which keys for SRTP it came to.
fn shake_hands(client: &mut dimpl::Dtls, server: &mut dimpl::Dtls) -> [(Vec<u8>, Vec<u8>); 2] {
    let mut got = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    let mut buf = vec![0; 4_096];
    for _ in 0..100 {
        for (turn, got) in got.iter_mut().enumerate() {
            let (from, to) =
                if turn == 0 { (&mut *client, &mut *server) } else { (&mut *server, &mut *client) };
            loop {
                match from.poll_output(&mut buf) {
                    DtlsOutput::Packet(packet) => to.handle_packet(packet).unwrap(),
                    DtlsOutput::PeerCert(certificate) => got.0 = certificate.to_vec(),
                    DtlsOutput::KeyingMaterial(keys, _) => got.1 = keys.as_ref().to_vec(),
                    DtlsOutput::Timeout(_) => break,
                    _ => {}
                }
            }
        }
        if got.iter().all(|(certificate, keys)| !certificate.is_empty() && !keys.is_empty()) {
            break;
        }
    }
    got
}

#[test]
fn certificates_and_handshakes_agree_with_aws_lc() {
    // First, so that dimpl does not remember the real clock, which the tests of `os` would not forgive.
    crate::os::check().unwrap();
    let now = Instant::now();
    let aws = dimpl::crypto::aws_lc_rs::default_provider;
    let [a, b] = [[1; 32], [2; 32]].map(|seed| certificate(seed).unwrap());
    for (c, s) in [(dimpl_provider(), aws()), (aws(), dimpl_provider()), (dimpl_provider(), dimpl_provider())]
    {
        let mut client = session(c, a.clone(), true, now);
        let mut server = session(s, b.clone(), false, now);
        let [at_client, at_server] = shake_hands(&mut client, &mut server);
        assert_eq!(at_client.0, b.certificate);
        assert_eq!(at_server.0, a.certificate);
        assert!(!at_client.1.is_empty());
        assert_eq!(at_client.1, at_server.1);
    }
}
