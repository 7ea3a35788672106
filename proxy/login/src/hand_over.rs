//! The code that carries a login from the organisation's host to an application on a host of its own.

use postern_access::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::signed_value::{self, Purpose};
use crate::{LoginError, ValueSecret};

/// A code is good for this long.
pub const HAND_OVER_S_MAX: u64 = 60;

/// One login for one application, once: whoever opens a code keeps its `id` until it has expired
/// and refuses it a second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// Name of the application.
    pub application: String,
    /// The login that is handed over.
    pub identity_nonce: String,
    /// Random, 32 hex digits.
    pub id: String,
    pub expires_at: UnixSeconds,
}

impl HandOver {
    #[must_use]
    pub fn new(
        application: &str,
        identity_nonce: &str,
        random: &[u8; 16],
        now: UnixSeconds,
    ) -> Self {
        Self {
            application: application.to_owned(),
            identity_nonce: identity_nonce.to_owned(),
            id: crate::claims::hex(random),
            expires_at: now.plus(HAND_OVER_S_MAX),
        }
    }

    /// The code as it travels in the URL.
    #[must_use]
    pub fn sign(&self, secret: &ValueSecret) -> String {
        signed_value::sign(secret, Purpose::HandOver, self, self.expires_at)
    }

    /// Opens a code at `application`. The caller refuses an `id` that it has seen.
    ///
    /// # Errors
    /// When it is not one of ours, has expired or is for another application.
    pub fn open(
        secret: &ValueSecret,
        code: &str,
        application: &str,
        now: UnixSeconds,
    ) -> Result<Self, LoginError> {
        let opened: Self = signed_value::open(secret, Purpose::HandOver, code, now)?;
        if opened.application != application {
            return Err(LoginError::OtherApplication);
        }
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn secret() -> ValueSecret {
        ValueSecret::new(&[9; 32])
    }

    #[test]
    fn a_code_opens_at_its_application_for_a_minute() {
        let hand_over = HandOver::new("lab", "nonce-1", &[0xab; 16], NOW);
        assert_eq!(hand_over.id, "ab".repeat(16));
        let code = hand_over.sign(&secret());
        let open = |application: &str, now| HandOver::open(&secret(), &code, application, now);
        assert_eq!(open("lab", NOW.plus(HAND_OVER_S_MAX - 1)), Ok(hand_over));
        assert_eq!(
            open("lab", NOW.plus(HAND_OVER_S_MAX)),
            Err(LoginError::ExpiredValue)
        );
        assert_eq!(open("lab2", NOW), Err(LoginError::OtherApplication));
    }

    #[test]
    fn another_signed_value_is_no_code() {
        let next = crate::ReturnTarget::Application("lab".to_owned()).sign(&secret(), NOW);
        let opened = HandOver::open(&secret(), &next, "lab", NOW);
        assert_eq!(opened, Err(LoginError::ForeignValue));
    }

    #[test]
    fn two_codes_of_one_login_have_their_own_ids() {
        let id = |random: [u8; 16]| HandOver::new("lab", "nonce-1", &random, NOW).id;
        assert_ne!(id([1; 16]), id([2; 16]));
    }
}
