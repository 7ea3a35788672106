//! The kernel's verifier accepts every program, within the budget that SPECIFICATION.md gives it.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use postern_ebpf::{Program, Programs};

const SPECIFICATION: &str = include_str!("../../../SPECIFICATION.md");

/// The budget of `program`: the line `` | `steer` | 6000 | ``.
fn budget(program: Program) -> u32 {
    let begin = format!("| `{}` | ", program.name());
    let line = SPECIFICATION
        .lines()
        .find_map(|line| line.strip_prefix(&begin))
        .unwrap_or_else(|| panic!("SPECIFICATION.md has no budget for {}", program.name()));
    line.trim_end_matches([' ', '|'])
        .parse()
        .expect("a budget is a number")
}

#[test]
fn every_program_is_accepted_within_its_budget() {
    let programs = Programs::load().unwrap_or_else(|error| panic!("{error}: {error:?}"));
    for program in Program::ALL {
        let count = programs.verified_instructions(program).unwrap();
        let most = budget(program);
        println!(
            "{:<10} {count:>6} verified instructions of {most}",
            program.name()
        );
        assert!(count <= most, "{} takes {count}", program.name());
    }
}
