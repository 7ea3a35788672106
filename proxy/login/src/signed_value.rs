//! Values that come back through a browser unchanged: expiring, HMAC-SHA256, one purpose each.
//!
//! Text form: base64url of the JSON, a dot, base64url of the code.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use postern_access::UnixSeconds;
use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::LoginError;

/// Longest text that is looked at, in bytes.
pub const SIGNED_VALUE_BYTES_MAX: usize = 1024;

/// The store's secret for values of this kind. It never leaves control.
#[derive(Clone)]
pub struct ValueSecret(hmac::Key);

impl ValueSecret {
    /// From 32 random bytes that the store keeps.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A code over `message` that is worth nothing for any other purpose.
    pub(crate) fn code(&self, purpose: Purpose, message: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, &purpose.frame(message))
    }

    /// Compares in constant time.
    pub(crate) fn is_code(&self, purpose: Purpose, message: &[u8], code: &[u8]) -> bool {
        hmac::verify(&self.0, &purpose.frame(message), code).is_ok()
    }
}

impl std::fmt::Debug for ValueSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ValueSecret(..)")
    }
}

/// What a code is for; part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    LoginForm,
    LogoutForm,
    ReturnTarget,
    HandOver,
}

impl Purpose {
    /// `message` behind this purpose's label. No label is a prefix of another: each ends in a zero.
    fn frame(self, message: &[u8]) -> Vec<u8> {
        let label: &[u8] = match self {
            Self::LoginForm => b"postern login form\0",
            Self::LogoutForm => b"postern logout form\0",
            Self::ReturnTarget => b"postern return target\0",
            Self::HandOver => b"postern hand-over\0",
        };
        [label, message].concat()
    }
}

#[derive(Serialize, Deserialize)]
struct Expiring<T> {
    /// Unix seconds; at this time the value is void.
    exp: UnixSeconds,
    value: T,
}

/// `value` as text that [`open`] takes until `expires_at`.
pub(crate) fn sign<T: Serialize>(
    secret: &ValueSecret,
    purpose: Purpose,
    value: &T,
    expires_at: UnixSeconds,
) -> String {
    let json = serde_json::to_vec(&Expiring {
        exp: expires_at,
        value,
    })
    .expect("values of this crate are plain structs of text and numbers");
    let code = secret.code(purpose, &json);
    format!(
        "{}.{}",
        BASE64URL.encode(&json),
        BASE64URL.encode(code.as_ref())
    )
}

/// The value of a text that [`sign`] made.
///
/// # Errors
/// [`LoginError::ForeignValue`] for anything else, [`LoginError::ExpiredValue`] when its time has passed.
pub(crate) fn open<T: DeserializeOwned>(
    secret: &ValueSecret,
    purpose: Purpose,
    text: &str,
    now: UnixSeconds,
) -> Result<T, LoginError> {
    if text.len() > SIGNED_VALUE_BYTES_MAX {
        return Err(LoginError::ForeignValue);
    }
    let (json, code) = text.split_once('.').ok_or(LoginError::ForeignValue)?;
    let json = BASE64URL
        .decode(json)
        .map_err(|_| LoginError::ForeignValue)?;
    let code = BASE64URL
        .decode(code)
        .map_err(|_| LoginError::ForeignValue)?;
    if !secret.is_code(purpose, &json, &code) {
        return Err(LoginError::ForeignValue);
    }
    let Expiring { exp, value } =
        serde_json::from_slice(&json).map_err(|_| LoginError::ForeignValue)?;
    if now >= exp {
        return Err(LoginError::ExpiredValue);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn secret() -> ValueSecret {
        ValueSecret::new(&[7; 32])
    }

    fn opened(text: &str, now: UnixSeconds) -> Result<String, LoginError> {
        open(&secret(), Purpose::ReturnTarget, text, now)
    }

    #[test]
    fn a_value_opens_until_it_expires() {
        let text = sign(&secret(), Purpose::ReturnTarget, &"lab", NOW.plus(60));
        assert_eq!(opened(&text, NOW.plus(59)), Ok("lab".to_owned()));
        assert_eq!(opened(&text, NOW.plus(60)), Err(LoginError::ExpiredValue));
    }

    #[test]
    fn a_value_with_any_byte_changed_is_refused() {
        let text = sign(&secret(), Purpose::ReturnTarget, &"lab", NOW.plus(60));
        for at in 0..text.len() {
            for flip in [1, 2, 4, 0x20] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= flip;
                let changed = String::from_utf8(bytes).expect("ASCII stays ASCII");
                assert_eq!(
                    opened(&changed, NOW),
                    Err(LoginError::ForeignValue),
                    "{changed}"
                );
            }
        }
    }

    #[test]
    fn another_secret_or_purpose_is_refused() {
        let other = sign(
            &ValueSecret::new(&[8; 32]),
            Purpose::ReturnTarget,
            &"lab",
            NOW.plus(60),
        );
        assert_eq!(opened(&other, NOW), Err(LoginError::ForeignValue));
        let hand_over = sign(&secret(), Purpose::HandOver, &"lab", NOW.plus(60));
        assert_eq!(opened(&hand_over, NOW), Err(LoginError::ForeignValue));
    }

    #[test]
    fn what_is_not_a_value_is_refused() {
        let long = "a".repeat(SIGNED_VALUE_BYTES_MAX + 1);
        for text in ["", ".", "..", "a", "a.b", "/app/lab/", long.as_str()] {
            assert_eq!(opened(text, NOW), Err(LoginError::ForeignValue), "{text}");
        }
    }
}
