//! The link to the engine: it hears of every state, and says what is live.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_access::Fingerprint;
use postern_audit::Event;
use postern_snapshot::message::KillSelector;
use postern_snapshot::{CoreMetrics, EngineInfo, ToControl, ToEngine, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::peer;
use crate::site::{Site, record};

/// The engine's lease is renewed this often.
const LEASE_INTERVAL: Duration = Duration::from_secs(5);

/// An engine that takes no bytes for this long is gone.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// An engine answers a question for measurements within this time.
const METRICS_MAX: Duration = Duration::from_secs(1);

/// Messages that may wait for the engine, beside the newest state.
const OUTBOX_MESSAGES_MAX: usize = 256;

/// Questions for measurements that may wait for an answer.
const QUESTIONS_MAX: usize = 16;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// The engine as the rest of control sees it.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    link: Mutex<Option<mpsc::Sender<ToEngine>>>,
    questions: Mutex<BTreeMap<u64, oneshot::Sender<Vec<CoreMetrics>>>>,
    last_question: AtomicU64,
    /// Version of the snapshot that is in force on every core.
    applied: AtomicU64,
    /// What the engine said that it runs on.
    info: Mutex<Option<EngineInfo>>,
}

/// There is no engine to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine is not connected")]
pub(crate) struct NoEngine;

impl Engine {
    pub(crate) fn is_up(&self) -> bool {
        let link = locked(&self.link);
        link.as_ref().is_some_and(|link| !link.is_closed())
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// What the engine runs on; none when there is no engine, or it has not said it yet.
    pub(crate) fn info(&self) -> Option<EngineInfo> {
        let info = locked(&self.info).clone();
        info.filter(|_| self.is_up())
    }

    /// # Errors
    /// When no engine is connected, or it takes nothing.
    pub(crate) async fn kill(&self, selector: KillSelector) -> Result<(), NoEngine> {
        self.tell(ToEngine::Kill { selector }).await
    }

    /// The measurements of every core.
    ///
    /// # Errors
    /// When no engine answers in time.
    pub(crate) async fn metrics(&self) -> Result<Vec<CoreMetrics>, NoEngine> {
        let request = self.last_question.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        {
            let mut questions = locked(&self.questions);
            if questions.len() >= QUESTIONS_MAX {
                return Err(NoEngine);
            }
            questions.insert(request, answer);
        }
        let asked = async {
            self.tell(ToEngine::Metrics { request }).await?;
            answered.await.map_err(|_| NoEngine)
        };
        let cores = timeout(METRICS_MAX, asked).await.unwrap_or(Err(NoEngine));
        locked(&self.questions).remove(&request);
        cores
    }

    async fn tell(&self, message: ToEngine) -> Result<(), NoEngine> {
        let link = locked(&self.link).clone().ok_or(NoEngine)?;
        let sent = timeout(WRITE_MAX, link.send(message)).await;
        sent.ok().and_then(Result::ok).ok_or(NoEngine)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole before the guard goes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts the engine for as long as control lives. One that connects again takes the old one's place.
pub(crate) async fn serve(site: Arc<Site>, listener: UnixListener) {
    // Its tasks end with the set.
    let mut links = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "the engine can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(error) = peer::trusted_uid(&stream) {
            tracing::error!(%error, "a stranger at the engine's socket");
            continue;
        }
        tracing::info!("the engine is connected");
        // The old link is over before the new one says anything.
        links.shutdown().await;
        links.spawn(carry(site.clone(), stream));
    }
}

/// One link, until either end is gone.
async fn carry(site: Arc<Site>, stream: UnixStream) {
    let (reader, writer) = stream.into_split();
    let (outbox, messages) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    *locked(&site.engine.info) = None;
    *locked(&site.engine.link) = Some(outbox.clone());
    tokio::select! {
        () = write(&site, writer, messages) => {}
        () = read(&site, reader, outbox) => {}
    }
    tracing::warn!("the link to the engine is down");
}

async fn write(site: &Site, mut writer: OwnedWriteHalf, mut messages: mpsc::Receiver<ToEngine>) {
    let mut states = site.publisher.subscribe();
    states.mark_changed();
    let mut lease = interval(LEASE_INTERVAL);
    loop {
        let message = tokio::select! {
            // A state comes before what was said of it.
            biased;
            changed = states.changed() => match changed {
                Ok(()) => {
                    let snapshot = states.borrow_and_update().snapshot.clone();
                    ToEngine::Snapshot(Box::new((*snapshot).clone()))
                }
                Err(_) => return,
            },
            message = messages.recv() => match message {
                Some(message) => message,
                None => return,
            },
            _ = lease.tick() => ToEngine::Lease,
        };
        let bytes = match frame::encode(&message) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, "a message to the engine does not encode");
                continue;
            }
        };
        if !matches!(
            timeout(WRITE_MAX, writer.write_all(&bytes)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}

async fn read(site: &Site, mut reader: OwnedReadHalf, outbox: mpsc::Sender<ToEngine>) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let mut used = 0;
        loop {
            match frame::decode::<ToControl>(&bytes[used..]) {
                Ok(Some((message, length))) => {
                    used += length;
                    hear(site, message, &outbox).await;
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the engine sent what is not a message");
                    return;
                }
            }
        }
        bytes.drain(..used);
        match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

async fn hear(site: &Site, message: ToControl, outbox: &mpsc::Sender<ToEngine>) {
    match message {
        ToControl::Hello {
            pid,
            cores,
            version,
            info,
            sessions,
        } => {
            tracing::info!(
                pid,
                cores,
                version,
                driver = info.driver,
                sessions = sessions.len(),
                "the engine says hello"
            );
            site.engine.applied.store(version, Ordering::Relaxed);
            *locked(&site.engine.info) = Some(info);
            site.live.replace(sessions);
        }
        ToControl::Applied { version } => site.engine.applied.store(version, Ordering::Relaxed),
        ToControl::Opened(session) => site.live.opened(session),
        ToControl::Ended(ended) => site.live.ended(ended),
        ToControl::Pin {
            request,
            application,
            sha256,
        } => {
            let stored = pin(site, &application, sha256).await;
            // A link that is gone needs no answer.
            let _ = outbox.send(ToEngine::Pin { request, stored }).await;
        }
        ToControl::CertificateChanged {
            application,
            expected,
            seen,
        } => certificate_changed(site, application, expected, seen).await,
        ToControl::Metrics { request, cores } => {
            if let Some(answer) = locked(&site.engine.questions).remove(&request) {
                // Whoever asked may have given up.
                let _ = answer.send(cores);
            }
        }
    }
}

/// The pin that stands; none when it can't be kept or recorded, and the session is refused.
async fn pin(site: &Site, application: &str, seen: Fingerprint) -> Option<Fingerprint> {
    if site
        .publisher
        .current()
        .config
        .application(application)
        .is_none()
    {
        tracing::warn!(application, "a pin for an application that is not there");
        return None;
    }
    let (stored, is_new) = match site.publisher.pin(application.to_owned(), seen).await {
        Ok(pinned) => pinned,
        Err(error) => {
            tracing::error!(
                application,
                error = error.in_full(),
                "the pin can't be kept"
            );
            return None;
        }
    };
    if is_new {
        let mut record = record(Event::Certificate, "pinned");
        record.application = Some(application.to_owned());
        record.target_certificate = Some(stored.to_string());
        record.reason = Some("first_use".to_owned());
        if site.record(record).await.is_err() {
            // The next session begins anew; without this it would find a pin that nobody recorded.
            let forgotten = site.publisher.forget_pin(application.to_owned()).await;
            if let Err(error) = forgotten {
                tracing::error!(
                    application,
                    error = error.in_full(),
                    "an unrecorded pin stays"
                );
            }
            return None;
        }
    }
    Some(stored)
}

async fn certificate_changed(
    site: &Site,
    application: String,
    expected: Fingerprint,
    seen: Option<Fingerprint>,
) {
    site.counts.certificate_changes.add();
    tracing::warn!(application, %expected, ?seen, "a target shows another certificate");
    let mut record = record(Event::Certificate, "refused");
    record.application = Some(application);
    record.target_certificate = seen.map(|seen| seen.to_string());
    record.reason = Some("target_certificate_changed".to_owned());
    record.detail = Some(format!("expected {expected}"));
    // A loss is logged and counted; the engine has refused the session already.
    let _ = site.record(record).await;
}

#[cfg(test)]
mod tests;
