//! What a part of the tests came to, and the summary at the end.

use std::fmt::Write as _;
use std::time::Duration;

use crate::counts::Counts;

/// One part that ran, or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub counts: Counts,
    pub elapsed: Duration,
    /// Why something failed or did not run, a line each.
    pub remarks: Vec<String>,
}

impl Part {
    /// A part that was not asked for.
    pub fn not_run(name: &'static str, why: &str) -> Self {
        let remarks = vec![format!("not run: {why}")];
        Self {
            name,
            counts: Counts::default(),
            elapsed: Duration::ZERO,
            remarks,
        }
    }
}

impl Part {
    fn is_not_run(&self) -> bool {
        self.elapsed == Duration::ZERO && self.counts == Counts::default()
    }
}

/// The summary; its last line is the totals alone.
pub fn summary(parts: &[Part]) -> String {
    let mut text = String::from("\n== summary ==\n");
    let mut total = Counts::default();
    for part in parts {
        if part.is_not_run() {
            let _ = writeln!(text, "{:<8} {}", part.name, part.remarks.join("; "));
            continue;
        }
        let Counts {
            passed,
            failed,
            skipped,
        } = part.counts;
        let seconds = part.elapsed.as_secs_f32();
        let _ = writeln!(
            text,
            "{:<8} {passed:>5} passed {failed:>4} failed {skipped:>4} skipped {seconds:>8.1} s",
            part.name
        );
        for remark in &part.remarks {
            let _ = writeln!(text, "         {remark}");
        }
        total = total.plus(part.counts);
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = total;
    let _ = writeln!(text, "{passed} passed, {failed} failed, {skipped} skipped");
    text
}

/// Prints what a check found; true when that is nothing.
pub fn findings(check: &str, findings: &[String]) -> bool {
    for finding in findings {
        eprintln!("{check}: {finding}");
    }
    if findings.is_empty() {
        eprintln!("{check}: ok");
    }
    findings.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_totals_and_skips_say_why() {
        let counts = Counts {
            passed: 3,
            failed: 1,
            skipped: 0,
        };
        let elapsed = Duration::from_millis(1500);
        let remarks = vec!["failed: a::b".to_owned()];
        let parts = [
            Part {
                name: "unit",
                counts,
                elapsed,
                remarks,
            },
            Part::not_run("fuzz", "another part was asked for"),
        ];
        let text = summary(&parts);
        assert_eq!(text.lines().last(), Some("3 passed, 1 failed, 0 skipped"));
        assert!(text.contains("not run: another part") && text.contains("failed: a::b"));
    }
}
