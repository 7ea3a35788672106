//! Who is connected to this node: the one thing that cores share and change.
//!
//! Its lock is held for a look-up and a count when a connection or session begins or ends, never
//! across an await, never while bytes are carried.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_session::Full;
use postern_snapshot::{Limits, LiveSession};

/// Counts by source and user, and the live sessions.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Connections that may hold descriptors of the process at a time.
    descriptors: u32,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    connections: u32,
    /// Those of them whose sockets are in a ring's own table: they hold no descriptors.
    carried: u32,
    by_source: HashMap<IpAddr, u32>,
    by_user: HashMap<String, u32>,
    sessions: HashMap<String, LiveSession>,
}

impl Ledger {
    /// `descriptors`: how many connections may hold descriptors of the process at a time.
    pub(super) fn new(descriptors: u32) -> Self {
        Self {
            descriptors,
            entries: Mutex::default(),
        }
    }

    /// # Errors
    /// When the node or the source has too many connections, or the node has no descriptors left.
    pub(super) fn admit(&self, source: IpAddr, limits: &Limits) -> Result<(), Full> {
        let mut entries = self.entries();
        if entries.connections >= limits.connections_max {
            return Err(Full::Connections);
        }
        if entries.connections.saturating_sub(entries.carried) >= self.descriptors {
            return Err(Full::Connections);
        }
        let of_source = entries.by_source.entry(site(source)).or_default();
        if *of_source >= limits.connections_per_source_max {
            return Err(Full::ConnectionsOfSource);
        }
        *of_source += 1;
        entries.connections += 1;
        Ok(())
    }

    pub(super) fn leave(&self, source: IpAddr) {
        let mut entries = self.entries();
        entries.connections = entries.connections.saturating_sub(1);
        give_back(&mut entries.by_source, &site(source));
    }

    /// A connection's sockets go into a ring's own table, until [`Ledger::carried_no_more`].
    pub(super) fn carried(&self) {
        self.entries().carried += 1;
    }

    /// Said before the connection leaves, so that nobody is admitted on descriptors that are held.
    pub(super) fn carried_no_more(&self) {
        let mut entries = self.entries();
        entries.carried = entries.carried.saturating_sub(1);
    }

    /// # Errors
    /// When the node or the user has too many sessions.
    pub(super) fn enter(&self, session: LiveSession, limits: &Limits) -> Result<(), Full> {
        let mut entries = self.entries();
        if entries.sessions.len() >= limits.sessions_max as usize {
            return Err(Full::Sessions);
        }
        let of_user = entries.by_user.entry(session.user.clone()).or_default();
        if *of_user >= limits.sessions_per_user_max {
            return Err(Full::SessionsOfUser);
        }
        *of_user += 1;
        entries.sessions.insert(session.id.clone(), session);
        Ok(())
    }

    pub(super) fn end(&self, id: &str) {
        let mut entries = self.entries();
        if let Some(session) = entries.sessions.remove(id) {
            give_back(&mut entries.by_user, &session.user);
        }
    }

    pub(super) fn sessions(&self) -> Vec<LiveSession> {
        self.entries().sessions.values().cloned().collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Every change is whole before the guard goes, so a panic elsewhere leaves it consistent.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One site of one client: an IPv4 address or an IPv6 /64, of which a client owns all.
pub(super) fn site(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
        v4 => v4,
    }
}

/// Counts one less; a key that counts nothing is forgotten.
pub(super) fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, user: &str) -> LiveSession {
        LiveSession {
            id: id.to_owned(),
            application: "lab".to_owned(),
            user: user.to_owned(),
            email: String::new(),
            identity_nonce: String::new(),
            source: ([127, 0, 0, 1], 1).into(),
            target: String::new(),
            core: 0,
            opened_at: Default::default(),
            valid_until: Default::default(),
            idle_s: 0,
        }
    }

    #[test]
    fn a_source_and_a_node_have_limits_that_give_back() {
        let ledger = Ledger::new(u32::MAX);
        let limits = Limits {
            connections_max: 3,
            connections_per_source_max: 2,
            ..Limits::default()
        };
        let one: IpAddr = "2001:db8::1".parse().expect("address");
        let same_site: IpAddr = "2001:db8::2".parse().expect("address");
        let other: IpAddr = "192.0.2.1".parse().expect("address");
        assert_eq!(ledger.admit(one, &limits), Ok(()));
        assert_eq!(ledger.admit(same_site, &limits), Ok(()));
        assert_eq!(ledger.admit(one, &limits), Err(Full::ConnectionsOfSource));
        assert_eq!(ledger.admit(other, &limits), Ok(()));
        assert_eq!(ledger.admit(other, &limits), Err(Full::Connections));
        ledger.leave(one);
        assert_eq!(ledger.admit(one, &limits), Ok(()));
    }

    #[test]
    fn connections_that_hold_descriptors_are_shed_before_the_process_has_none() {
        let ledger = Ledger::new(2);
        let limits = Limits::default();
        let source: IpAddr = "192.0.2.1".parse().expect("address");
        assert_eq!(ledger.admit(source, &limits), Ok(()));
        assert_eq!(ledger.admit(source, &limits), Ok(()));
        assert_eq!(ledger.admit(source, &limits), Err(Full::Connections));
        // One becomes a session of a ring; another may come in.
        ledger.carried();
        assert_eq!(ledger.admit(source, &limits), Ok(()));
        assert_eq!(ledger.admit(source, &limits), Err(Full::Connections));
        // The session ends: its place is free once it has left as well.
        ledger.carried_no_more();
        assert_eq!(ledger.admit(source, &limits), Err(Full::Connections));
        ledger.leave(source);
        assert_eq!(ledger.admit(source, &limits), Err(Full::Connections));
        ledger.leave(source);
        assert_eq!(ledger.admit(source, &limits), Ok(()));
    }

    #[test]
    fn a_user_and_a_node_have_session_limits_that_give_back() {
        let ledger = Ledger::new(u32::MAX);
        let limits = Limits {
            sessions_max: 2,
            sessions_per_user_max: 1,
            ..Limits::default()
        };
        assert_eq!(ledger.enter(session("1", "alice"), &limits), Ok(()));
        assert_eq!(
            ledger.enter(session("2", "alice"), &limits),
            Err(Full::SessionsOfUser)
        );
        assert_eq!(ledger.enter(session("3", "bob"), &limits), Ok(()));
        assert_eq!(
            ledger.enter(session("4", "carol"), &limits),
            Err(Full::Sessions)
        );
        ledger.end("1");
        ledger.end("1");
        assert_eq!(ledger.enter(session("5", "alice"), &limits), Ok(()));
        assert_eq!(ledger.sessions().len(), 2);
    }
}
