//! What the privileged process does at its start: loads, pins and attaches, or adopts or replaces what is there.

use std::path::Path;

use crate::{Error, Mode, Pins, Wish};

/// What was found at an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nothing: all was made.
    Fresh,
    /// The same programs, from an earlier process: they go on.
    Adopted,
    /// Other programs: they were replaced at once, without a packet between.
    Replaced,
}

/// How an installation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub history: History,
    /// Maps whose content could not be carried over from replaced programs: what was counted or
    /// remembered in them is gone.
    pub renewed: Vec<String>,
}

/// How the installation of steering went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub mode: Mode,
    pub history: History,
    /// Why the interface's driver does not run the programs, where the stack does.
    pub native_refused: Option<String>,
    /// As in [`Outcome`].
    pub renewed: Vec<String>,
}

/// Steers what arrives at `interface` from now on, also when this process is gone.
///
/// # Errors
/// The process may not, the interface does not take what is wished, or the folder holds what is
/// not ours.
pub fn install_steering(pins: &Pins, interface: &str, wish: Wish) -> Result<Installed, Error> {
    let _ = (pins, interface, wish);
    Err(Error::NotInstalled("steering"))
}

/// Makes `place` and its maps ready for [`crate::Placement::join`].
///
/// # Errors
/// The process may not, or the folder holds what is not ours.
pub fn install_placement(pins: &Pins) -> Result<Outcome, Error> {
    let _ = pins;
    Err(Error::NotInstalled("placement"))
}

/// Accounts the connections of `cgroup` from now on, also when this process is gone.
///
/// # Errors
/// The process may not, it is no control group of version 2, or the folder holds what is not ours.
pub fn install_accounts(pins: &Pins, cgroup: &Path) -> Result<Outcome, Error> {
    let _ = (pins, cgroup);
    Err(Error::NotInstalled("accounts"))
}

/// Takes everything away that was installed under `pins`; where nothing is, that is no error.
///
/// # Errors
/// The folder holds what is not ours: that stays, all else is gone.
pub fn detach(pins: &Pins) -> Result<(), Error> {
    let _ = pins;
    Ok(())
}
