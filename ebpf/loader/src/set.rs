//! A set: the programs of one object and their maps, pinned in a folder that is named after the object.
//!
//! A set is made in a folder of another name, which is renamed when all is there: a folder with a
//! set's name is whole, whatever happened to the process that made it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use aya_obj::Object;
use postern_ebpf_abi::{maps, programs};
use ring::digest::{SHA256, digest};

use crate::carry::{Carried, carry, copy};
use crate::install::{group, hook};
use crate::kernel::{self, Object as Pinned};
use crate::pins::{Pins, clear, entries, in_pin, make, open, refused};
use crate::programs::permission;
use crate::{Error, object};

/// Raised when what is in a map means something else than before while its size is the same:
/// no map of a set with another number is carried over.
const LAYOUT: u32 = 1;

/// Folder of a set that is being made.
const MAKING: &str = "making";

/// Connections that are accounted at a time; the kernel has memory for all of them from the beginning.
pub(crate) const FLOWS_MAX: u32 = 262_144;

/// What is installed together.
#[derive(Debug)]
pub(crate) struct Kit {
    pub folder: &'static str,
    pub programs: &'static [&'static str],
    /// Whether a map of the object is the kit's.
    owns: fn(&str) -> bool,
    /// Maps that every set has for itself.
    apart: &'static [&'static str],
    /// Maps whose size is not the object's.
    sizes: &'static [(&'static str, u32)],
    /// Whether a pin has the name of one of its links.
    links: fn(&Path) -> bool,
}

pub(crate) const STEERING: Kit = Kit {
    folder: "steering",
    programs: &[programs::STEER, programs::REDIRECT],
    owns: |name| {
        let others = ["PLACE_", "ACCOUNT_", "."];
        name != maps::MEASURED_FLOWS && !others.iter().any(|other| name.starts_with(other))
    },
    // The old programs go on to the old program, the new ones to the new one.
    apart: &[maps::NEXT],
    sizes: &[],
    links: |path| hook::mode_of(path).is_some(),
};

pub(crate) const PLACEMENT: Kit = Kit {
    folder: "placement",
    programs: &[programs::PLACE],
    owns: |name| name.starts_with("PLACE_"),
    apart: &[],
    sizes: &[],
    links: |_| false,
};

pub(crate) const ACCOUNTS: Kit = Kit {
    folder: "accounts",
    programs: &[
        programs::ACCOUNT_IN,
        programs::ACCOUNT_OUT,
        programs::ACCOUNT_LIFE,
    ],
    owns: |name| name.starts_with("ACCOUNT_"),
    apart: &[],
    sizes: &[(maps::ACCOUNT_FLOWS, FLOWS_MAX)],
    links: group::is_link,
};

impl Kit {
    pub(crate) const ALL: [&'static Self; 3] = [&STEERING, &PLACEMENT, &ACCOUNTS];

    /// Refuses what none of our versions puts into the kit's folder.
    pub(crate) fn refuse_stranger(&self, entry: &Path) -> Result<(), Error> {
        let name = name_of(entry);
        let known = if entry.is_dir() {
            name == MAKING || layout_of(name).is_some()
        } else {
            (self.links)(entry)
        };
        if known {
            return Ok(());
        }
        Err(refused(entry, "it is not ours"))
    }

    /// The kit's maps as the object defines them.
    fn definitions(&self) -> Result<Vec<(String, aya_obj::Map)>, Error> {
        let object = Object::parse(object::bytes()).map_err(|error| Error::Object(error.into()))?;
        let mut definitions: Vec<_> = object
            .maps
            .into_iter()
            .filter(|(name, _)| (self.owns)(name))
            .collect();
        definitions.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, definition) in &mut definitions {
            if let Some((_, size)) = self.sizes.iter().find(|(sized, _)| sized == name) {
                definition.set_max_entries(*size);
            }
        }
        Ok(definitions)
    }
}

/// A whole set.
#[derive(Debug)]
pub(crate) struct Set {
    path: PathBuf,
}

impl Set {
    /// The set of the embedded object, when it is there.
    pub(crate) fn own(pins: &Pins, kit: &Kit) -> Option<Self> {
        let path = pins.of(kit).join(own_name());
        path.is_dir().then_some(Self { path })
    }

    /// The same for who cannot make one.
    pub(crate) fn installed(pins: &Pins, kit: &Kit) -> Result<Self, Error> {
        Self::own(pins, kit).ok_or(Error::NotInstalled(kit.folder))
    }

    /// Sets of other objects.
    pub(crate) fn others(pins: &Pins, kit: &Kit) -> Result<Vec<Self>, Error> {
        let own = own_name();
        let sets = entries(&pins.of(kit))?.into_iter().filter(|entry| {
            let name = name_of(entry);
            name != own && layout_of(name).is_some()
        });
        Ok(sets.map(|path| Self { path }).collect())
    }

    /// A program of the set.
    pub(crate) fn program(&self, name: &str) -> Result<OwnedFd, Error> {
        let path = self.path.join(name);
        let Pinned::Program(program) = open(&path)? else {
            return Err(refused(&path, "it is no program"));
        };
        let information = kernel::program_information(program.as_fd()).map_err(in_pin(&path))?;
        // The kernel keeps 15 bytes of it.
        let known = information.name.iter().map(|byte| *byte as u8);
        if !known
            .take_while(|byte| *byte != 0)
            .eq(name.bytes().take(15))
        {
            return Err(refused(&path, "it is another program"));
        }
        Ok(program)
    }

    /// Where a program of the set is pinned.
    pub(crate) fn pin_of(&self, name: &str) -> Result<PathBuf, Error> {
        self.program(name)?;
        Ok(self.path.join(name))
    }

    /// The number by which the kernel knows a program of the set.
    pub(crate) fn program_id(&self, name: &str) -> Result<u32, Error> {
        let program = self.program(name)?;
        let information = kernel::program_information(program.as_fd());
        Ok(information.map_err(in_pin(&self.path.join(name)))?.id)
    }

    /// A map of the set.
    pub(crate) fn map(&self, name: &'static str) -> Result<Map, Error> {
        let failed = |source| Error::Map { name, source };
        let map = MapData::from_fd(self.map_descriptor(name)?).map_err(failed)?;
        Map::from_map_data(map).map_err(failed)
    }

    pub(crate) fn map_descriptor(&self, name: &str) -> Result<OwnedFd, Error> {
        let path = self.path.join(name);
        match open(&path)? {
            Pinned::Map(map) => Ok(map),
            _ => Err(refused(&path, "it is no map")),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// Unpins all of it.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        clear(&self.path)
    }
}

/// A set that was just made.
#[derive(Debug)]
pub(crate) struct Made {
    pub set: Set,
    /// Maps of the old set whose content could not be carried over.
    pub renewed: Vec<String>,
}

/// A set as it is made.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub folder: &'a Path,
    pub ebpf: &'a mut Ebpf,
    pub old: Option<&'a Set>,
    pub renewed: &'a [String],
}

/// Makes the kit's set of the embedded object. What the maps of `old` hold is carried over: by
/// taking the map itself where its layout is the same, else by copying entries where these fit.
///
/// `accept` may object to a map's being carried over; `finish` does what is special to the kit.
pub(crate) fn make_set(
    pins: &Pins,
    kit: &Kit,
    old: Option<&Set>,
    accept: impl Fn(&str, &[String]) -> Result<bool, Error>,
    finish: impl FnOnce(Making<'_>) -> Result<(), Error>,
) -> Result<Made, Error> {
    let folder = pins.of(kit).join(MAKING);
    clear(&folder)?;
    make(&folder)?;
    let mut renewed = Vec::new();
    let mut copies = Vec::new();
    let definitions = kit.definitions()?;
    for (name, definition) in &definitions {
        let Some(old) = old.filter(|old| old.has(name) && !kit.apart.contains(&name.as_str()))
        else {
            continue;
        };
        let map = old.map_descriptor(name)?;
        let path = folder.join(name);
        let same = layout_of(name_of(&old.path)) == Some(LAYOUT) && accept(name, &renewed)?;
        match carry(map.as_fd(), definition).map_err(in_pin(&path))? {
            Carried::Whole if same => kernel::pin(map.as_fd(), &path).map_err(in_pin(&path))?,
            Carried::Entries if same => copies.push((name, map)),
            _ => renewed.push(name.clone()),
        }
    }
    let mut loader = EbpfLoader::new();
    for (name, size) in kit.sizes {
        loader.map_max_entries(name, *size);
    }
    for (name, _) in &definitions {
        loader.map_pin_path(name, folder.join(name));
    }
    let mut ebpf = loader.load(object::bytes()).map_err(permission)?;
    for name in kit.programs {
        let program = load(&mut ebpf, name)?;
        let path = folder.join(name);
        kernel::pin(program.as_fd(), &path).map_err(in_pin(&path))?;
    }
    let making = Set {
        path: folder.clone(),
    };
    for (name, from) in copies {
        let to = making.map_descriptor(name)?;
        copy(from.as_fd(), to.as_fd()).map_err(in_pin(&folder.join(name)))?;
    }
    finish(Making {
        folder: &folder,
        ebpf: &mut ebpf,
        old,
        renewed: &renewed,
    })?;
    let path = pins.of(kit).join(own_name());
    std::fs::rename(&folder, &path).map_err(in_pin(&path))?;
    Ok(Made {
        set: Set { path },
        renewed,
    })
}

/// Lets the kernel's verifier look at a program.
fn load<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a aya::programs::ProgramFd, Error> {
    let failed = |source| Error::Program { name, source };
    let program = ebpf.program_mut(name).ok_or(Error::Missing(name))?;
    match program {
        Program::Xdp(program) => program.load(),
        Program::SkReuseport(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => return Err(Error::Missing(name)),
    }
    .map_err(failed)?;
    program.fd().map_err(failed)
}

/// Name of the embedded object's set: layout and the beginning of the object's SHA-256.
fn own_name() -> String {
    let digest = digest(&SHA256, object::bytes());
    let start = digest.as_ref().iter().take(8);
    start.fold(format!("{LAYOUT}_"), |name, byte| {
        format!("{name}{byte:02x}")
    })
}

/// The layout that a set's name tells; none for other names.
fn layout_of(name: &str) -> Option<u32> {
    let (layout, digest) = name.split_once('_')?;
    let hexadecimal = digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    layout.parse().ok().filter(|_| hexadecimal)
}

/// The last part of a path; nothing where it is not text, which no name of ours is.
fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_known_by_its_name() {
        for (name, layout) in [
            (own_name().as_str(), Some(LAYOUT)),
            ("7_0123456789abcdef", Some(7)),
            ("7_0123456789abcde", None),
            ("7_0123456789abcdeg", None),
            ("_0123456789abcdef", None),
            (MAKING, None),
            ("", None),
        ] {
            assert_eq!(layout_of(name), layout, "{name}");
        }
    }

    #[test]
    fn every_map_of_the_object_is_one_kits_but_for_those_of_measurements() {
        let object = Object::parse(object::bytes()).unwrap();
        for name in object.maps.keys() {
            let owners = Kit::ALL.iter().filter(|kit| (kit.owns)(name)).count();
            let measured = name == maps::MEASURED_FLOWS || name.starts_with('.');
            assert_eq!(owners, usize::from(!measured), "{name}");
        }
    }
}
