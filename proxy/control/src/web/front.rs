//! Every request passes here: whose host it is for, which page answers, and strict headers on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use hyper::body::Incoming;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::visit::{Place, Visit};
use super::{assets, desktop, hand_over, headers, launcher, login, pages};
use crate::site::Site;

/// Longest body of a request: a form.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// A request is answered within this time.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The routes of the organisation's host and of applications' own hosts.
#[derive(Clone)]
pub(crate) struct Front {
    site: Arc<Site>,
    organisation: Router,
    application: Router,
}

impl Front {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        let organisation = common()
            .route("/", get(launcher::page))
            .route("/login", get(login::page).post(login::submit))
            .route("/logout", post(login::logout))
            .route("/handover", get(hand_over::give))
            .route("/app/{name}", get(desktop::with_slash))
            .route("/app/{name}/", get(desktop::page))
            .route("/app/{name}/renew", post(desktop::renew))
            .route("/app/{name}/status", get(desktop::status))
            .route("/app/{name}/ping", get(desktop::ping))
            .route("/app/{name}/rdp", any(desktop::misdirected));
        let application = common()
            .route("/", get(desktop::page))
            .route("/renew", post(desktop::renew))
            .route("/status", get(desktop::status))
            .route("/ping", get(desktop::ping))
            .route("/rdp", any(desktop::misdirected))
            .route("/.postern/handover", get(hand_over::take));
        Self {
            site,
            organisation: guarded(organisation),
            application: guarded(application),
        }
    }

    pub(super) async fn answer(&self, source: SocketAddr, request: Request<Incoming>) -> Response {
        self.answer_to(source, request.map(Body::new)).await
    }

    pub(crate) async fn answer_to(
        &self,
        source: SocketAddr,
        mut request: Request<Body>,
    ) -> Response {
        self.site.counts.web_requests.add();
        let Some(visit) = Visit::of(self.site.clone(), source, &request) else {
            self.site.counts.web_misdirected.add();
            let words = "this host is not served here";
            return headers::strict((StatusCode::MISDIRECTED_REQUEST, words).into_response());
        };
        let router = match visit.place {
            Place::Organisation => &self.organisation,
            Place::Application(_) => &self.application,
        };
        let router = router.clone();
        request.extensions_mut().insert(visit.clone());
        let response = match timeout(ANSWER_MAX, router.oneshot(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => pages::unavailable(&visit),
        };
        headers::strict(response)
    }
}

/// On every host.
fn common() -> Router {
    Router::new()
        .route("/assets/{*path}", get(assets::asset))
        .route("/.well-known/jwks.json", get(assets::jwks))
        .route("/healthz", get(assets::health))
}

fn guarded(router: Router) -> Router {
    router
        .fallback(|visit: Visit| async move { pages::nothing_here(&visit) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}
