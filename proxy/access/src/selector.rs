//! Selectors: what a policy can ask of an identity or a request.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Subject;

/// One condition. In TOML: `"everyone"`, `{ email = "a@b.c" }`, `{ ip = "10.0.0.0/8" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// Any signed-in user.
    Everyone,
    /// The exact address, letter case ignored.
    Email(String),
    /// The part after `@`, letter case ignored.
    EmailDomain(String),
    /// A group that the identity carries.
    Group(String),
    /// The client's address, at every request.
    Ip(#[schemars(with = "String")] IpNet),
    /// The client's country (ISO 3166-1 alpha-2), where known.
    Country(String),
    /// An authentication method [RFC 8176] used at login, e.g. `pwd`, `otp`.
    AuthMethod(String),
}

impl Selector {
    /// True when `subject` is what this asks for.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Email(email) => subject.email.eq_ignore_ascii_case(email),
            Self::EmailDomain(domain) => subject
                .email
                .rsplit_once('@')
                .is_some_and(|(_, of_subject)| of_subject.eq_ignore_ascii_case(domain)),
            Self::Group(group) => subject.groups.contains(group),
            Self::Ip(net) => contains(*net, subject.source),
            Self::Country(country) => subject
                .country
                .is_some_and(|of_subject| of_subject.eq_ignore_ascii_case(country)),
            Self::AuthMethod(method) => subject.amr.contains(method),
        }
    }
}

/// The rule as reasons name it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Email(email) => write!(f, "email \"{email}\""),
            Self::EmailDomain(domain) => write!(f, "email domain \"{domain}\""),
            Self::Group(group) => write!(f, "group \"{group}\""),
            Self::Ip(net) => write!(f, "ip {net}"),
            Self::Country(country) => write!(f, "country \"{country}\""),
            Self::AuthMethod(method) => write!(f, "authentication method \"{method}\""),
        }
    }
}

/// [RFC 4291 §2.5.5.2] An IPv4-mapped IPv6 address is the IPv4 address, in a source (a socket that
/// takes both kinds shows it so) as in a rule.
fn contains(net: IpNet, source: IpAddr) -> bool {
    canonical(net).contains(&source.to_canonical())
}

fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(mapped) = net else { return net };
    match (
        mapped.addr().to_ipv4_mapped(),
        mapped.prefix_len().checked_sub(96),
    ) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(net, IpNet::V4),
        _ => net,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_matches_exactly_what_it_names() {
        let check = |json: &str, expected: bool| {
            let selector: Selector = serde_json::from_str(json).expect("a selector");
            let groups = ["staff".to_owned()];
            let amr = ["pwd".to_owned()];
            let subject = Subject {
                email: "Alice@Example.org",
                groups: &groups,
                amr: &amr,
                source: "192.0.2.7".parse().expect("an address"),
                country: Some("de"),
            };
            assert_eq!(selector.matches(&subject), expected, "{json}");
        };
        check(r#""everyone""#, true);
        check(r#"{"email":"alice@example.ORG"}"#, true);
        check(r#"{"email":"alice@example.org "}"#, false);
        check(r#"{"email":""}"#, false);
        check(r#"{"email_domain":"EXAMPLE.org"}"#, true);
        check(r#"{"email_domain":"org"}"#, false);
        check(r#"{"email_domain":"ample.org"}"#, false);
        check(r#"{"email_domain":"@example.org"}"#, false);
        check(r#"{"group":"staff"}"#, true);
        check(r#"{"group":"Staff"}"#, false);
        check(r#"{"group":"staf"}"#, false);
        check(r#"{"ip":"192.0.2.0/24"}"#, true);
        check(r#"{"ip":"192.0.2.8/32"}"#, false);
        check(r#"{"ip":"::/0"}"#, false);
        check(r#"{"ip":"::ffff:192.0.2.0/120"}"#, true);
        check(r#"{"country":"DE"}"#, true);
        check(r#"{"country":"FR"}"#, false);
        check(r#"{"auth_method":"pwd"}"#, true);
        check(r#"{"auth_method":"otp"}"#, false);
    }

    #[test]
    fn only_the_domain_after_the_last_at_sign_counts() {
        let check = |email: &str, expected: bool| {
            let subject = Subject {
                email,
                groups: &[],
                amr: &[],
                source: "::1".parse().expect("an address"),
                country: None,
            };
            let domain = Selector::EmailDomain("example.org".to_owned());
            assert_eq!(domain.matches(&subject), expected, "{email}");
        };
        check("a@example.org", true);
        check("a@example.org@evil.example", false);
        check("a@sub.example.org", false);
        check("example.org", false);
        check("", false);
    }

    #[test]
    fn a_mapped_source_is_its_ipv4_address() {
        let check = |net: &str, source: &str, expected: bool| {
            let net = net.parse().expect("a network");
            assert_eq!(
                contains(net, source.parse().expect("an address")),
                expected,
                "{net} {source}"
            );
        };
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("10.0.0.0/8", "::ffff:11.1.2.3", false);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "11.1.2.3", false);
        check("2001:db8::/32", "2001:db8::1", true);
        check("0.0.0.0/0", "2001:db8::1", false);
    }

    #[test]
    fn an_unknown_country_matches_no_country() {
        let subject = Subject {
            email: "",
            groups: &[],
            amr: &[],
            source: "::1".parse().expect("an address"),
            country: None,
        };
        assert!(!Selector::Country("DE".to_owned()).matches(&subject));
        assert!(!Selector::Country(String::new()).matches(&subject));
    }
}
