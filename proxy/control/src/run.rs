//! Start, signals and end of the control process.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_login::{RateLimiter, ValueSecret};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::audit::{Checkpoints, Journal};
use crate::config::Config;
use crate::hashing::Hashing;
use crate::link::{self, Engine};
use crate::live::Live;
use crate::publish::Publisher;
use crate::site::{Counts, Site};
use crate::store::{Sqlite, StoreHandle};
use crate::{ControlError, admin, metrics, peer, random, web};

/// Threads of the runtime: control is not where the load is.
const WORKERS: usize = 2;

/// Web connections have this long to end.
const GRACE_MAX: Duration = Duration::from_secs(3);

const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(2);
const TEND_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Runs control until it is told to end.
///
/// # Errors
/// When it can't start, or the runtime can't be made.
pub fn main(config_path: &Path) -> Result<(), ControlError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(ControlError::file("runtime for", config_path))?;
    runtime.block_on(run(config_path))
}

/// The same inside a runtime. Ends after SIGTERM or SIGINT, with a last checkpoint.
///
/// # Errors
/// When it can't start.
pub async fn run(config_path: &Path) -> Result<(), ControlError> {
    postern_access::provider::install();
    let (config, warnings) = Config::load(config_path)?;
    for problem in &warnings.problems {
        tracing::warn!(key = problem.key, "{}", problem.what);
    }
    let mut end = Ends::listen(config_path)?;
    let running = start(config).await?;
    tracing::info!("control is up");
    end.wait(&running.site).await;
    running.end().await;
    Ok(())
}

/// A control that serves.
pub(crate) struct Running {
    pub(crate) site: Arc<Site>,
    checkpoints: Arc<Mutex<Checkpoints>>,
    tasks: JoinSet<()>,
    /// Held for as long as the state folder is used.
    _lock: File,
}

/// Opens everything and serves. What this returns serves until it is dropped.
pub(crate) async fn start(config: Config) -> Result<Running, ControlError> {
    peer::private_folder(&config.state_directory)?;
    peer::private_folder(&config.run_directory())?;
    peer::private_folder(&config.audit.directory)?;
    let lock = lock(&config.state_directory.join("control.lock"))?;
    let store = StoreHandle::new(Sqlite::open(&config.store_path())?);
    let fresh = random::bytes()?;
    let secret = store.with(move |store| store.value_secret(&fresh)).await?;
    let number = store.with(|store| store.checkpoint_number()).await?;
    let audit_directory = config.audit.directory.clone();
    let journal = Journal::open(&audit_directory).map_err(ControlError::Audit)?;
    let checkpoints = Checkpoints::open(&audit_directory, number)?;
    let (run_link, run_web, run_admin) = (
        config.link_socket(),
        config.web_socket(),
        config.admin_socket(),
    );
    let metrics_address = config.metrics;
    let site = Arc::new(Site {
        publisher: Publisher::start(store.clone(), config).await?,
        store,
        journal,
        engine: Engine::default(),
        live: Live::default(),
        counts: Counts::default(),
        limiter: Mutex::new(RateLimiter::new()),
        hashing: Hashing::default(),
        secret: ValueSecret::new(&secret),
        ending: watch::Sender::new(false),
    });
    site.counts.checkpoint.raise_to(number);
    let checkpoints = Arc::new(Mutex::new(checkpoints));
    let mut tasks = JoinSet::new();
    // The web server first: an engine that has its snapshot sends browsers there.
    tasks.spawn(web::serve(site.clone(), peer::listen(&run_web)?));
    tasks.spawn(admin::serve(site.clone(), peer::listen(&run_admin)?));
    tasks.spawn(link::serve(site.clone(), peer::listen(&run_link)?));
    if let Some(address) = metrics_address {
        tasks.spawn(metrics::serve(site.clone(), address));
    }
    tasks.spawn(sign_checkpoints(site.clone(), checkpoints.clone()));
    tasks.spawn(watch_certificate(site.clone()));
    tasks.spawn(tend(site.clone()));
    Ok(Running {
        site,
        checkpoints,
        tasks,
        _lock: lock,
    })
}

impl Running {
    /// Takes nothing more, lets pages that are under way go out, and signs where the chains stand.
    pub(crate) async fn end(mut self) {
        self.tasks.shutdown().await;
        self.site.ending.send_replace(true);
        // Every web connection holds a receiver for as long as it lives.
        if timeout(GRACE_MAX, self.site.ending.closed()).await.is_err() {
            tracing::warn!("some web connections were cut");
        }
        checkpoint(&self.site, &self.checkpoints).await;
        tracing::info!("control has ended");
    }
}

fn lock(path: &Path) -> Result<File, ControlError> {
    let file = File::create(path).map_err(ControlError::file("lock", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ControlError::Locked(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(ControlError::file("lock", path)(error)),
    }
}

async fn sign_checkpoints(site: Arc<Site>, checkpoints: Arc<Mutex<Checkpoints>>) {
    let mut ticks = interval(CHECKPOINT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        checkpoint(&site, &checkpoints).await;
    }
}

async fn checkpoint(site: &Site, checkpoints: &Arc<Mutex<Checkpoints>>) {
    let key = site.publisher.current().keys.signing.clone();
    let checkpoints = checkpoints.clone();
    let signed = site
        .store
        .with(move |store| {
            // A checkpoint that failed has left the file as it was.
            let mut checkpoints = checkpoints
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let number = checkpoints.sign(&key)?;
            store.set_checkpoint_number(number)?;
            Ok(number)
        })
        .await;
    match signed {
        Ok(number) => site.counts.checkpoint.raise_to(number),
        Err(error) => tracing::error!(error = error.in_full(), "no audit checkpoint was signed"),
    }
}

async fn watch_certificate(site: Arc<Site>) {
    let mut seen = site.publisher.current().certificate.mark.clone();
    let mut ticks = interval(CERTIFICATE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match site.publisher.refresh_certificate(&mut seen).await {
            Ok(true) => tracing::info!("the new certificate is in force"),
            Ok(false) => {}
            Err(error) => {
                site.counts.reloads_refused.add();
                let error = error.in_full();
                tracing::error!(error, "the new certificate is refused; the old one stays");
            }
        }
    }
}

async fn tend(site: Arc<Site>) {
    let mut ticks = interval(TEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = site.publisher.tend().await {
            tracing::error!(
                error = error.in_full(),
                "keys and revocations were not tended"
            );
        }
    }
}

/// Signals that the process listens to.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Ends {
    fn listen(config_path: &Path) -> Result<Self, ControlError> {
        let listen = |kind| signal(kind).map_err(ControlError::file("signals for", config_path));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Until the process is to end; a hang-up reads the configuration again.
    async fn wait(&mut self, site: &Site) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // What was done or refused is logged there.
                _ = self.hang_up.recv() => drop(admin::reload(site).await),
            }
        }
    }
}
