//! From an upgrade request to a permit: lease, origin, token, policy, limits, durable record.

use std::net::SocketAddr;
use std::rc::Rc;

use postern_access::{Permit, UnixSeconds, UpgradeRequest};
use postern_snapshot::LiveSession;

use crate::account::Account;
use crate::{Core, Full, Outcome, Seat, State, Stop};

/// A session that may begin. The seat is given back when it is dropped.
pub(crate) struct Authorized {
    pub(crate) permit: Permit,
    pub(crate) stop: Rc<Stop>,
    pub(crate) seat: Seat,
}

/// Judges an upgrade. The allow is on disk when this returns.
///
/// # Errors
/// The first check that fails; a refusal is in the audit trail.
pub(crate) async fn authorize<C: Core>(
    core: &C,
    state: &State,
    request: &UpgradeRequest<'_>,
    account: &mut Account,
) -> Result<Authorized, Outcome> {
    account.application(&request.application.name, state.rules.version);
    let result = judge(core, state, request, account);
    let (authorized, reason) = match result {
        Ok(authorized) => authorized,
        Err((outcome, detail)) => {
            core.record(account.decision(core, "block", outcome.meaning().label, detail));
            return Err(outcome);
        }
    };
    let record = account.decision(core, "allow", "policy", reason);
    core.record_durably(record)
        .await
        .map_err(|_| Outcome::AuditUnavailable)?;
    Ok(authorized)
}

fn judge<C: Core>(
    core: &C,
    state: &State,
    request: &UpgradeRequest<'_>,
    account: &mut Account,
) -> Result<(Authorized, String), (Outcome, String)> {
    if !core.lease_holds() {
        return Err((
            Outcome::LeaseEnded,
            "control has not renewed the lease".to_owned(),
        ));
    }
    let verified = &mut core.verified().borrow_mut();
    let permit = state
        .rules
        .authorize(request, verified)
        .map_err(|refusal| {
            if let Some((_, email, identity_nonce)) = &refusal.identity {
                account.identity(email, identity_nonce);
            }
            (Outcome::Refused(refusal.kind), refusal.detail)
        })?;
    account.identity(&permit.claims().email, &permit.claims().identity_nonce);
    let session = live_session(core, account.source(), &permit);
    account.session(&session, &permit);
    let stop = Rc::new(Stop::default());
    let seat = core
        .enter(session, &permit, stop.clone())
        .map_err(|full| match full {
            Full::SessionsOfUser => (
                Outcome::UserSessionsFull,
                "the user has too many sessions".to_owned(),
            ),
            _ => (
                Outcome::SessionsFull,
                "the node has too many sessions".to_owned(),
            ),
        })?;
    let reason = permit.reason().to_owned();
    Ok((Authorized { permit, stop, seat }, reason))
}

fn live_session<C: Core>(core: &C, source: SocketAddr, permit: &Permit) -> LiveSession {
    let claims = permit.claims();
    let application = permit.application();
    LiveSession {
        id: core
            .random()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        application: application.name.clone(),
        user: claims.sub.clone(),
        email: claims.email.clone(),
        identity_nonce: claims.identity_nonce.clone(),
        source,
        target: application.target.to_string(),
        core: 0,
        opened_at: UnixSeconds(core.unix_ms() / 1000),
        valid_until: permit.valid_until(),
        idle_s: application.session.idle_s,
    }
}
