//! The name of a stream, the same in every protocol.

use crate::error::quote;
use std::fmt;

/// App and name of a stream, such as `live/demo`. The app may have several segments.
///
/// Clients split the two differently (RTMP sends app and name apart, HTTP and RTSP send one path), so the key is
/// made by joining what they send and splitting at the last `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    joined: String,
    slash: usize,
}

/// The most characters of one segment of a stream key (A23).
pub const SEGMENT_MAX: usize = 128;
/// The most segments of a stream key, the name included.
pub const SEGMENTS_MAX: usize = 8;

impl StreamKey {
    /// Makes a key from a path such as `live/demo`, `/live/demo` or `live/room1/demo`.
    ///
    /// # Errors
    /// A sentence for the client if a segment is empty, too long, `.`/`..`, or has a character outside
    /// `A-Za-z0-9._~-`, or if there is no app.
    pub fn parse(path: &str) -> Result<StreamKey, String> {
        let joined = path.trim_matches('/');
        let mut segments = 0;
        for s in joined.split('/') {
            segments += 1;
            if s.is_empty() || s.len() > SEGMENT_MAX {
                return Err(format!(
                    "stream path {} has an empty or over-long part (1 to 128 characters each)",
                    quote(path)
                ));
            }
            if s == "." || s == ".." {
                return Err(format!("stream path {} may not contain {s}", quote(path)));
            }
            if let Some(c) = s.chars().find(|c| !(c.is_ascii_alphanumeric() || "._~-".contains(*c))) {
                return Err(format!(
                    "stream path {} has the character {}; allowed are A-Z a-z 0-9 . _ ~ -",
                    quote(path),
                    quote(&c.to_string())
                ));
            }
        }
        if segments > SEGMENTS_MAX {
            return Err(format!("stream path {} has more than {SEGMENTS_MAX} parts", quote(path)));
        }
        match joined.rfind('/') {
            Some(slash) => Ok(StreamKey { joined: joined.to_owned(), slash }),
            None => Err(format!("stream path {} needs an app and a name, such as live/demo", quote(path))),
        }
    }

    /// Makes a key from an app and a name that a client sent apart.
    ///
    /// # Errors
    /// As [`StreamKey::parse`].
    pub fn join(app: &str, name: &str) -> Result<StreamKey, String> {
        StreamKey::parse(&format!("{}/{}", app.trim_matches('/'), name.trim_matches('/')))
    }

    /// Everything before the last slash.
    pub fn app(&self) -> &str {
        self.joined.get(..self.slash).unwrap_or_default()
    }

    /// Everything after the last slash.
    pub fn name(&self) -> &str {
        self.joined.get(self.slash + 1..).unwrap_or_default()
    }

    /// `app/name`.
    pub fn as_str(&self) -> &str {
        &self.joined
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_a_client_splits_it_the_key_is_the_same() {
        let key = StreamKey::parse("live/room1/demo").unwrap();
        assert_eq!(StreamKey::join("live", "room1/demo").unwrap(), key);
        assert_eq!(StreamKey::join("/live/room1/", "demo").unwrap(), key);
        assert_eq!((key.app(), key.name()), ("live/room1", "demo"));
    }

    #[test]
    fn bad_names_are_refused_in_words() {
        for bad in ["", "demo", "live//x", "live/..", "live/a b", "live/ü", "live/a%2e", "a/b/c/d/e/f/g/h/i"]
        {
            let error = StreamKey::parse(bad).unwrap_err();
            assert!(error.contains("stream path"), "{error}");
        }
        assert!(StreamKey::join("live", &"x".repeat(129)).is_err());
    }
}
