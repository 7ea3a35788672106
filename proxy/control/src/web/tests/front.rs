//! What holds for every request.

use super::*;

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
