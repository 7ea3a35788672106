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

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> ValueSecret {
        ValueSecret::new(&[3; 32])
    }

    #[test]
    fn a_form_goes_with_the_browser_that_asked_for_it() {
        let (cookie, other) = (cookie_value(&[1; 32]), cookie_value(&[2; 32]));
        let login = Form::Login { cookie: &cookie };
        let token = token(&secret(), login);
        assert!(check(&secret(), login, &token));
        assert!(
            !check(&secret(), Form::Login { cookie: &other }, &token),
            "another browser's"
        );
        assert!(
            !check(&ValueSecret::new(&[4; 32]), login, &token),
            "another store's"
        );
        let logout = Form::Logout {
            identity_nonce: &cookie,
        };
        assert!(!check(&secret(), logout, &token), "another form's");
    }

    #[test]
    fn a_form_without_cookie_or_token_is_refused() {
        let empty = Form::Login { cookie: "" };
        assert!(!check(&secret(), empty, &token(&secret(), empty)));
        let cookie = cookie_value(&[1; 32]);
        let login = Form::Login { cookie: &cookie };
        let good = token(&secret(), login);
        for presented in [
            "",
            "=",
            "null",
            cookie.as_str(),
            &good[1..],
            &format!("{good}A"),
        ] {
            assert!(!check(&secret(), login, presented), "{presented:?}");
        }
    }

    #[test]
    fn a_token_with_any_byte_changed_is_refused() {
        let cookie = cookie_value(&[1; 32]);
        let login = Form::Login { cookie: &cookie };
        let good = token(&secret(), login);
        for at in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).expect("ASCII stays ASCII");
                assert!(!check(&secret(), login, &changed), "{changed}");
            }
        }
    }
}
