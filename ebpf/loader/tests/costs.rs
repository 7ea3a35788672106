//! Every path can be measured: its packets go that way, each of them, in every round.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use postern_ebpf::cost::{Bench, Path};

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
