//! Form tokens: a form that another site made, or that was made for another browser, is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

use crate::ValueSecret;
use crate::signed_value::Purpose;

/// Which form, and what ties it to this browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// The login form, tied to the value of the login cookie ([`crate::cookie::LOGIN`]).
    Login { cookie: &'a str },
    /// The logout form, tied to the login that it ends.
    Logout { identity_nonce: &'a str },
}

impl<'a> Form<'a> {
    fn parts(self) -> (Purpose, &'a str) {
        match self {
            Self::Login { cookie } => (Purpose::LoginForm, cookie),
            Self::Logout { identity_nonce } => (Purpose::LogoutForm, identity_nonce),
        }
    }
}

/// A fresh value for the login cookie.
#[must_use]
pub fn cookie_value(random: &[u8; 32]) -> String {
    BASE64URL.encode(random)
}

/// The hidden field `csrf` of a form.
#[must_use]
pub fn token(secret: &ValueSecret, form: Form<'_>) -> String {
    let (purpose, binding) = form.parts();
    BASE64URL.encode(secret.code(purpose, binding.as_bytes()))
}

/// True when `presented` is this form's token. An empty binding (no cookie) never matches.
#[must_use]
pub fn check(secret: &ValueSecret, form: Form<'_>, presented: &str) -> bool {
    let (purpose, binding) = form.parts();
    let Ok(code) = BASE64URL.decode(presented) else {
        return false;
    };
    !binding.is_empty() && secret.is_code(purpose, binding.as_bytes(), &code)
}
