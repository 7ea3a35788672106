//! The launcher: exactly the applications that this user may open from here, now.

use axum::response::{Html, IntoResponse as _, Response};
use postern_login::ReturnTarget;
use postern_login::csrf::{self, Form};
use postern_web::{LauncherPage, Tile};

use super::login;
use super::visit::Visit;

pub(super) async fn page(visit: Visit) -> Response {
    let Some(who) = visit.organisation_login() else {
        return login::required(&visit, &ReturnTarget::Launcher);
    };
    let config = &visit.current.config;
    let allowed = config.applications.iter();
    let allowed: Vec<_> = allowed
        .filter(|application| visit.decide(application, &who).allowed)
        .map(|application| {
            let public = &application.public;
            let href = if public.host == config.host {
                format!("{}/", public.prefix)
            } else {
                format!("{}{}/", public.origin, public.prefix)
            };
            (application, href)
        })
        .collect();
    let live = visit.site.live.count_of(&who.user.id);
    let tiles = allowed
        .iter()
        .map(|(application, href)| Tile {
            name: &application.name,
            title: &application.title,
            href,
            live_sessions: live.get(&application.name).copied().unwrap_or(0),
        })
        .collect();
    let form = Form::Logout {
        identity_nonce: &who.login.identity_nonce,
    };
    let page = LauncherPage {
        organisation: &config.organisation,
        user: &who.user.id,
        email: &who.user.email,
        csrf: &csrf::token(&visit.site.secret, form),
        tiles,
    };
    Html(page.render()).into_response()
}

/// Where a login leads when it can't be told from the request.
pub(super) fn location(visit: &Visit, target: &ReturnTarget) -> String {
    let config = &visit.current.config;
    target.location(&config.applications, &config.host)
}
