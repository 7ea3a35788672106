//! What a run leaves behind: a chart for every case, histograms of latencies, the rows as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::chart::{self, Bar, Section};
use super::{Finding, Row};
use crate::load::Latency;
use crate::peers::OURS;

/// Half-distances to 100 % that a histogram's steps are divided into.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NS_PER_MS: f64 = 1e6;

/// Latencies of one party in one case, all rounds together.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Part of the file's name.
    pub name: String,
    pub latency: Latency,
}

/// Writes the rows, exactly as a list of [`Row`]s.
///
/// # Errors
/// The file can't be written.
pub fn write_json(file: &Path, findings: &[Finding]) -> Result<()> {
    let rows: Vec<&Row> = findings.iter().map(|finding| &finding.row).collect();
    let mut text = serde_json::to_string_pretty(&rows)?;
    text.push('\n');
    write(file, &text)
}

/// Writes a chart for every case and a histogram for every recorded latency into `folder`.
///
/// # Errors
/// A file can't be written.
pub fn write_folder(folder: &Path, findings: &[Finding], recorded: &[Recorded]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut cases: Vec<&str> = findings.iter().map(|of| of.row.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        let text = chart::svg(case, &sections(case, findings));
        write(&folder.join(format!("{case}.svg")), &text)?;
    }
    for Recorded { name, latency } in recorded {
        write(&folder.join(format!("{name}.hgrm")), &hgrm(latency))?;
    }
    Ok(())
}

/// One section a metric: ours first, then the peers.
fn sections(case: &str, findings: &[Finding]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.row.case == case) {
        let title = format!("{} [{}]", finding.row.metric, finding.row.unit);
        if sections.last().is_none_or(|last| last.title != title) {
            let bars = vec![Bar {
                name: OURS.to_owned(),
                is_ours: true,
                spread: finding.ours,
            }];
            sections.push(Section { title, bars });
        }
        if let (Some(spread), Some(name), Some(section)) =
            (finding.peer, &finding.row.peer_name, sections.last_mut())
        {
            section.bars.push(Bar {
                name: name.clone(),
                is_ours: false,
                spread,
            });
        }
    }
    sections
}

/// The percentile distribution in milliseconds, as HdrHistogram's plotters read it.
fn hgrm(latency: &Latency) -> String {
    let histogram = latency.histogram();
    let ms = |ns: f64| ns / NS_PER_MS;
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (
            ms(step.value_iterated_to() as f64),
            step.quantile_iterated_to(),
        );
        let _ = write!(text, "{value:12.3} {quantile:1.12} {count:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n",
        ms(histogram.mean()),
        ms(histogram.stdev()),
        ms(histogram.max() as f64),
        histogram.len(),
    );
    text
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::super::finding;
    use super::*;

    #[test]
    fn every_case_gets_a_chart_and_every_latency_a_histogram() {
        let folder = tempfile::tempdir().unwrap();
        let findings = [
            finding("bulk", "cpu", &[1.0; 3], Some(("haproxy", &[4.0; 3]))),
            finding("bulk", "cpu", &[1.0; 3], Some(("nginx", &[5.0; 3]))),
            finding("burst", "p99", &[1.0; 3], None),
        ];
        let mut latency = Latency::default();
        (1..=1000).for_each(|ms| latency.record(ms * 1_000_000));
        let recorded = [Recorded {
            name: "burst-postern".to_owned(),
            latency,
        }];
        write_folder(folder.path(), &findings, &recorded).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let chart = read("bulk.svg");
        assert!(
            chart.contains("haproxy") && chart.contains("nginx"),
            "{chart}"
        );
        assert_eq!(chart.matches(OURS).count(), 1, "{chart}");
        assert!(read("burst.svg").contains("p99"));
        let histogram = read("burst-postern.hgrm");
        assert!(
            histogram.contains(" 0.500000000000        500 "),
            "{histogram}"
        );
        assert!(
            histogram.ends_with("Total count    =         1000]\n"),
            "{histogram}"
        );
        let json = folder.path().join("rows.json");
        write_json(&json, &findings).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&read("rows.json")).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 3);
        assert_eq!(rows[1]["peer_name"], "nginx");
    }
}
