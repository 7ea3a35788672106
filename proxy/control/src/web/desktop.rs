//! An application's pages: the desktop, its token's renewal, its state.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use postern_login::ReturnTarget;
use postern_web::DesktopPage;
use serde::Serialize;

use super::identity::SignedIn;
use super::visit::{Desktop, Place, Visit};
use super::{hand_over, login, pages};

/// `/app/NAME` is `/app/NAME/`.
pub(super) async fn with_slash(Desktop { application, .. }: Desktop) -> Response {
    pages::see_other(&format!("{}/", application.public.prefix))
}

/// Who may ask for a fresh token. On a host of its own the organisation's cookie is not seen: there
/// the application's own token says whose login it is, for as long as that login lasts.
fn signed_in(desktop: &Desktop) -> Option<SignedIn> {
    let visit = &desktop.visit;
    match visit.place {
        Place::Organisation => visit.organisation_login(),
        Place::Application(_) => visit
            .application_login(&desktop.application)
            .filter(|who| visit.lasts(&who.login)),
    }
}

/// The desktop page, with a fresh token when the policy allows.
pub(super) async fn page(desktop: Desktop) -> Response {
    let Desktop { visit, application } = &desktop;
    let Some(who) = signed_in(&desktop) else {
        return match visit.place {
            Place::Application(_) if !visit.is_script => hand_over::ask(visit, application),
            _ => login::required(visit, &ReturnTarget::Application(application.name.clone())),
        };
    };
    let page = DesktopPage {
        organisation: &visit.current.config.organisation,
        user: &who.user.id,
        name: &application.name,
        title: &application.title,
        prefix: &application.public.prefix,
        launcher: &pages::launcher(visit),
    };
    let page = Html(page.render()).into_response();
    let admitted = visit.admit(application, &who, page).await;
    admitted.unwrap_or_else(|refused| refused)
}

/// A fresh token after the policy was asked again.
pub(super) async fn renew(desktop: Desktop) -> Response {
    let Desktop { visit, application } = &desktop;
    if !visit.is_script || !visit.is_same_origin {
        return pages::foreign_form(visit);
    }
    let Some(who) = signed_in(&desktop) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let renewed = StatusCode::NO_CONTENT.into_response();
    let admitted = visit.admit(application, &who, renewed).await;
    admitted.unwrap_or_else(|refused| refused)
}

/// What `PREFIX/status` tells the page.
#[derive(Serialize)]
struct Status {
    now: u64,
    token_expires_at: u64,
    live: Vec<LiveStatus>,
    ended: Option<EndedStatus>,
}

#[derive(Serialize)]
struct LiveStatus {
    id: String,
    opened_at: u64,
    valid_until: u64,
    idle_s: u64,
}

#[derive(Serialize)]
struct EndedStatus {
    reason: String,
    sentence: String,
    at: u64,
}

pub(super) async fn status(Desktop { visit, application }: Desktop) -> Response {
    let Some(who) = visit.application_login(&application) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let nonce = &who.login.identity_nonce;
    let (live, ended) = visit.site.live.of_login(&application.name, nonce);
    Json(Status {
        now: visit.now.0,
        token_expires_at: who.expires_at.0,
        live: live
            .into_iter()
            .map(|session| LiveStatus {
                id: session.id,
                opened_at: session.opened_at.0,
                valid_until: session.valid_until.0,
                idle_s: session.idle_s,
            })
            .collect(),
        ended: ended.map(|ended| EndedStatus {
            reason: ended.reason,
            sentence: ended.sentence,
            at: ended.at.0,
        }),
    })
    .into_response()
}

/// There and back, for the page's measure of latency.
pub(super) async fn ping() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// The engine answers the WebSocket before it comes here; it does so at the first request of a
/// connection. [RFC 9110 §15.5.20] The browser tries again on a new one.
pub(super) async fn misdirected(_: Visit, headers: HeaderMap) -> Response {
    if headers.contains_key(header::UPGRADE) {
        let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
        return (StatusCode::MISDIRECTED_REQUEST, close).into_response();
    }
    let upgrade = [(header::UPGRADE, HeaderValue::from_static("websocket"))];
    let words = "this is the address of a desktop's WebSocket";
    (StatusCode::UPGRADE_REQUIRED, upgrade, words).into_response()
}
