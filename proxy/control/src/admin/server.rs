//! Answers administrators; everything that changes something is recorded with the caller's user id.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use postern_audit::Event;
use postern_snapshot::CoreMetrics;
use postern_snapshot::message::KillSelector;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Load, REQUEST_BYTES_MAX, Request, Response, Revoked, Status};
use crate::peer;
use crate::site::{Site, record};

/// Administrators at a time.
const CONNECTIONS_MAX: usize = 32;

/// A connection without a request for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Serves for as long as control lives.
pub(crate) async fn serve(site: Arc<Site>, listener: UnixListener) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let uid = match peer::trusted_uid(&stream) {
            Ok(uid) => uid,
            Err(error) => {
                tracing::error!(%error, "a stranger at the administrators' socket");
                continue;
            }
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            continue;
        };
        let site = site.clone();
        tokio::spawn(async move {
            converse(&site, stream, uid).await;
            drop(seat);
        });
    }
}

async fn converse(site: &Site, stream: UnixStream, uid: u32) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(REQUEST_BYTES_MAX);
        let read = timeout(IDLE_MAX, limited.read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        let response = match serde_json::from_slice(&line) {
            Ok(request) => answer(site, request, uid).await,
            Err(error) => Response::Refused(format!("the request is not understood: {error}")),
        };
        let mut line = serde_json::to_vec(&response).expect("answers are text and numbers");
        line.push(b'\n');
        if !matches!(timeout(IDLE_MAX, writer.write_all(&line)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn answer(site: &Site, request: Request, uid: u32) -> Response {
    let by = By { site, uid };
    // Letter case does not make another user; one that is gone from the directory keeps its name.
    let id = |name: String| {
        let config = &site.publisher.current().config;
        let user = config.user_named(&name).map(|local| local.user.id.clone());
        user.unwrap_or(name)
    };
    match request {
        Request::Sessions => Response::Sessions(site.live.sessions()),
        Request::Status => Response::Status(Box::new(status(site))),
        Request::Load => match site.engine.metrics().await {
            Ok(cores) => Response::Load(load(site, &cores)),
            Err(error) => Response::Refused(error.to_string()),
        },
        Request::Pins => Response::Pins(site.publisher.current().pins.clone()),
        Request::Kill(KillSelector::User(name)) => by.kill(KillSelector::User(id(name))).await,
        Request::Kill(selector) => by.kill(selector).await,
        Request::Revoke(Revoked::User(name)) => by.revoke(Revoked::User(id(name))).await,
        Request::Revoke(what) => by.revoke(what).await,
        Request::ForgetPin(application) => by.forget_pin(application).await,
        Request::Reload => by.reload().await,
    }
}

fn status(site: &Site) -> Status {
    let current = site.publisher.current();
    Status {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        snapshot_version: current.snapshot.version,
        snapshot_version_applied: site.engine.applied(),
        engine_up: site.engine.is_up(),
        live_sessions: site.live.count(),
        applications: current.config.applications.len(),
        users: current.config.users.len(),
        pins: current.pins.len(),
        checkpoint: site.counts.checkpoint.get(),
        certificate_expires_at: current.certificate.expires_at.0,
    }
}

fn load(site: &Site, cores: &[CoreMetrics]) -> Load {
    let limits = site.publisher.current().config.limits;
    Load {
        sessions: cores.iter().map(|core| core.sessions_live).sum(),
        sessions_max: limits.sessions_max.into(),
        handshakes: cores.iter().map(|core| core.tls_handshakes_live).sum(),
        handshakes_max: u64::from(limits.handshakes_per_core_max) * cores.len() as u64,
    }
}

/// An administrator.
struct By<'a> {
    site: &'a Site,
    uid: u32,
}

impl By<'_> {
    async fn kill(&self, selector: KillSelector) -> Response {
        let what = match &selector {
            KillSelector::Session(id) => format!("session {id}"),
            KillSelector::User(user) => format!("all sessions of user {user}"),
            KillSelector::Application(name) => format!("all sessions of application {name}"),
            KillSelector::All => "all sessions".to_owned(),
        };
        if let KillSelector::Session(id) = &selector
            && self.site.live.sessions().iter().all(|one| one.id != *id)
        {
            return Response::Refused(format!("there is no live session {id}"));
        }
        match self.site.engine.kill(selector).await {
            Ok(()) => self.done("kill", format!("killed {what}")).await,
            Err(error) => Response::Refused(error.to_string()),
        }
    }

    async fn revoke(&self, what: Revoked) -> Response {
        let current = self.site.publisher.current();
        let words = match &what {
            Revoked::User(user) if current.config.user(user).is_none() => {
                format!("revoked all logins of user {user}, whom the configuration does not name")
            }
            Revoked::User(user) => format!("revoked all logins of user {user}"),
            Revoked::Application(name) => {
                if current.config.application(name).is_none() {
                    return Response::Refused(format!("there is no application {name}"));
                }
                format!("revoked all tokens of application {name}")
            }
            Revoked::Login(nonce) => format!("revoked login {nonce}"),
        };
        match self.site.publisher.revoke(what).await {
            Ok(()) => self.done("revoke", words).await,
            Err(error) => Response::Refused(error.in_full()),
        }
    }

    async fn forget_pin(&self, application: String) -> Response {
        let words = format!("forgot the certificate of application {application}");
        match self.site.publisher.forget_pin(application.clone()).await {
            Ok(true) => self.done("forget_pin", words).await,
            Ok(false) => Response::Refused(format!("no certificate of {application} was kept")),
            Err(error) => Response::Refused(error.in_full()),
        }
    }

    async fn reload(&self) -> Response {
        match reload(self.site).await {
            Ok(words) => self.done("reload", words).await,
            Err(why) => {
                self.record("reload", "refused", "the new configuration was refused")
                    .await;
                Response::Refused(why)
            }
        }
    }

    /// What was done stays done when it can't be recorded; the administrator hears of it.
    async fn done(&self, reason: &str, mut words: String) -> Response {
        if !self.record(reason, "success", &words).await {
            words.push_str(" (the audit record could not be written)");
        }
        Response::Done(words)
    }

    async fn record(&self, reason: &str, decision: &str, detail: &str) -> bool {
        let mut record = record(Event::Administration, decision);
        record.user = Some(format!("uid {}", self.uid));
        record.reason = Some(reason.to_owned());
        record.detail = Some(detail.to_owned());
        self.site.record(record).await.is_ok()
    }
}

/// Reads the configuration again; what was done, or why not, in words.
pub(crate) async fn reload(site: &Site) -> Result<String, String> {
    let reloaded = match site.publisher.reload().await {
        Ok(reloaded) => reloaded,
        Err(error) => {
            site.counts.reloads_refused.add();
            let why = error.in_full();
            tracing::error!(
                error = why,
                "the new configuration is refused; the old one stays"
            );
            return Err(why);
        }
    };
    let version = site.publisher.current().snapshot.version;
    let mut words = format!("the configuration is in force as version {version}");
    if !reloaded.restart.is_empty() {
        let keys = reloaded.restart.join(", ");
        write!(words, "; waiting for a restart: {keys}").expect("a string grows");
    }
    if !reloaded.warnings.problems.is_empty() {
        write!(words, "\n{}", reloaded.warnings).expect("a string grows");
    }
    tracing::info!(version, "the configuration was read again");
    Ok(words)
}
