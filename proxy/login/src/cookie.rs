//! `Set-Cookie` values of the login, and reading one cookie back.

pub use postern_access::application::APPLICATION_COOKIE as APPLICATION;

/// Carries the organisation token. `__Host-`: no sibling host can set it.
pub const ORGANISATION: &str = "__Host-postern-org";

/// Binds the login form to the browser that asked for it.
pub const LOGIN: &str = "__Host-postern-login";

/// A login page may stay open for this long.
pub const LOGIN_S_MAX: u64 = 60 * 60;

/// Sets the organisation token.
#[must_use]
pub fn set_organisation(token: &str, max_age_s: u64) -> String {
    set(ORGANISATION, token, "/", max_age_s)
}

/// Sets an application's token; `prefix` is [`postern_access::PublicAddress::prefix`].
#[must_use]
pub fn set_application(prefix: &str, token: &str, max_age_s: u64) -> String {
    set(APPLICATION, token, &format!("{prefix}/"), max_age_s)
}

/// Sets the login form's cookie, a value of [`crate::csrf::cookie_value`].
#[must_use]
pub fn set_login(value: &str) -> String {
    set(LOGIN, value, "/", LOGIN_S_MAX)
}

#[must_use]
pub fn clear_organisation() -> String {
    set(ORGANISATION, "", "/", 0)
}

#[must_use]
pub fn clear_application(prefix: &str) -> String {
    set(APPLICATION, "", &format!("{prefix}/"), 0)
}

#[must_use]
pub fn clear_login() -> String {
    set(LOGIN, "", "/", 0)
}

/// `SameSite=Lax`: with `Strict` a link to a desktop or to the login would arrive without its cookie.
///
/// [RFC 6265 §4.1.1] Octets that a cookie's value cannot hold are left out: a value cannot add an attribute.
fn set(name: &str, value: &str, path: &str, max_age_s: u64) -> String {
    let value: String = value
        .chars()
        .filter(|octet| is_cookie_octet(*octet))
        .collect();
    let path: String = path
        .chars()
        .filter(|octet| is_cookie_octet(*octet))
        .collect();
    format!("{name}={value}; Path={path}; Max-Age={max_age_s}; Secure; HttpOnly; SameSite=Lax")
}

fn is_cookie_octet(octet: char) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, '"' | ',' | ';' | '\\')
}

/// [RFC 6265 §4.2.1] The value of the cookie `name` in a `Cookie` header.
///
/// A name that comes twice has no value: one of the two was planted by another host or path, and
/// guessing which would be guessing who logged in.
#[must_use]
pub fn find<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let mut values = header.split(';').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim_matches([' ', '\t']) == name).then_some(value.trim_matches([' ', '\t']))
    });
    let value = values.next()?;
    values.next().is_none().then_some(value)
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
            "__Host-postern-login=abc; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax",
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

    #[test]
    fn one_cookie_is_found_among_others() {
        let check = |header: &str, expected: Option<&str>| {
            assert_eq!(find(header, APPLICATION), expected, "{header:?}");
        };
        check("__Secure-postern-app=a.b.c", Some("a.b.c"));
        check("x=1; __Secure-postern-app=a.b.c; y=2", Some("a.b.c"));
        check("x=1;__Secure-postern-app=a.b.c ;y", Some("a.b.c"));
        check("__Secure-postern-app=a=b", Some("a=b"));
        check("__Secure-postern-app=", Some(""));
        check("", None);
        check("__Secure-postern-app", None);
        check("x__Secure-postern-app=1", None);
        check("__secure-postern-app=1", None);
        check("x=__Secure-postern-app=1", None);
    }

    #[test]
    fn a_cookie_that_comes_twice_is_refused() {
        let header = "__Secure-postern-app=a; __Secure-postern-app=b";
        assert_eq!(find(header, APPLICATION), None);
    }
}
