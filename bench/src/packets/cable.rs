//! The cable between the sender and the node: two interfaces, who runs what arrives at them, and what they counted.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::namespace::Namespace;
use crate::measure;

/// The kernel starts an interface's thread a moment after it was asked to.
const THREAD_WAIT_MAX: Duration = Duration::from_secs(2);

/// `ETHTOOL_STXCSUM` and `ETHTOOL_SGRO` of the kernel's `linux/ethtool.h`.
const SET_TX_CHECKSUM: u32 = 0x17;
const SET_GRO: u32 = 0x2c;

/// A cable from one namespace into another.
///
/// What arrives at the node is worked on by a thread of the kernel, which is held to one core. What comes back to the sender is worked on
/// between two batches of it: a thread on the sender's core would come too late for a queue of 256 packets.
#[derive(Debug)]
pub struct Cable {
    pub sender: String,
    pub node: String,
    /// Process number of the kernel's thread at the node's end.
    pub worker: u32,
    /// `/proc/net/dev` of the sender's namespace.
    counters: File,
}

/// What the sender's interface counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub came_back: u64,
    pub sent: u64,
    /// The node's queue was full.
    pub refused: u64,
}

impl Cable {
    /// Lays a cable whose far end works on `core`.
    ///
    /// # Errors
    /// As `ip` or the kernel says.
    pub fn lay(sender: &Namespace, node: &Namespace, core: usize) -> Result<Self> {
        let process = std::process::id();
        let near = format!("ps{process}");
        let far = format!("pn{process}");
        sender.ip(&format!(
            "link add {near} type veth peer name {far} netns {}",
            node.path()
        ))?;
        for (namespace, interface) in [(sender, &near), (node, &far)] {
            namespace.within(|| {
                // Frames of native XDP carry no promise of a checksum that is yet to be made.
                set_feature(interface, SET_TX_CHECKSUM, false)?;
                // Without it a cable without XDP has no queue of its own, but the core's.
                set_feature(interface, SET_GRO, true)
            })?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        let threaded = node.write_setting(&far, "threaded", "1");
        threaded.context("threads for what arrives, which Linux has since 5.12")?;
        let worker = thread_of(&far)?;
        measure::pin_process_to(worker, core)?;
        let counters = sender.within(|| Ok(File::open("/proc/thread-self/net/dev")?))?;
        Ok(Self {
            sender: near,
            node: far,
            worker,
            counters,
        })
    }

    /// # Errors
    /// The interface is gone.
    pub fn counters(&mut self) -> Result<Counters> {
        let mut text = String::new();
        self.counters.rewind()?;
        self.counters.read_to_string(&mut text)?;
        Counters::parse(&text, &self.sender).context("no line of the sender's interface")
    }
}

impl Counters {
    fn parse(text: &str, interface: &str) -> Option<Self> {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        // Received: bytes packets errs drop fifo frame compressed multicast; sent: the same again.
        Some(Self {
            came_back: *numbers.get(1)?,
            sent: *numbers.get(9)?,
            refused: *numbers.get(11)?,
        })
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            came_back: self.came_back.saturating_sub(before.came_back),
            sent: self.sent.saturating_sub(before.sent),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

/// The kernel's thread for what arrives at `interface`.
fn thread_of(interface: &str) -> Result<u32> {
    let name = format!("napi/{interface}-");
    let begin = Instant::now();
    while begin.elapsed() < THREAD_WAIT_MAX {
        for entry in fs::read_dir("/proc")? {
            let entry = entry?.file_name();
            let Some(process) = entry.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let command = fs::read_to_string(format!("/proc/{process}/comm"));
            if command.is_ok_and(|command| command.starts_with(&name)) {
                return Ok(process);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("no thread {name}* is seen: the bench has to run where the kernel's threads are seen");
}

/// `struct ethtool_value` of the kernel.
#[repr(C)]
struct Feature {
    command: u32,
    data: u32,
}

/// Switches a feature of an interface, as `ethtool -K` does.
#[allow(unsafe_code)]
fn set_feature(interface: &str, command: u32, is_on: bool) -> Result<()> {
    // SAFETY: takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut feature = Feature {
        command,
        data: is_on.into(),
    };
    // SAFETY: all of its fields are numbers and pointers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays 0: the name has an end.
    ensure!(interface.len() < request.ifr_name.len(), "{interface}");
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut feature).cast();
    // SAFETY: the request names an interface and holds the address of a feature, which lives across the call.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    let error = io::Error::last_os_error();
    ensure!(status == 0, "feature {command:#x} of {interface}: {error}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_interface() {
        let text = "Inter-|   Receive | Transmit\n face |bytes packets\n\
            \x20   lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n\
            \x20  ps7: 700 7 0 0 0 0 0 0 900 9 0 3 0 0 0 0\n";
        let found = Counters::parse(text, "ps7").unwrap();
        let expected = Counters {
            came_back: 7,
            sent: 9,
            refused: 3,
        };
        assert_eq!(found, expected);
        assert_eq!(found.since(found), Counters::default());
        for interface in ["ps", "s7", "ps77"] {
            assert_eq!(Counters::parse(text, interface), None, "{interface}");
        }
    }
}
