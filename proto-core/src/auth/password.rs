//! Passwords: argon2id hashes (RFC 9106) in the PHC string format. Verifying one takes tens of milliseconds on purpose,
//! so it is work for the driver ([`Check`]).

use super::secret::Secret;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

/// The most bytes of a password that are looked at.
pub const PASSWORD_MAX: usize = 256;
/// The most memory that a hash in the configuration may ask for, KiB; it is used for each attempt.
pub const MEMORY_MAX_KIB: u32 = 256 << 10;
/// The most passes that it may ask for.
pub const PASSES_MAX: u32 = 16;

/// A password to be verified outside the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The hash, `$argon2id$…`.
    pub hash: Secret,
    /// What was sent.
    pub password: Secret,
}

impl Check {
    /// Does the work: whether the password is that of the hash. A hash that cannot be read has none.
    pub fn run(&self) -> bool {
        let Ok(hash) = PasswordHash::new(self.hash.reveal()) else { return false };
        Argon2::default().verify_password(self.password.reveal().as_bytes(), &hash).is_ok()
    }
}

/// A hash for the configuration, with the memory and passes that RFC 9106 and OWASP name for servers (19 MiB, two
/// passes). `salt` is random.
///
/// # Errors
/// A sentence if the password is empty or too long.
pub fn hash(password: &str, salt: &[u8; 16]) -> Result<String, String> {
    hash_with(password, salt, Params::default())
}

/// As [`hash`], and as cheap as can be: for tests and simulations, whose passwords protect nothing.
///
/// # Errors
/// As [`hash`].
pub fn hash_cheaply(password: &str, salt: &[u8; 16]) -> Result<String, String> {
    hash_with(password, salt, Params::new(Params::MIN_M_COST, 1, 1, None).map_err(|e| e.to_string())?)
}

fn hash_with(password: &str, salt: &[u8; 16], params: Params) -> Result<String, String> {
    if password.is_empty() || password.len() > PASSWORD_MAX {
        return Err(format!("a password must have 1 to {PASSWORD_MAX} bytes"));
    }
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let made = argon2.hash_password_with_salt(password.as_bytes(), salt);
    made.map(|hash| hash.to_string()).map_err(|e| format!("the password cannot be hashed: {e}"))
}

/// What is wrong with a hash in the configuration, without a word of it.
///
/// # Errors
/// The end of a sentence.
pub fn check_hash(text: &str) -> Result<(), String> {
    const HOW: &str = "make one with `headwater ctl passwd`";
    let hash =
        PasswordHash::new(text).map_err(|_| format!("is no hash in the PHC format ($argon2id$…); {HOW}"))?;
    if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
        return Err(format!("is no argon2id hash; {HOW}"));
    }
    let params =
        Params::try_from(&hash).map_err(|_| format!("has parameters that argon2 does not have; {HOW}"))?;
    if params.m_cost() > MEMORY_MAX_KIB || params.t_cost() > PASSES_MAX {
        return Err(format!(
            "asks for {} KiB and {} passes; at most {MEMORY_MAX_KIB} KiB and {PASSES_MAX} passes are taken, since each \
             attempt costs them",
            params.m_cost(),
            params.t_cost()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;

    fn fits(hash: &str, password: &str) -> bool {
        Check { hash: Secret::new(hash), password: Secret::new(password) }.run()
    }

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let cheap = hash_cheaply("correct horse", &[7; 16]).unwrap();
        assert!(fits(&cheap, "correct horse"));
        assert!(
            !fits(&cheap, "correct horsf") && !fits(&cheap, "") && !fits("", "x") && !fits("$argon2id$", "x")
        );
        assert_eq!(check_hash(&cheap), Ok(()));
        assert!(hash_cheaply("", &[7; 16]).is_err());
    }

    #[test]
    fn a_hash_of_another_program_is_taken() {
        // The reference implementation: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -e, with another memory.
        let theirs = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(fits(theirs, "password") && !fits(theirs, "passwore"));
    }

    #[test]
    fn what_is_no_hash_is_told_without_showing_it() {
        for bad in [
            "hunter2",
            "$2b$12$abcdefghijklmnopqrstuu",
            "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=999999,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ",
        ] {
            let text = check_hash(bad).unwrap_err();
            assert!(!text.contains("hunter2") && !text.contains("nf65E"), "{text}");
        }
    }
}
