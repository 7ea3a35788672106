//! The kernel's verifier accepts every program, within the budget that SPECIFICATION.md gives it.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use postern_ebpf::{Accounts, Placement, Program, Programs};
use postern_ebpf_abi as abi;
use postern_ebpf_abi::place::Rules;
use socket2::{Domain, SockAddr, Socket, Type};

const SPECIFICATION: &str = include_str!("../../../SPECIFICATION.md");

/// The budget of a program: the line `` | `steer` | 6000 | ``.
fn budget(program: &str) -> u32 {
    let begin = format!("| `{program}` | ");
    let line = SPECIFICATION
        .lines()
        .find_map(|line| line.strip_prefix(&begin))
        .unwrap_or_else(|| panic!("SPECIFICATION.md has no budget for {program}"));
    line.trim_end_matches([' ', '|'])
        .parse()
        .expect("a budget is a number")
}

#[test]
fn every_program_is_accepted_within_its_budget() {
    let programs = Programs::load().unwrap_or_else(|error| panic!("{error}: {error:?}"));
    for program in Program::ALL {
        let count = programs.verified_instructions(program).unwrap();
        hold(program.name(), count);
    }
}

#[test]
fn placement_and_accounting_are_accepted_within_their_budgets() {
    let accounts = Accounts::load(1).unwrap_or_else(|error| panic!("{error}: {error:?}"));
    for (program, count) in accounts.verified_instructions().unwrap() {
        hold(program, count);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    let anywhere: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&SockAddr::from(anywhere)).unwrap();
    socket.listen(1).unwrap();
    let placement = Placement::attach(&[socket], Rules::of(1)).unwrap();
    hold(
        abi::programs::PLACE,
        placement.verified_instructions().unwrap(),
    );
}

fn hold(program: &str, count: u32) {
    let most = budget(program);
    println!("{program:<12} {count:>6} verified instructions of {most}");
    assert!(count <= most, "{program} takes {count}");
}
