//! The cases of steering: a simulated week.

use super::{Case, ITSELF, Metric, Path, Task};

pub(super) fn simulation() -> Vec<Case> {
    vec![Case {
        name: "steer-sim",
        proves: "a thousand nodes come, go, drain, fail and are busy for a week, and only a failed one loses desktops",
        paths: &[Path::InProcess],
        // Rows name the hashes that it stands beside.
        peers: ITSELF,
        task: Task::Simulation,
        metric: Metric::Steering,
        unit: "sessions",
        lower_is_better: true,
    }]
}
