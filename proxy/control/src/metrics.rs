//! `/metrics` for Prometheus: control's own numbers, those of every core and the conductor's; `/steer` for routers.

mod collector;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Duration, timeout};

use crate::site::Site;
use crate::{clock, conductor};
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
        .route("/steer", get(steer))
        .with_state(site)
}

async fn scrape(State(site): State<Arc<Site>>) -> Response {
    let text = text(&site).await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// Whether routers should send packets of the services here: 200 or 503, and why.
async fn steer(State(site): State<Arc<Site>>) -> Response {
    let config = site.publisher.current().config.clone();
    let announcement = if config.steering.is_some() {
        conductor::announcement(&config.steer_socket()).await
    } else {
        conductor::Announcement {
            is_announced: false,
            why: "steering is off".to_owned(),
        }
    };
    let status = if announcement.is_announced {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, format!("{}\n", announcement.why)).into_response()
}

/// All measurements. Without an engine or a conductor, those of the others.
pub(crate) async fn text(site: &Site) -> String {
    let current = site.publisher.current();
    let of_conductor = async {
        if current.config.needs_conductor() {
            conductor::metrics(&current.config.steer_socket()).await
        } else {
            None
        }
    };
    let (cores, of_conductor) = tokio::join!(site.engine.metrics(), of_conductor);
    let cores = cores.unwrap_or_default();
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
    encode_registry(&mut text, &registry).expect("a string grows");
    text.push_str(&of_conductor.unwrap_or_default());
    encode_eof(&mut text).expect("a string grows");
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

    async fn answer_of(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    /// A conductor that knows one question.
    async fn conduct(listener: tokio::net::UnixListener, question: &str, answer: &str) {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut asked = [0; 64];
            let read = stream.read(&mut asked).await.expect("read");
            if asked[..read].starts_with(question.as_bytes()) {
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
        }
    }

    #[tokio::test]
    async fn the_conductors_measurements_stand_before_the_end_mark() {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = probe.local_addr().expect("an address");
        drop(probe);
        let config = CONFIG
            .replace("listen = \"off\"", &format!("listen = \"{address}\""))
            .replace("[state]", "[accounting]\nenabled = true\n[state]");
        let folder = Folder::new(&config);
        let _running = folder.start().await;
        let without = answer_of(address, "/metrics").await;
        assert!(without.trim_end().ends_with("# EOF"), "{without}");
        let listener = tokio::net::UnixListener::bind(folder.path("state/run/steer.sock"));
        tokio::spawn(conduct(
            listener.expect("binds"),
            "{\"command\":\"metrics\"}\n",
            "{\"answer\":\"text\",\"of\":\"postern_steer_generation 7\\n# EOF\\n\"}\n",
        ));
        let with = answer_of(address, "/metrics").await;
        assert!(
            with.contains("\npostern_steer_generation 7\n# EOF\n"),
            "{with}"
        );
        assert_eq!(with.matches("# EOF").count(), 1);
        // Without steering there is nothing to announce.
        let steer = answer_of(address, "/steer").await;
        assert!(steer.starts_with("HTTP/1.1 503 "), "{steer}");
        assert!(steer.ends_with("steering is off\n"), "{steer}");
    }

    #[tokio::test]
    async fn a_scrape_reads_every_metric_and_a_taken_port_stops_nothing() {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = probe.local_addr().expect("an address");
        let listen = format!("listen = \"{address}\"");
        let folder = Folder::new(&CONFIG.replace("listen = \"off\"", &listen));
        folder.start().await.end().await;
        drop(probe);

        let _running = folder.start().await;
        let answer = answer_of(address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text"));
        assert!(answer.contains("\npostern_logins_total{result=\"success\"} 0\n"));
        assert!(answer.contains("\npostern_engine_up 0\n"));
        assert!(answer.trim_end().ends_with("# EOF"));
    }
}
