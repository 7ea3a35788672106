//! Pages of words, and redirects.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use postern_web::{Action, MessagePage};

use super::visit::{Place, Visit};

/// What a page of words says.
#[derive(Default)]
pub(super) struct Words<'a> {
    pub(super) title: &'a str,
    pub(super) sentence: &'a str,
    pub(super) advice: &'a str,
    pub(super) detail: &'a str,
}

/// The launcher as seen from this host.
pub(super) fn launcher(visit: &Visit) -> String {
    match visit.place {
        Place::Organisation => "/".to_owned(),
        Place::Application(_) => format!("{}/", visit.current.config.origin),
    }
}

pub(super) fn message(visit: &Visit, status: StatusCode, words: &Words<'_>) -> Response {
    if visit.is_script {
        return status.into_response();
    }
    let launcher = launcher(visit);
    let page = MessagePage {
        organisation: &visit.current.config.organisation,
        title: words.title,
        sentence: words.sentence,
        advice: words.advice,
        detail: words.detail,
        action: Some(Action {
            label: "Your desktops",
            href: &launcher,
        }),
    };
    (status, Html(page.render())).into_response()
}

pub(super) fn nothing_here(visit: &Visit) -> Response {
    message(
        visit,
        StatusCode::NOT_FOUND,
        &Words {
            title: "There is nothing here",
            sentence: "No page has this address.",
            advice: "Check the address, or choose a desktop from the list.",
            ..Words::default()
        },
    )
}

pub(super) fn not_allowed(visit: &Visit, title: &str, reason: &str) -> Response {
    let sentence =
        format!("You are signed in, but the rules do not let you open {title} from here.");
    message(
        visit,
        StatusCode::FORBIDDEN,
        &Words {
            title: "This desktop is not open to you",
            sentence: &sentence,
            advice: "If you need it, ask your administrator and name the line below.",
            detail: reason,
        },
    )
}

pub(super) fn foreign_form(visit: &Visit) -> Response {
    message(
        visit,
        StatusCode::FORBIDDEN,
        &Words {
            title: "This did not come from our page",
            sentence: "The request was not sent by a page of this gateway, so nothing was done.",
            advice: "Open the page again and repeat what you did.",
            detail: "cross_site_request",
        },
    )
}

pub(super) fn unavailable(visit: &Visit) -> Response {
    message(
        visit,
        StatusCode::SERVICE_UNAVAILABLE,
        &Words {
            title: "This does not work right now",
            sentence: "The gateway could not do what you asked.",
            advice: "Try again in a minute. If it stays so, tell your administrator.",
            ..Words::default()
        },
    )
}

/// [RFC 9110 §15.4.4] The answer to what was asked is over there, to be fetched with GET.
pub(super) fn see_other(location: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let location = HeaderValue::from_str(location);
    let location = location.expect("locations are made of checked names, slugs and base64url");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

pub(super) fn set_cookie(response: &mut Response, cookie: &str) {
    let cookie = HeaderValue::from_str(cookie).expect("cookies are made of cookie octets");
    response.headers_mut().append(header::SET_COOKIE, cookie);
}
