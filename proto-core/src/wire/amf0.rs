//! AMF0 (Adobe "Action Message Format -- AMF 0", 2007): the values that RTMP commands and data messages are made of.
//!
//! Reading and writing keep their own stack, so that nesting costs memory inside the bounds and never the thread's
//! stack (abuse A5).

use super::amf3;
use crate::limits::Limits;
use bytes::{BufMut, BytesMut};

/// One AMF0 value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Marker 0.
    Number(f64),
    /// Marker 1.
    Boolean(bool),
    /// Marker 2: at most 65,535 bytes. A longer one is written as [`Value::LongString`].
    String(String),
    /// Marker 3: properties in the order of the wire.
    Object(Vec<(String, Value)>),
    /// Marker 5.
    Null,
    /// Marker 6.
    Undefined,
    /// Marker 8: an object that says (roughly) how many properties it has.
    EcmaArray(Vec<(String, Value)>),
    /// Marker 10.
    StrictArray(Vec<Value>),
    /// Marker 11.
    Date {
        /// Milliseconds since the Unix epoch.
        millis: f64,
        /// Time zone in minutes; the specification wants 0.
        zone: i16,
    },
    /// Marker 12.
    LongString(String),
    /// Marker 13.
    Unsupported,
    /// Marker 15.
    XmlDocument(String),
    /// Marker 16: an object with the name of its class.
    TypedObject {
        /// The name of its class.
        class: String,
        /// Its properties in the order of the wire.
        properties: Vec<(String, Value)>,
    },
}

impl Value {
    /// A text of its own.
    pub fn string(text: impl Into<String>) -> Value {
        Value::String(text.into())
    }

    /// An object out of pairs.
    pub fn object<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Object(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// The text, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) | Value::LongString(s) | Value::XmlDocument(s) => Some(s),
            _ => None,
        }
    }

    /// The number, if this is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Boolean(b) => Some(*b),
            _ => None,
        }
    }

    /// The first property called `name`, if this is some kind of object.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(p) | Value::EcmaArray(p) | Value::TypedObject { properties: p, .. } => {
                p.iter().find(|(k, _)| k == name).map(|(_, v)| v)
            }
            _ => None,
        }
    }
}

/// How large a sequence of values may be (abuse A5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Nesting depth; a number or text alone has depth 1.
    pub depth: usize,
    /// Values in all, counted at every level.
    pub properties: usize,
    /// Bytes of one string or property name.
    pub string_bytes: usize,
}

impl Bounds {
    /// The bounds in force: tighter until publish or play was `accepted`.
    pub fn of(limits: &Limits, accepted: bool) -> Bounds {
        Bounds {
            depth: limits.amf_depth,
            properties: if accepted { limits.amf_properties } else { limits.amf_properties_before },
            string_bytes: if accepted { limits.amf_string_bytes } else { limits.amf_string_bytes_before },
        }
    }
}

/// Why bytes are not AMF0, or not AMF0 that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmfError {
    /// The bytes end inside a value.
    Short,
    /// A marker that AMF0 does not define here, or that no RTMP peer sends (references, movie clips).
    Marker(u8),
    /// Nested deeper than [`Bounds::depth`].
    Depth,
    /// More values than [`Bounds::properties`].
    Properties,
    /// A string longer than [`Bounds::string_bytes`].
    StringLength,
}

impl std::fmt::Display for AmfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AmfError::Short => f.write_str("AMF0 data ends inside a value"),
            AmfError::Marker(m) => write!(f, "AMF0 data has the unusable type marker {m}"),
            AmfError::Depth => f.write_str("AMF0 data is nested deeper than limits.amf_depth"),
            AmfError::Properties => f.write_str("AMF0 data has more values than limits.amf_properties"),
            AmfError::StringLength => {
                f.write_str("AMF0 data has a string longer than limits.amf_string_bytes")
            }
        }
    }
}

enum Kind {
    Object,
    Ecma,
    Typed(String),
}

/// A container that is being read.
enum Open {
    Pairs { kind: Kind, pairs: Vec<(String, Value)>, key: String },
    Array { items: Vec<Value>, left: u32 },
}

struct Reader<'a> {
    rest: &'a [u8],
    bounds: Bounds,
    seen: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], AmfError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(AmfError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(AmfError::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    fn number(&mut self) -> Result<f64, AmfError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    fn text(&mut self, len: usize) -> Result<String, AmfError> {
        if len > self.bounds.string_bytes {
            return Err(AmfError::StringLength);
        }
        // Old encoders write names in the code page of their host; such a name is spoilt, not the whole command.
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn short_text(&mut self) -> Result<String, AmfError> {
        let len = u16::from_be_bytes(self.array()?);
        self.text(usize::from(len))
    }

    fn long_text(&mut self) -> Result<String, AmfError> {
        let len = u32::from_be_bytes(self.array()?);
        self.text(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Reads the next property name into the container, or its end. `true` if a value must follow.
    fn wants_value(&mut self, open: &mut Open) -> Result<bool, AmfError> {
        match open {
            Open::Array { left, .. } => {
                let more = *left > 0;
                *left = left.saturating_sub(1);
                Ok(more)
            }
            Open::Pairs { key, .. } => {
                *key = self.short_text()?;
                if key.is_empty() && self.rest.first() == Some(&9) {
                    self.take(1)?;
                    return Ok(false);
                }
                Ok(true)
            }
        }
    }

    fn value(&mut self) -> Result<Value, AmfError> {
        let mut stack: Vec<Open> = Vec::new();
        loop {
            self.seen += 1;
            if self.seen > self.bounds.properties {
                return Err(AmfError::Properties);
            }
            if stack.len() >= self.bounds.depth {
                return Err(AmfError::Depth);
            }
            let [marker] = self.array()?;
            let mut opened = None;
            let mut value = match marker {
                0 => Value::Number(self.number()?),
                1 => Value::Boolean(self.array::<1>()? != [0]),
                2 => Value::String(self.short_text()?),
                5 => Value::Null,
                6 => Value::Undefined,
                11 => Value::Date { millis: self.number()?, zone: i16::from_be_bytes(self.array()?) },
                12 => Value::LongString(self.long_text()?),
                13 => Value::Unsupported,
                15 => Value::XmlDocument(self.long_text()?),
                3 | 8 | 16 => {
                    let kind = match marker {
                        3 => Kind::Object,
                        8 => {
                            // The count is a hint that encoders get wrong; the end marker rules.
                            self.array::<4>()?;
                            Kind::Ecma
                        }
                        _ => Kind::Typed(self.short_text()?),
                    };
                    opened = Some(Open::Pairs { kind, pairs: Vec::new(), key: String::new() });
                    Value::Null
                }
                10 => {
                    let left = u32::from_be_bytes(self.array()?);
                    opened = Some(Open::Array { items: Vec::new(), left });
                    Value::Null
                }
                // Flash clients put AMF3 values into AMF0 (3.1).
                17 => {
                    let bounds =
                        Bounds { depth: self.bounds.depth.saturating_sub(stack.len()), ..self.bounds };
                    let (value, rest) = amf3::parse_value(self.rest, bounds, &mut self.seen)?;
                    self.rest = rest;
                    value
                }
                other => return Err(AmfError::Marker(other)),
            };
            // Close every container that ends here; stop at the first that wants another value.
            loop {
                let mut top = match opened.take() {
                    Some(open) => open,
                    None => match stack.pop() {
                        Some(mut open) => {
                            match &mut open {
                                Open::Pairs { pairs, key, .. } => pairs.push((std::mem::take(key), value)),
                                Open::Array { items, .. } => items.push(value),
                            }
                            open
                        }
                        None => return Ok(value),
                    },
                };
                if self.wants_value(&mut top)? {
                    stack.push(top);
                    break;
                }
                value = match top {
                    Open::Array { items, .. } => Value::StrictArray(items),
                    Open::Pairs { kind: Kind::Object, pairs, .. } => Value::Object(pairs),
                    Open::Pairs { kind: Kind::Ecma, pairs, .. } => Value::EcmaArray(pairs),
                    Open::Pairs { kind: Kind::Typed(class), pairs, .. } => {
                        Value::TypedObject { class, properties: pairs }
                    }
                };
            }
        }
    }
}

/// Reads all values of a command or data message.
///
/// # Errors
/// The first thing that is wrong; nothing of what came before is given out.
pub fn parse(buf: &[u8], bounds: Bounds) -> Result<Vec<Value>, AmfError> {
    let mut reader = Reader { rest: buf, bounds, seen: 0 };
    let mut values = Vec::new();
    while !reader.rest.is_empty() {
        values.push(reader.value()?);
    }
    Ok(values)
}

/// Reads the first value and answers how many bytes it took.
///
/// # Errors
/// As [`parse`].
pub fn parse_first(buf: &[u8], bounds: Bounds) -> Result<(Value, usize), AmfError> {
    let mut reader = Reader { rest: buf, bounds, seen: 0 };
    let value = reader.value()?;
    Ok((value, buf.len().saturating_sub(reader.rest.len())))
}

fn put_short(out: &mut BytesMut, text: &str) {
    // A name cannot be longer than its length field; it is cut at a character.
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u16(end as u16);
    out.put_slice(text.as_bytes().get(..end).unwrap_or_default());
}

fn put_long(out: &mut BytesMut, marker: u8, text: &str) {
    out.put_u8(marker);
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

enum Todo<'a> {
    Pairs(std::slice::Iter<'a, (String, Value)>),
    Items(std::slice::Iter<'a, Value>),
}

/// Writes one value.
pub fn emit(out: &mut BytesMut, value: &Value) {
    let mut stack: Vec<Todo<'_>> = Vec::new();
    let mut next = Some(value);
    loop {
        if let Some(value) = next.take() {
            match value {
                Value::Number(n) => {
                    out.put_u8(0);
                    out.put_f64(*n);
                }
                Value::Boolean(b) => out.put_slice(&[1, u8::from(*b)]),
                Value::String(s) if s.len() <= usize::from(u16::MAX) => {
                    out.put_u8(2);
                    put_short(out, s);
                }
                Value::String(s) | Value::LongString(s) => put_long(out, 12, s),
                Value::XmlDocument(s) => put_long(out, 15, s),
                Value::Null => out.put_u8(5),
                Value::Undefined => out.put_u8(6),
                Value::Unsupported => out.put_u8(13),
                Value::Date { millis, zone } => {
                    out.put_u8(11);
                    out.put_f64(*millis);
                    out.put_i16(*zone);
                }
                Value::Object(pairs) => {
                    out.put_u8(3);
                    stack.push(Todo::Pairs(pairs.iter()));
                }
                Value::EcmaArray(pairs) => {
                    out.put_u8(8);
                    out.put_u32(pairs.len() as u32);
                    stack.push(Todo::Pairs(pairs.iter()));
                }
                Value::TypedObject { class, properties } => {
                    out.put_u8(16);
                    put_short(out, class);
                    stack.push(Todo::Pairs(properties.iter()));
                }
                Value::StrictArray(items) => {
                    out.put_u8(10);
                    out.put_u32(items.len() as u32);
                    stack.push(Todo::Items(items.iter()));
                }
            }
        }
        match stack.last_mut() {
            None => return,
            Some(Todo::Items(items)) => {
                next = items.next();
                if next.is_none() {
                    stack.pop();
                }
            }
            Some(Todo::Pairs(pairs)) => match pairs.next() {
                Some((key, value)) => {
                    put_short(out, key);
                    next = Some(value);
                }
                None => {
                    out.put_slice(&[0, 0, 9]);
                    stack.pop();
                }
            },
        }
    }
}

/// Writes values one after the other, as a command or data message has them.
pub fn emit_all(values: &[Value]) -> BytesMut {
    let mut out = BytesMut::new();
    for value in values {
        emit(&mut out, value);
    }
    out
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: Bounds = Bounds { depth: 16, properties: 512, string_bytes: 64 << 10 };

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_filter("NaN is not equal to itself", |n| !n.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,12}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
            Just(Value::Unsupported),
            (any::<i32>(), any::<i16>()).prop_map(|(m, zone)| Value::Date { millis: f64::from(m), zone }),
            ".{0,12}".prop_map(Value::LongString),
            ".{0,12}".prop_map(Value::XmlDocument),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            let pairs = prop::collection::vec((".{1,8}", inner.clone()), 0..6);
            prop_oneof![
                pairs.clone().prop_map(Value::Object),
                pairs.clone().prop_map(Value::EcmaArray),
                prop::collection::vec(inner, 0..6).prop_map(Value::StrictArray),
                (".{0,8}", pairs).prop_map(|(class, properties)| Value::TypedObject { class, properties }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec(any_value(), 0..4)) {
            let bytes = emit_all(&values);
            prop_assert_eq!(parse(&bytes, WIDE), Ok(values));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, WIDE);
        }

        #[test]
        fn every_cut_of_one_value_is_short(value in any_value()) {
            let bytes = emit_all(std::slice::from_ref(&value));
            for n in 0..bytes.len() {
                prop_assert_eq!(parse_first(&bytes[..n], WIDE), Err(AmfError::Short));
            }
            prop_assert_eq!(parse_first(&bytes, WIDE), Ok((value, bytes.len())));
        }
    }

    #[test]
    fn depth_is_bounded_without_using_the_stack() {
        // A strict array of one, of one, of one ...
        let bomb = [10, 0, 0, 0, 1].repeat(100_000);
        assert_eq!(parse(&bomb, WIDE), Err(AmfError::Depth));
        let objects = [3, 0, 1, b'a'].repeat(100_000);
        assert_eq!(parse(&objects, WIDE), Err(AmfError::Depth));
    }

    #[test]
    fn width_is_bounded_and_a_declared_count_reserves_nothing() {
        assert_eq!(parse(&[5; 513], WIDE), Err(AmfError::Properties));
        assert_eq!(parse(&[5; 512], WIDE).map(|v| v.len()), Ok(512));
        assert_eq!(parse(&[10, 0xff, 0xff, 0xff, 0xff], WIDE), Err(AmfError::Short));
    }

    #[test]
    fn strings_are_bounded_before_they_are_read() {
        let bounds = Bounds { string_bytes: 4, ..WIDE };
        assert_eq!(parse(&[2, 0, 5, 1, 1, 1, 1, 1], bounds), Err(AmfError::StringLength));
        assert_eq!(parse(&[12, 0xff, 0xff, 0xff, 0xff], WIDE), Err(AmfError::StringLength));
        assert_eq!(parse(&[2, 0, 1, 0xfc], WIDE), Ok(vec![Value::string("\u{fffd}")]));
    }

    #[test]
    fn references_are_refused_and_amf3_values_are_read() {
        let both = [&[17, 10, 0x0b, 0x01, 0x03, b'x', 4, 5, 0x01][..], &[5]].concat();
        let wanted = vec![Value::object([("x", Value::Number(5.0))]), Value::Null];
        assert_eq!(parse(&both, WIDE), Ok(wanted));
        for marker in [4, 7, 9, 14, 200] {
            assert_eq!(parse(&[marker, 0, 0], WIDE), Err(AmfError::Marker(marker)));
        }
    }

    #[test]
    fn long_text_changes_its_marker_and_names_are_cut() {
        let long = "é".repeat(40_000);
        let bytes = emit_all(&[Value::string(long.clone())]);
        let wide = Bounds { string_bytes: 1 << 20, ..WIDE };
        assert_eq!(parse(&bytes, wide), Ok(vec![Value::LongString(long.clone())]));
        let cut = parse(&emit_all(&[Value::object([(long, Value::Null)])]), wide).unwrap();
        assert_eq!(cut, [Value::object([("é".repeat(32_767), Value::Null)])]);
    }
}
