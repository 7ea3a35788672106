//! What the privileged process does at its start: loads, pins and attaches, or adopts or replaces what is there.

pub(crate) mod group;
pub(crate) mod hook;
mod refusal;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::maps::Array;
use postern_ebpf_abi::place::Rules;
use postern_ebpf_abi::{maps, programs};

use crate::maps::Raw;
use crate::pins::{clear, entries, in_pin, refused, remove};
use crate::set::{ACCOUNTS, Kit, Made, PLACEMENT, STEERING, Set, make_set};
use crate::{Error, Mode, Pins, Wish, kernel, steering};
use hook::{Hook, hooks};

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
    /// As in [`Outcome`]. With the table among them, the replaced programs steer by theirs until
    /// [`crate::Steering::put_table`] gives the new ones their first.
    pub renewed: Vec<String>,
}

/// Steers what arrives at `interface` from now on, also when this process is gone. Another
/// interface that was steered is let go after that.
///
/// No packet goes unsteered meanwhile, but for one case: an interface that runs programs in the
/// mode that is not wished has to stop before it takes the other.
///
/// # Errors
/// The process may not, the interface does not take what is wished, or the folder holds what is
/// not ours.
pub fn install_steering(pins: &Pins, interface: &str, wish: Wish) -> Result<Installed, Error> {
    let number = number_of(interface)?;
    let _lock = pins.prepare(&STEERING)?;
    let hooks = hooks(pins)?;
    let old = in_force(pins, &hooks)?;
    let (set, outcome) = own_or_made(pins, &STEERING, old.as_ref(), |old| {
        make_set(
            pins,
            &STEERING,
            old,
            |name, renewed| match old {
                Some(old) => steering::accept(old, name, renewed),
                None => Ok(false),
            },
            steering::finish,
        )
    })?;
    // Programs without a table let everything pass: those that have one go on until then.
    let steering_now = match &old {
        Some(old) if steering::has_table(old)? && !steering::has_table(&set)? => old,
        _ => &set,
    };
    let program = steering_now.program(programs::STEER)?;
    let here = hooks.iter().find(|hook| hook.interface == number);
    let (mode, native_refused) = match here {
        Some(hook) if allows(wish, hook.mode) => {
            kernel::link_update(&hook.link, program.as_fd()).map_err(in_pin(&hook.path))?;
            let kept = "it ran in generic mode before, and still does";
            let told = hook.mode == Mode::Generic && wish == Wish::Auto;
            (hook.mode, told.then(|| kept.to_owned()))
        }
        Some(hook) => change_mode(pins, hook, &program, (interface, number), wish)?,
        None => hook::attach(pins, program.as_fd(), (interface, number), wish)?,
    };
    for hook in hooks.iter().filter(|hook| hook.interface != number) {
        hook.remove()?;
    }
    if std::ptr::eq(steering_now, &raw const set) {
        steering::take_over(pins, &set)?;
    }
    Ok(Installed {
        mode,
        history: outcome.history,
        native_refused,
        renewed: outcome.renewed,
    })
}

/// Makes `place` and its maps ready for [`crate::Placement::join`].
///
/// # Errors
/// The process may not, or the folder holds what is not ours.
pub fn install_placement(pins: &Pins) -> Result<Outcome, Error> {
    let _lock = pins.prepare(&PLACEMENT)?;
    let others = Set::others(pins, &PLACEMENT)?;
    let (_, outcome) = own_or_made(pins, &PLACEMENT, others.last(), |old| {
        make_set(pins, &PLACEMENT, old, |_, _| Ok(true), |_| Ok(()))
    })?;
    // Groups that have the old program keep it, and its maps, as long as they have a socket.
    for other in others {
        other.remove()?;
    }
    Ok(outcome)
}

/// Accounts the connections of `cgroup` from now on, also when this process is gone. Another group
/// that was accounted is let go after that.
///
/// # Errors
/// The process may not, it is no control group of version 2, or the folder holds what is not ours.
pub fn install_accounts(pins: &Pins, cgroup: &Path) -> Result<Outcome, Error> {
    let group = group::Group::open(cgroup)?;
    let _lock = pins.prepare(&ACCOUNTS)?;
    let others = Set::others(pins, &ACCOUNTS)?;
    let (set, outcome) = own_or_made(pins, &ACCOUNTS, others.last(), |old| {
        make_set(pins, &ACCOUNTS, old, |_, _| Ok(true), |_| Ok(()))
    })?;
    group.attach(pins, &set, &others)?;
    for other in others {
        other.remove()?;
    }
    Ok(outcome)
}

/// What can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Steering,
    Placement,
    Accounts,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Steering, Self::Placement, Self::Accounts];

    const fn kit(self) -> &'static Kit {
        match self {
            Self::Steering => &STEERING,
            Self::Placement => &PLACEMENT,
            Self::Accounts => &ACCOUNTS,
        }
    }
}

/// Takes everything away that was installed under `pins`, the folder included; where nothing is,
/// that is no error. Groups of sockets are left to the kernel's hash.
///
/// # Errors
/// The folder holds what is not ours: that stays, all else is gone.
pub fn detach(pins: &Pins) -> Result<(), Error> {
    if !pins.exists()? {
        return Ok(());
    }
    let _lock = pins.lock()?;
    let mut stranger = None;
    for part in Part::ALL {
        stranger = take_away(pins, part)?.or(stranger);
    }
    let left = entries(pins.directory())?;
    match (stranger, left.first()) {
        (Some(stranger), _) => Err(stranger),
        (None, Some(entry)) => Err(refused(entry, "it is not ours")),
        (None, None) => match remove(pins.directory()) {
            // It lies in a folder of somebody else, who made it for us; it is empty.
            Err(Error::Pin { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Ok(())
            }
            removed => removed,
        },
    }
}

/// The same for one part, as when it is no longer configured.
///
/// # Errors
/// As with [`detach`].
pub fn detach_part(pins: &Pins, part: Part) -> Result<(), Error> {
    if !pins.exists()? {
        return Ok(());
    }
    let _lock = pins.lock()?;
    take_away(pins, part)?.map_or(Ok(()), Err)
}

/// Removes all of a part that is ours; the refusal of what is not.
fn take_away(pins: &Pins, part: Part) -> Result<Option<Error>, Error> {
    let ended = match part {
        Part::Steering => hook::detach(pins),
        Part::Placement => forget_sockets(pins),
        Part::Accounts => group::detach(pins),
    };
    let mut stranger = match ended {
        Err(error @ Error::Refused { .. }) => Some(error),
        ended => ended.map(|()| None)?,
    };
    let kit = part.kit();
    let folder = pins.of(kit);
    for entry in entries(&folder)? {
        // Links of ours are gone by now.
        if entry.is_dir() && kit.refuse_stranger(&entry).is_ok() {
            clear(&entry)?;
        } else {
            stranger.get_or_insert_with(|| refused(&entry, "it is not ours"));
        }
    }
    if stranger.is_none() {
        remove(&folder)?;
    }
    Ok(stranger)
}

/// The embedded object's set, which is there or is made after `old`.
fn own_or_made<'a>(
    pins: &Pins,
    kit: &Kit,
    old: Option<&'a Set>,
    make: impl FnOnce(Option<&'a Set>) -> Result<Made, Error>,
) -> Result<(Set, Outcome), Error> {
    if let Some(set) = Set::own(pins, kit) {
        let outcome = Outcome {
            history: History::Adopted,
            renewed: Vec::new(),
        };
        return Ok((set, outcome));
    }
    let Made { set, renewed } = make(old)?;
    let history = if old.is_some() {
        History::Replaced
    } else {
        History::Fresh
    };
    Ok((set, Outcome { history, renewed }))
}

/// The set of another object whose programs steer now. A link with programs of no set of ours is
/// refused.
fn in_force(pins: &Pins, hooks: &[Hook]) -> Result<Option<Set>, Error> {
    let mut others = Set::others(pins, &STEERING)?;
    let own = Set::own(pins, &STEERING);
    let mut found = None;
    for hook in hooks {
        let runs = |set: &Set| Ok(set.program_id(programs::STEER)? == hook.facts.program);
        if own.as_ref().map(runs).transpose()?.unwrap_or(false) {
            continue;
        }
        let position = others
            .iter()
            .map(runs)
            .position(|runs: Result<bool, Error>| {
                // What cannot be opened is nobody's, and the link is refused below.
                runs.unwrap_or(false)
            });
        match position {
            Some(position) => found = Some(position),
            None => return Err(refused(&hook.path, "its program is none of ours")),
        }
    }
    Ok(found.map(|position| others.swap_remove(position)))
}

/// Lets an interface go on in the other mode: it takes no second program before it lost the first.
fn change_mode(
    pins: &Pins,
    hook: &Hook,
    program: &OwnedFd,
    interface: (&str, u32),
    wish: Wish,
) -> Result<(Mode, Option<String>), Error> {
    hook.remove()?;
    hook::attach(pins, program.as_fd(), interface, wish).or_else(|error| {
        let before = match hook.mode {
            Mode::Native => Wish::Native,
            Mode::Generic => Wish::Generic,
        };
        hook::attach(pins, program.as_fd(), interface, before)?;
        Err(error)
    })
}

fn allows(wish: Wish, mode: Mode) -> bool {
    match wish {
        Wish::Auto => true,
        Wish::Native => mode == Mode::Native,
        Wish::Generic => mode == Mode::Generic,
    }
}

/// Empties the rules of placement: the kernel's hash decides from now on, in groups that have the
/// program as well.
fn forget_sockets(pins: &Pins) -> Result<(), Error> {
    let name = maps::PLACE_RULES;
    let sets = Set::others(pins, &PLACEMENT)?;
    for set in sets.into_iter().chain(Set::own(pins, &PLACEMENT)) {
        // Rules of another layout are not ours to write.
        if let Ok(mut rules) = Array::<_, Raw<Rules>>::try_from(set.map(name)?) {
            let failed = |source| Error::Map { name, source };
            rules.set(0, Raw(Rules::of(0)), 0).map_err(failed)?;
        }
    }
    Ok(())
}

fn number_of(interface: &str) -> Result<u32, Error> {
    let unknown = || Error::NoInterface(interface.to_owned());
    let name = CString::new(interface).map_err(|_| unknown())?;
    // SAFETY: the name ends with a zero and lives across the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(unknown()),
        number => Ok(number),
    }
}
