//! Drops every capability for good, once programs are loaded and attached.

use caps::{CapSet, Capability};

use crate::ConductorError;

/// Takes every capability away from this thread, and so from all that it starts.
///
/// # Errors
/// The kernel refuses, or one is still there.
pub fn drop_all() -> Result<(), ConductorError> {
    let failed = |error: caps::errors::CapsError| ConductorError::Capabilities(error.to_string());
    // Those that a program which is run by root would get back; to drop them takes one itself.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        for capability in caps::read(None, CapSet::Bounding).map_err(failed)? {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    let all = [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ];
    for set in all {
        caps::clear(None, set).map_err(failed)?;
        if !caps::read(None, set).map_err(failed)?.is_empty() {
            let why = format!("{set:?} is not empty");
            return Err(ConductorError::Capabilities(why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_and_nothing_comes_back() {
        // Capabilities are a thread's own, so this takes none from the other tests.
        let thread = std::thread::spawn(|| {
            drop_all().unwrap();
            drop_all().unwrap();
            let of = |path: &str| std::fs::read_to_string(path).unwrap();
            let own = of("/proc/thread-self/status");
            let child = std::thread::spawn(move || of("/proc/thread-self/status"));
            (own, child.join().unwrap())
        });
        let (own, child) = thread.join().unwrap();
        for status in [own, child] {
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                let line = status.lines().find(|line| line.starts_with(set)).unwrap();
                assert!(line.ends_with("0000000000000000"), "{line}");
            }
        }
    }
}
