//! Opens the RTP that a publisher sends, and keeps each source's numbers: how often they wrapped, and which were seen.

use super::derive::{Label, Master};
use super::replay::Window;
use super::{Cipher, Keys, Opener, Refused, SHA1_TAG, Sealer};
use crate::error::Reason;
use crate::wire::rtp;
use std::collections::BTreeMap;
use std::fmt;
use str0m::config::CryptoProvider;
use str0m::crypto::dtls::SrtpProfile;

/// One source: which of its packets were seen, by index (RFC 3711, 3.3.1).
#[derive(Debug, Default)]
struct Source {
    newest: Option<u64>,
    window: Window,
}

/// The index nearest to the newest one that has these lower 16 bits; `None` if that was before the first packet.
pub fn nearest(newest: Option<u64>, seq: u16) -> Option<u64> {
    match newest {
        // The rollover counter begins at 0.
        None => Some(u64::from(seq)),
        Some(newest) => newest
            .checked_add_signed(i64::from(seq.wrapping_sub(newest as u16) as i16))
            .filter(|i| *i < 1 << 48),
    }
}

/// Opens RTP of several sources under one key.
pub struct Receiver {
    keys: Keys,
    sources: BTreeMap<u32, Source>,
    most: usize,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver(..)")
    }
}

impl Receiver {
    /// The newest index of a source.
    pub fn newest(&self, ssrc: u32) -> Option<u64> {
        self.sources.get(&ssrc)?.newest
    }

    /// Opens a packet: its plain bytes from the header's end on go to `out`, which is emptied first. Answers the source and
    /// the packet's index. A packet of one source more than may be is
    /// [`Refused::TooMany`], whoever made it.
    ///
    /// # Errors
    /// Why it was not opened; then nothing is remembered of it.
    pub fn open(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(u32, u64), Refused> {
        out.clear();
        let cut = Refused::Unauthentic;
        let head = rtp::header_len(packet).ok_or(cut)?;
        let (seq, ssrc) = (super::word(packet, 0).ok_or(cut)? as u16, super::word(packet, 8).ok_or(cut)?);
        let source = self.sources.get(&ssrc);
        if source.is_none() && self.sources.len() >= self.most {
            return Err(Refused::TooMany);
        }
        let index = nearest(source.and_then(|s| s.newest), seq).ok_or(Refused::Replayed)?;
        if source.is_some_and(|s| !s.window.is_new(index)) {
            return Err(Refused::Replayed);
        }
        if self.decrypt(packet, head, ssrc, index, out).is_none() {
            out.clear();
            return Err(Refused::Unauthentic);
        }
        let source = self.sources.entry(ssrc).or_default();
        source.window.seen(index);
        source.newest = source.newest.max(Some(index));
        Ok((ssrc, index))
    }

    fn decrypt(
        &mut self,
        packet: &[u8],
        head: usize,
        ssrc: u32,
        index: u64,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let (clear, sealed) = packet.split_at_checked(head)?;
        if let Cipher::Counter(c) = &self.keys.cipher {
            let (signed, tag) = packet.split_last_chunk::<SHA1_TAG>()?;
            if !c.proves([signed, &((index >> 16) as u32).to_be_bytes()], tag) {
                return None;
            }
            out.extend_from_slice(signed.get(head..)?);
            return c.apply(self.keys.counter_iv(ssrc, index), out);
        }
        let iv = self.keys.gcm_iv(ssrc, index);
        out.resize(sealed.len().checked_sub(self.keys.tag())?, 0);
        match &mut self.keys.cipher {
            Cipher::Gcm128(c) => c.decrypt(&iv, &[clear], sealed, out).ok().map(drop),
            Cipher::Gcm256(c) => c.decrypt(&iv, &[clear], sealed, out).ok().map(drop),
            Cipher::Counter(_) => None,
        }
    }
}

/// As [`super::keys`], and what opens RTP of `most` sources.
///
/// # Errors
/// As there.
pub fn keys(
    material: &[u8],
    profile: SrtpProfile,
    client: bool,
    crypto: &CryptoProvider,
    most: usize,
) -> Result<(Sealer, Opener, Receiver), Reason> {
    let (sealer, opener) = super::keys(material, profile, client, crypto)?;
    let made = || {
        let [clients, servers] = Master::split(material, profile)?;
        let theirs = if client { servers } else { clients };
        Keys::derive(&theirs, crypto, false, Label::RTP)
    };
    let keys = made().ok_or_else(|| {
        Reason::peer("srtp_keys", format!("no SRTP keys can be made for the profile {profile:?}"))
    })?;
    Ok((sealer, opener, Receiver { keys, sources: BTreeMap::new(), most }))
}
