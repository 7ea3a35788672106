//! Which capabilities a role may have: the conductor needs some at its start, the others drop those first thing.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

/// What the conductor loads and attaches programs with.
const OF_CONDUCTOR: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// What no other role has: the conductor's, and those by which root could do the same, or look into
/// the conductor. `CAP_NET_BIND_SERVICE` stays, which listening on port 443 takes.
const OF_NO_OTHER: [Capability; 8] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_NET_RAW,
];

/// Gives up, for good, what only the conductor needs. Called before the process has a second thread.
///
/// # Errors
/// When the kernel refuses; a role that still has them must not go on.
pub fn give_up() -> Result<()> {
    // The bounding set is first: changing it takes a privilege that may stay, and keeps what this
    // process might start from getting them back.
    let may_bound = has(Capability::CAP_SETPCAP)?;
    for capability in OF_NO_OTHER {
        let sets = [
            (CapSet::Bounding, may_bound),
            (CapSet::Ambient, true),
            (CapSet::Inheritable, true),
            (CapSet::Effective, true),
            (CapSet::Permitted, true),
        ];
        for (set, is_ours) in sets {
            if is_ours && caps::has_cap(None, set, capability)? {
                caps::drop(None, set, capability)
                    .with_context(|| format!("{capability} can't be given up"))?;
            }
        }
    }
    Ok(())
}

/// What the conductor lacks of what it needs, in words with what to do; nothing when it lacks nothing.
///
/// # Errors
/// When the kernel does not say what this process has.
pub fn missing_for_conductor() -> Result<Option<String>> {
    let held: Vec<Capability> = caps::read(None, CapSet::Effective)?.into_iter().collect();
    Ok(missing(&held))
}

fn has(capability: Capability) -> Result<bool> {
    Ok(caps::has_cap(None, CapSet::Effective, capability)?)
}

fn missing(held: &[Capability]) -> Option<String> {
    // An administrator of the whole system may do what these two allow.
    let covered = |capability| {
        held.contains(&Capability::CAP_SYS_ADMIN) && capability != Capability::CAP_NET_ADMIN
    };
    let lacking: Vec<String> = OF_CONDUCTOR
        .into_iter()
        .filter(|capability| !held.contains(capability) && !covered(*capability))
        .map(|capability| capability.to_string())
        .collect();
    (!lacking.is_empty()).then(|| {
        format!(
            "steering, accounting and listen.placement = \"load\" need {} at the start: add the \
             drop-in postern-steering.conf to the unit, or start `postern serve` as root; or take \
             them out of the configuration",
            lacking.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_PERFMON, CAP_SYS_ADMIN};

    #[test]
    fn what_the_conductor_lacks_is_named_with_its_remedy() {
        let check = |held: &[Capability], named: &[&str]| {
            let told = missing(held).unwrap_or_default();
            for capability in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"] {
                let expected = named.contains(&capability);
                assert_eq!(told.contains(capability), expected, "{held:?}: {told}");
            }
            assert_eq!(told.contains("postern-steering.conf"), !named.is_empty());
        };
        check(&[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON], &[]);
        check(&[CAP_SYS_ADMIN, CAP_NET_ADMIN], &[]);
        check(&[CAP_SYS_ADMIN], &["CAP_NET_ADMIN"]);
        check(&[CAP_BPF, CAP_PERFMON], &["CAP_NET_ADMIN"]);
        check(
            &[CAP_NET_BIND_SERVICE],
            &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"],
        );
    }

    #[test]
    fn what_was_given_up_is_in_no_set_and_the_port_stays() {
        // Capabilities are a thread's own: the other tests keep theirs.
        let judged = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).expect("read");
            give_up().expect("given up");
            let sets = [
                CapSet::Ambient,
                CapSet::Inheritable,
                CapSet::Effective,
                CapSet::Permitted,
            ];
            for set in sets {
                for capability in OF_NO_OTHER {
                    let held = caps::has_cap(None, set, capability).expect("read");
                    assert!(!held, "{capability} in {set:?}");
                }
            }
            let mut kept = before;
            kept.retain(|capability| !OF_NO_OTHER.contains(capability));
            assert_eq!(caps::read(None, CapSet::Permitted).expect("read"), kept);
        });
        judged.join().expect("no panic");
    }
}
