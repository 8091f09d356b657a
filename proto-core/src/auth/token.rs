//! Stream tokens: JSON web tokens (RFC 7519) that name an action and the streams that it is good for.
//!
//! Our own are signed with HMAC-SHA256 (HS256) under a secret that all nodes of a cluster have. Others may sign with keys of
//! a JSON web key set (RFC 7517): RS256, ES256 or EdDSA. What the header says of the algorithm only chooses among the
//! keys for that algorithm, so that a token can never have its signature checked in a way that its key is not for.

use super::Action;
use super::pattern::Pattern;
use crate::media::key::StreamKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::IpAddr;

/// The most bytes of a token that are looked at.
pub const TOKEN_MAX: usize = 4_096;
/// Clocks may differ by so much, seconds (A32).
pub const LEEWAY_S: u64 = 60;
/// The most keys of a set that are used.
const KEYS_MAX: usize = 64;

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Any number.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one).iter(),
            OneOrMany::Many(many) => many.iter(),
        }
    }
}

/// What a token says. Members that are not known are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who has it: the name that logs show, and by which the same publisher is known when it comes again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sub: String,
    /// When it was made, seconds since 1970.
    #[serde(default)]
    pub iat: u64,
    /// From when on it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Until when something may begin with it, and, without `end`, when what began with it ends.
    pub exp: u64,
    /// When what began with it ends; 0: never. For tokens that are good for a moment and let somebody stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// Its own name, by which it can be revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What it is good for.
    pub action: OneOrMany<Action>,
    /// The streams that it is good for, as patterns.
    #[serde(default = "nothing")]
    pub stream: OneOrMany<String>,
    /// For whom the manager made it, by [`super::Identity::name`]; believed of our own tokens only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// The address that it must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

fn nothing() -> OneOrMany<String> {
    OneOrMany::Many(Vec::new())
}

impl Claims {
    /// Whether it is good for this action on this stream.
    pub fn covers(&self, action: Action, stream: Option<&StreamKey>) -> bool {
        let on = |key: &StreamKey| {
            self.stream.iter().any(|p| Pattern::parse(p).is_ok_and(|pattern| pattern.matches(key)))
        };
        self.action.iter().any(|a| *a == action) && stream.is_none_or(on)
    }

    /// When what begins with it ends, seconds since 1970; `None`: never.
    pub fn ends(&self) -> Option<u64> {
        match self.end {
            Some(0) => None,
            Some(end) => Some(end),
            None => Some(self.exp),
        }
    }
}

/// A key of others.
struct Foreign {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The keys under which tokens are signed.
#[derive(Default)]
pub struct TokenKeys {
    own: Option<EncodingKey>,
    /// Under which our own tokens may be signed.
    read: Vec<DecodingKey>,
    foreign: Vec<Foreign>,
    issuer: String,
    audience: String,
}

impl TokenKeys {
    /// Keys with a secret of our own (empty: none) and what tokens of others must say of issuer and audience (empty:
    /// anything, and none).
    pub fn new(secret: &[u8], issuer: &str, audience: &str) -> TokenKeys {
        let (issuer, audience) = (issuer.to_owned(), audience.to_owned());
        let mut keys = TokenKeys { issuer, audience, ..TokenKeys::default() };
        keys.set_own(&[secret.to_vec()]);
        keys
    }

    /// Takes secrets of our own: the first signs, each is taken for tokens that are shown.
    pub fn set_own(&mut self, secrets: &[Vec<u8>]) {
        self.own = secrets.first().and_then(|s| EncodingKey::from_secret(s).ok());
        self.read = secrets.iter().filter_map(|s| DecodingKey::from_secret(s).ok()).collect();
    }

    /// Takes the keys of a JSON web key set in place of those before. Answers how many are of use.
    ///
    /// # Errors
    /// A sentence if it is no key set, or has no key that could be used.
    pub fn set_foreign(&mut self, json: &[u8]) -> Result<usize, String> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|e| format!("is no JSON web key set: {e}"))?;
        let usable = set.keys.iter().filter_map(|jwk| {
            if matches!(&jwk.common.public_key_use, Some(u) if *u != PublicKeyUse::Signature) {
                return None;
            }
            let algorithm = match &jwk.algorithm {
                AlgorithmParameters::RSA(_) => Algorithm::RS256,
                AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => Algorithm::ES256,
                AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
                // A symmetric key in a set of public ones is a mistake, and would let anybody sign.
                _ => return None,
            };
            let key = DecodingKey::from_jwk(jwk).ok()?;
            Some(Foreign { id: jwk.common.key_id.clone(), algorithm, key })
        });
        let keys: Vec<Foreign> = usable.take(KEYS_MAX).collect();
        if keys.is_empty() {
            return Err("has no public key for RS256, ES256 (P-256) or EdDSA (Ed25519)".to_owned());
        }
        self.foreign = keys;
        Ok(self.foreign.len())
    }

    /// Whether a token is signed by a key of others that is not among those known here, by what it says of itself.
    pub fn lacks_key_of(&self, token: &str) -> bool {
        if token.len() > TOKEN_MAX {
            return false;
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else { return false };
        let takes = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].contains(&header.alg);
        let fits = |f: &Foreign| {
            f.algorithm == header.alg && (f.id.is_none() || header.kid.is_none() || f.id == header.kid)
        };
        takes && !self.foreign.iter().any(fits)
    }

    /// Whether tokens can be made here.
    pub fn can_mint(&self) -> bool {
        self.own.is_some()
    }

    /// Makes a token; `None` where there is no secret of our own.
    pub fn mint(&self, claims: &Claims) -> Option<String> {
        let key = self.own.as_ref()?;
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, key).ok()
    }

    /// Reads a token whose signature is right and whose time has come and not gone. What it is good for is for the caller
    /// to see ([`Claims::covers`]).
    ///
    /// # Errors
    /// What is wrong with it, for its owner; nothing of it is in that text.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, String> {
        const BAD: &str = "the token is not one of this cluster's, or was changed; get another";
        if token.len() > TOKEN_MAX || token.bytes().filter(|b| *b == b'.').count() != 2 {
            return Err("the token is no JSON web token; get another".to_owned());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| BAD.to_owned())?;
        let mut validation = Validation::new(header.alg);
        // Time is an input of the core.
        validation.validate_exp = false;
        validation.required_spec_claims = HashSet::new();
        let claims = if header.alg == Algorithm::HS256 {
            validation.validate_aud = false;
            // What other programs sign with our secret is ours too.
            let mut wrong = BAD.to_owned();
            let mut read = self.read.iter().filter_map(|key| {
                let read = jsonwebtoken::decode::<Claims>(token, key, &validation);
                read.map_err(|e| wrong = bad_claims(&e, BAD)).ok()
            });
            let found = read.next();
            found.ok_or(wrong)?.claims
        } else {
            if !self.issuer.is_empty() {
                validation.set_issuer(&[&self.issuer]);
                validation.required_spec_claims.insert("iss".to_owned());
            }
            if !self.audience.is_empty() {
                validation.set_audience(&[&self.audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            Claims { of: String::new(), ..self.of_others(token, &header, &validation)? }
        };
        if claims.exp.saturating_add(LEEWAY_S) < now_s {
            let ago = now_s.saturating_sub(claims.exp);
            return Err(format!("the token expired {ago} s ago; get another"));
        }
        if claims.nbf.unwrap_or(claims.iat).saturating_sub(LEEWAY_S) > now_s {
            return Err(
                "the token is not good yet; compare the clocks of this node and of who made it".to_owned()
            );
        }
        Ok(claims)
    }

    fn of_others(&self, token: &str, header: &Header, validation: &Validation) -> Result<Claims, String> {
        const UNKNOWN: &str = "the token's key is not in the key set of this node (auth.jwks)";
        let named = |f: &&Foreign| match (&f.id, &header.kid) {
            (Some(have), Some(want)) => have == want,
            _ => true,
        };
        let keys = self.foreign.iter().filter(|f| f.algorithm == header.alg).filter(named);
        let mut wrong = UNKNOWN.to_owned();
        for key in keys {
            match jsonwebtoken::decode::<Claims>(token, &key.key, validation) {
                Ok(data) => return Ok(data.claims),
                Err(e) => wrong = bad_claims(&e, "the token's signature is not that of its key; get another"),
            }
        }
        Err(wrong)
    }
}

fn bad_claims(error: &jsonwebtoken::errors::Error, otherwise: &str) -> String {
    use jsonwebtoken::errors::ErrorKind as E;
    match error.kind() {
        E::InvalidIssuer => "the token's issuer is not auth.issuer".to_owned(),
        E::InvalidAudience => "the token's audience is not auth.audience".to_owned(),
        E::MissingRequiredClaim(name) => format!("the token lacks the claim {name}"),
        // Its signature was right by then.
        E::Json(_) => {
            "the token lacks exp or action, or says something of them, of stream, ip or end that cannot be read".to_owned()
        }
        _ => otherwise.to_owned(),
    }
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKeys({} of its own, {} of others)", u8::from(self.own.is_some()), self.foreign.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    fn keys() -> TokenKeys {
        TokenKeys::new(b"a secret of thirty-two characters", "", "")
    }

    fn claims() -> Claims {
        Claims {
            sub: "studio".to_owned(),
            iat: 1_000,
            nbf: None,
            exp: 2_000,
            end: None,
            jti: "t1".to_owned(),
            action: OneOrMany::One(Action::Publish),
            stream: OneOrMany::One("live/*".to_owned()),
            of: String::new(),
            ip: None,
        }
    }

    #[test]
    fn what_is_made_is_taken_until_it_ends_and_a_minute_longer() {
        let token = keys().mint(&claims()).unwrap();
        assert_eq!(keys().verify(&token, 1_500).unwrap(), claims());
        assert_eq!(keys().verify(&token, 940).unwrap(), claims(), "a clock that is behind");
        assert_eq!(keys().verify(&token, 2_060).unwrap(), claims());
        assert_eq!(keys().verify(&token, 2_061).unwrap_err(), "the token expired 61 s ago; get another");
        assert!(keys().verify(&token, 939).unwrap_err().contains("not good yet"));
        let other = TokenKeys::new(b"another secret", "", "");
        assert!(other.verify(&token, 1_500).unwrap_err().contains("not one of this cluster's"));
        assert!(
            TokenKeys::default().verify(&token, 1_500).is_err()
                && TokenKeys::default().mint(&claims()).is_none()
        );
    }

    #[test]
    fn a_token_is_good_for_what_it_names() {
        let key = |text| StreamKey::parse(text).unwrap();
        let c = claims();
        assert!(c.covers(Action::Publish, Some(&key("live/a"))));
        assert!(!c.covers(Action::Play, Some(&key("live/a"))));
        assert!(!c.covers(Action::Publish, Some(&key("other/a"))) && !c.covers(Action::Api, None));
        assert_eq!((c.ends(), Claims { end: Some(0), ..c.clone() }.ends()), (Some(2_000), None));
        // As others may write it.
        let json = r#"{"exp":5,"action":["play","api"],"stream":["a/b","c/**"],"scope":"x","iss":"y"}"#;
        let c: Claims = serde_json::from_str(json).unwrap();
        assert!(c.covers(Action::Play, Some(&key("c/d/e"))) && c.covers(Action::Api, None));
        let none: Claims = serde_json::from_str(r#"{"exp":5,"action":"publish"}"#).unwrap();
        assert!(
            !none.covers(Action::Publish, Some(&key("live/a"))),
            "a token without a stream is good for none"
        );
    }

    #[test]
    fn no_changed_byte_and_no_other_algorithm_is_taken() {
        let token = keys().mint(&claims()).unwrap();
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let bent = String::from_utf8(bytes).unwrap();
            assert!(keys().verify(&bent, 1_500).is_err(), "byte {at}");
        }
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let payload = token.split('.').nth(1).unwrap();
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"HS256","crit":["x"]}"#,
        ] {
            for signature in ["", token.rsplit('.').next().unwrap()] {
                let forged = format!("{}.{payload}.{signature}", encode(header));
                assert!(keys().verify(&forged, 1_500).is_err(), "{header}");
            }
        }
    }

    /// The example of RFC 8037, appendix A.4 and A.2: an Ed25519 key, and a signature over a text that is no claims.
    #[test]
    fn keys_of_others_are_read_and_kept_apart_from_ours() {
        let set = br#"{"keys":[
            {"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            {"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
            {"kty":"EC","crv":"P-256","kid":"enc","use":"enc","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
             "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let mut keys = keys();
        assert_eq!(keys.set_foreign(set), Ok(1), "neither the secret nor the one for encryption");
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                     hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let told = keys.verify(token, 0).unwrap_err();
        assert!(told.contains("lacks exp or action"), "its signature is right: {told}");
        let bent = token.replace("hgyY0il", "hgyY0im");
        assert!(keys.verify(&bent, 0).unwrap_err().contains("signature"));
        assert!(keys.set_foreign(br#"{"keys":[]}"#).unwrap_err().contains("no public key"));
        assert!(keys.set_foreign(b"<html>").is_err());
        assert!(
            keys.verify(token, 0).unwrap_err().contains("lacks exp"),
            "a bad set leaves the one before in force"
        );
    }

    /// A token that `openssl dgst -sha256 -sign` signed, with an issuer and an audience.
    #[test]
    fn tokens_of_others_say_whose_they_are_and_for_whom() {
        let n = "lKgkx0uZ1ZoQueAuKdITEWIVnJgsl-SoYh3EKT23rQO5-H5vGyhnzDxmk6R3Dz_6-BxnzlYaiCA3wvy67bl_dapburhIyelXa59N\
             Jk2ziWGfyVQD8HCSJIMZvyW2YXtIb44UBk5_9yhd79JsGJ2b8-9mqnGH9QXN8LLwsdaImRmkLTMlnjt1q0qZ3z66AVIN-NvyIo5K\
             1cYiLT8v8EhND_ODzqsqFkWpA-IjScCq46NrI4duM0bodNSYiw4lsdKpvaL3Gu9MB04qAUuNeTdFEqNEhTX3OWtq-uTpLiDC-Xt2\
             cI5YswmEJ2Lo_5t_OcwlXknixRowKYcpXJ2dgR_c4Q";
        let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJzdWIiOiJzdHVkaW8iLCJleHAiOjIwMDAsImFjdGlvbiI6WyJwdWJsaXNoIiw\
             icGxheSJdLCJzdHJlYW0iOiJsaXZlLyoiLCJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJoZWFkd2F0ZXIifQ.\
             KVZzIkFH0OFHFje6IrXSMFCZR8vNzJU45nM5-pWO7ZNm_lyQqweg8f97wbyY9r3k9lrgkpu4XPK1jvkQsaRrra3fzBX-5pp_BySa\
             XgzMPQld3FuCz3wnTLTc2Kv6M8ls71hqDyKbAiO17vHBIoQRM1krGDZ_89QIle0LVDcg0F_aXBpHl28c-GUkcQRCCLiTaBTXtFgW\
             M1yyw6qr6CjIL03jfHkkGIu43ea2Ry4O3T5CUrOw1jqx88qFV8WuDZqJlEqjwde3HqDrWSynYujuXz9jS4aMxOwvKUX6Io0kpc7A\
             uxOv0g_eAxkXZRFRIxjS2hKdZ8GUQP_5MZ6iDHeoGw";
        let set = format!(r#"{{"keys":[{{"kty":"RSA","kid":"rsa","alg":"RS256","n":"{n}","e":"AQAB"}}]}}"#);
        let with = |issuer: &str, audience: &str| {
            let mut keys = TokenKeys::new(b"a secret of thirty-two characters", issuer, audience);
            assert_eq!(keys.set_foreign(set.as_bytes()), Ok(1));
            keys.verify(token, 1_500)
        };
        let claims = with("https://login.example", "headwater").unwrap();
        assert_eq!((claims.sub.as_str(), claims.exp), ("studio", 2_000));
        assert!(claims.covers(Action::Play, Some(&StreamKey::parse("live/x").unwrap())));
        assert!(with("", "headwater").is_ok());
        assert!(with("https://other.example", "headwater").unwrap_err().contains("auth.issuer"));
        assert!(with("", "other").unwrap_err().contains("auth.audience"));
        assert!(
            with("", "").unwrap_err().contains("auth.audience"),
            "it is for somebody, and that is not us"
        );
        let mut others = keys();
        assert!(others.verify(token, 1_500).unwrap_err().contains("auth.jwks"));
        let renamed = set.replace(r#""kid":"rsa""#, r#""kid":"x""#);
        others.set_foreign(renamed.as_bytes()).unwrap();
        assert!(others.verify(token, 1_500).unwrap_err().contains("not in the key set"));
    }

    /// The example of RFC 7515, appendix A.3: its claims are none of ours, its signature is right.
    #[test]
    fn es256_is_verified_as_the_rfc_has_it() {
        let set = br#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let mut keys = keys();
        keys.set_foreign(set).unwrap();
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb29\
                     0Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert!(keys.verify(token, 0).unwrap_err().contains("lacks exp or action"));
        assert!(keys.verify(&token.replace("DtEhU3l", "DtEhU3m"), 0).unwrap_err().contains("signature"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_in_words(text in "\\PC{0,200}", dots in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,44}") {
            for token in [text.as_str(), dots.as_str()] {
                let told = keys().verify(token, 1_500).unwrap_err();
                prop_assert!(told.len() > 20 && (token.len() < 12 || !told.contains(token)));
            }
        }

        #[test]
        fn claims_survive_the_round_trip(
            sub in "[a-z]{0,9}", iat in 0u64..2_000, exp in 1_900u64..3_000, end in proptest::option::of(0u64..9),
            ip in proptest::option::of(any::<IpAddr>()), streams in proptest::collection::vec("[a-z]{1,5}/[a-z*]{1,5}", 0..4)
        ) {
            let made = Claims { sub, iat, exp, end, ip, stream: OneOrMany::Many(streams), ..claims() };
            let token = keys().mint(&made).unwrap();
            prop_assert_eq!(keys().verify(&token, 1_950).unwrap(), made);
        }
    }
}
