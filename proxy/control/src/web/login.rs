//! Logging in and out.

use axum::Form as FormBody;
use axum::extract::Query;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use postern_access::Claims;
use postern_audit::Event;
use postern_login::csrf::{self, Form};
use postern_login::{Answer, Login, ReturnTarget, cookie};
use postern_web::{CONTENT_SECURITY_POLICY, LoginPage};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::visit::{Place, Visit};
use super::{launcher, pages};
use crate::config::LocalUser;
use crate::site::record;
use crate::store::Revoked;
use crate::{ControlError, random};

/// Longest name of a user that is looked at.
const USER_BYTES_MAX: usize = 256;

const WRONG: &str = "That user name and password do not belong together. Check both and try again.";
const STALE: &str = "This page was open for too long, or cookies are blocked. Please try again.";

#[derive(Deserialize)]
pub(super) struct Ask {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Typed {
    user: String,
    password: Zeroizing<String>,
    #[serde(default)]
    next: String,
    #[serde(default)]
    csrf: String,
}

/// Sends whoever is not signed in to the login, and back to `target` afterwards; a script gets 401.
pub(super) fn required(visit: &Visit, target: &ReturnTarget) -> Response {
    if visit.is_script {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let origin = match visit.place {
        Place::Organisation => "",
        Place::Application(_) => visit.current.config.origin.as_str(),
    };
    let next = target.sign(&visit.site.secret, visit.now);
    pages::see_other(&format!("{origin}/login?next={next}"))
}

pub(super) async fn page(visit: Visit, ask: Result<Query<Ask>, QueryRejection>) -> Response {
    let next = ask.map(|Query(ask)| ask.next).unwrap_or_default();
    let target = target_of(&visit, &next);
    if visit.organisation_login().is_some() {
        return pages::see_other(&launcher::location(&visit, &target));
    }
    form(&visit, &target, "", None, StatusCode::OK)
}

/// Anything that is not a target of ours leads to the launcher.
fn target_of(visit: &Visit, next: &str) -> ReturnTarget {
    ReturnTarget::open(&visit.site.secret, next, visit.now).unwrap_or(ReturnTarget::Launcher)
}

fn form(
    visit: &Visit,
    target: &ReturnTarget,
    user: &str,
    problem: Option<&str>,
    status: StatusCode,
) -> Response {
    // A page that is open in another tab keeps its cookie.
    let (binding, is_new) = match visit.cookie(cookie::LOGIN) {
        Some(value) if !value.is_empty() => (value.to_owned(), false),
        _ => match random::bytes() {
            Ok(random) => (csrf::cookie_value(&random), true),
            Err(error) => return failed(visit, &error),
        },
    };
    let secret = &visit.site.secret;
    let page = LoginPage {
        organisation: &visit.current.config.organisation,
        next: &target.sign(secret, visit.now),
        csrf: &csrf::token(secret, Form::Login { cookie: &binding }),
        user,
        problem,
    };
    let mut response = (status, Html(page.render())).into_response();
    if is_new {
        pages::set_cookie(&mut response, &cookie::set_login(&binding));
    }
    allow_redirect(visit, target, &mut response);
    response
}

/// Browsers hold a form's redirects to `form-action` too: the page of a login that leads to an
/// application on a host of its own names that host.
fn allow_redirect(visit: &Visit, target: &ReturnTarget, response: &mut Response) {
    let ReturnTarget::Application(name) = target else {
        return;
    };
    let config = &visit.current.config;
    let Some(application) = config.application(name) else {
        return;
    };
    if application.public.host != config.host {
        let wider = format!("form-action 'self' {}", application.public.origin);
        let policy = CONTENT_SECURITY_POLICY.replace("form-action 'self'", &wider);
        let policy = HeaderValue::from_str(&policy).expect("an origin is plain text");
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

pub(super) async fn submit(
    visit: Visit,
    typed: Result<FormBody<Typed>, FormRejection>,
) -> Response {
    let typed = match typed {
        Ok(FormBody(typed)) => typed,
        Err(refused) => return refused.status().into_response(),
    };
    if !visit.is_same_origin {
        return pages::foreign_form(&visit);
    }
    let target = target_of(&visit, &typed.next);
    let user = typed.user.trim();
    if user.len() > USER_BYTES_MAX {
        return form(&visit, &target, "", Some(WRONG), StatusCode::UNAUTHORIZED);
    }
    let binding = visit.cookie(cookie::LOGIN).unwrap_or_default();
    if !csrf::check(
        &visit.site.secret,
        Form::Login { cookie: binding },
        &typed.csrf,
    ) {
        return form(&visit, &target, user, Some(STALE), StatusCode::FORBIDDEN);
    }
    let answer = limiter(&visit).attempt(user, visit.source.ip(), visit.now);
    if let Answer::Wait { seconds } = answer {
        visit.site.counts.logins_limited.add();
        return limited(&visit, &target, user, seconds);
    }
    match check(&visit, user, typed.password).await {
        Ok(Some(local)) => {
            limiter(&visit).succeeded(user, visit.source.ip(), visit.now);
            match succeed(&visit, &local, &target).await {
                Ok(response) => response,
                Err(error) => failed(&visit, &error),
            }
        }
        Ok(None) => form(&visit, &target, user, Some(WRONG), StatusCode::UNAUTHORIZED),
        Err(error) => failed(&visit, &error),
    }
}

fn limiter(visit: &Visit) -> std::sync::MutexGuard<'_, postern_login::RateLimiter> {
    // Its counts are changed one by one and hold without each other.
    let limiter = visit.site.limiter.lock();
    limiter.unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn limited(visit: &Visit, target: &ReturnTarget, user: &str, seconds: u64) -> Response {
    let wait = match seconds {
        1 => "a second".to_owned(),
        2..120 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    };
    let problem = format!("There were too many attempts. Wait {wait}, then try again.");
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut response = form(visit, target, user, Some(&problem), status);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds.into());
    response
}

fn failed(visit: &Visit, error: &ControlError) -> Response {
    visit.site.counts.logins_unavailable.add();
    tracing::error!(
        error = error.in_full(),
        "a login failed for no fault of the user"
    );
    pages::unavailable(visit)
}

/// The user, when the password is theirs. An unknown user takes as long and is answered the same.
async fn check(
    visit: &Visit,
    typed: &str,
    password: Zeroizing<String>,
) -> Result<Option<LocalUser>, ControlError> {
    let local = visit.current.config.user_named(typed).cloned();
    let hash = local.as_ref().map(|local| local.hash.clone());
    let right = visit.site.hashing.verify(hash, password).await?;
    if right {
        return Ok(local);
    }
    visit.site.counts.logins_failed.add();
    let mut record = record(Event::Login, "failure");
    // What was typed as an unknown user's name may be a password.
    record.reason = Some(if local.is_some() {
        "wrong_password".to_owned()
    } else {
        "unknown_user".to_owned()
    });
    record.user = local.map(|local| local.user.email);
    record.source = Some(visit.source.to_string());
    // A loss is logged and counted; the answer is no in any case.
    let _ = visit.site.record(record).await;
    Ok(None)
}

/// The record is on disk before the cookie goes out.
async fn succeed(
    visit: &Visit,
    local: &LocalUser,
    target: &ReturnTarget,
) -> Result<Response, ControlError> {
    let config = &visit.current.config;
    let login = Login::by_password(&random::bytes()?, None, visit.now);
    let claims: Claims =
        login.organisation_claims(&config.origin, &local.user, config.session_s, visit.now);
    let token = visit.current.keys.signing.sign(&claims)?;
    let mut record = record(Event::Login, "success");
    record.user = Some(local.user.email.clone());
    record.reason = Some("password".to_owned());
    record.source = Some(visit.source.to_string());
    visit.site.record(record).await?;
    visit.site.counts.logins_succeeded.add();
    let mut response = pages::see_other(&launcher::location(visit, target));
    let cookie = cookie::set_organisation(&token, config.session_s);
    pages::set_cookie(&mut response, &cookie);
    pages::set_cookie(&mut response, &cookie::clear_login());
    allow_redirect(visit, target, &mut response);
    Ok(response)
}

#[derive(Deserialize)]
pub(super) struct Leave {
    #[serde(default)]
    csrf: String,
}

/// Ends the login everywhere: its tokens are void and its live sessions are cut.
pub(super) async fn logout(
    visit: Visit,
    leave: Result<FormBody<Leave>, FormRejection>,
) -> Response {
    let leave = match leave {
        Ok(FormBody(leave)) => leave,
        Err(refused) => return refused.status().into_response(),
    };
    if !visit.is_same_origin {
        return pages::foreign_form(&visit);
    }
    let Some(who) = visit.organisation_login() else {
        return pages::see_other("/login");
    };
    let identity_nonce = who.login.identity_nonce;
    let form = Form::Logout {
        identity_nonce: &identity_nonce,
    };
    if !csrf::check(&visit.site.secret, form, &leave.csrf) {
        return pages::foreign_form(&visit);
    }
    let revoked = visit
        .site
        .publisher
        .revoke(Revoked::Login(identity_nonce))
        .await;
    if let Err(error) = revoked {
        tracing::error!(error = error.in_full(), "a login could not be ended");
        return pages::unavailable(&visit);
    }
    visit.site.counts.logouts.add();
    let mut record = record(Event::Logout, "success");
    record.user = Some(who.user.email);
    record.source = Some(visit.source.to_string());
    // A loss is logged and counted; the login is over in any case.
    let _ = visit.site.record(record).await;
    let mut response = pages::see_other("/login");
    pages::set_cookie(&mut response, &cookie::clear_organisation());
    response
}
