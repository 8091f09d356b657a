//! What somebody shows to prove who he is, whatever protocol it came by.

use super::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The most bytes of one credential that are looked at.
const CREDENTIAL_MAX: usize = 4_096;

/// What was shown. Several at once are tried in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// A token.
    pub token: Option<Secret>,
    /// A publish key beside the stream's own name.
    pub key: Option<Secret>,
    /// A user who has proved by digest that he knows his password.
    pub proven: Option<String>,
    /// A user and a password.
    pub password: Option<(String, Secret)>,
}

impl Credentials {
    /// Whether nothing was shown.
    pub fn is_empty(&self) -> bool {
        *self == Credentials::default()
    }

    /// Takes what a URL's query has: `token` (or `access_token`, `accessToken`), `key`, `username` and `password` (or `user`
    /// and `pass`). The first of a name counts; what was there before stays.
    pub fn add_query(&mut self, query: &str) {
        let (mut user, mut password) = (None, None);
        for pair in query.split('&').take(64) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() || value.len() > CREDENTIAL_MAX {
                continue;
            }
            let value = || decode(value);
            match name {
                "token" | "access_token" | "accessToken" => {
                    self.token.get_or_insert_with(|| Secret::new(value()));
                }
                "key" => {
                    self.key.get_or_insert_with(|| Secret::new(value()));
                }
                "username" | "user" => {
                    user.get_or_insert_with(value);
                }
                "password" | "pass" => {
                    password.get_or_insert_with(value);
                }
                _ => {}
            }
        }
        if let (Some(user), Some(password), None) = (user, password, &self.password) {
            self.password = Some((user, Secret::new(password)));
        }
    }

    /// Takes the value of an `Authorization` header of the schemes Bearer (RFC 6750) and Basic (RFC 7617). Others are passed
    /// over.
    pub fn add_header(&mut self, value: &str) {
        let Some((scheme, rest)) = value.split_once(' ') else { return };
        let rest = rest.trim();
        if rest.is_empty() || rest.len() > CREDENTIAL_MAX {
            return;
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            self.token.get_or_insert_with(|| Secret::new(rest));
        } else if scheme.eq_ignore_ascii_case("basic")
            && let Some((user, password)) = basic(rest)
        {
            self.password.get_or_insert_with(|| (user, Secret::new(password)));
        }
    }
}

fn basic(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    (!password.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// A query's value decoded as forms are; an escape that is none stays as it was sent.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match (b, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn of_query(query: &str) -> Credentials {
        let mut c = Credentials::default();
        c.add_query(query);
        c
    }

    fn of_header(value: &str) -> Credentials {
        let mut c = Credentials::default();
        c.add_header(value);
        c
    }

    #[test]
    fn every_name_that_clients_use_is_known() {
        for query in ["token=a.b.c", "x=1&accessToken=a.b.c&token=z", "access_token=a.b.c"] {
            assert_eq!(of_query(query).token, Some(Secret::new("a.b.c")), "{query}");
        }
        for query in ["username=u&password=p%20w", "pass=p+w&user=u", "user=u&user=v&pass=p%20w"] {
            assert_eq!(of_query(query).password, Some(("u".to_owned(), Secret::new("p w"))), "{query}");
        }
        assert_eq!(of_query("key=k").key, Some(Secret::new("k")));
        for nothing in ["", "token=", "user=u", "password=p", "Token=a", "tokens=a&x"] {
            assert!(of_query(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn headers_are_read_as_the_rfcs_write_them() {
        let user = |name: &str, password: &str| Some((name.to_owned(), Secret::new(password)));
        assert_eq!(of_header("Basic YWRtaW46czM6Y3JldA==").password, user("admin", "s3:cret"));
        assert_eq!(of_header("bAsIc  YWRtaW46czM6Y3JldA==").password, user("admin", "s3:cret"));
        assert_eq!(of_header("Bearer a.b.c ").token, Some(Secret::new("a.b.c")));
        for nothing in
            ["", "Bearer", "Bearer ", "Basic YWRtaW4=", "Basic ?", "Digest username=\"a\"", "Basic dTo="]
        {
            assert!(of_header(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn what_is_shown_is_never_shown_on() {
        let mut c = of_query("token=geheim1&key=geheim2&user=u&pass=geheim3");
        c.add_header("Bearer geheim4");
        assert!(!format!("{c:?}").contains("geheim"), "{c:?}");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fall(text in "\\PC{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            of_query(&text);
            of_header(&text);
            of_header(&format!("Basic {}", STANDARD.encode(&bytes)));
            of_header(&format!("Basic {text}"));
        }
    }
}
