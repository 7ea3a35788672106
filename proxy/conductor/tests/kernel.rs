//! The whole conductor over the real kernel: installs, drops its privileges, steers by a file, is started anew, leaves nothing.
//!
//! It runs in network and mount namespaces of its own thread, which take root, and end with it.
#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};
use postern_conductor::admin::{Client, Status};
use postern_conductor::{ConductorError, Settings, detach, main, make_secret};
use postern_ebpf::{Pins, Steering};
use postern_ebpf_abi::source;
use postern_steering::{
    ModeWish, NodeId, Policy, Settings as SteeringSettings, SourceRule, StoreSettings, Weight,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `work` where there is nothing but an interface and an empty bpffs.
fn apart(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("namespaces of its own take root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(
            Some("bpf"),
            "/sys/fs/bpf",
            Some("bpf"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        for order in [
            "link add dev here type veth peer name there",
            "link set here up",
            "link set there up",
            "address add 10.9.0.1/24 dev here",
        ] {
            ip(order);
        }
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(order: &str) -> String {
    let done = Command::new("ip").args(order.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {order}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn settings(folder: &Path) -> Settings {
    let state = folder.join("state");
    let steering = SteeringSettings {
        node: NodeId::new(1).unwrap(),
        weight: Weight::new(1).unwrap(),
        address_v4: Some([10, 9, 0, 1].into()),
        address_v6: None,
        interface: "here".to_owned(),
        mode: ModeWish::Generic,
        vips: vec!["203.0.113.10:443".parse().unwrap()],
        tunnel_port: 6080,
        mtu: 1500,
        peers: vec!["10.9.0.0/24".parse().unwrap()],
        sources: vec![("198.51.100.0/24".parse().unwrap(), SourceRule::Deny)],
        syns_per_second: 10,
        syns_burst: 20,
        secret_file: folder.join("secret"),
        store: StoreSettings::File(folder.join("nodes.toml")),
        policy: Policy::default(),
    };
    Settings {
        steering: Some(steering),
        accounting: false,
        placement: true,
        pins: PathBuf::from("/sys/fs/bpf/postern"),
        run_directory: state.join("run"),
        audit_directory: state.join("audit"),
        admin_socket: state.join("run/admin.sock"),
        state_directory: state,
    }
}

fn write_nodes(folder: &Path, generation: u64) {
    let node =
        |id: u16| format!("[[nodes]]\nid = {id}\naddress_v4 = \"10.9.0.{id}\"\nweight = 1\n");
    let text = format!("generation = {generation}\n{}{}", node(1), node(2));
    std::fs::write(folder.join("nodes.toml"), text).unwrap();
}

/// A conductor that runs, and what it finds when it reads its settings again.
struct Running {
    thread: JoinHandle<Result<(), ConductorError>>,
    configured: Arc<Mutex<Settings>>,
}

fn start(settings: &Settings) -> Running {
    let configured = Arc::new(Mutex::new(settings.clone()));
    let (first, again) = (settings.clone(), configured.clone());
    let reread = move || Ok(again.lock().unwrap().clone());
    let thread = std::thread::spawn(move || main(first, Box::new(reread)));
    until("it answers", || {
        assert!(!thread.is_finished(), "it has ended");
        Client::connect(&settings.socket()).is_ok()
    });
    Running { thread, configured }
}

impl Running {
    fn end(self) {
        raise(Signal::SIGTERM).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

fn status(settings: &Settings) -> Status {
    Client::connect(&settings.socket())
        .and_then(|mut client| client.status())
        .unwrap()
}

/// The table that the kernel has: generation, limit of SYNs, isolation.
fn in_force(pins: &Pins) -> Option<(u64, u64, u8)> {
    let settings = Steering::open(pins).unwrap().table_in_force().unwrap()?;
    let interval = settings.syn_interval_ns;
    Some((settings.generation, interval, settings.isolated))
}

/// Rules of the kernel's list of sources, with their bits.
fn sources(pins: &Pins) -> Vec<(u32, u32)> {
    let listed = Steering::open(pins).unwrap().sources().unwrap();
    listed
        .iter()
        .map(|(_, bits, rule)| (*bits, *rule))
        .collect()
}

/// Capabilities of the threads that serve.
fn capabilities() -> Vec<String> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = thread.unwrap().path().join("status");
        let Ok(status) = std::fs::read_to_string(status) else {
            continue;
        };
        if status.starts_with("Name:\tconductor\n") {
            let sets = status.lines().filter(|line| line.starts_with("Cap"));
            found.extend(sets.map(str::to_owned));
        }
    }
    found
}

#[test]
fn it_steers_without_privileges_and_what_it_installed_outlives_it_until_it_is_detached() {
    apart(|| {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write_nodes(folder, 4);
        let settings = settings(folder);
        let steering = settings.steering.as_ref().unwrap();
        make_secret(&steering.secret_file).unwrap();

        let running = start(&settings);
        let pins = Pins::at(&settings.pins).unwrap();
        let limit = 100_000_000;
        until("the table is in force", || {
            in_force(&pins) == Some((4, limit, 0))
        });
        assert_eq!(sources(&pins), [(96 + 24, source::DENY)]);
        let told = status(&settings);
        let of_steering = told.steering.unwrap();
        assert_eq!(
            (of_steering.generation, of_steering.mode.as_str()),
            (4, "generic")
        );
        assert!(of_steering.is_announced && told.placement);
        let metrics = Client::connect(&settings.socket())
            .and_then(|mut client| client.metrics())
            .unwrap();
        for line in [
            "postern_steer_generation{of=\"own\"} 4",
            "postern_steer_mode{mode=\"generic\"} 1",
            "postern_place_decisions_total{decision=\"least\"} 0",
        ] {
            assert!(
                metrics.lines().any(|found| found == line),
                "{line}: {metrics}"
            );
        }
        assert!(ip("link show here").contains("xdp"));

        let capabilities = capabilities();
        assert!(!capabilities.is_empty());
        for line in &capabilities {
            assert!(line.ends_with("\t0000000000000000"), "{line}");
        }

        // A newer file, and new settings.
        write_nodes(folder, 5);
        until("the newer table is in force", || {
            in_force(&pins) == Some((5, limit, 0))
        });
        {
            let mut configured = running.configured.lock().unwrap();
            let steering = configured.steering.as_mut().unwrap();
            steering.sources = vec![
                ("2001:db8::/32".parse().unwrap(), SourceRule::Allow),
                ("192.0.2.0/25".parse().unwrap(), SourceRule::Deny),
            ];
            steering.syns_per_second = 0;
        }
        raise(Signal::SIGHUP).unwrap();
        until("the new settings are in force", || {
            in_force(&pins) == Some((5, 0, 0))
        });
        let mut listed = sources(&pins);
        listed.sort_unstable();
        assert_eq!(listed, [(32, source::ALLOW), (96 + 25, source::DENY)]);

        // Nobody else, and no detaching, while it runs.
        let reread: postern_conductor::Reread = Box::new(|| Err("nobody asks".to_owned()));
        let second = main(settings.clone(), reread);
        assert!(
            matches!(second, Err(ConductorError::Locked(_))),
            "{second:?}"
        );
        assert!(matches!(detach(&settings), Err(ConductorError::Locked(_))));

        running.end();
        assert_eq!(in_force(&pins), Some((5, 0, 0)));
        assert!(ip("link show here").contains("xdp"));

        let running = start(&settings);
        until("the settings of the new one are in force", || {
            in_force(&pins) == Some((5, limit, 0))
        });
        assert_eq!(sources(&pins), [(96 + 24, source::DENY)]);
        running.end();
        detach(&settings).unwrap();
        assert!(!ip("link show here").contains("xdp"));
        assert!(Steering::open(&pins).is_err());
        detach(&settings).unwrap();
    });
}

#[test]
fn what_can_not_be_is_told_before_anything_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let check = |settings: Settings, why: &str| {
        let error = main(settings, Box::new(|| Err(String::new()))).unwrap_err();
        assert!(error.is_lasting(), "{error}");
        assert!(error.in_full().contains(why), "{}", error.in_full());
    };
    let nothing = Settings {
        steering: None,
        placement: false,
        ..settings.clone()
    };
    check(nothing, "nothing to do");
    let mut high = settings.clone();
    high.steering.as_mut().unwrap().node = NodeId::new(4_096).unwrap();
    check(high, "4095 is the highest");
}
