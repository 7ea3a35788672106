//! Where a login leads: the launcher or a registered application, never a place a link names.

use postern_access::{Application, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::signed_value::{self, Purpose};
use crate::{LoginError, ValueSecret};

/// A return target is good for this long, as the login page is.
pub const RETURN_TARGET_S_MAX: u64 = crate::cookie::LOGIN_S_MAX;

/// A place to go after the login.
///
/// It holds an application's name, not a path or a URL: there is nothing in it to redirect elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReturnTarget {
    Launcher,
    Application(String),
}

impl ReturnTarget {
    /// The target of a request path on the host `host`; anything that is not exactly an
    /// application's page is the launcher.
    #[must_use]
    pub fn of(applications: &[Application], host: &str, path: &str) -> Self {
        applications
            .iter()
            .find(|application| {
                let public = &application.public;
                let rest = path.strip_prefix(public.prefix.as_str());
                public.host.eq_ignore_ascii_case(host) && matches!(rest, Some("" | "/"))
            })
            .map_or(Self::Launcher, |application| {
                Self::Application(application.name.clone())
            })
    }

    /// The `next` parameter of the login page.
    #[must_use]
    pub fn sign(&self, secret: &ValueSecret, now: UnixSeconds) -> String {
        signed_value::sign(
            secret,
            Purpose::ReturnTarget,
            self,
            now.plus(RETURN_TARGET_S_MAX),
        )
    }

    /// Reads a `next` parameter.
    ///
    /// # Errors
    /// When it is not one of ours or has expired: go to the launcher.
    pub fn open(secret: &ValueSecret, text: &str, now: UnixSeconds) -> Result<Self, LoginError> {
        signed_value::open(secret, Purpose::ReturnTarget, text, now)
    }

    /// The `Location`, as seen from the organisation's host `host`: a path there, or the URL of an
    /// application on a host of its own. An application that is gone leads to the launcher.
    #[must_use]
    pub fn location(&self, applications: &[Application], host: &str) -> String {
        let Self::Application(name) = self else {
            return "/".to_owned();
        };
        match applications
            .iter()
            .find(|application| application.name == *name)
        {
            None => "/".to_owned(),
            Some(Application { public, .. }) if public.host.eq_ignore_ascii_case(host) => {
                format!("{}/", public.prefix)
            }
            Some(Application { public, .. }) => format!("{}{}/", public.origin, public.prefix),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use postern_access::{CertificatePolicy, PublicAddress, RdpSecurity, SessionLimits, Target};

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const HOST: &str = "gw.example";

    pub(crate) fn application(name: &str, host: &str, prefix: &str) -> Application {
        Application {
            name: name.to_owned(),
            title: name.to_owned(),
            public: PublicAddress {
                origin: format!("https://{host}:8443"),
                host: host.to_owned(),
                prefix: prefix.to_owned(),
            },
            target: Target {
                host: "127.0.0.1".to_owned(),
                port: 3389,
            },
            certificate: CertificatePolicy::FirstUse,
            security: vec![RdpSecurity::Nla],
            policies: Vec::new(),
            session: SessionLimits {
                duration_s: 3_600,
                idle_s: 0,
            },
        }
    }

    fn applications() -> Vec<Application> {
        vec![
            application("lab", HOST, "/app/lab"),
            application("own", "own.gw.example", ""),
        ]
    }

    fn secret() -> ValueSecret {
        ValueSecret::new(&[6; 32])
    }

    fn target(name: &str) -> ReturnTarget {
        ReturnTarget::Application(name.to_owned())
    }

    #[test]
    fn a_page_of_an_application_is_returned_to() {
        let check = |host: &str, path: &str, expected: ReturnTarget, location: &str| {
            let applications = applications();
            let target = ReturnTarget::of(&applications, host, path);
            assert_eq!(target, expected, "{host} {path}");
            let signed = target.sign(&secret(), NOW);
            assert_eq!(
                ReturnTarget::open(&secret(), &signed, NOW),
                Ok(target.clone())
            );
            assert_eq!(target.location(&applications, HOST), location);
        };
        check(HOST, "/", ReturnTarget::Launcher, "/");
        check(HOST, "/app/lab/", target("lab"), "/app/lab/");
        check(HOST, "/app/lab", target("lab"), "/app/lab/");
        check("GW.example", "/app/lab/", target("lab"), "/app/lab/");
        check(
            "own.gw.example",
            "/",
            target("own"),
            "https://own.gw.example:8443/",
        );
        check("own.gw.example", "/app/lab/", ReturnTarget::Launcher, "/");
        check("evil.example", "/app/lab/", ReturnTarget::Launcher, "/");
    }

    /// What attackers put where a path is expected.
    const HOSTILE: [&str; 24] = [
        "",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "https://evil.example/",
        "//evil.example/app/lab/",
        "%2f%2fevil.example",
        "/%2f%2fevil.example",
        "/%5cevil.example",
        "javascript:alert(1)",
        "/app/lab/\r\nLocation: https://evil.example",
        "/app/lab/%0d%0aSet-Cookie: a=b",
        "/app/lab/../../",
        "/app/lab//evil.example",
        "/app/lab/\\evil.example",
        "/app/lab/@evil.example",
        "/app/lab@evil.example",
        "/app/lab.evil.example",
        "/app/other/",
        "/\tevil.example",
        "/app/lab/?next=//evil.example",
        " /app/lab/",
    ];

    #[test]
    fn nothing_else_is_returned_to() {
        for path in HOSTILE {
            let target = ReturnTarget::of(&applications(), HOST, path);
            assert_eq!(target, ReturnTarget::Launcher, "{path:?}");
        }
    }

    #[test]
    fn a_next_that_we_did_not_sign_is_refused() {
        for text in HOSTILE
            .into_iter()
            .chain(["/", "/app/lab/", "launcher", "lab"])
        {
            let opened = ReturnTarget::open(&secret(), text, NOW);
            assert_eq!(opened, Err(LoginError::ForeignValue), "{text:?}");
        }
        let foreign = target("lab").sign(&ValueSecret::new(&[7; 32]), NOW);
        let opened = ReturnTarget::open(&secret(), &foreign, NOW);
        assert_eq!(opened, Err(LoginError::ForeignValue));
    }

    #[test]
    fn a_next_expires_with_the_login_page() {
        let signed = target("lab").sign(&secret(), NOW);
        let opened = ReturnTarget::open(&secret(), &signed, NOW.plus(RETURN_TARGET_S_MAX));
        assert_eq!(opened, Err(LoginError::ExpiredValue));
    }

    #[test]
    fn a_location_is_never_taken_from_the_value() {
        for name in HOSTILE.into_iter().chain(["gone"]) {
            assert_eq!(
                target(name).location(&applications(), HOST),
                "/",
                "{name:?}"
            );
        }
    }
}
