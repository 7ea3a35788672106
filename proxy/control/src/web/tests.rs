//! The web server as browsers meet it.

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

#[tokio::test]
async fn a_login_leads_to_the_launcher_and_its_cookies_are_strict() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let first = browser.get("/").await;
    assert_eq!(first.status, StatusCode::SEE_OTHER);
    assert!(first.location().starts_with("/login?next="));
    let answer = browser.log_in("Alice ").await;
    assert_eq!(
        (answer.status, answer.location()),
        (StatusCode::SEE_OTHER, "/")
    );
    let cookies = answer.set_cookies();
    let cookie = cookies
        .iter()
        .find(|one| one.starts_with("__Host-postern-org="));
    let cookie = cookie.expect("the organisation cookie");
    for flag in [
        "; Path=/;",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Lax",
        "; Max-Age=86400;",
    ] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    let launcher = browser.get("/").await;
    assert_eq!(launcher.status, StatusCode::OK);
    // Signed in, the login page leads on.
    assert_eq!(browser.get("/login").await.location(), "/");
    let record = folder.records().pop().expect("a record");
    assert_eq!(record.event, Event::Login);
    assert_eq!(record.decision.as_deref(), Some("success"));
    assert_eq!(record.user.as_deref(), Some("alice@example.org"));
    assert_eq!(record.source.as_deref(), Some("192.0.2.7:50000"));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut bodies = Vec::new();
    for user in ["alice", "nobody"] {
        let mut browser = Browser::new(&running);
        let answer = browser.log_in_at("/login", user, "wrong").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(
            browser
                .cookies
                .keys()
                .all(|(_, name)| name != "__Host-postern-org")
        );
        let (next, csrf) = (answer.field("next"), answer.field("csrf"));
        let body = answer.body.replace(next, "").replace(csrf, "");
        bodies.push(body.replace(&format!("\"{user}\""), ""));
    }
    assert_eq!(bodies[0], bodies[1]);
    let reasons: Vec<_> = folder.records().into_iter().skip(1).collect();
    assert_eq!(reasons[0].reason.as_deref(), Some("wrong_password"));
    assert_eq!(reasons[1].reason.as_deref(), Some("unknown_user"));
    // What was typed in the wrong field may be a password.
    assert_eq!(reasons[1].user, None);
}

#[tokio::test]
async fn too_many_attempts_have_to_wait() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let mut limited = None;
    for _ in 0..8 {
        let answer = browser.log_in_at("/login", "alice", "wrong").await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            limited = Some(answer);
        }
    }
    let limited = limited.expect("is limited in the end");
    assert!(
        limited
            .header("retry-after")
            .parse::<u64>()
            .expect("seconds")
            >= 1
    );
    assert!(limited.body.contains("too many attempts"));
    // Another source is not held back by it.
    let mut other = Browser::new(&running);
    other.source = ([198, 51, 100, 1], 1).into();
    assert_eq!(other.log_in("alice").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_form_that_is_not_ours_is_refused() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let page = browser.get("/login").await;
    let csrf = page.field("csrf").to_owned();
    let fields = |csrf: &str| encoded(&[("user", "alice"), ("password", PASSWORD), ("csrf", csrf)]);
    let check = async |browser: &mut Browser, origin: Option<&str>, csrf: &str| {
        let mut request = as_form(browser.request("POST", "/login"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        browser.send(request, fields(csrf)).await.status
    };
    let refused = StatusCode::FORBIDDEN;
    assert_eq!(check(&mut browser, None, &csrf).await, refused);
    assert_eq!(check(&mut browser, Some("null"), &csrf).await, refused);
    assert_eq!(
        check(&mut browser, Some("https://evil.example"), &csrf).await,
        refused
    );
    assert_eq!(check(&mut browser, Some(ORIGIN), "").await, refused);
    assert_eq!(
        check(&mut browser, Some(ORIGIN), &csrf.replace(['A', 'a'], "b")).await,
        refused
    );
    // The token of another browser's page.
    let mut other = Browser::new(&running);
    other.get("/login").await;
    assert_eq!(check(&mut other, Some(ORIGIN), &csrf).await, refused);
    assert_eq!(
        check(&mut browser, Some(ORIGIN), &csrf).await,
        StatusCode::SEE_OTHER
    );
}

#[tokio::test]
async fn a_login_leads_only_to_places_of_ours() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    for next in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/app/lab/",
        "javascript:alert(1)",
        "",
    ] {
        let mut browser = Browser::new(&running);
        let escaped: String = next.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = browser
            .log_in_at(&format!("/login?next={escaped}"), "alice", PASSWORD)
            .await;
        assert_eq!(answer.location(), "/", "{next}");
        let mut browser = Browser::new(&running);
        let page = browser.get("/login").await;
        let csrf = page.field("csrf").to_owned();
        let fields = [
            ("user", "alice"),
            ("password", PASSWORD),
            ("next", next),
            ("csrf", &csrf),
        ];
        assert_eq!(
            browser.post("/login", &fields).await.location(),
            "/",
            "{next}"
        );
    }
    let mut browser = Browser::new(&running);
    let asked = browser.get("/app/lab/").await.location().to_owned();
    assert_eq!(
        browser
            .log_in_at(&asked, "alice", PASSWORD)
            .await
            .location(),
        "/app/lab/"
    );
}

#[tokio::test]
async fn tiles_are_exactly_what_the_user_may_open_from_here() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let check = async |user: &str, source: [u8; 4], expected: &[&str]| {
        let mut browser = Browser::new(&running);
        browser.source = (source, 1).into();
        browser.log_in(user).await;
        let launcher = browser.get("/").await;
        assert_eq!(tiles(&launcher.body), expected, "{user} from {source:?}");
        // Hiding a tile is not denying, and showing one is not allowing.
        for name in ["lab", "vault", "field"] {
            let status = browser.get(&format!("/app/{name}/")).await.status;
            let allowed = expected.contains(&name);
            assert_eq!(status == StatusCode::OK, allowed, "{user} opens {name}");
            assert_eq!(
                status == StatusCode::FORBIDDEN,
                !allowed,
                "{user} opens {name}"
            );
        }
    };
    check("alice", [192, 0, 2, 7], &["lab", "office"]).await;
    check("alice", [10, 1, 2, 3], &["lab", "field", "office"]).await;
    check("bob", [192, 0, 2, 7], &["vault"]).await;
    check("bob", [10, 1, 2, 3], &["vault", "field"]).await;
}

#[tokio::test]
async fn a_desktop_page_sets_the_token_of_its_application_alone() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let signed_out = browser.get("/app/lab/").await;
    assert_eq!(signed_out.status, StatusCode::SEE_OTHER);
    let script = browser.script("GET", "/app/lab/").await;
    assert_eq!(
        (script.status, script.location()),
        (StatusCode::UNAUTHORIZED, "")
    );
    browser.log_in("alice").await;
    assert_eq!(browser.get("/app/lab").await.location(), "/app/lab/");
    let page = browser.get("/app/lab/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("Lab &#60;PC&#62;") || page.body.contains("Lab &lt;PC&gt;"));
    let cookies = page.set_cookies();
    let [cookie] = cookies[..] else {
        panic!("one cookie: {cookies:?}");
    };
    assert!(cookie.starts_with("__Secure-postern-app="));
    // The policy's hour, not the application's eight.
    for flag in [
        "; Path=/app/lab/;",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Lax",
        "; Max-Age=3600;",
    ] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert_eq!(
        browser.get("/app/nothing/").await.status,
        StatusCode::NOT_FOUND
    );
    // An application on a host of its own is not also here.
    assert_eq!(
        browser.get("/app/office/").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_refused_desktop_says_why_and_is_recorded() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    browser.log_in("alice").await;
    let answer = browser.get("/app/vault/").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("nobody from staff"), "{}", answer.body);
    assert!(answer.set_cookies().is_empty());
    let record = folder.records().pop().expect("a record");
    assert_eq!(record.event, Event::Decision);
    assert_eq!(record.policy.as_deref(), Some("nobody from staff"));
    assert_eq!(record.reason.as_deref(), Some("policy_blocked"));
}

#[tokio::test]
async fn a_token_is_renewed_only_by_our_script_and_policy() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let renew = "/app/lab/renew";
    assert_eq!(
        browser.script("POST", renew).await.status,
        StatusCode::UNAUTHORIZED
    );
    browser.log_in("alice").await;
    let renewed = browser.script("POST", renew).await;
    assert_eq!(renewed.status, StatusCode::NO_CONTENT);
    assert_eq!(renewed.set_cookies().len(), 1);
    assert_eq!(
        browser.script("POST", "/app/vault/renew").await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        browser.script("GET", renew).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let form = browser.request("POST", renew).header("origin", ORIGIN);
    assert_eq!(
        browser.send(form, String::new()).await.status,
        StatusCode::FORBIDDEN
    );
    let foreign = browser
        .request("POST", renew)
        .header("x-requested-with", "XMLHttpRequest")
        .header("origin", "https://evil.example");
    assert_eq!(
        browser.send(foreign, String::new()).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn status_tells_a_login_its_own_sessions() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let status = "/app/lab/status";
    assert_eq!(
        browser.script("GET", status).await.status,
        StatusCode::UNAUTHORIZED
    );
    browser.log_in("alice").await;
    // The organisation's cookie alone shows nothing.
    assert_eq!(
        browser.script("GET", status).await.status,
        StatusCode::UNAUTHORIZED
    );
    browser.get("/app/lab/").await;
    // In a browser the cookie's path keeps it from other applications; the token does so here.
    let other = browser.script("GET", "/app/vault/status").await;
    assert_eq!(other.status, StatusCode::UNAUTHORIZED);

    let mut mine = session("1", "alice", "lab");
    mine.identity_nonce = nonce(&running, &browser);
    running.site.live.opened(mine.clone());
    running.site.live.opened(session("2", "bob", "lab"));
    running
        .site
        .live
        .ended(ended(&session("3", "bob", "lab"), "killed"));
    let answer = browser.script("GET", status).await;
    let json: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(json["live"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["live"][0]["id"], "1");
    assert_eq!(json["ended"], serde_json::Value::Null);
    let (now, expiry) = (json["now"].as_u64(), json["token_expires_at"].as_u64());
    assert_eq!(expiry.expect("time") - now.expect("time"), 3600);

    running.site.live.ended(ended(&mine, "idle"));
    let answer = browser.script("GET", status).await;
    let json: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(json["live"].as_array().map(Vec::len), Some(0));
    assert_eq!(json["ended"]["reason"], "idle");
    assert_eq!(json["ended"]["sentence"], "it was idle");
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

#[tokio::test]
async fn a_logout_ends_the_login_everywhere() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    browser.log_in("alice").await;
    browser.get("/app/lab/").await;
    let kept = browser.cookies.clone();
    let nonce = nonce(&running, &browser);
    let csrf = browser.get("/").await.field("csrf").to_owned();
    let wrong = browser.post("/logout", &[("csrf", "wrong")]).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    let answer = browser.post("/logout", &[("csrf", &csrf)]).await;
    assert_eq!(
        (answer.status, answer.location()),
        (StatusCode::SEE_OTHER, "/login")
    );
    // A copy of the cookies is worth nothing.
    browser.cookies = kept;
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        browser.script("POST", "/app/lab/renew").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        browser.script("GET", "/app/lab/status").await.status,
        StatusCode::UNAUTHORIZED
    );
    let current = running.site.publisher.current();
    assert!(current.snapshot.revocations.logins.contains_key(&nonce));
    let record = folder.records().pop().expect("a record");
    assert_eq!(record.event, Event::Logout);
}

#[tokio::test]
async fn a_revoked_or_removed_user_is_signed_out() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    browser.log_in("alice").await;
    let revoked = running
        .site
        .publisher
        .revoke(Revoked::User("alice".to_owned()));
    revoked.await.expect("revoked");
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);

    let mut browser = Browser::new(&running);
    browser.source = ([198, 51, 100, 1], 1).into();
    browser.log_in("bob").await;
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    let without = CONFIG
        .split("[[user]]\nname = \"bob\"")
        .next()
        .expect("a part");
    folder.write("postern.toml", without, 0o644);
    running.site.publisher.reload().await.expect("reloads");
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_login_is_handed_over_to_an_application_on_its_own_host() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let home = "https://office.example:8443/";
    let ask = browser.get(home).await;
    assert_eq!(ask.status, StatusCode::SEE_OTHER);
    let ask = ask.location().to_owned();
    assert!(
        ask.starts_with("https://gw.example:8443/handover?app=office&bind="),
        "{ask}"
    );
    let login = browser.get(&ask).await.location().to_owned();
    assert!(login.starts_with("/login?next="), "{login}");
    let page = browser.get(&login).await;
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("form-action 'self' https://office.example:8443;"),
        "{policy}"
    );
    let answer = browser.log_in_at(&login, "alice", PASSWORD).await;
    assert_eq!(answer.location(), home);

    let ask = browser.get(home).await.location().to_owned();
    let code = browser.get(&ask).await.location().to_owned();
    assert!(
        code.starts_with("https://office.example:8443/.postern/handover?code="),
        "{code}"
    );
    // Somebody who only has the code opens nothing, and does not use it up for its owner.
    let mut thief = Browser::new(&running);
    assert_eq!(thief.get(&code).await.status, StatusCode::FORBIDDEN);
    let taken = browser.get(&code).await;
    assert_eq!(
        (taken.status, taken.location()),
        (StatusCode::SEE_OTHER, "/")
    );
    let cookies = taken.set_cookies();
    assert!(cookies[0].starts_with("__Secure-postern-app=") && cookies[0].contains("; Path=/;"));
    assert_eq!(browser.get(&code).await.status, StatusCode::FORBIDDEN);
    let desktop = browser.get(home).await;
    assert_eq!(desktop.status, StatusCode::OK);
    let renewed = browser
        .script("POST", "https://office.example:8443/renew")
        .await;
    assert_eq!(renewed.status, StatusCode::NO_CONTENT);
    let status = browser
        .script("GET", "https://office.example:8443/status")
        .await;
    assert_eq!(status.status, StatusCode::OK);
}

#[tokio::test]
async fn a_code_with_another_browsers_cookie_is_refused() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let home = "https://office.example:8443/";
    let mut owner = Browser::new(&running);
    owner.log_in("alice").await;
    let ask = owner.get(home).await.location().to_owned();
    let code = owner.get(&ask).await.location().to_owned();
    // Login CSRF: the victim's browser has a cookie of its own and is lured to the attacker's code.
    let mut victim = Browser::new(&running);
    victim.get(home).await;
    assert_eq!(victim.get(&code).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        owner.get("/handover?app=lab&bind=00").await.status,
        StatusCode::NOT_FOUND
    );
    let bare = owner.get("/handover?app=office").await;
    assert_eq!(bare.location(), home);
}

#[tokio::test]
async fn only_our_hosts_are_served_and_forwarded_headers_are_ignored() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let evil = browser.get("https://evil.example/login").await;
    assert_eq!(evil.status, StatusCode::MISDIRECTED_REQUEST);
    // The login is on the organisation's host alone.
    let login = browser.get("https://office.example:8443/login").await;
    assert_eq!(login.status, StatusCode::NOT_FOUND);
    browser.log_in("alice").await;
    let request = browser
        .request("GET", "/")
        .header("x-forwarded-for", "10.1.2.3")
        .header("x-forwarded-host", "evil.example")
        .header("forwarded", "for=10.1.2.3;host=evil.example")
        .header("postern-assertion", "e30.e30.e30");
    let launcher = browser.send(request, String::new()).await;
    assert_eq!(tiles(&launcher.body), ["lab", "office"]);
}

#[tokio::test]
async fn every_answer_has_strict_headers() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let page = browser.get("/login").await;
    let (_, rest) = page.body.split_once("href=\"/assets/").expect("an asset");
    let asset = format!("/assets/{}", rest.split('"').next().expect("a name"));
    for path in [
        "/",
        "/login",
        "/nothing",
        "/app/lab/",
        "/healthz",
        "https://evil.example/",
        &asset,
    ] {
        let answer = browser.get(path).await;
        for (name, value) in [
            (
                "content-security-policy",
                postern_web::CONTENT_SECURITY_POLICY,
            ),
            ("strict-transport-security", "max-age=31536000"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        let immutable = path == asset;
        assert_eq!(
            answer.header("cache-control").contains("immutable"),
            immutable,
            "{path}"
        );
        assert_eq!(
            answer.header("cache-control") == "no-store",
            !immutable,
            "{path}"
        );
    }
    let request = browser
        .request("GET", &asset)
        .header("accept-encoding", "br, gzip");
    let answer = browser.send(request, String::new()).await;
    assert_eq!(answer.header("content-encoding"), "br");
    assert_eq!(answer.header("vary"), "Accept-Encoding");
    let own_host = browser
        .get(&format!("https://office.example:8443{asset}"))
        .await;
    assert_eq!(own_host.status, StatusCode::OK);
}

#[tokio::test]
async fn what_anybody_may_ask() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    assert_eq!(browser.get("/healthz").await.body, "ok\n");
    let keys = browser.get("/.well-known/jwks.json").await;
    let jwks: postern_access::Jwks = serde_json::from_str(&keys.body).expect("a key set");
    assert_eq!(jwks, running.site.publisher.current().keys.jwks);
    assert!(!keys.body.contains("\"d\""));
    assert_eq!(
        browser.get("/app/lab/ping").await.status,
        StatusCode::NO_CONTENT
    );
    let socket = browser.get("/app/lab/rdp").await;
    assert_eq!(socket.status, StatusCode::UPGRADE_REQUIRED);
    let upgrade = browser
        .request("GET", "/app/lab/rdp")
        .header("upgrade", "websocket");
    let misdirected = browser.send(upgrade, String::new()).await;
    assert_eq!(misdirected.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(misdirected.header("connection"), "close");
}

#[tokio::test]
async fn a_long_form_is_refused() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    let long = "a".repeat(17 * 1024);
    let answer = browser
        .post("/login", &[("user", "alice"), ("password", &long)])
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_unwritable_audit_trail_refuses_logins() {
    let folder = Folder::new(CONFIG);
    let mut running = folder.start().await;
    let site = std::sync::Arc::get_mut(&mut running.site);
    assert!(site.is_none(), "tasks share the site");
    running.site.journal.break_for_test();
    let mut browser = Browser::new(&running);
    let answer = browser.log_in("alice").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        browser
            .cookies
            .keys()
            .all(|(_, name)| name != "__Host-postern-org")
    );
    assert_eq!(running.site.counts.audit_losses.get(), 1);
}

mod socket {
    //! The same over the socket that the engine uses.

    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    async fn exchange(folder: &Folder, bytes: &[u8]) -> String {
        let socket = folder.path("state/run/web.sock");
        let mut stream = UnixStream::connect(socket).await.expect("connects");
        stream.write_all(bytes).await.expect("written");
        let mut answer = String::new();
        // A server that closes early may reset.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_connection_begins_with_who_is_there() {
        let folder = Folder::new(CONFIG);
        let _running = folder.start().await;
        let source = ([192, 0, 2, 7], 50_000).into();
        let mut bytes = postern_wire::proxy_protocol::encode(source, ([127, 0, 0, 1], 443).into());
        let request =
            b"GET /healthz HTTP/1.1\r\nhost: gw.example:8443\r\nconnection: close\r\n\r\n";
        bytes.extend_from_slice(request);
        let answer = exchange(&folder, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("ok\n"), "{answer}");
        // Without a header nothing is answered.
        assert_eq!(exchange(&folder, request).await, "");
    }
}

#[tokio::test]
async fn a_pin_and_a_snapshot_version_reach_the_state() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let publisher = &running.site.publisher;
    let before = publisher.current().snapshot.version;
    let (one, two) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
    let pin = |seen| publisher.pin("lab".to_owned(), seen);
    assert_eq!(pin(one).await.expect("pinned"), (one, true));
    assert_eq!(pin(two).await.expect("pinned"), (one, false));
    let current = publisher.current();
    assert_eq!(current.snapshot.version, before + 1);
    assert_eq!(current.snapshot.pins["lab"], one);
    assert!(current.snapshot.issued_at > UnixSeconds(0));
}
