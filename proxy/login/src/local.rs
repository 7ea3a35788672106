//! Passwords of local users: argon2id, and the same work for users that do not exist.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::{CustomizedPasswordHasher as _, PasswordVerifier as _, phc};
use argon2::{ARGON2ID_IDENT, Argon2, Params, Version};

use crate::LoginError;

/// Longest password, in bytes; a longer one is refused before any work.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Length of the random salt.
pub const SALT_BYTES: usize = 16;

/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const OUTPUT_BYTES: usize = 32;

/// What an unknown user's password is tried against: the hash of `postern`, which opens nothing.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cG9zdGVybiBkZWNveSAxNg$\
    hcUgL+hs3xpBV+UJ6eBb7q00hfK25cmV3Hdj7DirNlo";

/// An argon2id hash in PHC string form.
///
/// INVARIANT: made with exactly the parameters above. A user whose hash cost another amount of
/// work would be told apart from an unknown one by time.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(phc::PasswordHash);

impl FromStr for PasswordHash {
    type Err = LoginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = phc::PasswordHash::new(text.trim())
            .map_err(|_| LoginError::PasswordHash("not a PHC string"))?;
        if hash.algorithm != ARGON2ID_IDENT {
            return Err(LoginError::PasswordHash("the algorithm is not argon2id"));
        }
        if hash.version != Some(Version::V0x13.into()) {
            return Err(LoginError::PasswordHash("the argon2 version is not 19"));
        }
        if Params::try_from(&hash) != Ok(parameters()) {
            return Err(LoginError::PasswordHash(
                "the parameters are not m=19456,t=2,p=1 with 32 bytes of output",
            ));
        }
        if hash.salt.is_none_or(|salt| salt.len() < SALT_BYTES) {
            return Err(LoginError::PasswordHash(
                "the salt is shorter than 16 bytes",
            ));
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// Hashes a new password; `salt` is random. Takes tens of milliseconds and 19 MiB.
///
/// # Errors
/// When the password is empty or over [`PASSWORD_BYTES_MAX`].
pub fn hash_password(password: &str, salt: &[u8; SALT_BYTES]) -> Result<PasswordHash, LoginError> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(LoginError::PasswordLength);
    }
    Argon2::default()
        .hash_password_with_params(password.as_bytes(), salt, parameters())
        .map(PasswordHash)
        .map_err(|_| LoginError::PasswordHash("the parameters are out of range"))
}

/// True when `password` is the one that was hashed. `None` is a user that does not exist: the same
/// work is done and the answer is false. Takes tens of milliseconds and 19 MiB; run it off the loop.
#[must_use]
pub fn verify(stored: Option<&PasswordHash>, password: &str) -> bool {
    if password.len() > PASSWORD_BYTES_MAX {
        return false;
    }
    let decoy;
    let hash = match stored {
        Some(stored) => stored,
        None => {
            decoy = DECOY
                .parse()
                .expect("the decoy is a hash; a test parses it");
            &decoy
        }
    };
    let matches = Argon2::default()
        .verify_password(password.as_bytes(), &hash.0)
        .is_ok();
    matches && stored.is_some()
}

fn parameters() -> Params {
    Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT_BYTES)).expect("constants in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; SALT_BYTES] = [5; SALT_BYTES];

    #[test]
    fn only_the_password_that_was_hashed_matches() {
        let hash = hash_password("correct horse", &SALT).expect("hashes");
        let stored: PasswordHash = hash.to_string().parse().expect("reads back");
        assert_eq!(stored, hash);
        assert!(
            hash.to_string()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        assert!(verify(Some(&stored), "correct horse"));
        for wrong in [
            "",
            "correct hors",
            "correct horse ",
            "Correct horse",
            "correct horse\0",
        ] {
            assert!(!verify(Some(&stored), wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_unknown_user_never_matches_and_costs_the_same_work() {
        for password in ["", "postern", "correct horse"] {
            assert!(!verify(None, password));
        }
        // The parser that admits stored hashes admits the decoy: its parameters are theirs.
        let decoy: PasswordHash = DECOY.parse().expect("is a hash");
        assert!(verify(Some(&decoy), "postern"));
    }

    #[test]
    fn a_password_has_a_length() {
        let long = "a".repeat(PASSWORD_BYTES_MAX + 1);
        for password in ["", long.as_str()] {
            let refused = hash_password(password, &SALT);
            assert_eq!(refused, Err(LoginError::PasswordLength));
        }
        assert!(!verify(None, &long));
    }

    #[test]
    fn a_hash_that_costs_other_work_is_refused_with_the_reason() {
        let check = |text: &str, why: &str| {
            let error = text
                .parse::<PasswordHash>()
                .expect_err("is refused")
                .to_string();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("", "not a PHC string");
        check("hunter2", "not a PHC string");
        check("$2b$12$abcdefghijklmnopqrstuv", "");
        check(&DECOY.replace("argon2id", "argon2i"), "not argon2id");
        check(&DECOY.replace("v=19", "v=16"), "version");
        check(&DECOY.replace("$v=19", ""), "version");
        check(&DECOY.replace("m=19456", "m=4096"), "parameters");
        check(&DECOY.replace("m=19456", "m=4194304"), "parameters");
        check(&DECOY.replace("t=2", "t=1"), "parameters");
        check(&DECOY.replace("p=1", "p=4"), "parameters");
        check(
            &DECOY.replace("cG9zdGVybiBkZWNveSAxNg", "cG9zdGVybiBk"),
            "salt",
        );
        let (without_output, _) = DECOY.rsplit_once('$').expect("PHC");
        check(without_output, "parameters");
    }

    #[test]
    fn a_hash_file_may_end_in_a_line_break() {
        assert!(format!("{DECOY}\n").parse::<PasswordHash>().is_ok());
    }

    #[test]
    fn a_hash_is_not_shown_in_logs() {
        let hash: PasswordHash = DECOY.parse().expect("is a hash");
        assert_eq!(format!("{hash:?}"), "PasswordHash(..)");
    }
}
