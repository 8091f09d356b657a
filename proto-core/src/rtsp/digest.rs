//! Authentication of RTSP and HTTP requests: challenges, credentials and their comparison, for clients and servers.
//!
//! Basic (RFC 7617) and Digest (RFC 7616) with MD5 and SHA-256, with and without `qop=auth`, `-sess` included. Pure: nonces
//! and counts are the caller's.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// How many parameters of one header are looked at.
const MOST_PARAMETERS: usize = 32;

/// A hash, and whether it is over the session's key (RFC 7616, section 3.4.2). Later ones are stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// `MD5`, also where nothing is said.
    Md5,
    /// `MD5-sess`.
    Md5Sess,
    /// `SHA-256`.
    Sha256,
    /// `SHA-256-sess`.
    Sha256Sess,
}

impl Algorithm {
    /// The word in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Md5Sess => "MD5-sess",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha256Sess => "SHA-256-sess",
        }
    }

    /// The algorithm of that name, whatever its case.
    pub fn parse(name: &str) -> Option<Algorithm> {
        use Algorithm::{Md5, Md5Sess, Sha256, Sha256Sess};
        [Md5, Md5Sess, Sha256, Sha256Sess].into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }

    const fn is_session(self) -> bool {
        matches!(self, Algorithm::Md5Sess | Algorithm::Sha256Sess)
    }

    /// The hash of a text in hexadecimal.
    pub fn hash(self, text: &str) -> String {
        match self {
            Algorithm::Md5 | Algorithm::Md5Sess => hex(&<md5::Md5 as md5::Digest>::digest(text)),
            Algorithm::Sha256 | Algorithm::Sha256Sess => hex(&<sha2::Sha256 as sha2::Digest>::digest(text)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// What a server asks for in a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password as they are.
    Basic {
        /// What the password is for.
        realm: String,
    },
    /// Proof of the password.
    Digest(DigestChallenge),
}

/// A challenge to prove a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestChallenge {
    /// What the password is for.
    pub realm: String,
    /// The server's number for this proof.
    pub nonce: String,
    /// To be sent back as it is.
    pub opaque: Option<String>,
    /// The hash.
    pub algorithm: Algorithm,
    /// `qop=auth` is offered: the client counts its requests and adds a number of its own.
    pub qop: bool,
    /// The password was right, only the nonce was too old.
    pub stale: bool,
}

impl Challenge {
    fn rank(&self) -> u8 {
        match self {
            Challenge::Basic { .. } => 0,
            Challenge::Digest(d) if d.algorithm < Algorithm::Sha256 => 1,
            Challenge::Digest(_) => 2,
        }
    }

    /// The value of a `WWW-Authenticate` header that asks for this.
    pub fn header(&self) -> String {
        match self {
            Challenge::Basic { realm } => format!("Basic realm={}", quoted(realm)),
            Challenge::Digest(d) => {
                let mut out = format!(
                    "Digest realm={}, nonce={}, algorithm={}",
                    quoted(&d.realm),
                    quoted(&d.nonce),
                    d.algorithm.name()
                );
                if d.qop {
                    out.push_str(", qop=\"auth\"");
                }
                if let Some(opaque) = &d.opaque {
                    let _ = write!(out, ", opaque={}", quoted(opaque));
                }
                if d.stale {
                    out.push_str(", stale=true");
                }
                out
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The challenges of a `WWW-Authenticate` header, which may hold several; those of schemes, hashes and qualities that are not
/// known here are left out.
pub fn challenges(header: &str) -> Vec<Challenge> {
    schemes(header).into_iter().filter_map(|(scheme, p)| challenge(&scheme, &p)).collect()
}

fn challenge(scheme: &str, p: &Parameters) -> Option<Challenge> {
    let realm = p.get("realm").unwrap_or_default().to_owned();
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic { realm });
    }
    if !scheme.eq_ignore_ascii_case("digest") {
        return None;
    }
    let offered = p.get("qop");
    let qop = offered.is_some_and(|q| q.split(',').any(|w| w.trim().eq_ignore_ascii_case("auth")));
    if offered.is_some_and(|q| !q.trim().is_empty()) && !qop {
        // auth-int hashes the body too; no server of media asks for it alone.
        return None;
    }
    Some(Challenge::Digest(DigestChallenge {
        realm,
        nonce: p.get("nonce")?.to_owned(),
        opaque: p.get("opaque").map(str::to_owned),
        algorithm: p.get("algorithm").map_or(Some(Algorithm::Md5), Algorithm::parse)?,
        qop,
        stale: p.get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
    }))
}

/// The strongest challenge of all `WWW-Authenticate` headers of an answer; the first of equals.
pub fn strongest<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut best: Option<Challenge> = None;
    for c in headers.flat_map(challenges) {
        if best.as_ref().is_none_or(|b| c.rank() > b.rank()) {
            best = Some(c);
        }
    }
    best
}

/// A client's part of `qop=auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<'a> {
    /// The how-manieth request with this nonce it is, from 1.
    pub nc: u32,
    /// The client's own random text.
    pub cnonce: &'a str,
}

/// `H(user:realm:password)`: what a server may keep in place of a password.
pub fn secret(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> String {
    algorithm.hash(&format!("{user}:{realm}:{password}"))
}

/// The proof that the holder of `secret` ([`secret`]) makes this request (RFC 7616, section 3.4.1), in hexadecimal.
pub fn response(
    algorithm: Algorithm,
    secret: &str,
    nonce: &str,
    count: Option<Count<'_>>,
    method: &str,
    uri: &str,
) -> String {
    let a1 = match count {
        Some(c) if algorithm.is_session() => algorithm.hash(&format!("{secret}:{nonce}:{}", c.cnonce)),
        _ => secret.to_owned(),
    };
    let a2 = algorithm.hash(&format!("{method}:{uri}"));
    algorithm.hash(&match count {
        Some(Count { nc, cnonce }) => format!("{a1}:{nonce}:{nc:08x}:{cnonce}:auth:{a2}"),
        None => format!("{a1}:{nonce}:{a2}"),
    })
}

/// The value of an `Authorization` header that answers a challenge. `count` is used where the challenge has `qop`.
pub fn authorization(
    challenge: &Challenge,
    user: &str,
    password: &str,
    method: &str,
    uri: &str,
    count: Count<'_>,
) -> String {
    let d = match challenge {
        Challenge::Basic { .. } => return format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
        Challenge::Digest(d) => d,
    };
    let secret = secret(d.algorithm, user, &d.realm, password);
    let counted = (d.qop || d.algorithm.is_session()).then_some(count);
    let proof = response(d.algorithm, &secret, &d.nonce, counted, method, uri);
    let mut out = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{proof}\"",
        quoted(user),
        quoted(&d.realm),
        quoted(&d.nonce),
        quoted(uri)
    );
    // Old cameras take no parameter that they did not ask for.
    if d.algorithm != Algorithm::Md5 {
        let _ = write!(out, ", algorithm={}", d.algorithm.name());
    }
    if let Some(Count { nc, cnonce }) = counted {
        let _ = write!(out, ", qop=auth, nc={nc:08x}, cnonce={}", quoted(cnonce));
    }
    if let Some(opaque) = &d.opaque {
        let _ = write!(out, ", opaque={}", quoted(opaque));
    }
    out
}

/// What a client says in an `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// Name and password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// Proof of a password.
    Digest(DigestAnswer),
}

/// An answer to a digest challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestAnswer {
    /// The name.
    pub user: String,
    /// The realm that it is for.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// The URL as it was hashed.
    pub uri: String,
    /// The proof in hexadecimal.
    pub response: String,
    /// The hash.
    pub algorithm: Algorithm,
    /// Count and number of the client, with `qop=auth`.
    pub count: Option<(u32, String)>,
    /// What the server wanted back.
    pub opaque: Option<String>,
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A password belongs into no log.
            Authorization::Basic { user, .. } => write!(f, "Basic {{ user: {user:?}, password: … }}"),
            Authorization::Digest(d) => write!(f, "{d:?}"),
        }
    }
}

impl Authorization {
    /// Reads the value of an `Authorization` header. `None`: it is none, or of a kind that is not known here.
    pub fn parse(header: &str) -> Option<Authorization> {
        let (scheme, rest) = header.trim().split_once(char::is_whitespace)?;
        if scheme.eq_ignore_ascii_case("basic") {
            let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            return Some(Authorization::Basic { user: user.to_owned(), password: password.to_owned() });
        }
        let (scheme, p) = schemes(header).into_iter().next()?;
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let text = |name| p.get(name).map(str::to_owned);
        let count = match p.get("qop") {
            None => None,
            Some(q) if q.eq_ignore_ascii_case("auth") => {
                let nc = p.get("nc").filter(|n| n.len() <= 8)?;
                Some((u32::from_str_radix(nc, 16).ok()?, text("cnonce")?))
            }
            Some(_) => return None,
        };
        Some(Authorization::Digest(DigestAnswer {
            user: text("username")?,
            realm: text("realm")?,
            nonce: text("nonce")?,
            uri: text("uri")?,
            response: text("response")?,
            algorithm: p.get("algorithm").map_or(Some(Algorithm::Md5), Algorithm::parse)?,
            count,
            opaque: text("opaque"),
        }))
    }
}

impl DigestAnswer {
    /// Whether it proves the password behind `secret` ([`secret`]) for a request with this method. That URI and nonce are
    /// the right ones is the caller's to check.
    pub fn proves(&self, secret: &str, method: &str) -> bool {
        let count = self.count.as_ref().map(|(nc, cnonce)| Count { nc: *nc, cnonce });
        if self.algorithm.is_session() && count.is_none() {
            return false;
        }
        let wanted = response(self.algorithm, secret, &self.nonce, count, method, &self.uri);
        same(wanted.as_bytes(), self.response.to_ascii_lowercase().as_bytes())
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0u8, |all, (x, y)| all | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}

/// Parameters of one scheme; names in lower case.
#[derive(Debug, Default)]
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Cuts a header into schemes and their parameters. Commas stand between both parameters and schemes (RFC 9110, 11.6.1).
fn schemes(header: &str) -> Vec<(String, Parameters)> {
    let mut out: Vec<(String, Parameters)> = Vec::new();
    for part in split_quoted(header) {
        let mut part = part.trim();
        // `Digest realm="x"` begins a scheme, `realm="x"` goes on with one.
        let name_end = part.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(part.len());
        let (word, rest) = part.split_at_checked(name_end).unwrap_or((part, ""));
        if !word.is_empty() && !rest.trim_start().starts_with('=') {
            out.push((word.to_owned(), Parameters::default()));
            part = rest.trim_start();
        }
        if let Some((name, value)) = part.split_once('=')
            && let Some((_, parameters)) = out.last_mut()
            && parameters.0.len() < MOST_PARAMETERS
        {
            parameters.0.push((name.trim().to_ascii_lowercase(), unquoted(value.trim())));
        }
    }
    out
}

/// Splits at commas outside of quotes.
fn split_quoted(text: &str) -> impl Iterator<Item = &str> {
    let (mut inside, mut escaped) = (false, false);
    text.split(move |c| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            '\\' if inside && !was_escaped => escaped = true,
            '"' if !was_escaped => inside = !inside,
            _ => {}
        }
        c == ',' && !inside
    })
}

fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"') else { return text.to_owned() };
    let (mut out, mut escaped) = (String::with_capacity(inner.len()), false);
    for c in inner.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => break,
            _ => {
                escaped = false;
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7616, section 3.9.1.
    #[test]
    fn the_proofs_of_the_rfc_come_out() {
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let count = Some(Count { nc: 1, cnonce });
        for (algorithm, wanted) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let s = secret(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life");
            assert_eq!(response(algorithm, &s, nonce, count, "GET", "/dir/index.html"), wanted);
        }
        // RFC 2069, section 2.4, as its errata have it: without qop.
        let s = secret(Algorithm::Md5, "Mufasa", "testrealm@host.com", "CircleOfLife");
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let got = response(Algorithm::Md5, &s, nonce, None, "GET", "/dir/index.html");
        assert_eq!(got, "1949323746fe6a43ef61f9606e7febea");
    }

    #[test]
    fn challenges_of_servers_are_read() {
        let all = challenges(
            "Digest realm=\"a, \\\"b\\\"\", nonce=abc , stale=TRUE, qop=\"auth-int, auth\", opaque=\"\", Basic realm=\"x\"",
        );
        let Challenge::Digest(d) = &all[0] else { panic!() };
        assert_eq!((d.realm.as_str(), d.nonce.as_str(), d.qop, d.stale), ("a, \"b\"", "abc", true, true));
        assert_eq!((d.opaque.as_deref(), d.algorithm), (Some(""), Algorithm::Md5));
        assert_eq!(all[1], Challenge::Basic { realm: "x".to_owned() });
        let headers = [
            "Basic realm=\"cam\"",
            "Digest realm=\"cam\", nonce=\"1\"",
            "Digest realm=\"cam\",nonce=\"2\",algorithm=SHA-256",
            "Digest realm=\"cam\", nonce=\"3\", algorithm=SHA-512-256",
            "Bearer x",
        ];
        let Some(Challenge::Digest(best)) = strongest(headers.into_iter()) else { panic!() };
        assert_eq!((best.nonce.as_str(), best.algorithm), ("2", Algorithm::Sha256));
        for none in ["", "Digest realm=\"x\"", "Digest nonce=1, qop=\"auth-int\"", ",,=,", "Negotiate"] {
            assert_eq!(challenges(none), [], "{none}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let a = Authorization::parse("Basic YWRtaW46c2VjcmV0").unwrap();
        assert_eq!(a, Authorization::Basic { user: "admin".into(), password: "secret".into() });
        assert!(!format!("{a:?}").contains("secret"));
    }

    fn text() -> impl Strategy<Value = String> {
        "[ -~]{0,12}"
    }

    proptest! {
        #[test]
        fn what_a_client_answers_a_server_believes(
            user in "[ -9;-~]{0,8}", password in text(), wrong in text(), realm in text(), nonce in text(),
            uri in text(), cnonce in text(), nc in 1u32.., which in 0usize..4, qop: bool, opaque in proptest::option::of(text()),
        ) {
            let algorithm = [Algorithm::Md5, Algorithm::Md5Sess, Algorithm::Sha256, Algorithm::Sha256Sess][which];
            let digest = DigestChallenge { realm: realm.clone(), nonce, opaque: opaque.clone(), algorithm, qop, stale: false };
            let asked = Challenge::Digest(digest);
            prop_assert_eq!(&challenges(&asked.header()), std::slice::from_ref(&asked));
            let count = Count { nc, cnonce: &cnonce };
            let said = authorization(&asked, &user, &password, "PLAY", &uri, count);
            let Some(Authorization::Digest(answer)) = Authorization::parse(&said) else { panic!("{said}") };
            prop_assert_eq!((&answer.user, &answer.uri, &answer.opaque), (&user, &uri, &opaque));
            prop_assert!(answer.proves(&secret(algorithm, &user, &realm, &password), "PLAY"));
            prop_assert!(!answer.proves(&secret(algorithm, &user, &realm, &password), "PAUSE"));
            if wrong != password {
                prop_assert!(!answer.proves(&secret(algorithm, &user, &realm, &wrong), "PLAY"));
            }
            let basic = Challenge::Basic { realm };
            let said = authorization(&basic, &user, &password, "PLAY", &uri, count);
            prop_assert_eq!(Authorization::parse(&said), Some(Authorization::Basic { user, password }));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = (challenges(&text), Authorization::parse(&text));
        }

        #[test]
        fn sameness_is_equality(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(same(&a, &b), a == b);
            prop_assert!(same(&a, &a));
        }
    }
}
