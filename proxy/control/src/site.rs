//! What the parts of control share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use postern_audit::{Event, Record};
use postern_login::{RateLimiter, ValueSecret};
use tokio::sync::watch;

use crate::audit::Journal;
use crate::hashing::Hashing;
use crate::link::Engine;
use crate::live::Live;
use crate::publish::Publisher;
use crate::store::StoreHandle;
use crate::{ControlError, clock};

/// One node's control.
pub(crate) struct Site {
    pub(crate) store: StoreHandle,
    pub(crate) journal: Journal,
    pub(crate) publisher: Publisher,
    pub(crate) engine: Engine,
    pub(crate) live: Live,
    pub(crate) counts: Counts,
    pub(crate) limiter: Mutex<RateLimiter>,
    pub(crate) hashing: Hashing,
    /// Behind form tokens and codes.
    pub(crate) secret: ValueSecret,
    /// Becomes true when control ends; every web connection listens to it.
    pub(crate) ending: watch::Sender<bool>,
}

/// What control itself counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) logins_succeeded: Count,
    pub(crate) logins_failed: Count,
    pub(crate) logins_limited: Count,
    pub(crate) logins_unavailable: Count,
    pub(crate) logouts: Count,
    pub(crate) web_requests: Count,
    pub(crate) web_misdirected: Count,
    pub(crate) web_connections_refused: Count,
    pub(crate) certificate_changes: Count,
    pub(crate) reloads_refused: Count,
    pub(crate) audit_records: Count,
    pub(crate) audit_losses: Count,
    /// The last signed checkpoint; not a count of this run.
    pub(crate) checkpoint: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn raise_to(&self, number: u64) {
        self.0.fetch_max(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Site {
    /// Writes an audit record. When it can't be written, the configuration says whether the caller
    /// may go on.
    ///
    /// # Errors
    /// When the record is lost and nothing may happen without one.
    pub(crate) async fn record(&self, record: Record) -> Result<(), ControlError> {
        match self.journal.append(record).await {
            Ok(()) => {
                self.counts.audit_records.add();
                Ok(())
            }
            Err(error) => {
                self.counts.audit_losses.add();
                tracing::error!(error = error.in_full(), "an audit record is lost");
                if self.publisher.current().config.audit.fail_closed {
                    Err(error)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// A record of now.
pub(crate) fn record(event: Event, decision: &str) -> Record {
    let mut record = Record::new(clock::unix_ms(), event);
    record.decision = Some(decision.to_owned());
    record
}
