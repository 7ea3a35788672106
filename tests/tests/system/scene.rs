//! A gateway, a target and somebody signed in; and the one check of an attack.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use postern_audit::Record;
use postern_parts::wait;
use postern_tests::gateway::{Configuration, EFFECT};
use postern_tests::{Browser, FakeTarget, Gateway};

/// What most tests begin with.
pub struct Scene {
    pub gateway: Gateway,
    pub target: FakeTarget,
    /// `alice`, signed in, with the cookie of `lab`.
    pub alice: Browser,
}

impl Scene {
    /// `change` is made to the configuration before the start.
    pub fn start(change: impl FnOnce(Configuration) -> Configuration) -> Result<Self> {
        let target = FakeTarget::echo()?;
        let configuration = change(Configuration::for_target(target.address));
        let gateway = Gateway::start(configuration)?;
        let alice = gateway.signed_in("alice", "lab")?;
        Ok(Self {
            gateway,
            target,
            alice,
        })
    }

    /// Runs one attack, which says from where it came. Of it comes exactly one connection record
    /// with `reason`, exactly one count, and of both dials and connections at the target none.
    pub fn check(
        &self,
        what: &str,
        reason: &str,
        attack: impl FnOnce() -> Result<SocketAddr>,
    ) -> Result<Record> {
        self.check_inner(reason, attack)
            .with_context(|| format!("attack: {what}"))
    }

    fn check_inner(
        &self,
        reason: &str,
        attack: impl FnOnce() -> Result<SocketAddr>,
    ) -> Result<Record> {
        let before = self.gateway.metrics()?;
        let accepted = self.target.accepted();
        let source = attack()?;
        let record = self.gateway.audit().connection(source)?;
        ensure!(
            record.reason.as_deref() == Some(reason),
            "the record says {:?} ({:?}), not {reason:?}",
            record.reason,
            record.detail
        );
        let expected = BTreeMap::from([(reason.to_owned(), 1)]);
        let counted = wait::until("the count", EFFECT, || {
            let counted = gained(&before.reasons(), &self.gateway.metrics()?.reasons());
            Ok((!counted.is_empty()).then_some(counted))
        })?;
        ensure!(counted == expected, "counted were {counted:?}");
        let after = self.gateway.metrics()?;
        ensure!(dials(&after) == dials(&before), "the gateway dialled");
        ensure!(self.target.accepted() == accepted, "the target was dialled");
        Ok(record)
    }
}

fn dials(metrics: &postern_tests::gateway::Metrics) -> u64 {
    metrics.sum("postern_dials_total") as u64
}

fn gained(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let gain = |(reason, count): (&String, &u64)| {
        let gain = count - before.get(reason).copied().unwrap_or(0);
        (gain > 0).then(|| (reason.clone(), gain))
    };
    after.iter().filter_map(gain).collect()
}
