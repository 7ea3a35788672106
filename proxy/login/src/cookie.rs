//! `Set-Cookie` values of the login, and reading one cookie back.

pub use postern_access::cookie::{APPLICATION, ORGANISATION, find};

/// Binds the login form to the browser that asked for it.
pub const LOGIN: &str = "__Host-postern-login";

/// A login page may stay open for this long.
pub const LOGIN_S_MAX: u64 = 60 * 60;

/// Sets the organisation token.
#[must_use]
pub fn set_organisation(token: &str, max_age_s: u64) -> String {
    set(ORGANISATION, token, "/", "Lax", max_age_s)
}

/// Sets an application's token; `prefix` is [`postern_access::PublicAddress::prefix`].
#[must_use]
pub fn set_application(prefix: &str, token: &str, max_age_s: u64) -> String {
    // `Lax`: with `Strict` a direct link to a desktop would arrive without its cookie.
    set(APPLICATION, token, &format!("{prefix}/"), "Lax", max_age_s)
}

/// Sets the login form's cookie, a value of [`crate::csrf::cookie_value`].
#[must_use]
pub fn set_login(value: &str) -> String {
    set(LOGIN, value, "/", "Strict", LOGIN_S_MAX)
}

#[must_use]
pub fn clear_organisation() -> String {
    set(ORGANISATION, "", "/", "Lax", 0)
}

#[must_use]
pub fn clear_application(prefix: &str) -> String {
    set(APPLICATION, "", &format!("{prefix}/"), "Lax", 0)
}

#[must_use]
pub fn clear_login() -> String {
    set(LOGIN, "", "/", "Strict", 0)
}

/// [RFC 6265 §4.1.1] Octets that a cookie's value cannot hold are left out: a value cannot add an attribute.
fn set(name: &str, value: &str, path: &str, same_site: &str, max_age_s: u64) -> String {
    let value: String = value
        .chars()
        .filter(|octet| is_cookie_octet(*octet))
        .collect();
    let path: String = path
        .chars()
        .filter(|octet| is_cookie_octet(*octet))
        .collect();
    format!(
        "{name}={value}; Path={path}; Max-Age={max_age_s}; Secure; HttpOnly; SameSite={same_site}"
    )
}

fn is_cookie_octet(octet: char) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, '"' | ',' | ';' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_say_what_their_prefixes_demand() {
        let check = |made: String, expected: &str| assert_eq!(made, expected);
        check(
            set_organisation("a.b.c", 86_400),
            "__Host-postern-org=a.b.c; Path=/; Max-Age=86400; Secure; HttpOnly; SameSite=Lax",
        );
        check(
            set_application("/app/lab", "a.b.c", 60),
            "__Secure-postern-app=a.b.c; Path=/app/lab/; Max-Age=60; Secure; HttpOnly; SameSite=Lax",
        );
        check(
            set_application("", "a.b.c", 60),
            "__Secure-postern-app=a.b.c; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax",
        );
        check(
            set_login("abc"),
            "__Host-postern-login=abc; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Strict",
        );
    }

    #[test]
    fn a_cookie_is_cleared_where_it_was_set() {
        let attributes = |cookie: &str| {
            let (_, rest) = cookie.split_once(';').expect("attributes");
            rest.split(';')
                .filter(|part| !part.contains("Max-Age"))
                .collect::<String>()
        };
        let check = |set: String, clear: String| {
            assert_eq!(attributes(&set), attributes(&clear));
            assert!(
                clear.contains("=; Path") && clear.contains("; Max-Age=0;"),
                "{clear}"
            );
        };
        check(set_organisation("t", 1), clear_organisation());
        check(
            set_application("/app/lab", "t", 1),
            clear_application("/app/lab"),
        );
        check(set_login("t"), clear_login());
    }

    #[test]
    fn a_value_cannot_add_an_attribute_or_a_header() {
        let cookie = set_application(
            "/app/x; Domain=evil",
            "a; Domain=evil.example\r\nX: y, \u{e9}",
            1,
        );
        assert_eq!(
            cookie,
            "__Secure-postern-app=aDomain=evil.exampleX:y; Path=/app/xDomain=evil/; Max-Age=1; \
             Secure; HttpOnly; SameSite=Lax"
        );
    }
}
