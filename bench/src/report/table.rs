//! Rows and promises as tables for the screen.

use std::fmt::Write as _;

use super::Finding;
use super::specification::{Promise, Verdict};

/// The table of all findings, with what was promised of each.
#[must_use]
pub fn rows_table(findings: &[Finding], promises: &[Promise]) -> String {
    let head = [
        "case", "metric", "unit", "ours", "peer", "", "ratio", "spread", "n", "promise",
    ];
    let lines = findings.iter().map(|finding| {
        let row = &finding.row;
        let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), figure);
        [
            row.case.clone(),
            row.metric.clone(),
            row.unit.clone(),
            figure(row.ours),
            optional(row.peer),
            row.peer_name.clone().unwrap_or_default(),
            optional(row.ratio),
            format!("±{:.0} %", 100.0 * row.spread),
            row.n.to_string(),
            remark(finding, promises),
        ]
    });
    table(&head, lines)
}

/// What is promised of a finding, or that its figure says little.
fn remark(finding: &Finding, promises: &[Promise]) -> String {
    let judged = promises
        .iter()
        .filter(|promise| promise.concerns(finding))
        .filter_map(|promise| Some((promise, promise.verdict(finding)?)));
    let mut words: Vec<String> = judged
        .map(|(promise, verdict)| format!("≤ {}: {}", figure(promise.at_most), verdict.word()))
        .collect();
    words.dedup();
    if finding.is_vague() && !words.iter().any(|word| word.ends_with("unclear")) {
        words.push("unclear: wide spread".to_owned());
    }
    words.join(", ")
}

/// The table of promises: each with what decided it. True where none is broken.
#[must_use]
pub fn promises_table(findings: &[Finding], promises: &[Promise]) -> (String, bool) {
    let mut whole = true;
    let lines: Vec<[String; 5]> = promises
        .iter()
        .map(|promise| {
            let decided = promise.decided_by(findings);
            let measured = decided.and_then(|finding| promise.measured(finding));
            let verdict = decided.and_then(|finding| promise.verdict(finding));
            whole &= verdict != Some(Verdict::Broken);
            let figures = measured.map_or_else(
                || "–".to_owned(),
                |spread| {
                    format!(
                        "{} ({} … {})",
                        figure(spread.median),
                        figure(spread.low),
                        figure(spread.high)
                    )
                },
            );
            let against = promise.against.as_ref();
            [
                promise.case.clone(),
                against.map_or_else(
                    || promise.metric.clone(),
                    |against| format!("{} / {against}", promise.metric),
                ),
                figure(promise.at_most),
                figures,
                verdict.map_or("not measured", Verdict::word).to_owned(),
            ]
        })
        .collect();
    let head = ["promise", "of", "at most", "measured", ""];
    (table(&head, lines.into_iter()), whole)
}

/// Three digits that count.
pub(super) fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        "0".to_owned()
    } else if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else if magnitude >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

fn table<const N: usize>(head: &[&str; N], lines: impl Iterator<Item = [String; N]>) -> String {
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(lines);
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        })
        .collect();
    rows.insert(1, std::array::from_fn(|column| "─".repeat(widths[column])));
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Figures to the right, words to the left.
            if cell.starts_with(|first: char| first.is_ascii_digit() || first == '±') {
                let _ = write!(line, "{cell:>width$}  ");
            } else {
                let _ = write!(line, "{cell:<width$}  ");
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::finding;
    use super::*;

    fn promise(at_most: f64) -> Promise {
        Promise {
            what: "cheap".to_owned(),
            case: "bulk".to_owned(),
            metric: "cpu".to_owned(),
            against: Some("haproxy".to_owned()),
            at_most,
        }
    }

    #[test]
    fn figures_keep_three_digits() {
        let check = |value: f64, expected: &str| assert_eq!(figure(value), expected);
        check(0.0, "0");
        check(1234.5, "1234");
        check(12.34, "12.3");
        check(0.256, "0.26");
        check(0.0123, "0.0123");
    }

    #[test]
    fn a_row_says_whether_its_promise_held() {
        let findings = [finding(
            "bulk",
            "cpu",
            &[1.0; 3],
            Some(("haproxy", &[4.0; 3])),
        )];
        let check = |at_most: f64, word: &str, whole: bool| {
            let promises = [promise(at_most)];
            let rows = rows_table(&findings, &promises);
            assert!(rows.contains(word), "{rows}");
            let (table, held) = promises_table(&findings, &promises);
            assert!(table.contains(word), "{table}");
            assert_eq!(held, whole);
        };
        check(0.30, "held", true);
        check(0.20, "BROKEN", false);
    }

    #[test]
    fn what_means_little_or_was_not_measured_says_so() {
        let wide = [finding("idle", "memory", &[1.0, 2.0, 9.0], None)];
        let rows = rows_table(&wide, &[]);
        assert!(rows.contains("unclear: wide spread"), "{rows}");
        let (table, held) = promises_table(&wide, &[promise(0.5)]);
        assert!(table.contains("not measured") && held, "{table}");
    }
}
