//! `/metrics` for Prometheus: control's own numbers and those of every core.

mod collector;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Duration, timeout};

use crate::clock;
use crate::site::Site;
use collector::Measured;
use table::Own;

pub use table::metrics_markdown;

/// Scrapes at a time.
const CONNECTIONS_MAX: usize = 16;

/// A scrape's connection lives this long.
const CONNECTION_MAX: Duration = Duration::from_secs(60);

/// [OpenMetrics 1.0 §3.1]
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves for as long as control lives.
pub(crate) async fn serve(site: Arc<Site>, address: SocketAddr) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            // The gateway is worth more than its measurements.
            tracing::error!(%address, %error, "metrics can't be served");
            return;
        }
    };
    let router = router(site);
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // Whoever scrapes comes again.
            let _ = timeout(CONNECTION_MAX, served).await;
            drop(seat);
        });
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(site)
}

async fn scrape(State(site): State<Arc<Site>>) -> Response {
    let text = text(&site).await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// All measurements. Without an engine, control's own.
pub(crate) async fn text(site: &Site) -> String {
    let cores = site.engine.metrics().await.unwrap_or_default();
    let current = site.publisher.current();
    let now = clock::now();
    let counts = &site.counts;
    let measured = Measured {
        cores,
        own: Own {
            logins: [
                ("success", counts.logins_succeeded.get()),
                ("failure", counts.logins_failed.get()),
                ("limited", counts.logins_limited.get()),
                ("unavailable", counts.logins_unavailable.get()),
            ],
            logouts: counts.logouts.get(),
            web_requests: counts.web_requests.get(),
            web_misdirected: counts.web_misdirected.get(),
            web_connections_refused: counts.web_connections_refused.get(),
            certificate_changes: counts.certificate_changes.get(),
            reloads_refused: counts.reloads_refused.get(),
            audit_records: counts.audit_records.get(),
            audit_losses: counts.audit_losses.get(),
            checkpoint: counts.checkpoint.get(),
            engine_up: site.engine.is_up(),
            engine_info: site.engine.info(),
            snapshot_version: current.snapshot.version,
            snapshot_version_applied: site.engine.applied(),
            live_sessions: site.live.count() as u64,
            pins: current.pins.len() as u64,
            revocations: {
                let revoked = &current.revocations;
                let logins = revoked.logins.len();
                (revoked.users.len() + logins + revoked.applications.len()) as u64
            },
            certificate_expiry_s: seconds_until(now.0, current.certificate.expires_at.0),
        },
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(measured));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string grows");
    text
}

/// Negative when it has passed.
fn seconds_until(now: u64, then: u64) -> i64 {
    let signed = |seconds| i64::try_from(seconds).unwrap_or(i64::MAX);
    signed(then) - signed(now)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use crate::fixture::{CONFIG, Folder};

    #[tokio::test]
    async fn a_scrape_reads_every_metric_and_a_taken_port_stops_nothing() {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = probe.local_addr().expect("an address");
        let listen = format!("listen = \"{address}\"");
        let folder = Folder::new(&CONFIG.replace("listen = \"off\"", &listen));
        folder.start().await.end().await;
        drop(probe);

        let _running = folder.start().await;
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text"));
        assert!(answer.contains("\npostern_logins_total{result=\"success\"} 0\n"));
        assert!(answer.contains("\npostern_engine_up 0\n"));
        assert!(answer.trim_end().ends_with("# EOF"));
    }
}
