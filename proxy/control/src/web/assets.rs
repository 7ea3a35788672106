//! What anybody may have: the client's files, the verification keys, a sign of life.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use postern_web::CACHE_CONTROL;

use super::pages;
use super::visit::Visit;

pub(super) async fn asset(visit: Visit, uri: Uri, headers: HeaderMap) -> Response {
    let Some(asset) = postern_web::asset(uri.path()) else {
        return pages::nothing_here(&visit);
    };
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let Some((encoding, bytes)) = asset.negotiate(Some(&accepted.join(","))) else {
        let words = "this file is sent compressed: accept gzip or br";
        return (StatusCode::NOT_ACCEPTABLE, words).into_response();
    };
    let mut response = (
        [
            (header::CONTENT_TYPE, asset.content_type),
            (header::CACHE_CONTROL, CACHE_CONTROL),
            (header::VARY, "Accept-Encoding"),
        ],
        bytes,
    )
        .into_response();
    if let Some(coding) = encoding.header() {
        let value = axum::http::HeaderValue::from_static(coding);
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, value);
    }
    response
}

/// Verifiers may keep the keys for a while: a next key is published long before it signs.
pub(super) async fn jwks(visit: Visit) -> Response {
    let caching = [(header::CACHE_CONTROL, "public, max-age=300")];
    (caching, Json(&visit.current.keys.jwks)).into_response()
}

pub(super) async fn health() -> &'static str {
    "ok\n"
}
