//! The tokens that a manager gives out at login: JSON web tokens (RFC 7519) with HMAC-SHA256 (RFC 7518 section 3.2)
//! under a key that each run of the node makes anew, so that a token ends with the run that gave it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The most bytes of a token that are looked at.
const TOKEN_MAX: usize = 1_024;
/// What each of our tokens begins with: `{"alg":"HS256","typ":"JWT"}`. No other header is taken, so a token cannot
/// choose its own algorithm.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// When it was given, seconds since 1970.
    pub iat: u64,
    /// When it ends, seconds since 1970.
    pub exp: u64,
}

fn mac(key: &[u8; 32], signed: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(signed.as_bytes());
    Some(mac)
}

/// Writes a token.
pub fn mint(key: &[u8; 32], claims: &Claims) -> String {
    let payload = serde_json::to_vec(claims).unwrap_or_default();
    let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
    match mac(key, &signed) {
        Some(mac) => format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())),
        None => String::new(),
    }
}

/// Reads a token.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn verify(key: &[u8; 32], token: &str, now_s: u64) -> Result<Claims, &'static str> {
    const BAD: &str = "the token is not one of this manager's; log in again";
    if token.len() > TOKEN_MAX {
        return Err(BAD);
    }
    let (signed, code) = token.rsplit_once('.').ok_or(BAD)?;
    let payload = signed.strip_prefix(HEADER).and_then(|p| p.strip_prefix('.')).ok_or(BAD)?;
    let code = URL_SAFE_NO_PAD.decode(code).map_err(|_| BAD)?;
    mac(key, signed).ok_or(BAD)?.verify_slice(&code).map_err(|_| BAD)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| BAD)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| BAD)?;
    if now_s >= claims.exp {
        return Err("the token has expired; log in again");
    }
    Ok(claims)
}

/// User and password of an `Authorization: Basic` header's value (RFC 7617).
pub fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || rest.len() > TOKEN_MAX {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The token of an `Authorization: Bearer` header's value (RFC 6750 section 2.1).
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(rest.trim())
}

/// Whether two secrets are the same, in a time that does not tell where they differ: what is compared are codes of
/// them under a key that nobody outside knows.
pub fn same_secret(key: &[u8; 32], a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (mac(key, a), mac(key, b)) else { return false };
    a.verify_slice(&b.finalize().into_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn claims() -> Claims {
        Claims { sub: "admin".to_owned(), iat: 1_000, exp: 2_000 }
    }

    #[test]
    fn what_is_given_is_taken_until_it_ends() {
        let token = mint(&KEY, &claims());
        assert_eq!(verify(&KEY, &token, 1_999), Ok(claims()));
        assert!(verify(&KEY, &token, 2_000).unwrap_err().contains("expired"));
        assert!(verify(&[8; 32], &token, 1_500).is_err(), "another run's key");
    }

    #[test]
    fn the_header_is_what_it_says() {
        assert_eq!(URL_SAFE_NO_PAD.decode(HEADER).unwrap(), br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    #[test]
    fn no_changed_byte_and_no_other_algorithm_is_taken() {
        let token = mint(&KEY, &claims());
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let bent = String::from_utf8(bytes).unwrap();
            // The last character of a base64 text has bits that say nothing; they must be zero.
            assert!(verify(&KEY, &bent, 1_500).is_err(), "byte {at}");
        }
        let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
        let payload = token.split('.').nth(1).unwrap();
        for forged in
            [format!("{none}.{payload}."), format!("{HEADER}.{payload}."), String::new(), "a.b.c".to_owned()]
        {
            assert!(verify(&KEY, &forged, 1_500).is_err(), "{forged}");
        }
    }

    #[test]
    fn credentials_are_read_as_the_rfcs_write_them() {
        assert_eq!(basic("Basic YWRtaW46czM6Y3JldA=="), Some(("admin".to_owned(), "s3:cret".to_owned())));
        assert_eq!(basic("basic YWRtaW4="), None, "no colon");
        assert_eq!(basic("Bearer YWRtaW46czM6Y3JldA=="), None);
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert!(same_secret(&KEY, "a", "a") && !same_secret(&KEY, "a", "b") && !same_secret(&KEY, "", "b"));
    }
}
