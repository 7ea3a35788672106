//! Programs on interfaces: attached in the fastest mode that an interface takes, and gone when let go.

use aya::programs::{Xdp, XdpMode};

use crate::{Error, Program, Programs};

/// How an interface runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By its driver, before the kernel makes a packet of a frame.
    Native,
    /// By the network stack: on any interface, and slower.
    Generic,
}

impl Mode {
    const fn flag(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }

    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Which mode is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// Native where the interface takes it, else generic.
    #[default]
    Auto,
    Native,
    Generic,
}

/// A program on an interface, as long as this lives.
#[derive(Debug)]
#[must_use = "the program is detached when this is dropped"]
pub struct Attached {
    /// Dropped with this, and with it the kernel's last reason to keep the program there.
    _link: aya::programs::xdp::XdpLink,
    mode: Mode,
}

impl Attached {
    /// How the interface runs it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

impl Programs {
    /// Attaches `program` to `interface` in one mode.
    ///
    /// # Errors
    /// There is no such interface, it has a program, or it does not take this mode.
    pub fn attach_as(
        &mut self,
        program: Program,
        interface: &str,
        mode: Mode,
    ) -> Result<Attached, Error> {
        let failed = |source| Error::Attach {
            name: program.name(),
            interface: interface.to_owned(),
            mode: mode.name(),
            source,
        };
        let name = program.name();
        let found = self.ebpf.program_mut(name).ok_or(Error::Missing(name))?;
        let xdp: &mut Xdp = found.try_into().map_err(failed)?;
        let id = xdp.attach(interface, mode.flag()).map_err(failed)?;
        let link = xdp.take_link(id).map_err(failed)?;
        Ok(Attached { _link: link, mode })
    }

    /// Attaches `program` to `interface`, natively where that can be.
    ///
    /// # Errors
    /// The interface takes neither mode: the error is that of the generic one.
    pub fn attach(&mut self, program: Program, interface: &str) -> Result<Attached, Error> {
        self.attach_as(program, interface, Mode::Native)
            .or_else(|_| self.attach_as(program, interface, Mode::Generic))
    }
}
