//! The state in force: built from configuration and store, replaced whole, told to the engine.

mod fixed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use postern_access::{Fingerprint, Jwk, Revocations, UnixSeconds};
use postern_snapshot::Snapshot;
use tokio::sync::{Mutex, watch};

use crate::certificate::{self, Loaded, Mark};
use crate::config::{Config, Warnings};
use crate::keys::Keys;
use crate::store::{Revoked, Store, StoreHandle};
use crate::{ControlError, audit, clock};
use fixed::keep_fixed;

/// Without a word from control for this long the engine takes no new sessions.
const LEASE_S: u64 = 3600;

/// One state; never changed, only replaced.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) config: Arc<Config>,
    pub(crate) keys: Keys,
    pub(crate) revocations: Revocations,
    pub(crate) pins: BTreeMap<String, Fingerprint>,
    pub(crate) certificate: Loaded,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// Makes every change of state, one after the other: first in the store, then in force.
pub(crate) struct Publisher {
    store: StoreHandle,
    current: watch::Sender<Arc<Current>>,
    /// Held while a change is made.
    changing: Mutex<()>,
}

/// What a reload did.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) warnings: Warnings,
    /// Keys whose change waits for a restart.
    pub(crate) restart: Vec<&'static str>,
}

impl Publisher {
    /// The first state of this run.
    ///
    /// # Errors
    /// When store or certificate can't be used.
    pub(crate) async fn start(store: StoreHandle, config: Config) -> Result<Self, ControlError> {
        let current = store
            .with(move |store| {
                let now = clock::now();
                let certificate = certificate::load(&config)?;
                let keys = settle_keys(store, &config, now)?;
                settle_users(store, &config, now)?;
                let revocations = pruned(store, &config, now)?;
                build(
                    store,
                    Arc::new(config),
                    keys,
                    revocations,
                    store.pins()?,
                    certificate,
                )
            })
            .await?;
        warn_of_hosts(&current);
        Ok(Self {
            store,
            current: watch::Sender::new(Arc::new(current)),
            changing: Mutex::new(()),
        })
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// Told of every new state.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    /// Voids tokens; live sessions that they opened end as soon as the engine hears of it.
    ///
    /// # Errors
    /// When the store fails; nothing is in force then.
    pub(crate) async fn revoke(&self, what: Revoked) -> Result<(), ControlError> {
        self.change(move |store, mut state| {
            store.revoke(&what, clock::now())?;
            state.revocations = store.revocations()?;
            Ok(Some(state))
        })
        .await
    }

    /// Keeps a first-use pin if there is none; returns the one that stands, and whether it is new.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn pin(
        &self,
        application: String,
        seen: Fingerprint,
    ) -> Result<(Fingerprint, bool), ControlError> {
        if let Some(stored) = self.current().pins.get(&application) {
            return Ok((*stored, false));
        }
        let name = application.clone();
        self.change(move |store, mut state| {
            let before = store.pins()?;
            store.pin_if_absent(&name, seen)?;
            state.pins = store.pins()?;
            Ok((state.pins != before).then_some(state))
        })
        .await?;
        let stored = self.current().pins.get(&application).copied();
        let stored = stored.ok_or_else(|| {
            ControlError::StoreContent(format!("the pin of {application:?} is gone again"))
        })?;
        Ok((stored, stored == seen))
    }

    /// Forgets a pin: the next certificate that is seen will be kept. False when there was none.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn forget_pin(&self, application: String) -> Result<bool, ControlError> {
        let known = self.current().pins.contains_key(&application);
        self.change(move |store, mut state| {
            let forgotten = store.forget_pin(&application)?;
            state.pins = store.pins()?;
            Ok(forgotten.then_some(state))
        })
        .await?;
        Ok(known)
    }

    /// Reads the configuration file again. What is wrong with it leaves the old state in force.
    ///
    /// # Errors
    /// When the new configuration or its certificate is refused.
    pub(crate) async fn reload(&self) -> Result<Reloaded, ControlError> {
        let path = self.current().config.path.clone();
        let (config, warnings) = load_config(path).await?;
        let (config, restart) = keep_fixed(config, &self.current().config);
        self.change(move |store, mut state| {
            state.certificate = certificate::load(&config)?;
            // A longer session needs keys to stay published for longer.
            state.keys = settle_keys(store, &config, clock::now())?;
            settle_users(store, &config, clock::now())?;
            state.revocations = store.revocations()?;
            state.config = Arc::new(config);
            Ok(Some(state))
        })
        .await?;
        warn_of_hosts(&self.current());
        Ok(Reloaded { warnings, restart })
    }

    /// Loads the certificate again when its files have changed. One that does not hold (a half
    /// written file, a key that does not fit) leaves the old one in force; it is tried again when
    /// the files change again.
    ///
    /// # Errors
    /// When it does not hold; `seen` is what was tried.
    pub(crate) async fn refresh_certificate(&self, seen: &mut Mark) -> Result<bool, ControlError> {
        let current = self.current();
        let mark = Mark::of(&current.config);
        if mark == *seen || mark == current.certificate.mark {
            return Ok(false);
        }
        *seen = mark;
        self.change(|_, mut state| {
            state.certificate = certificate::read(&state.config)?;
            Ok(Some(state))
        })
        .await?;
        Ok(true)
    }

    /// What time alone brings: keys rotate, revocations that concern no token are forgotten, a
    /// self-signed certificate is made anew.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn tend(&self) -> Result<(), ControlError> {
        self.change(|store, mut state| {
            let now = clock::now();
            let before = (state.keys.jwks.clone(), state.keys.signing.kid().to_owned());
            state.keys = settle_keys(store, &state.config, now)?;
            let after = (state.keys.jwks.clone(), state.keys.signing.kid().to_owned());
            let revocations = pruned(store, &state.config, now)?;
            let certificate = certificate::load(&state.config)?;
            let same = before == after
                && revocations == state.revocations
                && certificate.mark == state.certificate.mark;
            state.revocations = revocations;
            state.certificate = certificate;
            Ok((!same).then_some(state))
        })
        .await
    }

    /// Makes one change on a blocking thread and puts its result in force.
    async fn change(
        &self,
        make: impl FnOnce(&dyn Store, Current) -> Result<Option<Current>, ControlError> + Send + 'static,
    ) -> Result<(), ControlError> {
        let _changing = self.changing.lock().await;
        let state = Current::clone(&self.current());
        let next = self
            .store
            .with(move |store| {
                make(store, state)?
                    .map(|next| {
                        build(
                            store,
                            next.config,
                            next.keys,
                            next.revocations,
                            next.pins,
                            next.certificate,
                        )
                    })
                    .transpose()
            })
            .await?;
        if let Some(next) = next {
            tracing::info!(version = next.snapshot.version, "new state");
            self.current.send_replace(Arc::new(next));
        }
        Ok(())
    }
}

async fn load_config(path: PathBuf) -> Result<(Config, Warnings), ControlError> {
    let loaded = tokio::task::spawn_blocking(move || Config::load(&path)).await;
    Ok(loaded.map_err(|_| ControlError::Worker)??)
}

/// A key's public half is in the audit folder before the key signs anything.
fn settle_keys(store: &dyn Store, config: &Config, now: UnixSeconds) -> Result<Keys, ControlError> {
    let keys = Keys::settle(store, config.token_s_max(), now)?;
    let published: &[Jwk] = &keys.jwks.keys;
    audit::remember_keys(&config.audit.directory, published)
        .map_err(ControlError::file("keys in", &config.audit.directory))?;
    Ok(keys)
}

/// Ends the logins of users who are gone, or of whom something else is known than when they logged
/// in: their tokens still say what was true then. It holds over restarts too.
fn settle_users(store: &dyn Store, config: &Config, now: UnixSeconds) -> Result<(), ControlError> {
    let users: BTreeMap<String, String> = config
        .users
        .iter()
        .map(|local| (local.user.id.clone(), local.digest()))
        .collect();
    let before = store.directory()?;
    for (user, digest) in &before {
        if users.get(user) != Some(digest) {
            tracing::info!(user, "the user has changed: all logins are revoked");
            store.revoke(&Revoked::User(user.clone()), now)?;
        }
    }
    // Last: were it cut off here, the revocations would be made once more.
    if users != before {
        store.set_directory(&users)?;
    }
    Ok(())
}

fn pruned(
    store: &dyn Store,
    config: &Config,
    now: UnixSeconds,
) -> Result<Revocations, ControlError> {
    let stored = store.revocations()?;
    let mut kept = stored.clone();
    kept.prune(config.token_s_max(), now);
    if kept != stored {
        store.keep_revocations(&kept)?;
    }
    Ok(kept)
}

fn build(
    store: &dyn Store,
    config: Arc<Config>,
    keys: Keys,
    revocations: Revocations,
    pins: BTreeMap<String, Fingerprint>,
    certificate: Loaded,
) -> Result<Current, ControlError> {
    let snapshot = Snapshot {
        version: store.next_snapshot_version()?,
        issued_at: clock::now(),
        lease_s: LEASE_S,
        issuer: config.origin.clone(),
        listen: config.listen.clone(),
        certificates: vec![certificate.certificate.clone()],
        applications: config.applications.clone(),
        jwks: keys.jwks.clone(),
        revocations: revocations.clone(),
        pins: pins.clone(),
        limits: config.limits,
        audit: config.audit.clone(),
        web_socket: config.web_socket(),
        cores: config.cores.clone(),
        driver: config.driver,
        placement: config.placement_pins(),
        segment_bytes_max: config.segment_bytes_max(),
    };
    Ok(Current {
        config,
        keys,
        revocations,
        pins,
        certificate,
        snapshot: Arc::new(snapshot),
    })
}

fn warn_of_hosts(current: &Current) {
    for host in certificate::missing_hosts(&current.certificate, &current.config) {
        tracing::warn!(
            host,
            "the certificate does not name this host: browsers will refuse it"
        );
    }
}
