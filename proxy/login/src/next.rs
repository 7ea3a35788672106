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
