//! A short run of the program: what it writes, and what it refuses.

use std::path::Path;
use std::process::{Command, Output};

use postern_engine::relay::ktls;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern-bench"))
        .args(arguments)
        .output()
        .expect("Cargo has built it")
}

/// A quick run of `cases` that holds: what it said, and its rows. Its charts are in `folder`.
fn measured(cases: &str, folder: &Path) -> (String, Vec<Value>) {
    let json = folder.join("rows.json");
    let output = bench(&[
        "run",
        "--quick",
        "--only",
        cases,
        "--json",
        json.to_str().expect("the folder's name is text"),
        "--out",
        folder.to_str().expect("the folder's name is text"),
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    let rows = std::fs::read(&json).expect("the run has written it");
    let rows = serde_json::from_slice(&rows).expect("rows are JSON");
    (said, rows)
}

#[test]
fn a_short_run_writes_rows_charts_and_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let (said, rows) = measured("masking,decision", folder.path());
    assert!(
        said.contains("decision") && said.contains("at most"),
        "{said}"
    );

    for case in ["masking", "decision"] {
        assert!(rows.iter().any(|row| row["case"] == case), "{rows:?}");
        let chart = std::fs::read_to_string(folder.path().join(format!("{case}.svg"))).unwrap();
        assert!(chart.starts_with("<svg "), "{chart}");
    }
    for row in &rows {
        let mut keys: Vec<&str> = row
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        let expected = [
            "case",
            "metric",
            "n",
            "ours",
            "peer",
            "peer_name",
            "ratio",
            "spread",
            "unit",
        ];
        assert_eq!(keys, expected);
        assert!(row["ours"].as_f64().is_some_and(|ours| ours > 0.0), "{row}");
        assert!(row["n"].as_u64().is_some_and(|n| n >= 3), "{row}");
        assert!(
            row["spread"].is_number() && row["unit"].is_string(),
            "{row}"
        );
        assert_eq!(row["peer"].is_null(), row["peer_name"].is_null(), "{row}");
        assert_eq!(row["peer"].is_null(), row["ratio"].is_null(), "{row}");
    }
}

#[test]
fn a_relayed_case_has_rows_of_ours_and_says_whose_the_tls_records_are() {
    let folder = tempfile::tempdir().unwrap();
    let (said, rows) = measured("tls-ping", folder.path());
    let note = "TLS is not the kernel's";
    assert_eq!(said.contains(note), ktls::available().is_err(), "{said}");

    for metric in ["cpu/message", "p99"] {
        let of_metric = |row: &&Value| row["case"] == "tls-ping" && row["metric"] == metric;
        let row = rows.iter().find(of_metric);
        let row = row.unwrap_or_else(|| panic!("no {metric}: {rows:?}"));
        assert!(row["ours"].as_f64().is_some_and(|ours| ours > 0.0), "{row}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    let check = |arguments: &[&str], expected: &[&str]| {
        let output = bench(&[&["run"], arguments].concat());
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        for word in expected {
            assert!(complained.contains(word), "{arguments:?}: {complained}");
        }
    };
    check(
        &["--only", "masking,maskin"],
        &["maskin: no such case", "growth"],
    );
    check(
        &["--peer", "envoy=/bin/sh"],
        &["envoy: no such peer", "haproxy"],
    );
    check(&["--driver", "kqueue"], &["no driver", "io_uring", "epoll"]);
}
