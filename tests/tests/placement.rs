//! New connections go to the core with room: the gateway with `listen.placement = "load"`. As root.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use postern_parts::process::Process;
use postern_parts::wait;
use postern_tests::browserless::WebSocket;
use postern_tests::crowd::allow_descriptors;
use postern_tests::gateway::{Configuration, Metrics};
use postern_tests::machine::Machine;
use postern_tests::{Browser, FakeTarget, Gateway};
use tempfile::TempDir;

/// The cores of the gateway; the first one burns.
const CORES: [usize; 2] = [0, 1];

/// Desktops that are opened while both cores have as much to do.
const DESKTOPS: usize = 1_000;

/// How far the cores' desktops may be apart then, of all of them.
const APART_MAX: f64 = 0.1;

/// Desktops that are opened while one core burns, and once it does not.
const MORE: usize = 60;

/// Desktops that come to be at the same time.
const AT_ONCE: usize = 8;

/// A load is the mean of a second, and is published ten times in it.
const SEEN: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(20);

/// Between looks at what the burner has done.
const LOOK: Duration = Duration::from_millis(50);

/// Ticks of `/proc/stat` a second, on every Linux of today.
const TICK_NS: u64 = 10_000_000;

/// A gateway on a machine of its own, whose processors do nothing but what the test lets them.
struct Scene {
    gateway: Gateway,
    machine: Arc<Machine>,
    processors: Processors,
    _target: FakeTarget,
    folder: TempDir,
}

impl Scene {
    fn start(placement: &'static str) -> Result<Self> {
        allow_descriptors()?;
        let folder = tempfile::Builder::new().prefix("placement-").tempdir()?;
        let machine = Arc::new(Machine::start("gateway", folder.path())?);
        let processors = Processors::install(&machine, folder.path())?;
        let target = machine.on(FakeTarget::echo)?;
        let configuration = Configuration {
            placement,
            cores: CORES.to_vec(),
            ..Configuration::for_target(target.address)
                .limit("sessions_per_user_max", 4_000)
                .limit("handshakes_per_source_max", 4_000)
        };
        let address = machine.on(postern_parts::port::free)?;
        let mut gateway = Gateway::prepare_on(machine.clone(), address, configuration)?;
        machine.on(|| gateway.launch())?;
        Ok(Self {
            gateway,
            machine,
            processors,
            _target: target,
            folder,
        })
    }

    fn metrics(&self) -> Result<Metrics> {
        self.machine.on(|| self.gateway.metrics())
    }

    /// How the engine says that connections come to cores.
    fn placement(&self) -> Result<String> {
        let metrics = self.metrics()?;
        let (labels, _) = metrics
            .samples("postern_engine_info")
            .next()
            .context("the engine says nothing of itself")?;
        let (_, rest) = labels.split_once("placement=\"").context("no placement")?;
        Ok(rest.trim_end_matches('"').to_owned())
    }

    /// Live sessions of each core.
    fn sessions(&self) -> Result<BTreeMap<usize, f64>> {
        let metrics = self.metrics()?;
        let of_core = metrics
            .samples("postern_sessions_live")
            .map(|(core, live)| {
                let core = core.trim_start_matches("core=\"").trim_end_matches('"');
                Ok((core.parse::<usize>()?, live))
            });
        of_core.collect()
    }

    /// What each core gained since `before`.
    fn gained(&self, before: &BTreeMap<usize, f64>) -> Result<[f64; 2]> {
        let now = self.sessions()?;
        Ok(CORES.map(|core| now[&core] - before[&core]))
    }

    /// Opens desktops, and keeps them.
    fn open(&self, alice: &Browser, desktops: usize) -> Result<Vec<WebSocket>> {
        self.machine.on(|| {
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..AT_ONCE)
                    .map(|worker| {
                        let part = desktops / AT_ONCE + usize::from(worker < desktops % AT_ONCE);
                        scope.spawn(move || {
                            let opened = (0..part).map(|_| alice.desktop("lab"));
                            opened.collect::<Result<Vec<_>>>()
                        })
                    })
                    .collect();
                let mut opened = Vec::with_capacity(desktops);
                for worker in workers {
                    let part = worker.join().map_err(|_| anyhow!("a worker panicked"))?;
                    opened.extend(part?);
                }
                Ok(opened)
            })
        })
    }
}

#[test]
fn connections_are_spread_evenly_and_a_burning_core_gets_none() -> Result<()> {
    let scene = Scene::start("load")?;
    ensure!(scene.placement()? == "load", "{}", scene.gateway.log());
    let alice = scene
        .machine
        .on(|| scene.gateway.signed_in("alice", "lab"))?;
    let before = scene.sessions()?;
    let _even = scene.open(&alice, DESKTOPS)?;
    let [first, second] = scene.gained(&before)?;
    println!("{DESKTOPS} desktops at rest: {first} and {second}");
    ensure!(first + second == DESKTOPS as f64);
    ensure!((first - second).abs() < APART_MAX * DESKTOPS as f64);

    let burner = scene.processors.burn(scene.folder.path())?;
    std::thread::sleep(SEEN);
    let before = scene.sessions()?;
    let _spared = scene.open(&alice, MORE)?;
    let [first, second] = scene.gained(&before)?;
    println!("{MORE} desktops while the first core burns: {first} and {second}");
    ensure!(
        (first, second) == (0.0, MORE as f64),
        "{first} and {second}"
    );

    // It has fewer now: all of the next ones are its own.
    drop(burner);
    scene.processors.cool();
    std::thread::sleep(SEEN);
    let before = scene.sessions()?;
    let _back = scene.open(&alice, MORE / 2)?;
    let [first, second] = scene.gained(&before)?;
    println!(
        "{} desktops once it does not: {first} and {second}",
        MORE / 2
    );
    ensure!(first > second, "{first} and {second}");
    Ok(())
}

#[test]
fn without_the_pinned_program_the_kernels_hash_goes_on_and_it_is_said() -> Result<()> {
    let scene = Scene::start("hash")?;
    ensure!(scene.placement()? == "hash");
    drop(scene);
    let scene = Scene::start("load")?;
    // What was pinned is gone, and the engine begins anew.
    scene.machine.run("rm -r /sys/fs/bpf/postern")?;
    scene.gateway.kill("engine")?;
    wait::until("the engine's word", PATIENCE, || {
        Ok(matches!(scene.placement().as_deref(), Ok("unavailable")).then_some(()))
    })
    .with_context(|| scene.gateway.log())?;
    let alice = scene
        .machine
        .on(|| scene.gateway.signed_in("alice", "lab"))?;
    let desktops = scene.open(&alice, MORE)?;
    ensure!(desktops.len() == MORE);
    let log = scene.gateway.log();
    ensure!(log.contains("the kernel's hash goes on"), "{log}");
    Ok(())
}

/// `/proc/stat` of the machine: two processors, the first of which does what the burner does.
///
/// What else this test's host has to do would say nothing of a gateway's machine.
struct Processors {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    burner: AtomicU32,
    is_over: AtomicBool,
}

impl Processors {
    fn install(machine: &Machine, folder: &Path) -> Result<Self> {
        let path = folder.join("stat");
        std::fs::write(&path, stat([0, 0]))?;
        machine.show(&path, "/proc/stat")?;
        let shared = Arc::new(Shared::default());
        let (worker, file) = (
            shared.clone(),
            std::fs::File::options().write(true).open(&path)?,
        );
        let thread = std::thread::spawn(move || {
            let (mut ticks, mut last, mut before) = ([0, 0], Instant::now(), None);
            // The scheduler tells of some work late.
            let mut owed = 0;
            while !worker.is_over.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
                let passed = last.elapsed().as_nanos() as u64;
                last = Instant::now();
                let now = worked_ns(worker.burner.load(Ordering::SeqCst));
                owed += now.zip(before).map_or(0, |(now, before)| now - before);
                before = now;
                let busy = owed.min(passed);
                owed -= busy;
                ticks[0] += busy;
                ticks[1] += passed - busy;
                // One write of the same length: whoever reads finds a whole file.
                if file.write_all_at(stat(ticks).as_bytes(), 0).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Keeps the first core busy, for as long as what is returned lives.
    fn burn(&self, folder: &Path) -> Result<Process> {
        let mut command = std::process::Command::new("taskset");
        let core = CORES[0].to_string();
        command.args(["--cpu-list", &core, "sh", "-c", "while :; do :; done"]);
        let burner = Process::start("burner", &command, &folder.join("burner.log"))?;
        self.shared.burner.store(burner.pid(), Ordering::SeqCst);
        Ok(burner)
    }

    fn cool(&self) {
        self.shared.burner.store(0, Ordering::SeqCst);
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It ends at its next look, whatever became of it.
            let _ = thread.join();
        }
    }
}

/// Nanoseconds that a process has run or waited for its core: on a core of its own it would have run.
fn worked_ns(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    Some(words.next()?.ok()? + words.next()?.ok()?)
}

/// Of two processors: what the first has done and has not done; the second does nothing.
fn stat([busy_ns, idle_ns]: [u64; 2]) -> String {
    let (busy, idle) = (busy_ns / TICK_NS, idle_ns / TICK_NS);
    let all = busy + idle;
    let mut text = String::new();
    for (name, busy, idle) in [
        ("cpu", busy, idle + all),
        ("cpu0", busy, idle),
        ("cpu1", 0, all),
    ] {
        let _ = writeln!(text, "{name:<4} {busy:>12} 0 0 {idle:>12} 0 0 0 0 0 0");
    }
    text
}
