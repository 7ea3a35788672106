//! Logging in and out.

use super::*;

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
    let first = if csrf.starts_with('A') { "B" } else { "A" };
    let changed = format!("{first}{}", &csrf[1..]);
    let fields = |csrf: &str| encoded(&[("user", "alice"), ("password", PASSWORD), ("csrf", csrf)]);
    let check = async |browser: &mut Browser, origin: Option<&str>, csrf: &str| {
        let mut request = as_form(browser.request("POST", "/login"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        browser.send(request, fields(csrf)).await.status
    };
    let refused = StatusCode::FORBIDDEN;
    // A client that is no browser still needs the page's token.
    assert_eq!(check(&mut browser, None, &changed).await, refused);
    assert_eq!(check(&mut browser, Some("null"), &csrf).await, refused);
    assert_eq!(
        check(&mut browser, Some("https://evil.example"), &csrf).await,
        refused
    );
    assert_eq!(check(&mut browser, Some(ORIGIN), "").await, refused);
    assert_eq!(check(&mut browser, Some(ORIGIN), &changed).await, refused);
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

#[tokio::test]
async fn a_user_whose_groups_changed_has_to_log_in_again_even_over_a_restart() {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let mut browser = Browser::new(&running);
    browser.log_in("alice").await;
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    running.end().await;
    let running = folder.start().await;
    browser.front = Front::new(running.site.clone());
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    running.end().await;
    let text = CONFIG.replacen("groups = [\"staff\"]", "groups = []", 1);
    folder.write("postern.toml", &text, 0o644);
    let running = folder.start().await;
    browser.front = Front::new(running.site.clone());
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
    let revocations = &running.site.publisher.current().snapshot.revocations;
    assert_eq!(revocations.users.keys().collect::<Vec<_>>(), ["alice"]);
}
