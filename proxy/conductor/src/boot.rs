//! What tells one run of this machine from another, and from another machine with the same number.

use std::fs;
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::ConductorError;
use crate::keep;
use crate::values::Boot;

/// The kernel's own number of this run.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The boot of this machine, as its cluster knows it: the same for every conductor that is started in
/// this state folder until the machine starts anew, so that one that was killed needs not wait for the
/// end of its own lease.
///
/// # Errors
/// The state folder can't be written, or the system has no randomness.
pub fn of_this_run(state_directory: &Path) -> Result<Boot, ConductorError> {
    let kernel = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let kernel = kernel.trim();
    let path = keep::folder(state_directory)?.join("boot");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if let Some((before, boot)) = kept.trim().split_once(' ')
        && before == kernel
        && let Some(boot) = Boot::parse(boot)
    {
        return Ok(boot);
    }
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ConductorError::System {
            what: "randomness",
            source: std::io::ErrorKind::Other.into(),
        })?;
    let boot = Boot(u128::from_be_bytes(bytes));
    fs::write(&path, format!("{kernel} {boot}\n")).map_err(ConductorError::file("file", &path))?;
    Ok(boot)
}

/// Milliseconds since the machine started: it goes on where an earlier conductor has stopped.
#[must_use]
pub fn uptime_ms() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: Option<f64> = text
        .split_whitespace()
        .next()
        .and_then(|seconds| seconds.parse().ok());
    (seconds.unwrap_or_default() * 1_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_has_one_boot_until_the_machine_starts_anew() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let boot = of_this_run(one.path()).unwrap();
        assert_eq!(of_this_run(one.path()).unwrap(), boot);
        assert_ne!(of_this_run(other.path()).unwrap(), boot);
        let path = one.path().join("steering/boot");
        let check = |text: &str| {
            fs::write(&path, text).unwrap();
            assert_ne!(of_this_run(one.path()).unwrap(), boot, "{text}");
        };
        check(&format!("another-run {boot}\n"));
        check("");
        check("x");
        assert!(uptime_ms() > 0);
    }
}
