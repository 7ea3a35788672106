//! The live sessions and how the last ones ended, as the engine tells it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_snapshot::{Ended, LiveSession};

/// Live sessions that are listed; the engine's own limit is lower.
const SESSIONS_MAX: usize = 200_000;

/// Ends that are remembered for the pages.
const ENDED_MAX: usize = 4096;

/// What is live now.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    sessions: BTreeMap<String, LiveSession>,
    ended: VecDeque<Ended>,
}

impl Live {
    /// The engine's whole list: what control may have missed.
    pub(crate) fn replace(&self, sessions: Vec<LiveSession>) {
        let sessions = sessions.into_iter().take(SESSIONS_MAX);
        self.entries().sessions = sessions
            .map(|session| (session.id.clone(), session))
            .collect();
    }

    pub(crate) fn opened(&self, session: LiveSession) {
        let mut entries = self.entries();
        if entries.sessions.len() < SESSIONS_MAX {
            entries.sessions.insert(session.id.clone(), session);
        }
    }

    pub(crate) fn ended(&self, ended: Ended) {
        let mut entries = self.entries();
        if let Some(session) = &ended.session {
            entries.sessions.remove(session);
        }
        if entries.ended.len() == ENDED_MAX {
            entries.ended.pop_front();
        }
        entries.ended.push_back(ended);
    }

    pub(crate) fn sessions(&self) -> Vec<LiveSession> {
        self.entries().sessions.values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.entries().sessions.len()
    }

    /// Live sessions of a user by application.
    pub(crate) fn count_of(&self, user: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let entries = self.entries();
        for session in entries.sessions.values().filter(|one| one.user == user) {
            *counts.entry(session.application.clone()).or_default() += 1;
        }
        counts
    }

    /// The live sessions of a login on an application, and how the last one ended or was refused.
    pub(crate) fn of_login(
        &self,
        application: &str,
        identity_nonce: &str,
    ) -> (Vec<LiveSession>, Option<Ended>) {
        let entries = self.entries();
        let live = entries
            .sessions
            .values()
            .filter(|one| one.application == application && one.identity_nonce == identity_nonce)
            .cloned()
            .collect();
        let ended = entries.ended.iter().rev().find(|one| {
            one.application == application && one.identity_nonce.as_deref() == Some(identity_nonce)
        });
        (live, ended.cloned())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Every change is whole before the guard goes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use postern_access::UnixSeconds;

    pub(crate) fn session(id: &str, user: &str, application: &str) -> LiveSession {
        LiveSession {
            id: id.to_owned(),
            application: application.to_owned(),
            user: user.to_owned(),
            email: format!("{user}@example.org"),
            identity_nonce: format!("nonce-of-{user}"),
            source: ([192, 0, 2, 7], 4000).into(),
            target: "127.0.0.1:3389".to_owned(),
            core: 0,
            opened_at: UnixSeconds(100),
            valid_until: UnixSeconds(200),
            idle_s: 0,
        }
    }

    pub(crate) fn ended(session: &LiveSession, reason: &str) -> Ended {
        Ended {
            session: Some(session.id.clone()),
            application: session.application.clone(),
            identity_nonce: Some(session.identity_nonce.clone()),
            reason: reason.to_owned(),
            sentence: format!("it was {reason}"),
            at: UnixSeconds(150),
        }
    }

    #[test]
    fn a_login_sees_its_own_sessions_and_how_the_last_one_ended() {
        let live = Live::default();
        live.replace(vec![
            session("1", "alice", "lab"),
            session("2", "bob", "lab"),
        ]);
        live.opened(session("3", "alice", "office"));
        live.ended(ended(&session("1", "alice", "lab"), "killed"));
        live.ended(ended(&session("2", "bob", "lab"), "idle"));
        let (sessions, last) = live.of_login("lab", "nonce-of-alice");
        assert!(sessions.is_empty());
        assert_eq!(last.map(|ended| ended.reason).as_deref(), Some("killed"));
        let (sessions, last) = live.of_login("office", "nonce-of-alice");
        assert_eq!((sessions.len(), last), (1, None));
        assert_eq!(
            live.count_of("alice"),
            BTreeMap::from([("office".to_owned(), 1)])
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let live = Live::default();
        for _ in 0..ENDED_MAX + 10 {
            live.ended(ended(&session("1", "alice", "lab"), "idle"));
        }
        assert_eq!(live.entries().ended.len(), ENDED_MAX);
    }
}
