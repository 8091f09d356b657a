//! AMF3 (Adobe "Action Message Format -- AMF 3", 2013), read only: what Flash clients put into AMF0 behind its marker 17.
//! Values come out as those of AMF0, which is what everything here works with.
//!
//! As with AMF0, nesting costs memory inside the bounds and never the thread's stack (abuse A5). What a reference repeats is
//! counted against the bounds of strings; a reference to a whole object reads as undefined, so that no few bytes stand
//! for many objects.

use super::amf0::{AmfError, Bounds, Value};
use std::rc::Rc;

/// The class of an object, as its instances share it.
#[derive(Debug)]
struct Traits {
    class: String,
    dynamic: bool,
    names: Vec<String>,
}

enum Open {
    Array { pairs: Vec<(String, Value)>, named: bool, key: String, items: Vec<Value>, left: usize },
    Object { traits: Rc<Traits>, next: usize, key: String, pairs: Vec<(String, Value)> },
}

struct Reader<'a, 'b> {
    rest: &'a [u8],
    bounds: Bounds,
    seen: &'b mut usize,
    strings: Vec<String>,
    traits: Vec<Rc<Traits>>,
    /// Bytes of strings that were given out, repeated ones each time.
    given: usize,
}

/// Reads one value; `seen` counts values as [`Bounds::properties`] wants it. Answers with what follows the value.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_value<'a>(
    buf: &'a [u8],
    bounds: Bounds,
    seen: &mut usize,
) -> Result<(Value, &'a [u8]), AmfError> {
    let mut reader = Reader { rest: buf, bounds, seen, strings: Vec::new(), traits: Vec::new(), given: 0 };
    let value = reader.value()?;
    Ok((value, reader.rest))
}

impl<'a> Reader<'a, '_> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], AmfError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(AmfError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, AmfError> {
        self.take(1)?.first().copied().ok_or(AmfError::Short)
    }

    fn double(&mut self) -> Result<f64, AmfError> {
        let bytes = self.take(8)?.first_chunk::<8>().ok_or(AmfError::Short)?;
        Ok(f64::from_be_bytes(*bytes))
    }

    /// `U29` (1.3.1): at most four bytes, the last with eight bits.
    fn u29(&mut self) -> Result<u32, AmfError> {
        let mut value = 0;
        for _ in 0..3 {
            let byte = self.byte()?;
            value = value << 7 | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Ok(value << 8 | u32::from(self.byte()?))
    }

    /// A number whose low bit says that it is a length or count, else a reference.
    fn length(&mut self) -> Result<Result<usize, usize>, AmfError> {
        let n = self.u29()?;
        let value = usize::try_from(n >> 1).unwrap_or(usize::MAX);
        Ok(if n & 1 == 1 { Ok(value) } else { Err(value) })
    }

    fn give(&mut self, text: String) -> Result<String, AmfError> {
        self.given = self.given.saturating_add(text.len() + 1);
        // What stands in the message is bounded by its size; repeating is bounded here.
        if self.given > self.bounds.string_bytes.saturating_mul(4) {
            return Err(AmfError::StringLength);
        }
        Ok(text)
    }

    fn text(&mut self) -> Result<String, AmfError> {
        let text = match self.length()? {
            Ok(len) => {
                let text = self.raw_text(len)?;
                if !text.is_empty() {
                    self.strings.push(text.clone());
                }
                text
            }
            Err(index) => self.strings.get(index).cloned().ok_or(AmfError::Marker(6))?,
        };
        self.give(text)
    }

    fn raw_text(&mut self, len: usize) -> Result<String, AmfError> {
        if len > self.bounds.string_bytes {
            return Err(AmfError::StringLength);
        }
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn class(&mut self, bits: usize) -> Result<Rc<Traits>, AmfError> {
        if bits & 1 == 0 {
            return self.traits.get(bits >> 1).cloned().ok_or(AmfError::Marker(10));
        }
        if bits & 2 != 0 {
            // Externalizable: only its class knows how it is written.
            return Err(AmfError::Marker(10));
        }
        let count = bits >> 3;
        if count > self.bounds.properties {
            return Err(AmfError::Properties);
        }
        let class = self.text()?;
        let names = (0..count).map(|_| self.text()).collect::<Result<_, _>>()?;
        let traits = Rc::new(Traits { class, dynamic: bits & 4 != 0, names });
        self.traits.push(traits.clone());
        Ok(traits)
    }

    /// Whether another value must follow in this container.
    fn wants_value(&mut self, open: &mut Open) -> Result<bool, AmfError> {
        match open {
            Open::Array { named, key, left, .. } => {
                if *named {
                    *key = self.text()?;
                    *named = !key.is_empty();
                    if *named {
                        return Ok(true);
                    }
                }
                let more = *left > 0;
                *left = left.saturating_sub(1);
                Ok(more)
            }
            Open::Object { traits, next, key, .. } => {
                if let Some(name) = traits.names.get(*next) {
                    *next += 1;
                    *key = self.give(name.clone())?;
                    return Ok(true);
                }
                if !traits.dynamic {
                    return Ok(false);
                }
                *key = self.text()?;
                Ok(!key.is_empty())
            }
        }
    }

    fn value(&mut self) -> Result<Value, AmfError> {
        let mut stack: Vec<Open> = Vec::new();
        loop {
            *self.seen += 1;
            if *self.seen > self.bounds.properties {
                return Err(AmfError::Properties);
            }
            if stack.len() >= self.bounds.depth {
                return Err(AmfError::Depth);
            }
            let marker = self.byte()?;
            let mut opened = None;
            let mut value = match marker {
                0 => Value::Undefined,
                1 => Value::Null,
                2 => Value::Boolean(false),
                3 => Value::Boolean(true),
                // 29 bits with a sign.
                4 => Value::Number(f64::from((self.u29()? as i32) << 3 >> 3)),
                5 => Value::Number(self.double()?),
                6 => Value::String(self.text()?),
                7 | 11 => match self.length()? {
                    Ok(len) => {
                        let text = self.raw_text(len)?;
                        Value::XmlDocument(self.give(text)?)
                    }
                    Err(_) => Value::Undefined,
                },
                8 => match self.length()? {
                    Ok(_) => Value::Date { millis: self.double()?, zone: 0 },
                    Err(_) => Value::Undefined,
                },
                12 => {
                    if let Ok(len) = self.length()? {
                        self.take(len)?;
                    }
                    Value::Unsupported
                }
                9 => match self.length()? {
                    Ok(left) => {
                        let (pairs, items) = (Vec::new(), Vec::new());
                        opened = Some(Open::Array { pairs, named: true, key: String::new(), items, left });
                        Value::Null
                    }
                    Err(_) => Value::Undefined,
                },
                10 => match self.length()? {
                    Ok(bits) => {
                        let traits = self.class(bits)?;
                        opened =
                            Some(Open::Object { traits, next: 0, key: String::new(), pairs: Vec::new() });
                        Value::Null
                    }
                    Err(_) => Value::Undefined,
                },
                other => return Err(AmfError::Marker(other)),
            };
            loop {
                let mut top = match opened.take() {
                    Some(open) => open,
                    None => match stack.pop() {
                        Some(mut open) => {
                            match &mut open {
                                Open::Array { pairs, named: true, key, .. }
                                | Open::Object { pairs, key, .. } => {
                                    pairs.push((std::mem::take(key), value));
                                }
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
                    Open::Array { pairs, items, .. } if pairs.is_empty() => Value::StrictArray(items),
                    Open::Array { mut pairs, items, .. } => {
                        pairs.extend(items.into_iter().enumerate().map(|(i, v)| (i.to_string(), v)));
                        Value::EcmaArray(pairs)
                    }
                    Open::Object { traits, pairs, .. } if traits.class.is_empty() => Value::Object(pairs),
                    Open::Object { traits, pairs, .. } => {
                        Value::TypedObject { class: self.give(traits.class.clone())?, properties: pairs }
                    }
                };
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: Bounds = Bounds { depth: 16, properties: 512, string_bytes: 1 << 16 };

    fn read(bytes: &[u8]) -> Result<Value, AmfError> {
        let (value, rest) = parse_value(bytes, WIDE, &mut 0)?;
        assert!(rest.is_empty(), "{rest:?}");
        Ok(value)
    }

    #[test]
    fn plain_values_are_read() {
        assert_eq!(read(&[0]), Ok(Value::Undefined));
        assert_eq!(read(&[3]), Ok(Value::Boolean(true)));
        assert_eq!(read(&[4, 0x7f]), Ok(Value::Number(127.0)));
        assert_eq!(read(&[4, 0x81, 0x00]), Ok(Value::Number(128.0)));
        assert_eq!(read(&[4, 0xff, 0xff, 0xff, 0xff]), Ok(Value::Number(-1.0)));
        assert_eq!(read(&[6, 0x07, b'a', b'b', b'c']), Ok(Value::string("abc")));
        assert_eq!(read(&[12, 0x05, 9, 9]), Ok(Value::Unsupported));
        assert_eq!(read(&[13]), Err(AmfError::Marker(13)));
        assert_eq!(read(&[6, 0x07, b'a']), Err(AmfError::Short));
    }

    #[test]
    fn arrays_and_objects_are_read_and_strings_repeat_by_reference() {
        // [true, "ab"] and {x: "ab"} with the second string by reference.
        let mut bytes = vec![9, 0x05, 0x01, 3, 6, 0x05, b'a', b'b'];
        assert_eq!(read(&bytes), Ok(Value::StrictArray(vec![Value::Boolean(true), Value::string("ab")])));
        bytes = vec![10, 0x0b, 0x01, 0x03, b'x', 6, 0x05, b'a', b'b', 0x03, b'y', 6, 0x02, 0x01];
        let wanted = [("x", Value::string("ab")), ("y", Value::string("ab"))];
        assert_eq!(read(&bytes), Ok(Value::object(wanted)));
        // A class C with one sealed name, twice.
        bytes = vec![9, 0x05, 0x01, 10, 0x13, 0x03, b'C', 0x03, b'n', 1, 10, 0x01, 3];
        let c = |v| Value::TypedObject { class: "C".into(), properties: vec![("n".into(), v)] };
        assert_eq!(read(&bytes), Ok(Value::StrictArray(vec![c(Value::Null), c(Value::Boolean(true))])));
    }

    #[test]
    fn bounds_hold() {
        let deep = [9, 0x03, 0x01].repeat(20);
        assert_eq!(read(&deep), Err(AmfError::Depth));
        let mut wide = vec![9, 0x8f, 0x7f, 0x01];
        wide.extend([1; 2_000]);
        assert_eq!(parse_value(&wide, WIDE, &mut 0).map(|_| ()), Err(AmfError::Properties));
        // One string of 60,000 bytes, repeated by reference.
        let mut many = vec![9, 0x83, 0x49, 0x01, 6, 0x87, 0xa9, 0x41];
        many.extend([b'a'; 60_000]);
        many.extend([6, 0x00].repeat(200));
        assert_eq!(parse_value(&many, WIDE, &mut 0).map(|_| ()), Err(AmfError::StringLength));
        assert_eq!(read(&[10, 0x07]), Err(AmfError::Marker(10)), "externalizable");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), first in 0u8..14) {
            let _ = parse_value(&[&[first], &bytes[..]].concat(), WIDE, &mut 0);
        }
    }
}
