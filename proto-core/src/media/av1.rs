//! AV1 as the media model sees it: which temporal unit a decoder can start at, and with which sequence header.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::track::CodecParams;
use crate::wire::av1::{Obu, ObuType, SequenceHeader, UnitInfo, obus};
use bytes::{Bytes, BytesMut};

/// The sequence header in force.
#[derive(Debug, Default)]
pub struct SequenceState {
    /// The whole OBU with size field.
    header: Option<Bytes>,
    still: bool,
    changed: bool,
}

/// A temporal unit in the model's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporalUnit {
    /// A decoder can start here.
    pub key: bool,
    /// OBUs with size fields; of a key frame, the sequence header first.
    pub payload: Bytes,
    /// The track's parameters, if they changed.
    pub params: Option<CodecParams>,
}

impl SequenceState {
    /// Learns the sequence header that a configuration record told (a whole OBU with size field).
    pub fn preset(&mut self, header: &Bytes) {
        if let Some((obu, _)) = Obu::parse(header) {
            self.learn(obu.payload, Bytes::copy_from_slice(header));
        }
    }

    fn learn(&mut self, payload: &[u8], whole: Bytes) {
        if let Some(parsed) = SequenceHeader::parse(payload)
            && self.header.as_ref() != Some(&whole)
        {
            self.header = Some(whole);
            self.still = parsed.still;
            self.changed = true;
        }
    }

    /// The parameters, if they changed since they were last told.
    pub fn news(&mut self) -> Option<CodecParams> {
        let header = self.header.clone().filter(|_| std::mem::take(&mut self.changed))?;
        let size = Obu::parse(&header)
            .and_then(|(obu, _)| SequenceHeader::parse(obu.payload))
            .map(|h| (h.width, h.height));
        Some(CodecParams::Av1 { sequence_header: header, size })
    }

    /// Takes a temporal unit of OBUs with size fields, without framing. `None` if it is broken or holds no frame.
    pub fn unit(&mut self, unit: Bytes) -> Option<TemporalUnit> {
        let info = UnitInfo::parse(&unit, self.still)?;
        let obu = obus(&unit).map_while(Result::ok).find(|o| o.kind == ObuType::SEQUENCE_HEADER);
        if let Some(obu) = obu {
            let mut whole = BytesMut::new();
            obu.put(&mut whole);
            self.learn(obu.payload, whole.freeze());
        }
        if !info.frame {
            return None;
        }
        let key = info.key && self.header.is_some();
        let payload = match &self.header {
            Some(header) if key && info.sequence_header.is_none() => {
                let mut with = BytesMut::with_capacity(header.len() + unit.len());
                with.extend_from_slice(header);
                with.extend_from_slice(&unit);
                with.freeze()
            }
            _ => unit,
        };
        Some(TemporalUnit { key, payload, params: self.news() })
    }
}
