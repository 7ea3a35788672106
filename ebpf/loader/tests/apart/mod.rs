//! A network namespace for one test: nothing of it is seen outside, and it ends with its thread.
#![allow(dead_code, reason = "every test program uses a part")]
#![allow(clippy::unwrap_used, reason = "this is a part of tests")]

use std::process::Command;

/// Runs `test` on a thread in a network namespace of its own, which ends with the thread.
pub fn apart(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: takes no pointer, and concerns this thread alone.
        let status = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        let error = std::io::Error::last_os_error();
        assert_eq!(status, 0, "a network namespace takes root: {error}");
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("iproute2 is installed").success());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in this thread's namespace.
pub fn ip_command(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.expect("iproute2 is installed").success(),
        "ip {arguments}"
    );
}
