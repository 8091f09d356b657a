//! Data messages of the dialect (JSON) and of the media model (AMF0, as RTMP has it).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::limits::Limits;
use crate::wire::amf0::{self, Bounds, Value as Amf};
use bytes::Bytes;
use serde_json::{Number, Value as Json};

/// A publisher's `send` as the payload of a data frame: the method's name, then what it says. `None` if it passes a limit.
pub fn to_frame(method: &str, data: &Json, limits: &Limits) -> Option<Bytes> {
    let mut properties = limits.amf_properties;
    let value = to_amf(data, limits.amf_depth, &mut properties)?;
    let payload = amf0::emit_all(&[Amf::string(method), value]).freeze();
    (payload.len() <= limits.amf_command_bytes).then_some(payload)
}

/// What a data frame says: the method's name and its first argument. `None` if it begins with no name.
pub fn of_frame(payload: &[u8], limits: &Limits) -> Option<(String, Json)> {
    let mut values = amf0::parse(payload, Bounds::of(limits, true)).ok()?.into_iter();
    let method = values.next()?.as_str()?.to_owned();
    Some((method, values.next().map_or(Json::Null, of_amf)))
}

fn to_amf(json: &Json, depth: usize, properties: &mut usize) -> Option<Amf> {
    let depth = depth.checked_sub(1)?;
    Some(match json {
        Json::Null => Amf::Null,
        Json::Bool(b) => Amf::Boolean(*b),
        Json::Number(n) => Amf::Number(n.as_f64()?),
        Json::String(s) => Amf::string(s),
        Json::Array(items) => {
            *properties = properties.checked_sub(items.len())?;
            Amf::StrictArray(items.iter().map(|i| to_amf(i, depth, properties)).collect::<Option<_>>()?)
        }
        Json::Object(members) => {
            *properties = properties.checked_sub(members.len())?;
            let pair =
                |(name, value): (&String, &Json)| Some((name.clone(), to_amf(value, depth, properties)?));
            Amf::object(members.iter().map(pair).collect::<Option<Vec<_>>>()?)
        }
    })
}

// As deep as the bounds of the parser allow.
fn of_amf(value: Amf) -> Json {
    let object = |properties: Vec<(String, Amf)>| {
        Json::Object(properties.into_iter().map(|(name, value)| (name, of_amf(value))).collect())
    };
    match value {
        Amf::Number(n) => number(n),
        Amf::Boolean(b) => Json::Bool(b),
        Amf::String(s) | Amf::LongString(s) | Amf::XmlDocument(s) => Json::String(s),
        Amf::Object(p) | Amf::EcmaArray(p) | Amf::TypedObject { properties: p, .. } => object(p),
        Amf::StrictArray(items) => Json::Array(items.into_iter().map(of_amf).collect()),
        Amf::Date { millis, .. } => number(millis),
        Amf::Null | Amf::Undefined | Amf::Unsupported => Json::Null,
    }
}

/// Whole numbers without a fraction, as a script would write them; what JSON does not have is null.
fn number(n: f64) -> Json {
    if n.fract() == 0.0 && n.abs() < 9e15 {
        return Json::from(n as i64);
    }
    Number::from_f64(n).map_or(Json::Null, Json::Number)
}
