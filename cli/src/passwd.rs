//! `headwater ctl passwd`: a user for the configuration. No node is asked, and no password is kept.

use proto_core::auth::password;
use proto_core::rtsp::digest::{self, Algorithm};
use std::io::{BufRead as _, IsTerminal as _};

/// Characters of a password that is made here; 20 of 57 are 116 bits.
const LENGTH: usize = 20;
/// Without those that people take for each other.
const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// The lines for the configuration. A password that was made is told on standard error.
///
/// # Errors
/// A sentence if the name or the password cannot be used.
pub(crate) fn make(name: &str, rtsp: bool, realm: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 64 || name.contains(':') || name.chars().any(char::is_control) {
        return Err(format!("{name:?} is no user's name: it must have 1 to 64 characters and no colon"));
    }
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() {
        let made = random()?;
        eprintln!("the password of {name} is {made} (it is shown this once; to choose one, pipe it in)");
        made
    } else {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(|e| format!("the password cannot be read: {e}"))?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    user(name, &password, rtsp.then_some(realm), &bytes()?)
}

fn user(name: &str, secret: &str, realm: Option<&str>, salt: &[u8; 16]) -> Result<String, String> {
    let hash = password::hash(secret, salt)?;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut out = format!("[[auth.users]]\nname = {}\npassword = {}\n", quoted(name), quoted(&hash));
    if let Some(realm) = realm {
        let ha1 = [Algorithm::Sha256, Algorithm::Md5]
            .map(|a| quoted(&format!("{}:{}", a.name(), digest::secret(a, name, realm, secret))));
        out.push_str(&format!("ha1 = [{}]\n", ha1.join(", ")));
    }
    Ok(out)
}

fn bytes() -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system gives no randomness: {e}"))?;
    Ok(bytes)
}

fn random() -> Result<String, String> {
    let mut out = String::new();
    while out.len() < LENGTH {
        // A byte that would make some letters likelier is left out.
        let fair = 256 / LETTERS.len() * LETTERS.len();
        let fitting = bytes()?.into_iter().map(usize::from).filter(|b| *b < fair);
        out.extend(fitting.filter_map(|b| LETTERS.get(b % LETTERS.len())).map(|b| char::from(*b)));
    }
    out.truncate(LENGTH);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::auth::secret::Secret;
    use proto_core::node::config::Config;

    #[test]
    fn what_is_printed_is_a_user_that_the_configuration_takes() {
        let text = user("al\"ice", "correct horse", Some("Headwater"), &[3; 16]).unwrap();
        let config: Config = toml::from_str(&text).unwrap();
        let made = &config.auth.users[0];
        assert_eq!((made.name.as_str(), made.ha1.len()), ("al\"ice", 2));
        let problems = proto_core::auth::check(&config.auth);
        // Nothing is wrong with the user; that there are no rules is said.
        assert!(problems.iter().all(|p| p.key == "auth.rules"), "{problems:?}");
        let check = password::Check { hash: made.password.clone(), password: Secret::new("correct horse") };
        assert!(check.run());
        assert!(user("a", "", None, &[3; 16]).is_err());
        assert!(make("a:b", false, "x").unwrap_err().contains("no colon"));
    }

    #[test]
    fn a_password_that_is_made_has_its_length() {
        let (a, b) = (random().unwrap(), random().unwrap());
        assert!(a.len() == LENGTH && a != b && a.bytes().all(|c| LETTERS.contains(&c)));
    }
}
