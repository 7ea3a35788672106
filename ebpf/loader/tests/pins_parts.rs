//! Placement and accounts that outlive their process: joined and drained without capabilities, adopted, replaced, detached.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod apart;
mod packets;
mod pinned;
mod world;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pinned::*;
use postern_ebpf::{
    Account, Accounts, Ending, Error, History, Part, Patience, Pins, Placement, Publisher, detach,
    detach_part, install_accounts, install_placement,
};
use postern_ebpf_abi::account::Loss;
use postern_ebpf_abi::place::{Decision, Rules};
use socket2::{Domain, SockAddr, Socket, Type};

const BURST: u32 = 200;

/// An engine's listeners on one address, one a core.
struct Engine {
    sockets: Vec<Socket>,
    placement: Placement,
    publishers: Vec<Publisher>,
}

impl Engine {
    /// Listens and joins what is installed, on a thread without capabilities.
    fn start(pins: &Pins, address: SocketAddr, cores: u32) -> Result<Self, Error> {
        without_capabilities(|| {
            let sockets: Vec<_> = (0..cores).map(|_| listener(address, true)).collect();
            let rules = Rules {
                fresh_ns: 60_000_000_000,
                ..Rules::of(0)
            };
            let placement = Placement::join(pins, &sockets, rules)?;
            let publishers = (0..cores)
                .map(|slot| placement.publisher(slot))
                .collect::<Result<_, _>>()?;
            Ok(Self {
                sockets,
                placement,
                publishers,
            })
        })
    }

    /// Every core says that it has nothing to do.
    fn publish(&mut self) {
        for publisher in &mut self.publishers {
            without_capabilities(|| publisher.publish(0, 0).unwrap());
        }
    }

    /// Connects often; how many each core got.
    fn burst(&self) -> Vec<u32> {
        let address = self.sockets[0].local_addr().unwrap().as_socket().unwrap();
        let clients = (0..BURST).map(|_| TcpStream::connect(address).unwrap());
        let clients: Vec<_> = clients.collect();
        let counts = self.sockets.iter().map(|socket| {
            let accepted = std::iter::from_fn(|| socket.accept().ok());
            accepted.count() as u32
        });
        let counts = counts.collect();
        drop(clients);
        counts
    }

    fn count(&self, decision: Decision) -> u64 {
        without_capabilities(|| self.placement.decisions().unwrap()[decision as usize])
    }
}

fn listener(address: SocketAddr, shared: bool) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(shared).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SockAddr::from(address)).unwrap();
    socket.listen(2048).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn service() -> SocketAddr {
    "127.0.0.1:7001".parse().unwrap()
}

#[test]
fn an_engine_without_capabilities_joins_and_the_next_one_takes_its_slots() {
    with_bpffs(|bpffs| {
        let pins = bpffs.pins();
        let missing = Engine::start(&pins, service(), 2).map(drop).unwrap_err();
        assert!(
            matches!(missing, Error::NotInstalled("placement")),
            "{missing:?}"
        );
        assert_eq!(install_placement(&pins).unwrap().history, History::Fresh);

        let mut placed = 0;
        // An engine dies, and others come with more cores and with fewer.
        for cores in [2, 4, 2] {
            let mut engine = Engine::start(&pins, service(), cores).unwrap();
            engine.publish();
            assert_eq!(engine.burst(), vec![BURST / cores; cores as usize]);
            placed += u64::from(BURST);
            assert_eq!(engine.count(Decision::Least), placed);
            drop(engine);
            assert_eq!(install_placement(&pins).unwrap().history, History::Adopted);
        }
    });
}

#[test]
fn slots_of_an_engine_that_still_lives_are_taken_by_the_next() {
    with_bpffs(|bpffs| {
        let pins = bpffs.pins();
        install_placement(&pins).unwrap();
        let elsewhere = "127.0.0.1:7002".parse().unwrap();
        let mut old = Engine::start(&pins, elsewhere, 4).unwrap();
        old.publish();
        let mut new = Engine::start(&pins, service(), 2).unwrap();
        new.publish();
        assert_eq!(new.burst(), vec![BURST / 2; 2]);
        // The old one is left to the kernel's hash: none of its sockets is in a slot.
        assert_eq!(old.burst().iter().sum::<u32>(), BURST);
        assert_eq!(new.burst(), vec![BURST / 2; 2]);
    });
}

#[test]
fn sockets_that_are_no_group_are_refused() {
    with_bpffs(|bpffs| {
        let pins = bpffs.pins();
        install_placement(&pins).unwrap();
        let alone = [listener(service(), false)];
        let refused = Placement::join(&pins, &alone, Rules::of(0)).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Map {
                    name: "PLACE_SOCKETS",
                    ..
                }
            ),
            "{refused:?}"
        );
        let none: [Socket; 0] = [];
        let refused = Placement::join(&pins, &none, Rules::of(0)).unwrap_err();
        assert!(matches!(refused, Error::TooMany { .. }), "{refused:?}");
    });
}

#[test]
fn a_group_goes_on_while_placement_is_replaced_and_detached() {
    with_bpffs(|bpffs| {
        let pins = bpffs.pins();
        install_placement(&pins).unwrap();
        let mut engine = Engine::start(&pins, service(), 2).unwrap();
        engine.publish();
        assert_eq!(engine.burst(), vec![BURST / 2; 2]);
        bpffs.rename_set("placement", "1_0123456789abcdef");
        let outcome = install_placement(&pins).unwrap();
        assert_eq!(outcome.history, History::Replaced);
        assert_eq!(outcome.renewed, [""; 0]);
        engine.publish();
        assert_eq!(engine.burst(), vec![BURST / 2; 2]);
        assert_eq!(engine.count(Decision::Least), 2 * u64::from(BURST));

        let objects = Objects::of(&bpffs.folder());
        detach(&pins).unwrap();
        assert!(!bpffs.folder().exists());
        assert_eq!(engine.burst().iter().sum::<u32>(), BURST);
        assert_eq!(engine.count(Decision::Least), 2 * u64::from(BURST));
        drop(engine);
        until("objects of ours live on", || objects.live() == 0);
        detach(&pins).unwrap();
    });
}

/// A process is in one control group.
static TURN: Mutex<()> = Mutex::new(());

/// Control groups of a test's own; the process is in one of them, and leaves at the end.
struct Groups {
    before: PathBuf,
    groups: Vec<PathBuf>,
    _turn: MutexGuard<'static, ()>,
}

impl Groups {
    fn new(names: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = roots
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .expect("control groups of version 2 are mounted");
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = root.join(own.expect("the process is in a group"));
        let number = std::process::id();
        let groups = names.iter().map(|name| {
            let path = root.join(format!("postern-test-{number}-{name}"));
            fs::create_dir(&path).unwrap();
            path
        });
        let groups: Vec<_> = groups.collect();
        enter(&groups[0]);
        Self {
            before,
            groups,
            _turn: turn,
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        enter(&self.before);
        self.groups.iter().for_each(|group| leave_nothing_of(group));
    }
}

/// Removes a group that this process left: programs that other tests started in it end soon.
fn leave_nothing_of(group: &Path) {
    until("somebody else is in the group", || {
        match fs::remove_dir(group) {
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            Ok(()) => true,
        }
    });
}

fn enter(group: &Path) {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

/// A connection over loopback: the client's end and the server's.
struct Pair {
    ends: [TcpStream; 2],
}

impl Pair {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        Self {
            ends: [client, server],
        }
    }

    /// Carries so many bytes from the client to the server.
    fn carry(&mut self, bytes: usize) {
        self.ends[0].write_all(&vec![7; bytes]).unwrap();
        self.ends[1].read_exact(&mut vec![0; bytes]).unwrap();
    }

    /// Local and remote address of the client's end.
    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let client = &self.ends[0];
        (client.local_addr().unwrap(), client.peer_addr().unwrap())
    }

    /// Closes; the account of the client's end, drained by a thread without capabilities.
    fn account(self, accounts: &mut Accounts) -> Account {
        let (local, remote) = self.addresses();
        drop(self);
        let patience = Patience {
            over: Duration::from_millis(50),
            idle: Duration::from_secs(3600),
        };
        let mut found = None;
        until("the flow is not drained", || {
            let drained = without_capabilities(|| accounts.drain(patience, 1000).unwrap());
            let mut flows = drained.accounts.into_iter();
            found = flows.find(|one| one.local == local && one.remote == remote);
            found.is_some()
        });
        found.unwrap()
    }
}

fn sent(account: &Account) -> u64 {
    account.record.payload_out()
}

fn history(pins: &Pins, group: &Path) -> History {
    let outcome = install_accounts(pins, group).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(outcome.renewed, [""; 0]);
    outcome.history
}

fn open(pins: &Pins) -> Accounts {
    without_capabilities(|| Accounts::open(pins).unwrap())
}

#[test]
fn a_flow_is_counted_on_while_accounts_are_adopted_and_replaced() {
    with_bpffs(|bpffs| {
        let groups = Groups::new(&["a"]);
        let [group] = groups.groups.as_slice() else {
            panic!("one group");
        };
        let pins = bpffs.pins();
        let missing = Accounts::open(&pins).map(drop).unwrap_err();
        assert!(matches!(missing, Error::NotInstalled("accounts")));
        assert_eq!(history(&pins, group), History::Fresh);
        let accounts = open(&pins);
        let mut pair = Pair::open();
        pair.carry(1000);
        drop(accounts);
        // Nobody has it open now.
        pair.carry(2000);
        assert_eq!(history(&pins, group), History::Adopted);
        pair.carry(4000);
        let links = Objects::of(&bpffs.folder()).links;
        bpffs.rename_set("accounts", "1_0123456789abcdef");
        assert_eq!(history(&pins, group), History::Replaced);
        assert_eq!(Objects::of(&bpffs.folder()).links, links);
        pair.carry(8000);
        let mut accounts = open(&pins);
        let (local, remote) = pair.addresses();
        let living = without_capabilities(|| accounts.find(local, remote).unwrap());
        assert!(living.is_some());
        let account = pair.account(&mut accounts);
        assert_eq!(account.ending, Some(Ending::Over));
        assert_eq!(sent(&account), 15_000);
        let lost = without_capabilities(|| accounts.lost().unwrap());
        assert_eq!(lost, Loss::default());
    });
}

#[test]
fn another_group_is_accounted_instead_of_the_one_before() {
    with_bpffs(|bpffs| {
        let groups = Groups::new(&["a", "b", "c"]);
        let [a, b, c] = groups.groups.as_slice() else {
            panic!("three groups");
        };
        let pins = bpffs.pins();
        history(&pins, a);
        let mut accounts = open(&pins);
        let mut first = Pair::open();
        first.carry(1000);
        assert_eq!(sent(&first.account(&mut accounts)), 1000);

        assert_eq!(history(&pins, b), History::Adopted);
        let mut stranger = Pair::open();
        stranger.carry(1000);
        let (local, remote) = stranger.addresses();
        assert_eq!(accounts.find(local, remote).unwrap(), None);

        enter(b);
        let mut second = Pair::open();
        second.carry(2000);
        assert_eq!(sent(&second.account(&mut accounts)), 2000);

        // A group that goes takes its links along.
        enter(c);
        leave_nothing_of(b);
        history(&pins, c);
        let mut third = Pair::open();
        third.carry(3000);
        assert_eq!(sent(&third.account(&mut accounts)), 3000);
        assert_eq!(Objects::of(&bpffs.folder()).links.len(), 3);
        install_accounts(&pins, Path::new("/tmp")).unwrap_err();
    });
}

#[test]
fn each_part_can_be_detached_alone_and_leaves_nothing() {
    with_bpffs(|bpffs| {
        let groups = Groups::new(&["a"]);
        let pins = bpffs.pins();
        history(&pins, &groups.groups[0]);
        install_placement(&pins).unwrap();
        let objects = Objects::of(&bpffs.folder().join("accounts"));
        assert_eq!(objects.links.len(), 3);
        for _ in 0..2 {
            detach_part(&pins, Part::Accounts).unwrap();
            detach_part(&pins, Part::Steering).unwrap();
        }
        let placement = bpffs.folder().join("placement");
        assert_eq!(listing(&bpffs.folder()), [placement]);
        until("objects of ours live on", || objects.live() == 0);
        let engine = Engine::start(&pins, service(), 2).unwrap();
        drop(engine);
        detach(&pins).unwrap();
        assert!(!bpffs.folder().exists());
        detach_part(&pins, Part::Accounts).unwrap();
    });
}

#[test]
fn a_link_of_accounts_that_is_not_ours_is_refused() {
    with_bpffs(|bpffs| {
        let groups = Groups::new(&["a"]);
        let pins = bpffs.pins();
        let group = &groups.groups[0];
        history(&pins, group);
        let set = bpffs.set("accounts");
        fs::rename(&set, bpffs.mount.join("aside")).unwrap();
        let refused = install_accounts(&pins, group).unwrap_err();
        assert!(refused.to_string().ends_with("none of ours"), "{refused}");
    });
}
