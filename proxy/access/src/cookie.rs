//! The cookies that carry tokens: their names, and reading one from a `Cookie` header.

/// Carries the organisation token. `__Host-`: no sibling host can set it.
pub const ORGANISATION: &str = "__Host-postern-org";

/// Carries an application's token; its path is the application's.
pub const APPLICATION: &str = "__Secure-postern-app";

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
