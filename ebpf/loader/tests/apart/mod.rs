//! A network namespace for one test: nothing of it is seen outside, and it ends with its thread.
#![allow(dead_code, reason = "every test program uses a part")]
#![allow(clippy::unwrap_used, reason = "this is a part of tests")]

use std::process::Command;
use std::thread::JoinHandle;

/// Runs `test` on a thread in a network namespace of its own, which ends with the thread.
pub fn apart(test: impl FnOnce() + Send + 'static) {
    if let Err(panic) = apart_thread(test).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The same without waiting for its end.
pub fn apart_thread(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(|| {
        // SAFETY: takes no pointer, and concerns this thread alone.
        let status = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        let error = std::io::Error::last_os_error();
        assert_eq!(status, 0, "a network namespace takes root: {error}");
        ip_command("link set lo up");
        run();
    })
}

/// Runs `ip` in this thread's namespace.
pub fn ip_command(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.expect("iproute2 is installed").success(),
        "ip {arguments}"
    );
}
