//! Steering that outlives its process: installed, adopted, replaced under traffic, driven without capabilities, detached.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod apart;
mod packets;
mod pinned;
mod world;

use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apart::ip_command;
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::xdp::XdpAttachType;
use packets::{arriving, segment};
use pinned::*;
use postern_ebpf::{
    Draft, Error, History, Installed, Mode, Pins, Programs, Steering, Wish, detach, from_ip,
    install_steering,
};
use postern_ebpf_abi::source::DENY;
use postern_ebpf_abi::table::{Bucket, NodeId, Table};
use postern_ebpf_abi::verdict::Verdict;
use world::*;

/// A table of `generation` in which every bucket is `first`'s.
fn table(generation: u64, first: NodeId) -> Draft {
    let mut draft = World::new().draft;
    draft.settings().generation = generation;
    draft.buckets().fill(Bucket {
        first,
        second: NodeId::NOBODY,
    });
    draft
}

fn install(pins: &Pins, interface: &str) -> Installed {
    install_steering(pins, interface, Wish::Auto)
        .unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

fn generation(steering: &Steering) -> Option<u64> {
    let settings = steering.table_in_force().unwrap();
    settings.map(|settings| settings.generation)
}

fn count(steering: &Steering, verdict: Verdict) -> u64 {
    steering.counts().unwrap()[verdict as usize].packets
}

#[test]
fn steering_goes_on_when_the_process_that_installed_it_is_killed() {
    const FOLDER: &str = "POSTERN_TEST_INSTALLS_INTO";
    const READY: &str = "installed";
    // Run again by itself below, in the namespaces of the first run.
    if let Some(folder) = std::env::var_os(FOLDER) {
        let pins = Pins::at(Path::new(&folder)).unwrap();
        install(&pins, "far");
        let mut steering = Steering::open(&pins).unwrap();
        steering.put_table(table(7, SELF).table()).unwrap();
        println!("{READY}");
        loop {
            std::thread::park();
        }
    }
    with_bpffs(|bpffs| {
        let socket = cable();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("steering_goes_on_when_the_process_that_installed_it_is_killed")
            .env(FOLDER, bpffs.folder())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(output);
        let ready = lines.any(|line| line.unwrap().contains(READY));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ready, "the child installed");
        let steering = Steering::open(&bpffs.pins()).unwrap();
        assert_eq!(generation(&steering), Some(7));
        is_steered(&steering, &socket);
        assert!(count(&steering, Verdict::Local) > 0);
    });
}

#[test]
fn a_process_without_capabilities_does_all_but_installing() {
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        let installed = install(&pins, "far");
        assert_eq!(installed.history, History::Fresh);
        assert_eq!(installed.mode, Mode::Native);
        assert_eq!(installed.native_refused, None);
        let tables = [table(1, SELF), table(2, NodeId::NOBODY), table(3, SELF)];
        let client = from_ip(ip("198.51.100.7"));
        without_capabilities(|| {
            // It may really do nothing else.
            let refused = Programs::load().map(drop).unwrap_err();
            assert!(matches!(refused, Error::NotPermitted(_)), "{refused:?}");
            let mut steering = Steering::open(&pins).unwrap();
            assert_eq!(generation(&steering), None);
            steering.put_table(tables[0].table()).unwrap();
            is_steered(&steering, &socket);
            assert_eq!(generation(&steering), Some(1));
            assert!(count(&steering, Verdict::Local) > 0);

            steering.put_table(tables[1].table()).unwrap();
            assert_eq!(generation(&steering), Some(2));
            is_steered(&steering, &socket);
            assert!(count(&steering, Verdict::Unassigned) > 0);

            steering.put_source(client, 128, DENY).unwrap();
            assert_eq!(steering.sources().unwrap(), [(client, 128, DENY)]);
            let mut third = tables[2].clone();
            third.settings().sources = 1;
            steering.put_table(third.table()).unwrap();
            let local = count(&steering, Verdict::Local);
            is_steered(&steering, &socket);
            assert!(count(&steering, Verdict::Denied) > 0);
            assert_eq!(count(&steering, Verdict::Local), local);
            steering.remove_source(client, 128).unwrap();
            steering.remove_source(client, 128).unwrap();
            assert_eq!(steering.sources().unwrap(), []);
            is_steered(&steering, &socket);
            assert!(count(&steering, Verdict::Local) > local);
            assert_eq!(steering.newest_generation_seen().unwrap(), 0);
        });
    });
}

#[test]
fn the_same_programs_are_adopted_with_all_that_they_hold() {
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        install(&pins, "far");
        let mut steering = Steering::open(&pins).unwrap();
        let mut objects = Objects::of(&bpffs.folder());
        // The table in force is once the first of the two, and once the other.
        for number in 1..=4 {
            steering.put_table(table(number, SELF).table()).unwrap();
            is_steered(&steering, &socket);
            let before = total(&steering);
            drop(steering);
            let again = install(&pins, "far");
            assert_eq!(again.history, History::Adopted);
            assert_eq!(again.mode, Mode::Native);
            assert_eq!(again.renewed, [""; 0]);
            steering = Steering::open(&pins).unwrap();
            assert_eq!(generation(&steering), Some(number));
            assert!(total(&steering) >= before);
            let adopted = Objects::of(&bpffs.folder());
            assert_eq!(adopted.links, objects.links);
            assert_eq!(adopted.programs, objects.programs);
            objects = adopted;
        }
    });
}

/// Twenty replacements while packets come: each is counted once, by the old programs or the new.
#[test]
fn programs_are_replaced_under_traffic_without_a_lost_packet() {
    const ROUNDS: u32 = 20;
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        install(&pins, "far");
        let mut steering = Steering::open(&pins).unwrap();
        steering.put_table(table(1, SELF).table()).unwrap();
        is_steered(&steering, &socket);
        std::thread::sleep(Duration::from_millis(100));
        let before = count(&steering, Verdict::Local);
        let first = Objects::of(&bpffs.folder());
        let traffic = Traffic::start(&socket);
        for round in 0..ROUNDS {
            bpffs.rename_set("steering", &format!("1_{round:016x}"));
            let installed = install(&pins, "far");
            assert_eq!(installed.history, History::Replaced);
            assert_eq!(installed.renewed, [""; 0]);
            // One set is left, and its table is the one before.
            bpffs.set("steering");
            steering = Steering::open(&pins).unwrap();
            assert_eq!(generation(&steering), Some(1));
        }
        let sent = traffic.stop();
        assert!(sent > 1000, "{sent}");
        let counted = || count(&steering, Verdict::Local) - before;
        until("packets were lost", || counted() >= sent);
        assert_eq!(counted(), sent);
        let last = Objects::of(&bpffs.folder());
        assert_eq!(last.links, first.links, "the link is the same");
        assert!(
            last.programs
                .iter()
                .all(|one| !first.programs.contains(one))
        );
        steering.put_table(table(2, SELF).table()).unwrap();
        is_steered(&steering, &socket);
    });
}

/// Maps of another layout: the replaced programs steer by their table until the new ones have one.
#[test]
fn programs_that_cannot_read_the_old_table_wait_for_their_first() {
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        install(&pins, "far");
        let mut old = Steering::open(&pins).unwrap();
        old.put_table(table(1, NodeId::NOBODY).table()).unwrap();
        is_steered(&old, &socket);
        std::thread::sleep(Duration::from_millis(100));
        let before = total(&old);
        // No version of ours has this layout.
        bpffs.rename_set("steering", "999_0123456789abcdef");
        let traffic = Traffic::start(&socket);
        let installed = install(&pins, "far");
        assert_eq!(installed.history, History::Replaced);
        for name in ["TABLES", "COUNTS", "SOURCES"] {
            let renewed = installed.renewed.iter().any(|renewed| renewed == name);
            assert!(renewed, "{name} of {:?}", installed.renewed);
        }
        // The process may start again before it has a table.
        assert_eq!(install(&pins, "far").history, History::Adopted);
        let mut new = Steering::open(&pins).unwrap();
        assert_eq!(generation(&new), None);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(total(&new), 0, "the old programs steer");
        let table = table(2, SELF);
        without_capabilities(|| new.put_table(table.table()).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        let sent = traffic.stop();
        let counted = || total(&old) - before + total(&new);
        until("packets were lost", || counted() >= sent);
        assert_eq!(counted(), sent);
        assert_eq!(count(&new, Verdict::NoTable), 0);
        assert!(count(&new, Verdict::Local) > 0);
        // The old set is gone.
        bpffs.set("steering");
    });
}

/// What an older version of ours may have: fewer verdicts, and a table of another size.
#[test]
fn what_fits_of_an_older_version_is_carried_over() {
    const OLD_VERDICTS: u32 = Verdict::Local as u32 + 1;
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        let pin_anew = |name: &str, pin: &dyn Fn(&Path)| {
            let path = bpffs.set("steering").join(name);
            std::fs::remove_file(&path).unwrap();
            pin(&path);
        };
        let client = from_ip(ip("203.0.113.9"));
        for other_table in [false, true] {
            install(&pins, "far");
            let mut steering = Steering::open(&pins).unwrap();
            steering.put_table(table(1, SELF).table()).unwrap();
            steering.put_source(client, 128, DENY).unwrap();
            pin_anew("COUNTS", &|path| {
                let mut counts = PerCpuArray::<_, [u64; 2]>::create(OLD_VERDICTS, 0).unwrap();
                let cpus = aya::util::nr_cpus().unwrap();
                let each = PerCpuValues::try_from(vec![[1000, 0]; cpus]).unwrap();
                counts.set(Verdict::Denied as u32, each, 0).unwrap();
                counts.pin(path).unwrap();
            });
            if other_table {
                pin_anew("TABLE_A", &|path| {
                    let table = Array::<MapData, [u8; 8]>::create(1, 0).unwrap();
                    table.pin(path).unwrap();
                });
            }
            bpffs.rename_set("steering", "1_0123456789abcdef");
            let installed = install(&pins, "far");
            assert_eq!(installed.history, History::Replaced);
            let renewed: &[&str] = if other_table { &["TABLES"] } else { &[] };
            assert_eq!(installed.renewed, renewed);
            let mut steering = Steering::open(&pins).unwrap();
            assert_eq!(generation(&steering), (!other_table).then_some(1));
            assert_eq!(steering.sources().unwrap(), [(client, 128, DENY)]);
            let cpus = aya::util::nr_cpus().unwrap() as u64;
            assert_eq!(count(&steering, Verdict::Denied), 1000 * cpus);
            steering.put_table(table(2, SELF).table()).unwrap();
            is_steered(&steering, &socket);
            bpffs.set("steering");
        }
    });
}

#[test]
fn another_interface_takes_over_from_the_one_before() {
    with_bpffs(|bpffs| {
        let first = cable();
        ip_command("link add near2 type veth peer name far2");
        for command in [
            "link set far2 address 02:00:00:00:00:02",
            "addr add 198.51.101.7/24 dev near2",
            "link set near2 up",
            "link set far2 up",
            "neigh add 192.0.2.10 lladdr 02:00:00:00:00:02 dev near2 nud permanent",
        ] {
            ip_command(command);
        }
        let pins = bpffs.pins();
        install(&pins, "far");
        let mut steering = Steering::open(&pins).unwrap();
        steering.put_table(table(1, SELF).table()).unwrap();
        is_steered(&steering, &first);
        let installed = install(&pins, "far2");
        assert_eq!(installed.history, History::Adopted);
        is_not_steered(&steering, &first);
        ip_command("route replace 192.0.2.0/24 dev near2");
        let second = UdpSocket::bind("198.51.101.7:50000").unwrap();
        second.connect(VIP_V4).unwrap();
        is_steered(&steering, &second);
        let folder = bpffs.folder().join("steering");
        assert_eq!(listing(&folder).len(), 2, "a set and a link");

        // An interface that goes takes its link along, and another of its name begins anew.
        ip_command("link del near2");
        let refused = install_steering(&pins, "far2", Wish::Auto).unwrap_err();
        assert_eq!(refused.to_string(), "there is no interface far2");
        install(&pins, "far");
        assert_eq!(listing(&folder).len(), 2, "a set and a link");
    });
}

#[test]
fn an_interface_runs_it_natively_only_where_it_can_and_says_why_not() {
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        let refused = install_steering(&pins, "lo", Wish::Native).unwrap_err();
        assert!(matches!(refused, Error::NotNative { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(
            text.starts_with("lo does not run steer natively: its driver"),
            "{text}"
        );
        let installed = install_steering(&pins, "lo", Wish::Auto).unwrap();
        assert_eq!(installed.mode, Mode::Generic);
        let reason = installed.native_refused.unwrap();
        let said = reason.strip_prefix("its driver has no native mode: ");
        assert!(said.is_some_and(|said| !said.is_empty()), "{reason}");

        // A driver that could, but not as it is set up, says what is in its way.
        ip_command("link set near mtu 9000");
        let installed = install_steering(&pins, "far", Wish::Auto).unwrap();
        assert_eq!(installed.mode, Mode::Generic);
        let reason = installed.native_refused.unwrap();
        assert!(
            reason.ends_with("Peer MTU is too large to set XDP"),
            "{reason}"
        );
        ip_command("link set near mtu 1500");

        // Who is asked to change the mode does; who is not goes on.
        for (wish, mode) in [
            (Wish::Generic, Mode::Generic),
            (Wish::Auto, Mode::Generic),
            (Wish::Native, Mode::Native),
            (Wish::Auto, Mode::Native),
            (Wish::Generic, Mode::Generic),
        ] {
            let installed = install_steering(&pins, "far", wish).unwrap();
            assert_eq!(installed.mode, mode, "{wish:?}");
            let told = wish == Wish::Auto && mode == Mode::Generic;
            assert_eq!(installed.native_refused.is_some(), told, "{wish:?}");
            let mut steering = Steering::open(&pins).unwrap();
            steering.put_table(table(1, SELF).table()).unwrap();
            is_steered(&steering, &socket);
        }
    });
}

#[test]
fn an_interface_keeps_its_mode_when_it_refuses_the_other() {
    with_bpffs(|bpffs| {
        let pins = bpffs.pins();
        install(&pins, "lo");
        let links = || Objects::of(&bpffs.folder()).links.len();
        assert_eq!(links(), 1);
        install_steering(&pins, "lo", Wish::Native).unwrap_err();
        assert_eq!(links(), 1);
        assert_eq!(install(&pins, "lo").mode, Mode::Generic);
    });
}

#[test]
fn a_folder_that_is_not_ours_alone_is_refused() {
    with_bpffs(|bpffs| {
        let refuses = |folder: &Path, reason: &str| {
            let refused = Pins::at(folder).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        };
        refuses(Path::new("/tmp"), "is not on a bpffs");
        refuses(Path::new("/tmp/not-there"), "is not on a bpffs");
        refuses(Path::new("relative"), "not absolute");
        let folder = bpffs.folder();
        std::fs::create_dir(&folder).unwrap();
        for (mode, reason) in [(0o755, "others may enter"), (0o710, "others may enter")] {
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
            refuses(&folder, reason);
        }
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        Pins::at(&folder).unwrap();
        chown(&folder, Some(65_534), None).unwrap();
        refuses(&folder, "another user");
        chown(&folder, Some(0), None).unwrap();
        std::os::unix::fs::symlink(&folder, bpffs.mount.join("link")).unwrap();
        refuses(&bpffs.mount.join("link"), "no folder");
    });
}

fn stranger() -> Array<MapData, u32> {
    Array::create(1, 0).unwrap()
}

#[test]
fn what_others_pinned_in_the_folder_is_refused_and_left_alone() {
    with_bpffs(|bpffs| {
        cable();
        let pins = bpffs.pins();
        install(&pins, "far");
        for place in ["stranger", "steering/stranger", "steering/link_native_x"] {
            let path = bpffs.folder().join(place);
            stranger().pin(&path).unwrap();
            let refused = install_steering(&pins, "far", Wish::Auto).unwrap_err();
            let Error::Refused { path: named, .. } = &refused else {
                panic!("{refused:?}");
            };
            assert_eq!(*named, path);
            std::fs::remove_file(path).unwrap();
        }
        // Under a name of ours, too.
        let link = listing(&bpffs.folder().join("steering"))
            .into_iter()
            .find(|entry| !entry.is_dir())
            .unwrap();
        std::fs::remove_file(&link).unwrap();
        stranger().pin(&link).unwrap();
        let refused = install_steering(&pins, "far", Wish::Auto).unwrap_err();
        assert!(refused.to_string().ends_with("it is no link"), "{refused}");
        std::fs::remove_file(&link).unwrap();
        let set = bpffs.set("steering");
        std::fs::remove_file(set.join("COUNTS")).unwrap();
        stranger().pin(set.join("COUNTS")).unwrap();
        let steering = Steering::open(&pins).and_then(|steering| steering.counts());
        assert!(matches!(steering, Err(Error::Map { name: "COUNTS", .. })));

        let path = bpffs.folder().join("stranger");
        stranger().pin(&path).unwrap();
        let refused = detach(&pins).unwrap_err();
        assert!(refused.to_string().contains("stranger"), "{refused}");
        assert_eq!(listing(&bpffs.folder()), [path], "all else is gone");
    });
}

#[test]
fn a_link_with_a_program_of_others_is_refused() {
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        install(&pins, "far");
        // The set is another one now, and the link is with programs of none.
        let set = bpffs.set("steering");
        let links = listing(&bpffs.folder().join("steering"));
        for pin in listing(&set) {
            std::fs::remove_file(pin).unwrap();
        }
        std::fs::remove_dir(&set).unwrap();
        let refused = install_steering(&pins, "far", Wish::Auto).unwrap_err();
        assert!(refused.to_string().ends_with("none of ours"), "{refused}");
        assert_eq!(links.len(), 2);
        let missing = Steering::open(&pins).unwrap_err();
        assert!(matches!(missing, Error::NotInstalled("steering")));
        drop(socket);
    });
}

#[test]
fn detaching_leaves_nothing_and_can_be_done_again() {
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        detach(&pins).unwrap();
        install(&pins, "far");
        let mut steering = Steering::open(&pins).unwrap();
        steering.put_table(table(1, SELF).table()).unwrap();
        is_steered(&steering, &socket);
        let objects = Objects::of(&bpffs.folder());
        assert!(objects.live() > 8, "{objects:?}");
        without_capabilities(|| detach(&pins).unwrap());
        // Whoever still holds the maps sees that nothing writes to them.
        is_not_steered(&steering, &socket);
        assert!(matches!(
            steering.put_table(table(2, SELF).table()),
            Err(Error::Pin { .. })
        ));
        drop(steering);
        assert!(!bpffs.folder().exists());
        until("objects of ours live on", || objects.live() == 0);
        detach(&pins).unwrap();
        assert_eq!(install(&pins, "far").history, History::Fresh);
    });
}

/// What is left of a process that was killed while it installed is no hindrance.
#[test]
fn a_half_made_set_is_made_anew() {
    with_bpffs(|bpffs| {
        let socket = cable();
        let pins = bpffs.pins();
        install(&pins, "far");
        bpffs.rename_set("steering", "making");
        let link = listing(&bpffs.folder().join("steering"))
            .into_iter()
            .find(|entry| !entry.is_dir())
            .unwrap();
        std::fs::remove_file(link).unwrap();
        assert_eq!(install(&pins, "far").history, History::Fresh);
        let mut steering = Steering::open(&pins).unwrap();
        steering.put_table(table(1, SELF).table()).unwrap();
        is_steered(&steering, &socket);
    });
}

/// Kernels before 5.19 refuse every call to processes without capabilities: this thread's, too.
#[test]
fn an_old_kernel_is_told_from_missing_pins() {
    with_bpffs(|bpffs| {
        cable();
        let pins = bpffs.pins();
        install(&pins, "far");
        refuse_bpf_calls();
        let error = Steering::open(&pins).unwrap_err();
        assert!(matches!(error, Error::OldKernel(_)), "{error:?}");
        assert!(error.to_string().contains("5.19"), "{error}");
    });
}

/// From now on `bpf` answers this thread as an old kernel does.
fn refuse_bpf_calls() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        // The number of the call is the first word.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_bpf as u32,
            )
        },
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter lives across the call; it concerns this thread alone, which has root.
    let status = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER as libc::c_ulong,
            &raw const program,
        )
    };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

/// How often each table is put.
const CHANGES: u32 = 100;

/// A table that is half the one and half the other would send packets to a node that is nowhere.
#[test]
fn no_packet_sees_a_mixture_of_two_tables() {
    let tables = [mixed(1, OTHER), mixed(2, NEAR)];
    with_bpffs(move |bpffs| {
        let pins = bpffs.pins();
        cable();
        install(&pins, "far");
        let mut steering = Steering::open(&pins).unwrap();
        steering.put_table(&tables[0]).unwrap();
        let set = bpffs.set("steering");
        let packets = || {
            let steering = Steering::open(&pins).unwrap();
            let sent = count(&steering, Verdict::ToFirst);
            [sent, total(&steering) - sent]
        };
        run_while(&set.join("steer"), || {
            for _ in 0..CHANGES {
                for table in tables.iter().rev() {
                    steering.put_table(table).unwrap();
                }
            }
        });
        let [sent, strayed] = packets();
        assert!(sent > 1000, "{sent} packets while tables changed");
        assert_eq!(strayed, 0);
        // It is seen where it happens: by who writes to the table in force.
        let mut both = ["TABLE_A", "TABLE_B"].map(|name| {
            let map = MapData::from_pin(set.join(name)).unwrap();
            Array::<_, Whole>::try_from(Map::from_map_data(map).unwrap()).unwrap()
        });
        run_while(&set.join("steer"), || {
            until("a mixture would not be noticed", || {
                for table in tables.iter().rev() {
                    for map in &mut both {
                        map.set(0, Whole(**table), 0).unwrap();
                    }
                }
                packets()[1] > 0
            });
        });
    });
}

/// Runs the program at `pin` on packets, on another thread, while `work` works.
fn run_while(pin: &Path, work: impl FnOnce()) {
    let program = Xdp::from_pin(pin, XdpAttachType::Interface).unwrap();
    let frame = arriving(&segment(at(CLIENT_V4), at(VIP_V4), 0x10));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when the work fails: the thread would go on for ever.
        let _end = Ending(&done);
        scope.spawn(|| {
            let mut out = vec![0; 1024];
            while !done.load(Ordering::Relaxed) {
                let mut options = TestRunOptions::new();
                options.data_in = Some(&frame);
                options.data_out = Some(&mut out);
                options.repeat = 1;
                program.test_run(options).unwrap();
            }
        });
        work();
    });
}

/// Ends what waits for `true` when it goes.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A table as the kernel has it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Whole(Table);

// SAFETY: tables are integers without padding.
unsafe impl aya::Pod for Whole {}

/// Every bucket is `first`'s, and no other node is anywhere.
fn mixed(generation: u64, first: NodeId) -> Box<Table> {
    let draft = table(generation, first);
    let mut table = Box::new(*draft.table());
    for (number, node) in table.nodes.iter_mut().enumerate() {
        if ![SELF, first].contains(&NodeId(number as u16)) {
            *node = postern_ebpf_abi::table::Node::NONE;
        }
    }
    table
}
