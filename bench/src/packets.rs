//! Packets a second that one core carries between two ends of virtual cables: by the kernel alone, and with steering in both modes.

mod cable;
mod frame;
mod generator;
mod namespace;
mod node;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_ebpf::Program;

use crate::measure;
use cable::{Cable, Counters};
use frame::Frame;
use generator::Generator;
use namespace::Namespace;
use node::Node;

pub use frame::Protocol;

/// Until what is in queues has been worked on: the kernel tells the CPU time of a thread exactly once that has stopped.
const SETTLED: Duration = Duration::from_millis(10);

/// Packets that may go another way than the one that is measured: the interfaces say a word themselves.
const STRAYED_MAX: f64 = 0.01;

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into the node's own stack, to a service that drops them.
    Own,
    /// Out again to another node: in a tunnel with steering, by a route without.
    Forward,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The kernel alone; no program is attached.
    Plain,
    /// Steering, by the network stack.
    Generic,
    /// Steering, by the interface's driver.
    Native,
    /// A program that lets everything pass, by the network stack.
    GenericPass,
    /// The same by the interface's driver.
    NativePass,
}

/// What is measured in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub way: Way,
    pub protocol: Protocol,
}

impl Traffic {
    pub const ALL: [Self; 4] = [
        Self::new(Way::Own, Protocol::Udp),
        Self::new(Way::Own, Protocol::Syn),
        Self::new(Way::Forward, Protocol::Udp),
        Self::new(Way::Forward, Protocol::Syn),
    ];

    const fn new(way: Way, protocol: Protocol) -> Self {
        Self { way, protocol }
    }

    /// Its name in rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.way, self.protocol) {
            (Way::Own, Protocol::Udp) => "self udp",
            (Way::Own, Protocol::Syn) => "self syn",
            (Way::Forward, Protocol::Udp) => "forward udp",
            (Way::Forward, Protocol::Syn) => "forward syn",
        }
    }

    /// What the kernel does with it where nothing is loaded.
    #[must_use]
    pub const fn without_steering(self) -> &'static str {
        match self.way {
            Way::Own => "not loaded",
            Way::Forward => "ip_forward",
        }
    }

    /// Modes that there are for it: what any program costs, whatever it does, is seen where packets stay.
    #[must_use]
    pub fn modes(self) -> &'static [Mode] {
        match self.way {
            Way::Own => &Mode::ALL,
            Way::Forward => &Mode::STEERED,
        }
    }
}

impl Mode {
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::Generic,
        Self::GenericPass,
        Self::Native,
        Self::NativePass,
    ];
    /// The kernel alone, and steering.
    const STEERED: [Self; 3] = [Self::Plain, Self::Generic, Self::Native];

    /// Its name in rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Generic => "generic",
            Self::Native => "native",
            Self::GenericPass => "generic pass",
            Self::NativePass => "native pass",
        }
    }

    /// What is attached, and how.
    const fn attachment(self) -> Option<(Program, postern_ebpf::Mode)> {
        use postern_ebpf::Mode::{Generic, Native};
        match self {
            Self::Plain => None,
            Self::Generic => Some((Program::Steer, Generic)),
            Self::Native => Some((Program::Steer, Native)),
            Self::GenericPass => Some((Program::Pass, Generic)),
            Self::NativePass => Some((Program::Pass, Native)),
        }
    }

    const fn steers(self) -> bool {
        matches!(self.attachment(), Some((Program::Steer, _)))
    }
}

/// What one turn came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Packets that arrived, in a second of the node's CPU time.
    pub packets_per_second: f64,
    /// Part of the time in which the node's thread ran.
    pub busy: f64,
    /// Part of the packets that found the node's queue full.
    pub refused: f64,
}

/// A sender, a node, and a cable between them.
#[derive(Debug)]
pub struct Course {
    generator: Generator,
    node: Node,
    cable: Cable,
    traffic: Vec<(Traffic, Vec<Frame>)>,
    sender_core: usize,
    sender: Namespace,
}

impl Course {
    /// The node works on one core, the sender on the other.
    ///
    /// # Errors
    /// The process may not make networks or load programs, or the kernel lacks something.
    pub fn set_up(node_core: usize, sender_core: usize) -> Result<Self> {
        let sender = Namespace::new()?;
        let node = Namespace::new()?;
        let cable = Cable::lay(&sender, &node, node_core)?;
        let ethernet = node.within(|| ethernet_of(&cable.node))?;
        let node = Node::set_up(node, &cable.node)?;
        let generator = sender.within(|| Generator::open(&cable.sender))?;
        let traffic = Traffic::ALL.map(|traffic| {
            let service = node::service(traffic.way);
            (traffic, frame::flows(traffic.protocol, service, ethernet))
        });
        Ok(Self {
            generator,
            node,
            cable,
            traffic: traffic.into(),
            sender_core,
            sender,
        })
    }

    /// Sends `traffic` for about as long as `time`, and sees what comes of it.
    ///
    /// # Errors
    /// The interface does not take the mode, or packets went another way.
    pub fn turn(&mut self, traffic: Traffic, mode: Mode, time: Duration) -> Result<Turn> {
        let Self {
            generator,
            node,
            cable,
            sender,
            ..
        } = self;
        let attached = mode
            .attachment()
            .map(|(program, mode)| node.attach(traffic.way, program, &cable.node, mode))
            .transpose()?;
        let passing = (mode == Mode::Native).then(|| node.let_pass(sender, &cable.sender));
        let passing = passing.transpose()?;
        let frames = self.traffic.iter().find(|(of, _)| *of == traffic);
        let (_, frames) = frames.context("all traffic has frames")?;
        let before = Look::take(cable, node, traffic.way)?;
        let wall = send_for(time, generator, frames, self.sender_core)?;
        std::thread::sleep(SETTLED);
        let after = Look::take(cable, node, traffic.way)?;
        let turn = Turn::between(&before, &after, traffic.way, mode, wall);
        drop((attached, passing));
        turn.with_context(|| format!("{}, {}", traffic.name(), mode.name()))
    }
}

impl Drop for Course {
    /// The namespaces would take it along, only later: the kernel ends them one after the other.
    fn drop(&mut self) {
        let near = &self.cable.sender;
        if let Err(error) = self.sender.ip(&format!("link del {near}")) {
            eprintln!("bench: the cable {near} stays until its namespace ends: {error:#}");
        }
    }
}

/// Sends from `core`; how long it was.
fn send_for(
    time: Duration,
    generator: &Generator,
    frames: &[Frame],
    core: usize,
) -> Result<Duration> {
    let (begun, stop) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let pinned = measure::pin_to(core);
            begun.wait();
            pinned?;
            generator.send_until(frames, &stop)
        });
        begun.wait();
        let begin = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        match sending.join() {
            Ok(sent) => sent.map(|()| begin.elapsed()),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What is seen at one moment.
struct Look {
    cpu_ns: u64,
    counters: Counters,
    steered: (u64, u64),
}

impl Look {
    fn take(cable: &mut Cable, node: &Node, way: Way) -> Result<Self> {
        Ok(Self {
            steered: node.steered(way)?,
            counters: cable.counters()?,
            cpu_ns: measure::cpu_ns(cable.worker)?,
        })
    }
}

impl Turn {
    fn between(before: &Look, after: &Look, way: Way, mode: Mode, wall: Duration) -> Result<Self> {
        let counted = after.counters.since(before.counters);
        let packets = match way {
            Way::Own => counted.sent,
            Way::Forward => counted.came_back,
        };
        let cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns);
        let right = after.steered.0.saturating_sub(before.steered.0);
        let wrong = after.steered.1.saturating_sub(before.steered.1);
        let strayed = wrong as f64 > STRAYED_MAX * (right + wrong) as f64;
        ensure!(
            !(mode.steers() && strayed) && packets > 0 && cpu_ns > 0,
            "packets went astray: {counted:?}, {right} were steered this way and {wrong} another"
        );
        let cpu = cpu_ns as f64 / 1e9;
        let offered = (counted.sent + counted.refused).max(1);
        Ok(Self {
            packets_per_second: packets as f64 / cpu,
            busy: cpu / wall.as_secs_f64(),
            refused: counted.refused as f64 / offered as f64,
        })
    }
}

/// The address of an interface in the calling thread's namespace.
fn ethernet_of(interface: &str) -> Result<[u8; 6]> {
    let shown = std::process::Command::new("ip")
        .args(["-brief", "link", "show", "dev", interface])
        .output()
        .context("ip, of Debian's package iproute2")?;
    let shown = String::from_utf8(shown.stdout)?;
    let text = shown.split_whitespace().nth(2).unwrap_or_default();
    let bytes: Vec<u8> = text
        .split(':')
        .map_while(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let address = <[u8; 6]>::try_from(bytes);
    address.map_err(|_| anyhow::anyhow!("{interface} has no address: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_on_every_way_in_every_mode_and_nothing_is_left() {
        let cores = crate::run::Cores::choose().unwrap();
        let mut course = Course::set_up(cores.relay, cores.clients).unwrap();
        for traffic in Traffic::ALL {
            for mode in traffic.modes().iter().copied() {
                let turn = course.turn(traffic, mode, 10 * SETTLED).unwrap();
                assert!(
                    turn.packets_per_second > 10_000.0,
                    "{traffic:?} {mode:?} {turn:?}"
                );
                assert!(turn.busy > 0.0 && turn.busy < 1.5, "{turn:?}");
                assert!((0.0..1.0).contains(&turn.refused), "{turn:?}");
            }
        }
        let worker = course.cable.worker;
        drop(course);
        let gone = || !std::path::Path::new(&format!("/proc/{worker}")).exists();
        let begin = Instant::now();
        while !gone() {
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "the cable is still there"
            );
            std::thread::sleep(SETTLED);
        }
    }
}
