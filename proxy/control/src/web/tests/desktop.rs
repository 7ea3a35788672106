//! The launcher and the pages of applications.

use super::*;

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
