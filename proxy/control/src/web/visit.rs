//! One request: who asks from where, for which host, under which state.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Uri, header};
use axum::response::Response;
use postern_access::{Application, UnixSeconds};
use postern_login::cookie;

use super::pages;
use crate::clock;
use crate::publish::Current;
use crate::site::Site;

/// Set by scripts; they get a status where people get a page.
const REQUESTED_WITH: &str = "x-requested-with";

/// [Fetch Metadata §2.3]
const FETCH_SITE: &str = "sec-fetch-site";

/// Whose host was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Organisation,
    /// The own host of the application with this name.
    Application(String),
}

/// What every handler needs. One state for the whole request.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) site: Arc<Site>,
    pub(super) current: Arc<Current>,
    pub(super) source: SocketAddr,
    pub(super) now: UnixSeconds,
    pub(super) place: Place,
    /// The request comes from a script.
    pub(super) is_script: bool,
    /// Nothing says that a page of another origin sent it.
    pub(super) is_same_origin: bool,
    cookies: String,
}

impl Visit {
    /// `None` when the host is none of ours: the request was meant for somebody else.
    pub(super) fn of(site: Arc<Site>, source: SocketAddr, request: &Request<Body>) -> Option<Self> {
        let current = site.publisher.current();
        let host = host(request.uri(), request.headers())?;
        let (place, origin) = if host == current.config.host {
            (Place::Organisation, current.config.origin.as_str())
        } else {
            let mut applications = current.config.applications.iter();
            let application = applications.find(|one| one.public.host == host)?;
            let place = Place::Application(application.name.clone());
            (place, application.public.origin.as_str())
        };
        let headers = request.headers();
        let cookies = headers.get_all(header::COOKIE).iter();
        let cookies: Vec<&str> = cookies.filter_map(|value| value.to_str().ok()).collect();
        Some(Self {
            is_same_origin: is_same_origin(headers, origin),
            is_script: headers.contains_key(REQUESTED_WITH),
            cookies: cookies.join("; "),
            now: clock::now(),
            source,
            place,
            current: current.clone(),
            site,
        })
    }

    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        cookie::find(&self.cookies, name)
    }
}

/// The host of a request, lower case, without port. A target that names another host than the
/// `Host` header, or a second `Host`, is nobody's.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::HOST).iter();
    let host = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let authority: axum::http::uri::Authority = host.parse().ok()?;
    if authority.as_str().contains('@') || uri.authority().is_some_and(|other| *other != authority)
    {
        return None;
    }
    Some(authority.host().to_ascii_lowercase())
}

/// [RFC 6454 §7.3] A form or script of another site names that site's origin, or `null`; browsers
/// also say by `Sec-Fetch-Site` where a request comes from. Who sends neither is no browser and has
/// no cookies but its own. Forms carry a token bound to a cookie on top, scripts a header that no
/// form can send.
fn is_same_origin(headers: &HeaderMap, expected: &str) -> bool {
    let site = headers.get(FETCH_SITE);
    if site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => origin == expected,
        (None, _) => true,
        (Some(_), Some(_)) => false,
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let visit = parts.extensions.get::<Self>();
        Ok(visit.expect("the front puts it into every request").clone())
    }
}

/// A visit to an application's pages.
pub(super) struct Desktop {
    pub(super) visit: Visit,
    pub(super) application: Application,
}

impl<S: Send + Sync> FromRequestParts<S> for Desktop {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let visit = Visit::from_request_parts(parts, state).await?;
        let config = &visit.current.config;
        let application = match &visit.place {
            Place::Application(name) => config.application(name),
            Place::Organisation => {
                let name = Path::<String>::from_request_parts(parts, state).await;
                let application = name.ok().and_then(|Path(name)| config.application(&name));
                // On the organisation's host only what lives there.
                application.filter(|application| application.public.host == config.host)
            }
        };
        match application.cloned() {
            Some(application) => Ok(Self { visit, application }),
            None => Err(pages::nothing_here(&visit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_one_host_that_the_target_agrees_with_counts() {
        let check = |uri: &str, pairs: &[(&'static str, &'static str)], expected: Option<&str>| {
            let uri = uri.parse().expect("uri");
            assert_eq!(
                host(&uri, &headers(pairs)).as_deref(),
                expected,
                "{uri} {pairs:?}"
            );
        };
        check("/", &[("host", "GW.example")], Some("gw.example"));
        check("/", &[("host", "gw.example:8443")], Some("gw.example"));
        check("/", &[("host", "[::1]:8443")], Some("[::1]"));
        check(
            "https://gw.example/",
            &[("host", "gw.example")],
            Some("gw.example"),
        );
        check("https://evil.example/", &[("host", "gw.example")], None);
        check("/", &[], None);
        check("/", &[("host", "")], None);
        check(
            "/",
            &[("host", "gw.example"), ("host", "evil.example")],
            None,
        );
        check("/", &[("host", "evil.example@gw.example")], None);
        check("/", &[("host", "gw.example/x")], None);
    }

    #[test]
    fn only_a_page_of_the_same_origin_may_change_something() {
        let check = |pairs: &[(&'static str, &'static str)], expected: bool| {
            let headers = headers(pairs);
            let same = is_same_origin(&headers, "https://gw.example");
            assert_eq!(same, expected, "{pairs:?}");
        };
        check(&[("origin", "https://gw.example")], true);
        check(
            &[
                ("origin", "https://gw.example"),
                ("sec-fetch-site", "same-origin"),
            ],
            true,
        );
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[], true);
        check(&[("origin", "null")], false);
        check(&[("origin", "http://gw.example")], false);
        check(&[("origin", "https://gw.example:8443")], false);
        check(&[("origin", "https://gw.example.evil.example")], false);
        check(
            &[
                ("origin", "https://gw.example"),
                ("origin", "https://evil.example"),
            ],
            false,
        );
        check(
            &[
                ("origin", "https://gw.example"),
                ("sec-fetch-site", "cross-site"),
            ],
            false,
        );
        check(
            &[
                ("origin", "https://gw.example"),
                ("sec-fetch-site", "same-site"),
            ],
            false,
        );
        check(&[("sec-fetch-site", "none")], false);
    }
}
