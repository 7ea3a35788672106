//! The web server as browsers meet it.

mod desktop;
mod front;
mod hand_over;
mod login;
mod socket;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use postern_access::{Fingerprint, UnixSeconds};
use postern_audit::Event;

use super::Front;
use crate::fixture::{CONFIG, Folder, ORIGIN, PASSWORD};
use crate::live::tests::{ended, session};
use crate::run::Running;
use crate::store::Revoked;

/// A browser: cookies by host, one address.
struct Browser {
    front: Front,
    source: SocketAddr,
    cookies: BTreeMap<(String, String), String>,
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    fn location(&self) -> &str {
        self.header("location")
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str());
        value.and_then(Result::ok).unwrap_or_default()
    }

    fn field(&self, name: &str) -> &str {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .body
            .split_once(&start)
            .expect("the form has the field");
        rest.split('"').next().expect("a value")
    }

    fn set_cookies(&self) -> Vec<&str> {
        let cookies = self.headers.get_all(header::SET_COOKIE).iter();
        cookies
            .map(|cookie| cookie.to_str().expect("text"))
            .collect()
    }
}

impl Browser {
    fn new(running: &Running) -> Self {
        Self {
            front: Front::new(running.site.clone()),
            source: ([192, 0, 2, 7], 50_000).into(),
            cookies: BTreeMap::new(),
        }
    }

    async fn send(&mut self, request: axum::http::request::Builder, body: String) -> Answer {
        let request = request.body(Body::from(body)).expect("a request");
        let host = request.headers().get("host").map(|host| host.to_str());
        let host = host.and_then(Result::ok).unwrap_or_default().to_owned();
        let response: Response = self.front.answer_to(self.source, request).await;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a body");
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
        };
        for cookie in answer.set_cookies() {
            let (name, rest) = cookie.split_once('=').expect("a cookie");
            let value = rest.split(';').next().expect("a value");
            let key = (host.clone(), name.to_owned());
            if cookie.contains("Max-Age=0;") {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
        answer
    }

    fn request(&self, method: &str, url: &str) -> axum::http::request::Builder {
        let (host, path) = match url.strip_prefix("https://") {
            Some(rest) => {
                let at = rest.find('/').unwrap_or(rest.len());
                (&rest[..at], &rest[at..])
            }
            None => ("gw.example:8443", url),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host);
        let cookies = self.cookies.iter().filter(|((of, _), _)| of == host);
        let cookies: Vec<_> = cookies
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        request
    }

    async fn get(&mut self, url: &str) -> Answer {
        self.send(self.request("GET", url), String::new()).await
    }

    async fn script(&mut self, method: &str, url: &str) -> Answer {
        let origin = match url.strip_prefix("https://") {
            Some(rest) => format!("https://{}", rest.split('/').next().expect("a host")),
            None => ORIGIN.to_owned(),
        };
        let request = self.request(method, url);
        let request = request
            .header("x-requested-with", "XMLHttpRequest")
            .header("origin", origin);
        self.send(request, String::new()).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = self.request("POST", path).header("origin", ORIGIN);
        self.send(as_form(request), encoded(fields)).await
    }

    async fn log_in_at(&mut self, page: &str, user: &str, password: &str) -> Answer {
        let page = self.get(page).await;
        let next = page.field("next").to_owned();
        let csrf = page.field("csrf").to_owned();
        let fields = [
            ("user", user),
            ("password", password),
            ("next", next.as_str()),
            ("csrf", csrf.as_str()),
        ];
        self.post("/login", &fields).await
    }

    async fn log_in(&mut self, user: &str) -> Answer {
        self.log_in_at("/login", user, PASSWORD).await
    }
}

fn as_form(request: axum::http::request::Builder) -> axum::http::request::Builder {
    request.header("content-type", "application/x-www-form-urlencoded")
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let escape =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect();
    pairs.join("&")
}

/// The names of the launcher's tiles.
fn tiles(body: &str) -> Vec<&str> {
    let tiles = body.split("class=\"tile ").skip(1);
    tiles
        .map(|tile| {
            let (_, rest) = tile.split_once("data-name=\"").expect("a name");
            rest.split('"').next().expect("a name")
        })
        .collect()
}

/// The id of the browser's login.
fn nonce(running: &Running, browser: &Browser) -> String {
    use postern_access::token::{Expected, verify};
    let current = running.site.publisher.current();
    let key = (
        "gw.example:8443".to_owned(),
        "__Host-postern-org".to_owned(),
    );
    let expected = Expected {
        issuer: ORIGIN,
        audience: "org",
        token_type: postern_access::TokenType::Org,
    };
    let now = crate::clock::now();
    let claims = verify(&current.keys.set, &browser.cookies[&key], &expected, now);
    claims.expect("a good token").identity_nonce
}
