//! What a connection did: counted while it lives, recorded exactly once when it ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use postern_access::{Permit, UnixSeconds};
use postern_audit::{Event, Record};
use postern_relay::{Leg, Meter, Report, StreamBytes};
use postern_snapshot::{Ended, LiveSession, ToControl};

use crate::{Core, Outcome};

/// The account of one connection.
pub(crate) struct Account {
    connection: u64,
    source: SocketAddr,
    accepted: Instant,
    record: Record,
    /// The login whose page should hear how it ended.
    identity_nonce: Option<String>,
    live: bool,
    client: Books,
    target: Option<Books>,
}

/// Who counts the stream of a leg.
enum Books {
    /// The front: what its meter shows when the socket is closed is all there was.
    Open(Rc<Meter>),
    /// The relay, which has told the sum; none when it could not.
    Closed(Option<StreamBytes>),
}

impl Books {
    fn count(&self) -> Option<StreamBytes> {
        match self {
            Self::Open(meter) => Some(meter.count()),
            Self::Closed(count) => *count,
        }
    }
}

impl Account {
    /// Opens the account of a connection that was just accepted.
    pub(crate) fn open<C: Core>(
        core: &C,
        client: Rc<Meter>,
        source: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        core.measure(|metrics| {
            metrics.connections_accepted += 1;
            metrics.connections_live += 1;
        });
        let connection = core.connection_number();
        let mut record = Record::new(0, Event::Connection);
        record.connection = Some(connection);
        record.source = Some(source.to_string());
        record.client_local = Some(local.to_string());
        Self {
            connection,
            source,
            accepted: core.now(),
            record,
            identity_nonce: None,
            live: false,
            client: Books::Open(client),
            target: None,
        }
    }

    pub(crate) fn source(&self) -> SocketAddr {
        self.source
    }

    /// The application that was asked for, and the version of the rules that judge it.
    pub(crate) fn application(&mut self, name: &str, rules_version: u64) {
        self.record.application = Some(name.to_owned());
        self.record.rules_version = Some(rules_version);
    }

    /// Who asks, once a token proved it: email and login.
    pub(crate) fn identity(&mut self, email: &str, identity_nonce: &str) {
        self.record.user = Some(email.to_owned());
        self.identity_nonce = Some(identity_nonce.to_owned());
    }

    /// The session that a permit opens.
    pub(crate) fn session(&mut self, session: &LiveSession, permit: &Permit) {
        self.record.session = Some(session.id.clone());
        self.record.policy = Some(permit.policy().to_owned());
        self.record.target = Some(session.target.clone());
    }

    /// The desktop answered: from now on the end of the connection is the end of a session.
    pub(crate) fn desktop<C: Core>(
        &mut self,
        core: &C,
        security: &str,
        certificate: String,
        asked: Instant,
    ) {
        self.live = true;
        self.record.rdp_security = Some(security.to_owned());
        self.record.target_certificate = Some(certificate);
        let waited = core.now().saturating_duration_since(asked);
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        core.measure(|metrics| {
            metrics.sessions_opened += 1;
            metrics.sessions_live += 1;
            metrics.upgrade_to_desktop.record(us);
        });
    }

    /// The target has taken a connection.
    pub(crate) fn dialled<C: Core>(&mut self, core: &C, stream: &C::Stream, remote: SocketAddr) {
        let local = core.local_address(stream);
        self.record.target_local = local.map(|local| local.to_string());
        self.record.target_remote = Some(remote.to_string());
        self.target = Some(Books::Open(core.meter(stream)));
    }

    /// Both sockets are the relay's from now on: what they carry is not known before its report.
    pub(crate) fn handed_over(&mut self) {
        self.client = Books::Closed(None);
        self.target = Some(Books::Closed(None));
    }

    /// What the relay has to say of the session that it carried.
    pub(crate) fn report(&mut self, report: &Report) {
        let of = |leg: Leg| report.streams.map(|streams| streams[leg.index()]);
        self.client = Books::Closed(of(Leg::Client));
        self.target = Some(Books::Closed(of(Leg::Target)));
        let traffic = report.traffic;
        self.record.bytes_up = Some(traffic.bytes_up);
        self.record.bytes_down = Some(traffic.bytes_down);
        self.record.messages_up = Some(traffic.messages_up);
        self.record.messages_down = Some(traffic.messages_down);
    }

    /// A policy decision on this connection, for the audit trail.
    pub(crate) fn decision<C: Core>(
        &self,
        core: &C,
        decision: &str,
        reason: &str,
        detail: String,
    ) -> Record {
        let mut record = self.record.clone();
        record.time_ms = core.unix_ms();
        record.event = Event::Decision;
        record.connection = Some(self.connection);
        record.decision = Some(decision.to_owned());
        record.reason = Some(reason.to_owned());
        record.detail = Some(detail);
        record
    }

    /// Closes the account: one record, one counted reason, one word to the page.
    pub(crate) fn close<C: Core>(mut self, core: &C, outcome: &Outcome) {
        let meaning = outcome.meaning();
        let now_ms = core.unix_ms();
        let lived = core.now().saturating_duration_since(self.accepted);
        core.measure(|metrics| {
            metrics.connections_live -= 1;
            let reasons = if self.live {
                metrics.sessions_live -= 1;
                &mut metrics.closes
            } else {
                &mut metrics.refusals
            };
            if *outcome != Outcome::Web {
                *reasons.entry(meaning.label.to_owned()).or_default() += 1;
            }
        });
        if let Some(application) = &self.record.application
            && (self.record.session.is_some() || self.identity_nonce.is_some())
        {
            core.report(ToControl::Ended(Ended {
                session: self.record.session.clone(),
                application: application.clone(),
                identity_nonce: self.identity_nonce.take(),
                reason: meaning.label.to_owned(),
                sentence: meaning.sentence.to_owned(),
                at: UnixSeconds(now_ms / 1000),
            }));
        }
        tracing::debug!(connection = self.connection, source = %self.source, reason = meaning.label, "connection ended");
        self.record.time_ms = now_ms;
        self.record.reason = Some(meaning.label.to_owned());
        self.record.detail = outcome.detail();
        self.record.duration_ms = Some(u64::try_from(lived.as_millis()).unwrap_or(u64::MAX));
        self.balance();
        core.record(self.record);
    }

    /// Enters what the streams of both legs carried.
    fn balance(&mut self) {
        let record = &mut self.record;
        if let Some(client) = self.client.count() {
            record.client_received = Some(client.received);
            record.client_sent = Some(client.sent);
            record.client_unsent = (client.unsent > 0).then_some(client.unsent);
        }
        if let Some(target) = self.target.as_ref().and_then(Books::count) {
            record.target_received = Some(target.received);
            record.target_sent = Some(target.sent);
            record.target_unsent = (target.unsent > 0).then_some(target.unsent);
        }
    }
}
