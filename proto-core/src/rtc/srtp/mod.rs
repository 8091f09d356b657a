//! SRTP and SRTCP (RFC 3711, RFC 7714). For sessions that send to viewers packets are sealed straight into the buffer that
//! leaves, and feedback is opened; what publishers send is opened in `receive.rs`. GCM comes from the same provider as str0m's, so the
//! simulator's replays; what needs no provider to replay is in `counter.rs`.
//!
//! Nothing here counts sequence numbers. Under GCM a nonce that comes again with other bytes gives the key away, so each
//! SSRC has one owner who never goes back (`rtc/viewer/lane.rs`); the index of SRTCP is counted here.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod counter;
mod derive;
pub mod receive;
pub mod replay;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use crate::error::Reason;
use counter::Counter;
use derive::{Label, Master};
use replay::Window;
use std::fmt;
use str0m::config::CryptoProvider;
use str0m::crypto::dtls::SrtpProfile;
use str0m::crypto::{AeadAes128GcmCipher, AeadAes256GcmCipher};

/// Bytes of an RTP header without contributing sources and extensions.
pub const RTP_HEADER: usize = 12;
/// The most bytes that sealing adds to an RTP packet.
pub const OVERHEAD: usize = 16;
const GCM_TAG: usize = 16;
const SHA1_TAG: usize = 10;
/// Bytes of RTCP that stay in the clear: the first header and the sender's SSRC.
const RTCP_CLEAR: usize = 8;
/// Set in front of the index of a packet of RTCP that is encrypted.
const ENCRYPTED: u32 = 1 << 31;

/// The name of a profile in IANA's registry of DTLS-SRTP protection profiles.
pub const fn profile_name(profile: SrtpProfile) -> &'static str {
    match profile {
        SrtpProfile::AEAD_AES_128_GCM => "SRTP_AEAD_AES_128_GCM",
        SrtpProfile::AEAD_AES_256_GCM => "SRTP_AEAD_AES_256_GCM",
        SrtpProfile::AES128_CM_SHA1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        _ => "unknown",
    }
}

/// Why a packet could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not made with our peer's key, cut short, or in the clear.
    Unauthentic,
    /// Seen before, or so old that nobody can say.
    Replayed,
    /// Of one source more than a session may have.
    TooMany,
    /// The cipher refused, or the key has been used for as many packets as it may.
    Broken,
}

enum Cipher {
    Gcm128(Box<dyn AeadAes128GcmCipher>),
    Gcm256(Box<dyn AeadAes256GcmCipher>),
    Counter(Box<Counter>),
}

/// The keys of one direction of one kind of packet.
struct Keys {
    cipher: Cipher,
    salt: [u8; 14],
}

impl Keys {
    fn derive(
        master: &Master<'_>,
        crypto: &CryptoProvider,
        encrypt: bool,
        labels: [Label; 3],
    ) -> Option<Keys> {
        let [key, authentication, salt] = labels;
        let mut salted = [0; 14];
        let provider = crypto.srtp_provider;
        let cipher = match master.profile {
            SrtpProfile::AEAD_AES_128_GCM => Cipher::Gcm128(
                provider.aead_aes_128_gcm().create_cipher(master.bytes(key, provider), encrypt),
            ),
            SrtpProfile::AEAD_AES_256_GCM => Cipher::Gcm256(
                provider.aead_aes_256_gcm().create_cipher(master.bytes(key, provider), encrypt),
            ),
            SrtpProfile::AES128_CM_SHA1_80 => Cipher::Counter(Box::new(Counter::new(
                &master.bytes(key, provider),
                &master.bytes(authentication, provider),
            )?)),
            _ => return None,
        };
        let bytes: [u8; 14] = master.bytes(salt, provider);
        let used = salted.len().min(master.salt.len());
        salted.get_mut(..used)?.copy_from_slice(bytes.get(..used)?);
        Some(Keys { cipher, salt: salted })
    }

    /// RFC 7714, 8.1 (with `middle` = ROC, `low` = sequence number) and 9.1 (0, and the index in the low 32 bits).
    fn gcm_iv(&self, ssrc: u32, rest: u64) -> [u8; 12] {
        let value = u128::from(ssrc) << 48 | u128::from(rest & 0xffff_ffff_ffff);
        let mut iv = [0; 12];
        let bytes = value.to_be_bytes();
        for ((out, byte), salt) in iv.iter_mut().zip(bytes.iter().skip(4)).zip(&self.salt) {
            *out = byte ^ salt;
        }
        iv
    }

    /// RFC 3711, 4.1.1.
    fn counter_iv(&self, ssrc: u32, index: u64) -> [u8; 16] {
        let mut salt = [0; 16];
        for (out, byte) in salt.iter_mut().zip(&self.salt) {
            *out = *byte;
        }
        let value = u128::from_be_bytes(salt) ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16;
        value.to_be_bytes()
    }

    const fn tag(&self) -> usize {
        match self.cipher {
            Cipher::Gcm128(_) | Cipher::Gcm256(_) => GCM_TAG,
            Cipher::Counter(_) => SHA1_TAG,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}

/// Seals what a session sends.
pub struct Sealer {
    rtp: Keys,
    rtcp: Keys,
    rtcp_index: u32,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// The profile's name.
    pub fn profile(&self) -> &'static str {
        profile_name(match self.rtp.cipher {
            Cipher::Gcm128(_) => SrtpProfile::AEAD_AES_128_GCM,
            Cipher::Gcm256(_) => SrtpProfile::AEAD_AES_256_GCM,
            Cipher::Counter(_) => SrtpProfile::AES128_CM_SHA1_80,
        })
    }

    /// Appends one sealed RTP packet; `header` is all that stays readable, extensions included. `roc` is how often the sequence number of this SSRC has wrapped. The caller sees to
    /// it that no two packets of an SSRC have the same number, unless they are the same in every byte.
    ///
    /// # Errors
    /// [`Refused::Broken`]; `out` is as before.
    pub fn rtp(&mut self, header: &[u8], roc: u32, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let Some(&[_, _, q0, q1, _, _, _, _, s0, s1, s2, s3]) = header.first_chunk::<RTP_HEADER>() else {
            return Err(Refused::Broken);
        };
        let ssrc = u32::from_be_bytes([s0, s1, s2, s3]);
        let index = u64::from(roc) << 16 | u64::from(u16::from_be_bytes([q0, q1]));
        let start = out.len();
        out.extend_from_slice(header);
        out.resize(start + header.len() + payload.len() + self.rtp.tag(), 0);
        let sealed =
            self.rtp_into(header, roc, ssrc, index, payload, out.get_mut(start..).unwrap_or_default());
        sealed.ok_or_else(|| {
            out.truncate(start);
            Refused::Broken
        })
    }

    fn rtp_into(
        &mut self,
        header: &[u8],
        roc: u32,
        ssrc: u32,
        index: u64,
        payload: &[u8],
        packet: &mut [u8],
    ) -> Option<()> {
        let (gcm, counter) = (self.rtp.gcm_iv(ssrc, index), self.rtp.counter_iv(ssrc, index));
        let body_at = header.len();
        match &mut self.rtp.cipher {
            Cipher::Gcm128(c) => c.encrypt(&gcm, header, payload, packet.get_mut(body_at..)?).ok(),
            Cipher::Gcm256(c) => c.encrypt(&gcm, header, payload, packet.get_mut(body_at..)?).ok(),
            Cipher::Counter(c) => {
                let (sealed, tag) = packet.split_at_mut_checked(body_at + payload.len())?;
                let body = sealed.get_mut(body_at..)?;
                body.copy_from_slice(payload);
                c.apply(counter, body)?;
                tag.copy_from_slice(&c.tag([sealed, &roc.to_be_bytes()]));
                Some(())
            }
        }
    }

    /// Appends a compound packet of RTCP, sealed.
    ///
    /// # Errors
    /// [`Refused::Broken`]; `out` is as before.
    pub fn rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let start = out.len();
        let sealed = self.rtcp_into(packet, out);
        if sealed.is_none() {
            out.truncate(start);
        }
        sealed.ok_or(Refused::Broken)
    }

    fn rtcp_into(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let index = self.rtcp_index;
        // RFC 3711, 3.4: 31 bits, and no more packets than that with one key.
        self.rtcp_index = index.checked_add(1).filter(|next| *next <= ENCRYPTED)?;
        let trailer = (index | ENCRYPTED).to_be_bytes();
        let (clear, rest) = packet.split_at_checked(RTCP_CLEAR)?;
        let ssrc = word(clear, 4)?;
        let start = out.len();
        out.extend_from_slice(clear);
        let tag = self.rtcp.tag();
        out.resize(start + packet.len() + tag, 0);
        let gcm = self.rtcp.gcm_iv(ssrc, u64::from(index));
        let counter = self.rtcp.counter_iv(ssrc, u64::from(index));
        let mut authenticated = [0; RTCP_CLEAR + 4];
        authenticated.get_mut(..RTCP_CLEAR)?.copy_from_slice(clear);
        authenticated.get_mut(RTCP_CLEAR..)?.copy_from_slice(&trailer);
        let body = out.get_mut(start + RTCP_CLEAR..)?;
        match &mut self.rtcp.cipher {
            Cipher::Gcm128(c) => c.encrypt(&gcm, &authenticated, rest, body).ok()?,
            Cipher::Gcm256(c) => c.encrypt(&gcm, &authenticated, rest, body).ok()?,
            Cipher::Counter(c) => {
                let body = body.get_mut(..rest.len())?;
                body.copy_from_slice(rest);
                c.apply(counter, body)?;
                out.truncate(start + packet.len());
                let proof = c.tag([out.get(start..)?, &trailer]);
                out.extend_from_slice(&trailer);
                out.extend_from_slice(&proof);
                return Some(());
            }
        }
        out.extend_from_slice(&trailer);
        Some(())
    }
}

/// Opens the RTCP that a session receives.
pub struct Opener {
    rtcp: Keys,
    window: Window,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}

impl Opener {
    /// Writes a packet's plain content to `out`, which is emptied first. Packets that are not encrypted are refused: with
    /// keys out of DTLS there are none (RFC 5764).
    ///
    /// # Errors
    /// [`Refused::Unauthentic`] or [`Refused::Replayed`].
    pub fn rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        out.clear();
        let index = self.opened(packet, out);
        match index {
            Some(Ok(())) => Ok(()),
            Some(Err(refused)) => {
                out.clear();
                Err(refused)
            }
            None => {
                out.clear();
                Err(Refused::Unauthentic)
            }
        }
    }

    fn opened(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Option<Result<(), Refused>> {
        let counter_mode = matches!(self.rtcp.cipher, Cipher::Counter(_));
        let (packet, tag) =
            if counter_mode { packet.split_last_chunk::<SHA1_TAG>()? } else { (packet, &[0; SHA1_TAG]) };
        let (sealed, trailer) = packet.split_last_chunk::<4>()?;
        let marked = u32::from_be_bytes(*trailer);
        if marked & ENCRYPTED == 0 {
            return None;
        }
        let index = marked & !ENCRYPTED;
        if !self.window.is_new(u64::from(index)) {
            return Some(Err(Refused::Replayed));
        }
        let (clear, body) = sealed.split_at_checked(RTCP_CLEAR)?;
        let ssrc = word(clear, 4)?;
        let gcm = self.rtcp.gcm_iv(ssrc, u64::from(index));
        let counter = self.rtcp.counter_iv(ssrc, u64::from(index));
        let plain = if counter_mode { body.len() } else { body.len().checked_sub(GCM_TAG)? };
        out.extend_from_slice(clear);
        out.resize(RTCP_CLEAR + plain, 0);
        let into = out.get_mut(RTCP_CLEAR..)?;
        match &mut self.rtcp.cipher {
            Cipher::Gcm128(c) => drop(c.decrypt(&gcm, &[clear, trailer], body, into).ok()?),
            Cipher::Gcm256(c) => drop(c.decrypt(&gcm, &[clear, trailer], body, into).ok()?),
            Cipher::Counter(c) => {
                if !c.proves([packet, &[]], tag) {
                    return None;
                }
                into.copy_from_slice(body);
                c.apply(counter, into)?;
            }
        }
        self.window.seen(u64::from(index));
        Some(Ok(()))
    }
}

/// Both directions of a session out of what DTLS exported (RFC 5764, 4.2): the client's key, the server's, the client's
/// salt, the server's. `client` says which of them we are.
///
/// # Errors
/// The profile is none of the three, or there are too few bytes.
pub fn keys(
    material: &[u8],
    profile: SrtpProfile,
    client: bool,
    crypto: &CryptoProvider,
) -> Result<(Sealer, Opener), Reason> {
    let made = || {
        let [clients, servers] = Master::split(material, profile)?;
        let (ours, theirs) = if client { (clients, servers) } else { (servers, clients) };
        let rtp = Keys::derive(&ours, crypto, true, Label::RTP)?;
        let rtcp = Keys::derive(&ours, crypto, true, Label::RTCP)?;
        let from = Keys::derive(&theirs, crypto, false, Label::RTCP)?;
        Some((Sealer { rtp, rtcp, rtcp_index: 0 }, Opener { rtcp: from, window: Window::default() }))
    };
    made().ok_or_else(|| {
        Reason::peer("srtp_keys", format!("no SRTP keys can be made for the profile {profile:?}"))
    })
}
