//! Trails that hold, and every way in which one does not.

use std::io::Write as _;
use std::path::PathBuf;

use postern_audit::{Chain, Event, Record};
use postern_login::SigningKey;
use postern_login::signing_key::SystemRandom;

use super::*;
use crate::audit::{Checkpoints, remember_keys};

/// A trail of two chains of 6 records each, with a checkpoint after every second one.
struct Trail {
    folder: tempfile::TempDir,
    key: SigningKey,
}

fn key() -> SigningKey {
    let pkcs8 = SigningKey::generate(&SystemRandom::new()).expect("randomness");
    SigningKey::from_pkcs8(&pkcs8).expect("a key")
}

impl Trail {
    fn new() -> Self {
        let trail = Self {
            folder: tempfile::tempdir().expect("folder"),
            key: key(),
        };
        let directory = trail.folder.path();
        remember_keys(directory, &[trail.key.public_jwk().clone()]).expect("written");
        let mut checkpoints = Checkpoints::open(directory, 0).expect("opens");
        let mut chains = [Chain::start("control"), Chain::start("core-0")];
        for round in 0..6 {
            for chain in &mut chains {
                let line = chain.append(&Record::new(round, Event::Connection));
                trail.append(&format!("{}.jsonl", chain.head().chain), &line);
            }
            if round % 2 == 1 {
                checkpoints.sign(&trail.key).expect("signs");
            }
        }
        trail
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path(name))
            .expect("opens");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(name)).expect("file");
        text.lines().map(|line| format!("{line}\n")).collect()
    }

    fn rewrite(&self, name: &str, lines: &[String]) {
        std::fs::write(self.path(name), lines.concat()).expect("written");
    }

    fn verify(&self) -> Report {
        verify(self.folder.path(), None).expect("is read")
    }

    /// The trail does not hold, and the report says so in these words.
    #[track_caller]
    fn is_broken(&self, words: &str) {
        let report = self.verify();
        assert!(!report.holds(), "{report}");
        assert!(report.to_string().contains(words), "{words}\n{report}");
    }
}

#[test]
fn an_untouched_trail_holds() {
    let report = Trail::new().verify();
    assert!(report.holds(), "{report}");
    assert_eq!(report.checkpoints, 3);
    let chains: Vec<_> = report
        .chains
        .iter()
        .map(|chain| (chain.name.as_str(), chain.records, chain.checkpointed))
        .collect();
    assert_eq!(chains, [("control", 6, 6), ("core-0", 6, 6)]);
}

#[test]
fn the_first_changed_record_is_named() {
    let trail = Trail::new();
    let mut lines = trail.lines("core-0.jsonl");
    lines[3] = lines[3].replace("\"time_ms\":3", "\"time_ms\":4");
    trail.rewrite("core-0.jsonl", &lines);
    trail.is_broken("line 4 (record 4 of chain core-0): the record was changed");
    assert!(trail.verify().chains[0].problem.is_none());
}

#[test]
fn a_removed_record_is_named() {
    let trail = Trail::new();
    let mut lines = trail.lines("core-0.jsonl");
    lines.remove(2);
    trail.rewrite("core-0.jsonl", &lines);
    trail.is_broken("record 3 of chain core-0");
}

#[test]
fn a_cut_tail_is_found_by_the_checkpoints() {
    let trail = Trail::new();
    let lines = trail.lines("core-0.jsonl");
    trail.rewrite("core-0.jsonl", &lines[..5]);
    trail.is_broken("the end of chain core-0 is missing: it has 5 records, checkpoint 3 says 6");
    trail.rewrite("core-0.jsonl", &[]);
    trail.is_broken("the end of chain core-0 is missing");
    std::fs::remove_file(trail.path("core-0.jsonl")).expect("removed");
    trail.is_broken("chain core-0 is missing");
}

#[test]
fn a_chain_written_anew_is_found_by_the_checkpoints() {
    let trail = Trail::new();
    let mut chain = Chain::start("core-0");
    let lines: Vec<_> = (0..9)
        .map(|n| chain.append(&Record::new(100 + n, Event::Connection)))
        .collect();
    trail.rewrite("core-0.jsonl", &lines);
    trail.is_broken("record 2 of chain core-0 is not the one that checkpoint 1 names");
}

#[test]
fn a_forged_checkpoint_is_found() {
    let trail = Trail::new();
    let mut forged = Checkpoints::open(trail.folder.path(), 0).expect("opens");
    forged.sign(&key()).expect("signs");
    trail.is_broken("checkpoint in line 4: no key has the token's key id");
    // A key set from elsewhere does not know the trail's own key either.
    let other = Jwks {
        keys: vec![key().public_jwk().clone()],
    };
    let report = verify(trail.folder.path(), Some(&other)).expect("is read");
    assert_eq!((report.checkpoints, report.holds()), (0, false));
}

#[test]
fn a_changed_checkpoint_is_found() {
    let trail = Trail::new();
    let mut lines = trail.lines(CHECKPOINTS_FILE);
    let last = lines[1].len() - 10;
    let flipped = if &lines[1][last..=last] == "A" {
        "B"
    } else {
        "A"
    };
    lines[1].replace_range(last..=last, flipped);
    trail.rewrite(CHECKPOINTS_FILE, &lines);
    trail.is_broken("checkpoint in line 2: the token's signature is wrong");
}

#[test]
fn a_removed_checkpoint_is_found() {
    let trail = Trail::new();
    let mut lines = trail.lines(CHECKPOINTS_FILE);
    lines.remove(1);
    trail.rewrite(CHECKPOINTS_FILE, &lines);
    trail.is_broken("checkpoint 3 follows checkpoint 1: some are missing");
}

#[test]
fn a_cut_end_of_the_checkpoints_shows_at_the_next_one() {
    let trail = Trail::new();
    let lines = trail.lines(CHECKPOINTS_FILE);
    trail.rewrite(CHECKPOINTS_FILE, &lines[..1]);
    // The store knows that there were three.
    let mut checkpoints = Checkpoints::open(trail.folder.path(), 3).expect("opens");
    assert_eq!(checkpoints.sign(&trail.key).expect("signs"), 4);
    trail.is_broken("checkpoint 4 follows checkpoint 1: some are missing");
}

#[test]
fn a_torn_checkpoint_is_moved_aside_and_the_numbers_go_on() {
    let trail = Trail::new();
    trail.append(CHECKPOINTS_FILE, "eyJhbGci");
    let mut checkpoints = Checkpoints::open(trail.folder.path(), 3).expect("opens");
    assert_eq!(checkpoints.sign(&trail.key).expect("signs"), 4);
    let report = trail.verify();
    assert!(report.holds(), "{report}");
    assert_eq!(report.checkpoints, 4);
}

#[test]
fn a_line_that_is_being_written_is_told_and_no_fault() {
    let trail = Trail::new();
    trail.append("core-0.jsonl", "{\"chain\":\"core-0\"");
    let report = trail.verify();
    assert!(report.holds(), "{report}");
    assert!(report.chains[1].unfinished);
    trail.append("core-0.jsonl", "\n");
    trail.is_broken("line 7 (record 7 of chain core-0): the line is not a record");
}

#[test]
fn an_endless_line_does_not_fill_the_memory() {
    let trail = Trail::new();
    trail.append("core-0.jsonl", &"x".repeat(3 * LINE_BYTES_MAX));
    trail.append("core-0.jsonl", "\n");
    trail.is_broken("record 7 of chain core-0");
}
