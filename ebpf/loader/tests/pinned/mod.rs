//! A bpffs for one test, seen by its thread alone, and a cable with traffic on it: both end with the thread, however it ends.
#![allow(dead_code, reason = "every test program uses a part")]
#![allow(clippy::unwrap_used, reason = "this is a part of tests")]

use std::ffi::CString;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::maps::{MapInfo, loaded_maps};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use caps::CapSet;
use postern_ebpf::{Pins, Steering};
use postern_ebpf_abi::verdict::Verdict;

use crate::apart::{apart, ip_command};
use crate::world::VIP_V4;

/// Longest wait for a packet, and for the kernel to free what nobody uses.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Where the thread's bpffs is; an empty folder for everybody else.
#[derive(Debug)]
pub struct Bpffs {
    pub mount: PathBuf,
}

impl Bpffs {
    /// Mounts one in a mount namespace of this thread's own.
    fn mount() -> Self {
        // A folder that is there anyway: what is mounted on it is seen in the namespace alone.
        let mount = PathBuf::from("/sys/fs/bpf");
        // SAFETY: takes no pointer, and concerns this thread alone.
        let status = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        let error = std::io::Error::last_os_error();
        assert_eq!(status, 0, "a mount namespace takes root: {error}");
        let mounted = |source: &str, target: &str, kind: &str, flags| {
            let [source, target, kind] =
                [source, target, kind].map(|text| CString::new(text).unwrap());
            // SAFETY: the texts end with zeros and live across the call; there are no options.
            let status = unsafe {
                libc::mount(
                    source.as_ptr(),
                    target.as_ptr(),
                    kind.as_ptr(),
                    flags,
                    std::ptr::null(),
                )
            };
            assert_eq!(status, 0, "mount: {}", std::io::Error::last_os_error());
        };
        mounted("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE);
        mounted("bpf", mount.to_str().unwrap(), "bpf", 0);
        Self { mount }
    }

    /// The folder that a test installs into.
    pub fn folder(&self) -> PathBuf {
        self.mount.join("postern")
    }

    pub fn pins(&self) -> Pins {
        Pins::at(&self.folder()).unwrap()
    }

    /// Makes the set of a kit look like one of another version: `name` is a set's name.
    pub fn rename_set(&self, kit: &str, name: &str) {
        let set = self.set(kit);
        std::fs::rename(&set, set.with_file_name(name)).unwrap();
    }

    /// The folder of a kit's one set.
    pub fn set(&self, kit: &str) -> PathBuf {
        let sets: Vec<_> = listing(&self.folder().join(kit))
            .into_iter()
            .filter(|entry| entry.is_dir())
            .collect();
        let [set] = sets.as_slice() else {
            panic!("one set of {kit}, not {sets:?}");
        };
        set.clone()
    }
}

pub fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Numbers of the kernel's objects that are pinned in our folder, and of the maps that its programs use.
#[derive(Debug, Default)]
pub struct Objects {
    pub programs: Vec<u32>,
    pub maps: Vec<u32>,
    pub links: Vec<u32>,
}

impl Objects {
    pub fn of(folder: &Path) -> Self {
        let mut objects = Self::default();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in listing(&folder) {
                let name = entry.file_name().unwrap().to_str().unwrap();
                if entry.is_dir() {
                    folders.push(entry);
                } else if name.starts_with("link_") {
                    let link = FdLink::from(PinnedLink::from_pin(&entry).unwrap());
                    objects.links.push(link.info().unwrap().id());
                } else if name.starts_with(char::is_uppercase) {
                    objects.maps.push(MapInfo::from_pin(&entry).unwrap().id());
                } else {
                    let program = ProgramInfo::from_pin(&entry).unwrap();
                    objects.programs.push(program.id());
                    objects.maps.extend(program.map_ids().unwrap().unwrap());
                }
            }
        }
        objects
    }

    /// How many the kernel still has.
    pub fn live(&self) -> usize {
        let programs = loaded_programs().filter_map(Result::ok);
        let maps = loaded_maps().filter_map(Result::ok);
        let links = loaded_links().filter_map(Result::ok);
        programs
            .filter(|one| self.programs.contains(&one.id()))
            .count()
            + maps.filter(|one| self.maps.contains(&one.id())).count()
            + links.filter(|one| self.links.contains(&one.id())).count()
    }
}

/// Runs `test` on a thread with a network and a bpffs of its own.
pub fn with_bpffs(test: impl FnOnce(&Bpffs) + Send + 'static) {
    apart(|| test(&Bpffs::mount()));
}

/// Runs `work` on a thread of this one's namespaces that dropped every capability.
pub fn without_capabilities<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop_capabilities();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub fn drop_capabilities() {
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ] {
        caps::clear(None, set).unwrap();
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        assert!(caps::read(None, set).unwrap().is_empty());
    }
}

/// A cable: what this thread sends to the services arrives at `far`, and goes no further.
pub fn cable() -> UdpSocket {
    for command in [
        "link add near type veth peer name far",
        "link set far address 02:00:00:00:00:02",
        "addr add 198.51.100.7/24 dev near",
        "link set near up",
        "link set far up",
        "route add 192.0.2.0/24 dev near",
        "neigh add 192.0.2.10 lladdr 02:00:00:00:00:02 dev near nud permanent",
    ] {
        ip_command(command);
    }
    let socket = UdpSocket::bind("198.51.100.7:50000").unwrap();
    socket.connect(VIP_V4).unwrap();
    socket
}

/// Packets to the services that were counted, under any verdict: not what the kernel sends by itself.
pub fn total(steering: &Steering) -> u64 {
    let counts = steering.counts().unwrap();
    let others = [Verdict::NotIp, Verdict::NotOurs];
    let ours = Verdict::ALL.iter().filter(|one| !others.contains(one));
    ours.map(|one| counts[*one as usize].packets).sum()
}

/// Waits until `reached` holds.
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends datagrams until one is counted.
pub fn is_steered(steering: &Steering, socket: &UdpSocket) {
    let before = total(steering);
    until("no packet is counted", || {
        socket.send(b"datagram").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        total(steering) > before
    });
}

/// Sends a few, none of which is counted.
pub fn is_not_steered(steering: &Steering, socket: &UdpSocket) {
    let before = total(steering);
    for _ in 0..10 {
        socket.send(b"datagram").unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(total(steering), before);
}

/// A thread that sends datagrams, slowly enough that no queue on the cable overflows.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Traffic {
    pub fn start(socket: &UdpSocket) -> Self {
        let socket = socket.try_clone().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                for _ in 0..8 {
                    socket.send(b"datagram").unwrap();
                    sent += 1;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            sent
        });
        Self { stop, thread }
    }

    /// How many were sent.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
