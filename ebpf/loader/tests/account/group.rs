//! A control group of the test's own, with `account` on it: one test at a time is in there.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_ebpf::Accounts;

/// A process is in one control group, and a socket in that of the process that made it.
static TURN: Mutex<()> = Mutex::new(());

const ROOT: &str = "/sys/fs/cgroup/unified";
const ROOT_ALONE: &str = "/sys/fs/cgroup";

pub struct Group {
    pub accounts: Accounts,
    pub listener: TcpListener,
    directory: Directory,
    _turn: MutexGuard<'static, ()>,
}

/// The group itself: left and removed at the end, also when a test fails.
struct Directory {
    path: PathBuf,
    before: PathBuf,
}

impl Group {
    /// Enters a group of its own, accounts for at most `flows_max` flows, and listens.
    pub fn new(listen: &str, flows_max: u32) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = [ROOT, ROOT_ALONE]
            .map(PathBuf::from)
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .expect("control groups of version 2 are mounted");
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = root.join(own.expect("the process is in a group"));
        let path = root.join(format!("postern-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let directory = Directory { path, before };
        enter(&directory.path);
        let accounts = Accounts::attach(&directory.path, flows_max)
            .unwrap_or_else(|error| panic!("{error}: {error:?}"));
        Self {
            accounts,
            listener: TcpListener::bind(listen).unwrap(),
            directory,
            _turn: turn,
        }
    }

    /// Accounts from the beginning, as another loader would.
    pub fn attach_anew(&mut self, flows_max: u32) {
        self.accounts = Accounts::attach(&self.directory.path, flows_max).unwrap();
    }

    /// Detaches what is attached; what remains loaded is attached to nothing.
    pub fn detach(&mut self) {
        let idle = Accounts::load(1).unwrap();
        std::mem::replace(&mut self.accounts, idle).detach();
    }

    /// Ids of the programs on the group.
    pub fn programs(&self) -> Vec<u32> {
        query::programs(&self.directory.path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        enter(&self.before);
        fs::remove_dir(&self.path).expect("nobody else is in the group");
    }
}

fn enter(directory: &std::path::Path) {
    fs::write(
        directory.join("cgroup.procs"),
        std::process::id().to_string(),
    )
    .unwrap();
}

mod query {
    //! What is attached to a group, asked of the kernel.

    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::path::Path;

    /// From the kernel's `bpf.h`.
    const BPF_PROG_QUERY: libc::c_long = 16;
    const INGRESS_EGRESS_SOCK_OPS: [u32; 3] = [0, 1, 3];

    #[repr(C)]
    #[derive(Default)]
    struct Query {
        target: u32,
        attach_type: u32,
        flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
        program_attach_flags: u64,
        links: u64,
        link_attach_flags: u64,
        revision: u64,
    }

    pub fn programs(directory: &Path) -> Vec<u32> {
        let group = File::open(directory).unwrap();
        let mut found = Vec::new();
        for attach_type in INGRESS_EGRESS_SOCK_OPS {
            let mut ids = [0u32; 16];
            let mut query = Query {
                target: group.as_raw_fd() as u32,
                attach_type,
                ids: ids.as_mut_ptr() as u64,
                count: 16,
                ..Query::default()
            };
            // SAFETY: the query and the ids live across the call, and the sizes are theirs.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_bpf,
                    BPF_PROG_QUERY,
                    &raw mut query,
                    size_of::<Query>(),
                )
            };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            found.extend(&ids[..query.count as usize]);
        }
        found
    }
}
