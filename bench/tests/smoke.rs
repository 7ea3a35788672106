//! A short run of the program: what it writes, and what it refuses.

use std::process::{Command, Output};

use postern_engine::relay::ktls;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern-bench"))
        .args(arguments)
        .output()
        .expect("Cargo has built it")
}

#[test]
fn a_short_run_writes_rows_charts_and_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("rows.json");
    let output = bench(&[
        "run",
        "--quick",
        "--only",
        "masking,decision",
        "--json",
        json.to_str().unwrap(),
        "--out",
        folder.path().to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(
        said.contains("decision") && said.contains("at most"),
        "{said}"
    );

    let rows: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = rows.as_array().unwrap();
    for case in ["masking", "decision"] {
        assert!(rows.iter().any(|row| row["case"] == case), "{rows:?}");
        let chart = std::fs::read_to_string(folder.path().join(format!("{case}.svg"))).unwrap();
        assert!(chart.starts_with("<svg "), "{chart}");
    }
    for row in rows {
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
    let json = folder.path().join("rows.json");
    let output = bench(&[
        "run",
        "--quick",
        "--only",
        "tls-ping",
        "--json",
        json.to_str().unwrap(),
        "--out",
        folder.path().to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    let note = "TLS is not the kernel's";
    assert_eq!(said.contains(note), ktls::available().is_err(), "{said}");

    let rows: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = rows.as_array().unwrap();
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
