//! A login on its way to an application on a host of its own.

use super::*;

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
