//! What accounting adds to a packet: both programs on segments of a flow that is in the map, beside a program that does nothing.

use std::net::SocketAddr;
use std::time::Duration;

use aya::maps::{HashMap, MapError};
use aya::programs::{CgroupSkb, ProgramError, TestRun as _, TestRunOptions};
use postern_ebpf_abi as abi;
use postern_ebpf_abi::account::{FlowKey, FlowRecord};

use super::{CLIENT, PORT, VIP, acknowledgement};
use crate::maps::Raw;
use crate::{Error, Programs};

/// Payload of the segments that are measured.
const PAYLOAD_BYTES: u16 = 1_000;

/// Loads the programs and lets a flow begin.
pub(super) fn prepare(programs: &mut Programs) -> Result<(), Error> {
    for name in [
        abi::programs::ACCOUNT_IN,
        abi::programs::ACCOUNT_OUT,
        abi::programs::ACCOUNT_NOTHING,
    ] {
        let program = programs.ebpf.program_mut(name);
        let program: &mut CgroupSkb = program
            .ok_or(Error::Missing(name))?
            .try_into()
            .map_err(in_program(name))?;
        program.load().map_err(in_program(name))?;
    }
    let (local, remote) = ends();
    let name = abi::maps::ACCOUNT_FLOWS;
    let map = programs.ebpf.map_mut(name).ok_or(Error::Missing(name))?;
    let mut flows =
        HashMap::<_, Raw<FlowKey>, Raw<FlowRecord>>::try_from(map).map_err(in_map(name))?;
    let key = Raw(FlowKey::between(local, remote));
    flows
        .insert(key, Raw(FlowRecord::default()), 0)
        .map_err(in_map(name))
}

/// Time that accounting adds to a packet: of a packet that comes in and one that goes out, whichever
/// takes longer.
pub(super) fn round(programs: &Programs, packets: u32) -> Result<Duration, Error> {
    let (local, remote) = ends();
    let mut longest = Duration::ZERO;
    for (name, from, to) in [
        (abi::programs::ACCOUNT_IN, remote, local),
        (abi::programs::ACCOUNT_OUT, local, remote),
    ] {
        let frame = segment(from, to);
        let empty = run(programs, abi::programs::ACCOUNT_NOTHING, &frame, packets)?;
        let before = counted(programs)?;
        let full = run(programs, name, &frame, packets)?;
        if counted(programs)? - before != u64::from(packets) {
            return Err(Error::Strayed("steer-account"));
        }
        longest = longest.max(full.saturating_sub(empty));
    }
    Ok(longest)
}

fn ends() -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::from((VIP, PORT)),
        SocketAddr::from((CLIENT, 50_000)),
    )
}

/// A segment with payload; its IP header says how long it is.
fn segment(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut frame = acknowledgement(from, to);
    // The acknowledgement's frame is padded as Ethernet wants it.
    frame.truncate(14 + 40);
    frame.extend([0xaa; PAYLOAD_BYTES as usize]);
    frame[16..18].copy_from_slice(&(40 + PAYLOAD_BYTES).to_be_bytes());
    frame
}

/// Packets that the flow has.
fn counted(programs: &Programs) -> Result<u64, Error> {
    let (local, remote) = ends();
    let name = abi::maps::ACCOUNT_FLOWS;
    let map = programs.ebpf.map(name).ok_or(Error::Missing(name))?;
    let flows = HashMap::<_, Raw<FlowKey>, Raw<FlowRecord>>::try_from(map).map_err(in_map(name))?;
    let Raw(record) = flows
        .get(&Raw(FlowKey::between(local, remote)), 0)
        .map_err(in_map(name))?;
    Ok(record.incoming.packets + record.outgoing.packets)
}

fn run(
    programs: &Programs,
    name: &'static str,
    frame: &[u8],
    repeat: u32,
) -> Result<Duration, Error> {
    let program = programs.ebpf.program(name).ok_or(Error::Missing(name))?;
    let program: &CgroupSkb = program.try_into().map_err(in_program(name))?;
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.repeat = repeat;
    let result = program.test_run(options).map_err(in_program(name))?;
    Ok(result.duration)
}

fn in_map(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

fn in_program(name: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { name, source }
}
