use super::*;
use proptest::prelude::*;

/// libaom, Main, 640x360, 4:2:0 of 8 bits: a whole unit.
const SEQUENCE: &[u8] = &[0x0a, 0x0b, 0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x3e, 0xbe, 0x60, 0x10];

fn obu(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    Obu { kind: ObuType(kind), header: &[kind << 3], payload }.put(&mut out);
    out.to_vec()
}

#[test]
fn units_are_told_apart() {
    let key = [obu(2, &[]), SEQUENCE.to_vec(), obu(6, &[0x10, 7])].concat();
    let info = UnitInfo::parse(&key, false).unwrap();
    assert_eq!(info, UnitInfo { sequence_header: Some(&SEQUENCE[2..]), frame: true, key: true });
    let inter = UnitInfo::parse(&[0x32, 2, 0x30, 7], false).unwrap();
    assert!(inter.frame && !inter.key);
    let hidden = UnitInfo::parse(&[0x32, 2, 0x00, 7], false).unwrap();
    assert!(hidden.frame && !hidden.key, "a key frame that is not shown");
    assert_eq!(UnitInfo::parse(&[0x32, 9, 0], false), None);
    assert_eq!(UnitInfo::parse(&[0xb2, 0], false), None);
}

#[test]
fn a_record_round_trips() {
    let record = emit_config(SEQUENCE);
    assert_eq!(record[..4], [0x81, 0x01, 0x0c, 0x00], "as ffmpeg writes it");
    assert_eq!(parse_config(&record).as_deref(), Some(SEQUENCE));
    assert_eq!(parse_config(&record[..4]), None);
    assert_eq!(parse_config(&[0x01, 0, 0, 0]), None);
}

#[test]
fn the_header_of_an_encoder_is_read() {
    let (obu, rest) = Obu::parse(SEQUENCE).unwrap();
    assert!(rest.is_empty());
    let info = SequenceHeader::parse(obu.payload).unwrap();
    assert_eq!((info.profile, info.width, info.height, info.still), (0, 640, 360, false));
    assert!((0..obu.payload.len() - 1).all(|n| SequenceHeader::parse(&obu.payload[..n]).is_none()));
}

proptest! {
    #[test]
    fn leb128_round_trips(value in 0usize..=u32::MAX as usize, tail: Vec<u8>) {
        let mut out = BytesMut::new();
        put_leb128(&mut out, value);
        out.put_slice(&tail);
        prop_assert_eq!(leb128(&out), Some((value, &tail[..])));
    }

    #[test]
    fn units_round_trip(units in prop::collection::vec((0u8..16, prop::collection::vec(any::<u8>(), 0..300)), 0..8)) {
        let bytes: Vec<u8> = units.iter().flat_map(|(kind, payload)| obu(*kind, payload)).collect();
        let read: Vec<(u8, Vec<u8>)> =
            obus(&bytes).map(|o| o.map(|o| (o.kind.0, o.payload.to_vec())).unwrap()).collect();
        prop_assert_eq!(read, units);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), still: bool) {
        let _ = (SequenceHeader::parse(&bytes), UnitInfo::parse(&bytes, still), parse_config(&bytes));
        let _ = leb128(&bytes);
    }
}
