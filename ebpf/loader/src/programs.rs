//! The programs in the kernel: loaded, run on packets for tests and measurements, and described.

use std::io;
use std::time::Duration;

use aya::maps::ProgramArray;
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use postern_ebpf_abi as abi;

use crate::{Error, object};

/// Bytes that a packet may grow by in a program.
const GROWTH_MAX: usize = 256;

/// The programs of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Steer,
    Redirect,
    /// Lets everything pass.
    Pass,
    /// `steer` for measurements, with its tunnel undone; loaded when it is asked for.
    SteerUndone,
}

impl Program {
    /// Those that a node attaches.
    pub const ALL: [Self; 3] = [Self::Steer, Self::Redirect, Self::Pass];

    /// As the object has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steer => abi::programs::STEER,
            Self::Redirect => abi::programs::REDIRECT,
            Self::Pass => abi::programs::PASS,
            Self::SteerUndone => abi::programs::STEER_UNDONE,
        }
    }
}

/// What a program did with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program's return value: for XDP, 1 drops, 2 passes, 3 transmits.
    pub returned: u32,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
    /// How long a run took; of several, the mean.
    pub duration: Duration,
}

/// All programs and their maps, in the kernel as long as this lives.
#[derive(Debug)]
pub struct Programs {
    pub(crate) ebpf: Ebpf,
}

impl Programs {
    /// Loads every program of the embedded object.
    ///
    /// # Errors
    /// The process may not, or the kernel's verifier refuses a program.
    pub fn load() -> Result<Self, Error> {
        let mut ebpf = EbpfLoader::new()
            .load(object::bytes())
            .map_err(permission)?;
        for program in Program::ALL {
            load(&mut ebpf, program)?;
        }
        chain(&mut ebpf)?;
        Ok(Self { ebpf })
    }

    /// The same, with what measurements need.
    ///
    /// # Errors
    /// As with [`Programs::load`].
    pub fn load_to_measure() -> Result<Self, Error> {
        let mut programs = Self::load()?;
        load(&mut programs.ebpf, Program::SteerUndone)?;
        Ok(programs)
    }

    /// Runs `program` on `packet`, `repeat` times.
    ///
    /// The kernel hands a run's output to the next run as its input.
    ///
    /// # Errors
    /// The kernel does not run it: the packet is too short or too long.
    pub fn run(&self, program: Program, packet: &[u8], repeat: u32) -> Result<Run, Error> {
        let mut out = vec![0; packet.len() + GROWTH_MAX];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.repeat = repeat;
        let result = self
            .xdp(program)?
            .test_run(options)
            .map_err(|source| failed(program, source))?;
        out.truncate(result.data_size_out as usize);
        Ok(Run {
            returned: result.return_value,
            packet: out,
            duration: result.duration,
        })
    }

    /// Instructions that the kernel's verifier walked through to accept `program`.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn verified_instructions(&self, program: Program) -> Result<u32, Error> {
        let information = self
            .xdp(program)?
            .info()
            .map_err(|source| failed(program, source))?;
        information
            .verified_instruction_count()
            .ok_or(Error::Missing("count of verified instructions"))
    }

    /// Takes `redirect` away from `steer`: packets of other nodes are then dropped and counted.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn unchain(&mut self) -> Result<(), Error> {
        let name = abi::maps::NEXT;
        let failed = |source| Error::Map { name, source };
        let map = self.ebpf.map_mut(name).ok_or(Error::Missing(name))?;
        let mut next = ProgramArray::try_from(map).map_err(failed)?;
        next.clear_index(&abi::NEXT_REDIRECT).map_err(failed)
    }

    fn xdp(&self, program: Program) -> Result<&Xdp, Error> {
        let name = program.name();
        let found = self.ebpf.program(name).ok_or(Error::Missing(name))?;
        found.try_into().map_err(|source| failed(program, source))
    }
}

fn xdp(ebpf: &mut Ebpf, program: Program) -> Result<&mut Xdp, Error> {
    let name = program.name();
    let found = ebpf.program_mut(name).ok_or(Error::Missing(name))?;
    found.try_into().map_err(|source| failed(program, source))
}

fn load(ebpf: &mut Ebpf, program: Program) -> Result<(), Error> {
    let loaded = xdp(ebpf, program)?.load();
    loaded.map_err(|source| failed(program, source))
}

/// Lets `steer` go on to `redirect`.
pub(crate) fn chain(ebpf: &mut Ebpf) -> Result<(), Error> {
    let name = abi::maps::NEXT;
    let redirect = xdp(ebpf, Program::Redirect)?
        .fd()
        .and_then(|fd| Ok(fd.try_clone()?))
        .map_err(|source| failed(Program::Redirect, source))?;
    let map = ebpf.map_mut(name).ok_or(Error::Missing(name))?;
    let failed = |source| Error::Map { name, source };
    let mut next = ProgramArray::try_from(map).map_err(failed)?;
    next.set(abi::NEXT_REDIRECT, &redirect, 0).map_err(failed)
}

fn failed(program: Program, source: ProgramError) -> Error {
    let name = program.name();
    Error::Program { name, source }
}

/// Tells a missing permission from a bad object: who runs it must know what to do.
pub(crate) fn permission(error: EbpfError) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        let kind = one.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::PermissionDenied) {
            return Error::NotPermitted(error);
        }
        cause = one.source();
    }
    Error::Object(error)
}
