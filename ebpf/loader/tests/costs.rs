//! Every path can be measured: its packets go that way, each of them, in every round.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::time::Duration;

use postern_ebpf::cost::{Bench, Path};

/// What the swap of a whole table may take.
const SWAP_MAX: Duration = Duration::from_millis(200);

#[test]
fn every_path_is_measured() {
    let mut bench = Bench::new().unwrap_or_else(|error| panic!("{error}: {error:?}"));
    let packets = std::env::var("COST_PACKETS").map_or(1_000, |text| text.parse().unwrap());
    for path in Path::ALL {
        let cost = bench.measure(path, 7, packets).unwrap();
        println!(
            "{:<16} least {:?}, median {:?}",
            path.name(),
            cost.least(),
            cost.median()
        );
        assert_eq!(cost.rounds.len(), 7);
        assert!(cost.rounds.is_sorted());
    }
}

#[test]
fn a_table_is_swapped_within_its_time() {
    let mut bench = Bench::new().unwrap_or_else(|error| panic!("{error}: {error:?}"));
    let times = bench.swap(7).unwrap();
    println!(
        "steer-swap       least {:?}, median {:?}",
        times[0], times[3]
    );
    assert!(times[3] <= SWAP_MAX, "{times:?}");
}
