//! How many tests passed, failed and were skipped, from what test runners print.

/// Counted tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Counts {
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// What was read from a test run's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub counts: Counts,
    /// Names of what failed or was ignored, with that word.
    pub remarks: Vec<String>,
    /// Tests of the run under way that said `skipped: …` and will be counted as passed.
    self_skipped: u64,
}

impl Tally {
    /// Takes one line of what `cargo test` or Node's test runner printed.
    pub fn take(&mut self, line: &str) {
        let line = line.trim();
        if let Some(result) = line.strip_prefix("test result: ") {
            let mut counts = cargo_counts(result);
            let skipped = std::mem::take(&mut self.self_skipped).min(counts.passed);
            counts.passed -= skipped;
            counts.skipped += skipped;
            self.counts = self.counts.plus(counts);
        } else if line.starts_with("skipped: ") {
            self.self_skipped += 1;
            self.remarks.push(line.to_owned());
        } else if let Some((name, outcome)) = test_line(line) {
            if outcome == "FAILED" {
                self.remarks.push(format!("failed: {name}"));
            } else if outcome.starts_with("ignored") {
                self.remarks.push(format!("skipped: {name}: {outcome}"));
            }
        } else if let Some((word, number)) = node_count(line) {
            match word {
                "pass" => self.counts.passed += number,
                "fail" | "cancelled" => self.counts.failed += number,
                "skipped" | "todo" => self.counts.skipped += number,
                _ => {}
            }
        } else if let Some(name) = line.strip_prefix("not ok ") {
            self.remarks.push(format!("failed: {name}"));
        }
    }
}

/// `ok. 3 passed; 1 failed; 2 ignored; 0 measured; 4 filtered out; finished in 0.1s`. What was
/// filtered out was not asked for, and is no skip.
fn cargo_counts(result: &str) -> Counts {
    let number = |word: &str| {
        result
            .split([';', '.'])
            .find_map(|piece| piece.trim().strip_suffix(word)?.trim().parse().ok())
            .unwrap_or(0)
    };
    Counts {
        passed: number("passed"),
        failed: number("failed"),
        skipped: number("ignored"),
    }
}

/// `test some::name ... ok`.
fn test_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.rsplit_once(" ... ")
}

/// `ℹ pass 3` or, in TAP, `# pass 3`.
fn node_count(line: &str) -> Option<(&str, u64)> {
    let rest = line
        .strip_prefix("ℹ ")
        .or_else(|| line.strip_prefix("# "))?;
    let (word, number) = rest.split_once(' ')?;
    Some((word, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.take(line));
        tally
    }

    #[test]
    fn cargos_results_add_up_over_crates() {
        let tally = read(
            "test a::b ... ok\ntest a::c ... FAILED\ntest a::d ... ignored, needs a moon\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.00s\n\
             test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
        );
        assert_eq!(
            tally.counts,
            Counts {
                passed: 13,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(
            tally.remarks,
            ["failed: a::c", "skipped: a::d: ignored, needs a moon"]
        );
    }

    #[test]
    fn a_test_that_says_it_was_skipped_is_not_passed() {
        let tally = read(
            "test a ... ok\nskipped: b: only root may\ntest b ... ok\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        let expected = Counts {
            passed: 1,
            failed: 0,
            skipped: 1,
        };
        assert_eq!(tally.counts, expected);
        assert_eq!(tally.remarks, ["skipped: b: only root may"]);
    }

    #[test]
    fn nodes_results_are_read_in_both_reporters() {
        let expected = Counts {
            passed: 4,
            failed: 1,
            skipped: 2,
        };
        let spec =
            "ℹ tests 7\nℹ suites 0\nℹ pass 4\nℹ fail 1\nℹ cancelled 0\nℹ skipped 2\nℹ todo 0\n";
        assert_eq!(read(spec).counts, expected);
        assert_eq!(read(&spec.replace('ℹ', "#")).counts, expected);
    }

    #[test]
    fn other_output_counts_nothing() {
        let text = "Compiling postern\nrunning 3 tests\n# of 7\ntest result pending\nok 1 - a\n";
        assert_eq!(read(text), Tally::default());
    }
}
