//! Taking a login from the organisation's host to an application on a host of its own.
//!
//! The application's host gives the browser a random cookie and sends it to the organisation's
//! host with that cookie's hash; that one sends it back with a code, good once, at that
//! application, in that browser. A code that somebody else obtained opens nothing.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::Response;
use postern_access::{Application, UnixSeconds};
use postern_login::hand_over::HAND_OVER_S_MAX;
use postern_login::{HandOver, Login, ReturnTarget};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::identity::SignedIn;
use super::login;
use super::pages::{self, Words};
use super::visit::{Desktop, Visit};
use crate::store::PendingHandOver;
use crate::{ControlError, random};

/// Ties a hand-over to the browser that asked for it.
const COOKIE: &str = "__Host-postern-handover";

/// SHA-256 in hex.
const BINDING_BYTES: usize = 64;

/// What is kept of a login while it is handed over.
#[derive(Serialize, Deserialize)]
struct Carried {
    user: String,
    identity_nonce: String,
    auth_time: UnixSeconds,
    amr: Vec<String>,
    country: Option<String>,
    binding: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn binding_of(cookie: &str) -> String {
    hex(digest(&SHA256, cookie.as_bytes()).as_ref())
}

/// On the application's host: sends the browser to the organisation's host.
pub(super) fn ask(visit: &Visit, application: &Application) -> Response {
    let cookie = match random::bytes::<32>() {
        Ok(random) => hex(&random),
        Err(_) => return pages::unavailable(visit),
    };
    let (origin, name) = (&visit.current.config.origin, &application.name);
    let binding = binding_of(&cookie);
    let location = format!("{origin}/handover?app={name}&bind={binding}");
    let mut response = pages::see_other(&location);
    let cookie = format!(
        "{COOKIE}={cookie}; Path=/; Max-Age={HAND_OVER_S_MAX}; Secure; HttpOnly; SameSite=Lax"
    );
    pages::set_cookie(&mut response, &cookie);
    response
}

#[derive(Deserialize)]
pub(super) struct Asked {
    app: String,
    #[serde(default)]
    bind: String,
}

/// On the organisation's host: sends the browser back with a code.
pub(super) async fn give(visit: Visit, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let config = &visit.current.config;
    let application = asked.as_ref().ok().and_then(|Query(asked)| {
        let application = config.application(&asked.app)?;
        (application.public.host != config.host).then_some((application, &asked.bind))
    });
    let Some((application, binding)) = application else {
        return pages::nothing_here(&visit);
    };
    let Some(who) = visit.organisation_login() else {
        return login::required(&visit, &ReturnTarget::Application(application.name.clone()));
    };
    let origin = &application.public.origin;
    if binding.len() != BINDING_BYTES || !binding.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        // A link to this address by itself: the application's host begins properly.
        return pages::see_other(&format!("{origin}/"));
    }
    match issue(&visit, application, &who, binding).await {
        Ok(code) => pages::see_other(&format!("{origin}/.postern/handover?code={code}")),
        Err(error) => {
            tracing::error!(error = error.in_full(), "a login can't be handed over");
            pages::unavailable(&visit)
        }
    }
}

async fn issue(
    visit: &Visit,
    application: &Application,
    who: &SignedIn,
    binding: &str,
) -> Result<String, ControlError> {
    let login = &who.login;
    let nonce = &login.identity_nonce;
    let hand_over = HandOver::new(&application.name, nonce, &random::bytes()?, visit.now);
    let carried = Carried {
        user: who.user.id.clone(),
        identity_nonce: nonce.clone(),
        auth_time: login.auth_time,
        amr: login.amr.clone(),
        country: login.country.clone(),
        binding: binding.to_owned(),
    };
    let pending = PendingHandOver {
        id: hand_over.id.clone(),
        login: serde_json::to_string(&carried).expect("plain text and numbers"),
        expires_at: hand_over.expires_at,
    };
    let now = visit.now;
    visit
        .site
        .store
        .with(move |store| store.put_hand_over(&pending, now))
        .await?;
    Ok(hand_over.sign(&visit.site.secret))
}

#[derive(Deserialize)]
pub(super) struct Code {
    code: String,
}

/// On the application's host again: the code becomes the application's cookie.
pub(super) async fn take(
    Desktop { visit, application }: Desktop,
    code: Result<Query<Code>, QueryRejection>,
) -> Response {
    let code = code.map(|Query(code)| code.code).unwrap_or_default();
    match redeem(&visit, &application, &code).await {
        Ok(Some(who)) => {
            let home = pages::see_other("/");
            let admitted = visit.admit(&application, &who, home).await;
            admitted.unwrap_or_else(|refused| refused)
        }
        Ok(None) => pages::message(
            &visit,
            StatusCode::FORBIDDEN,
            &Words {
                title: "This link is used up",
                sentence: "The link that brought you here works once, for a minute, in one browser.",
                advice: "Open the desktop again from the list. Allow cookies for this site.",
                detail: "hand_over_refused",
            },
        ),
        Err(error) => {
            tracing::error!(error = error.in_full(), "a login can't be taken over");
            pages::unavailable(&visit)
        }
    }
}

/// The login behind a code, when it is good here, in this browser, for the first time.
async fn redeem(
    visit: &Visit,
    application: &Application,
    code: &str,
) -> Result<Option<SignedIn>, ControlError> {
    let (secret, now) = (&visit.site.secret, visit.now);
    let Ok(hand_over) = HandOver::open(secret, code, &application.name, now) else {
        return Ok(None);
    };
    let Some(cookie) = visit.cookie(COOKIE) else {
        return Ok(None);
    };
    let binding = binding_of(cookie);
    let id = hand_over.id;
    let taken = visit
        .site
        .store
        .with(move |store| store.take_hand_over(&id, now))
        .await?;
    let Some(carried) = taken.and_then(|json| serde_json::from_str::<Carried>(&json).ok()) else {
        return Ok(None);
    };
    if carried.binding != binding || carried.identity_nonce != hand_over.identity_nonce {
        return Ok(None);
    }
    Ok(still_good(visit, application, carried))
}

/// The login may have been revoked, or its user removed, on the way.
fn still_good(visit: &Visit, application: &Application, carried: Carried) -> Option<SignedIn> {
    let config = &visit.current.config;
    let user = config.user(&carried.user)?.clone();
    let login = Login {
        identity_nonce: carried.identity_nonce,
        auth_time: carried.auth_time,
        amr: carried.amr,
        country: carried.country,
    };
    let claims = login.application_claims(&config.origin, &user, application, 0, visit.now);
    let revoked = visit.current.revocations.find(&claims, None).is_some();
    (!revoked && visit.lasts(&login)).then_some(SignedIn {
        user,
        login,
        expires_at: visit.now,
    })
}
