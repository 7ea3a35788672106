//! The pinned links of `steer` with interfaces.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::sys::SyscallError;
use postern_ebpf_abi::programs::STEER;

use crate::install::refusal::reason;
use crate::kernel::{self, LinkFacts, Object, Place};
use crate::pins::{Pins, entries, in_pin, open, refused, unpin};
use crate::set::STEERING;
use crate::{Error, Mode, Wish};

/// A pinned link with an interface.
#[derive(Debug)]
pub(crate) struct Hook {
    pub path: PathBuf,
    pub link: OwnedFd,
    pub facts: LinkFacts,
    pub interface: u32,
    pub mode: Mode,
}

impl Hook {
    /// The link ends, whoever else holds it.
    pub(super) fn remove(&self) -> Result<(), Error> {
        end(&self.link, &self.path)
    }
}

/// All links that are pinned, but for those whose interface is gone.
pub(crate) fn hooks(pins: &Pins) -> Result<Vec<Hook>, Error> {
    let mut hooks = Vec::new();
    for path in entries(&pins.of(&STEERING))? {
        hooks.extend(hook(path)?);
    }
    Ok(hooks)
}

/// Ends all links that are pinned; the refusal of one that is not ours comes at the end.
pub(super) fn detach(pins: &Pins) -> Result<(), Error> {
    let mut refusal = Ok(());
    for path in entries(&pins.of(&STEERING))? {
        match hook(path) {
            Ok(hook) => hook.map_or(Ok(()), |hook| hook.remove())?,
            Err(error) => refusal = Err(error),
        }
    }
    refusal
}

/// The link at a pin, if it has a link's name and its interface is there.
fn hook(path: PathBuf) -> Result<Option<Hook>, Error> {
    let Some(mode) = mode_of(&path) else {
        return Ok(None);
    };
    let Object::Link(link) = open(&path)? else {
        return Err(refused(&path, "it is no link"));
    };
    let facts = kernel::link_facts(link.as_fd()).map_err(in_pin(&path))?;
    match facts.place {
        Place::Interface(0) => unpin(&path).map(|()| None),
        Place::Interface(interface) => Ok(Some(Hook {
            path,
            link,
            facts,
            interface,
            mode,
        })),
        _ => Err(refused(&path, "it is no link with an interface")),
    }
}

/// Attaches `program` to an interface as is wished, and pins the link: how it runs there, and why
/// not natively.
pub(super) fn attach(
    pins: &Pins,
    program: BorrowedFd<'_>,
    interface: (&str, u32),
    wish: Wish,
) -> Result<(Mode, Option<String>), Error> {
    let (name, number) = interface;
    let mut refusal = None;
    if wish != Wish::Generic {
        match kernel::link_interface(program, number, Mode::Native) {
            Ok(link) => return pin(pins, &link, number, Mode::Native).map(|mode| (mode, None)),
            Err(error) => {
                let reason = reason(program, number, &error);
                if wish == Wish::Native {
                    return Err(Error::NotNative {
                        name: STEER,
                        interface: name.to_owned(),
                        reason,
                    });
                }
                refusal = Some(reason);
            }
        }
    }
    let link = kernel::link_interface(program, number, Mode::Generic).map_err(|io_error| {
        Error::Attach {
            name: STEER,
            interface: name.to_owned(),
            mode: Mode::Generic.name(),
            source: SyscallError {
                call: "bpf_link_create",
                io_error,
            }
            .into(),
        }
    })?;
    pin(pins, &link, number, Mode::Generic).map(|mode| (mode, refusal))
}

fn pin(pins: &Pins, link: &OwnedFd, interface: u32, mode: Mode) -> Result<Mode, Error> {
    let name = format!("link_{}_{interface}", mode.name());
    let path = pins.of(&STEERING).join(name);
    kernel::pin(link.as_fd(), &path).map_err(in_pin(&path))?;
    Ok(mode)
}

/// Ends a link and removes its pin.
pub(super) fn end(link: &OwnedFd, path: &Path) -> Result<(), Error> {
    match kernel::link_detach(link) {
        // Its interface or control group may have gone before.
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(in_pin(path)(error)),
        _ => unpin(path),
    }
}

/// The mode in which a link was made, by the name of its pin; the kernel does not tell.
pub(crate) fn mode_of(path: &Path) -> Option<Mode> {
    let name = path.file_name()?.to_str()?;
    [Mode::Native, Mode::Generic].into_iter().find(|mode| {
        let number = name.strip_prefix("link_").and_then(|rest| {
            let rest = rest.strip_prefix(mode.name())?;
            rest.strip_prefix('_')
        });
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_tells_the_mode_of_its_link() {
        for (name, expected) in [
            ("link_native_2", Some(Mode::Native)),
            ("link_generic_17", Some(Mode::Generic)),
            ("link_generic_", None),
            ("link_other_2", None),
            ("making", None),
        ] {
            assert_eq!(mode_of(Path::new(name)), expected, "{name}");
        }
    }
}
