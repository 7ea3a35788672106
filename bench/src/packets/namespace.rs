//! A network namespace of this process's own: it has no name, and is gone when nothing holds it any more.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::ptr;

use anyhow::{Context as _, Result, ensure};

/// An empty network, apart from the machine's.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// # Errors
    /// The process may not make one.
    pub fn new() -> Result<Self> {
        on_its_own_thread(|| {
            unshare(libc::CLONE_NEWNET).context("a network namespace takes root")?;
            let file = File::open("/proc/thread-self/ns/net")?;
            Ok(Self { file })
        })
    }

    /// Does `work` inside, on a thread of its own. Sockets and files of `/proc/net` that it opens stay inside.
    ///
    /// # Errors
    /// As `work` says.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_its_own_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// It fails, or is not there.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        self.within(|| {
            let mut ip = Command::new("ip");
            let status = ip.args(arguments.split(' ')).status();
            let status = status.context("ip, of Debian's package iproute2")?;
            ensure!(status.success(), "ip {arguments}: {status}");
            Ok(())
        })
    }

    /// Writes a setting of an interface that stands in sysfs alone, which shows the namespace that it was mounted in.
    ///
    /// # Errors
    /// The kernel has no such setting, or refuses the value.
    pub fn write_setting(&self, interface: &str, setting: &str, value: &str) -> Result<()> {
        self.within(|| {
            unshare(libc::CLONE_NEWNS)?;
            mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)?;
            mount(c"sysfs", c"/sys", Some(c"sysfs"), 0)?;
            let path = format!("/sys/class/net/{interface}/{setting}");
            fs::write(&path, value).context(path)
        })
    }

    /// What `ip` calls it by.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    #[allow(unsafe_code)]
    fn enter(&self) -> Result<()> {
        // SAFETY: takes a descriptor that is open, and concerns this thread alone.
        let status = unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) };
        ensure!(status == 0, "setns: {}", io::Error::last_os_error());
        Ok(())
    }
}

/// What a thread does to its namespaces ends with it.
fn on_its_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[allow(unsafe_code)]
fn unshare(what: libc::c_int) -> Result<()> {
    // SAFETY: takes no pointer, and concerns this thread alone.
    let status = unsafe { libc::unshare(what) };
    ensure!(status == 0, "{}", io::Error::last_os_error());
    Ok(())
}

#[allow(unsafe_code)]
fn mount(
    source: &std::ffi::CStr,
    target: &std::ffi::CStr,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
) -> Result<()> {
    let kind = kind.map_or(ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: all are strings that end, or null where the kernel takes that.
    let status = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, ptr::null()) };
    let error = io::Error::last_os_error();
    ensure!(status == 0, "{}: {error}", target.to_string_lossy());
    Ok(())
}
