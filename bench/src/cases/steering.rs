//! The cases of steering: what a packet costs, how many a core carries, and a simulated week.

use postern_ebpf::cost;

use super::ourselves::operation;
use super::{Case, ITSELF, Metric, Path, Task};
use crate::micro::Micro;

pub(super) fn packets() -> Vec<Case> {
    let mut cases: Vec<Case> = cost::Path::ALL
        .into_iter()
        .map(|path| {
            let proves = match path {
                cost::Path::Account => "counting a packet costs little beside carrying it",
                _ => "steering costs a packet less than the network stack behind it",
            };
            operation(path.name(), proves, Micro::Steer(path), "ns")
        })
        .collect();
    cases.push(operation(
        "steer-swap",
        "a table is replaced as a whole, at once",
        Micro::SteerSwap,
        "ms",
    ));
    cases
}

pub(super) fn throughput() -> Case {
    Case {
        name: "steer-pps",
        proves: "a core steers about as many packets as it forwards",
        paths: &[Path::InProcess],
        // Rows name what the kernel does with the same packets without steering.
        peers: ITSELF,
        task: Task::Packets,
        metric: Metric::Packets,
        unit: "k/s",
        lower_is_better: false,
    }
}

pub(super) fn simulation() -> Case {
    Case {
        name: "steer-sim",
        proves: "a thousand nodes come, go, drain, fail and are busy for a week, and only a failed one loses desktops",
        paths: &[Path::InProcess],
        // Rows name the hashes that it stands beside.
        peers: ITSELF,
        task: Task::Simulation,
        metric: Metric::Steering,
        unit: "sessions",
        lower_is_better: true,
    }
}
