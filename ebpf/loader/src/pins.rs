//! The folder on a bpffs where programs, maps and links outlive their process: who may use it, and what lies in it.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::set::Kit;
use crate::{Error, kernel};

/// Bits of a folder's mode that let others in.
const OTHERS: u32 = 0o077;

/// Most entries that a folder of ours may have: more are not ours.
const ENTRIES_MAX: usize = 256;

/// A folder on a bpffs that is ours alone.
#[derive(Debug, Clone)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The folder at `directory`; one that is not there yet is made at the first installation.
    ///
    /// # Errors
    /// It is not on a bpffs, it is another user's, or others may enter it.
    pub fn at(directory: &Path) -> Result<Self, Error> {
        let pins = Self {
            directory: directory.to_owned(),
        };
        if pins.exists()? {
            ours(directory)?;
        } else {
            let parent = directory.parent().filter(|parent| parent.is_absolute());
            let parent = parent.ok_or_else(|| refused(directory, "the path is not absolute"))?;
            on_bpffs(parent)?;
        }
        Ok(pins)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the folder where it is missing, and the kit's folder in it; refuses what is not ours.
    pub(crate) fn prepare(&self, kit: &Kit) -> Result<Lock, Error> {
        make(&self.directory)?;
        ours(&self.directory)?;
        let lock = self.lock()?;
        self.refuse_strangers()?;
        make(&self.of(kit))?;
        Ok(lock)
    }

    /// Keeps others from changing anything here, as long as the lock lives.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        let failed = in_pin(&self.directory);
        let directory = File::open(&self.directory).map_err(&failed)?;
        directory.lock().map_err(failed)?;
        Ok(Lock {
            _directory: directory,
        })
    }

    /// The folder of a kit.
    pub(crate) fn of(&self, kit: &Kit) -> PathBuf {
        self.directory.join(kit.folder)
    }

    pub(crate) fn exists(&self) -> Result<bool, Error> {
        match fs::symlink_metadata(&self.directory) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(in_pin(&self.directory)(source)),
        }
    }

    /// Refuses a folder in which somebody else pinned something.
    pub(crate) fn refuse_strangers(&self) -> Result<(), Error> {
        for entry in entries(&self.directory)? {
            let Some(kit) = Kit::ALL.iter().find(|kit| entry.ends_with(kit.folder)) else {
                return Err(refused(&entry, "it is not ours"));
            };
            ours(&entry)?;
            for entry in entries(&self.of(kit))? {
                kit.refuse_stranger(&entry)?;
            }
        }
        Ok(())
    }
}

/// Held while pins change.
#[derive(Debug)]
pub(crate) struct Lock {
    _directory: File,
}

/// What lies in a folder, in the order of names; nothing where the folder is missing.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = in_pin(folder);
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut entries = Vec::new();
    for entry in listing {
        if entries.len() == ENTRIES_MAX {
            return Err(refused(folder, "it has more entries than we ever make"));
        }
        entries.push(entry.map_err(&failed)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// Makes a folder that only we may enter; one that is there stays as it is.
pub(crate) fn make(folder: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(in_pin(folder)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder with the pins in it; one that is missing is no error.
pub(crate) fn clear(folder: &Path) -> Result<(), Error> {
    for entry in entries(folder)? {
        unpin(&entry)?;
    }
    remove(folder)
}

/// Removes an empty folder; one that is missing is no error.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    gone(fs::remove_dir(folder), folder)
}

/// Removes a pin; one that is missing is no error.
pub(crate) fn unpin(path: &Path) -> Result<(), Error> {
    gone(fs::remove_file(path), path)
}

fn gone(result: io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(in_pin(path)(error)),
        _ => Ok(()),
    }
}

/// Opens a pin. Missing capabilities and an old kernel look alike, and so does nothing else: the
/// kernel answers `EACCES` where the file's mode forbids.
pub(crate) fn open(path: &Path) -> Result<kernel::Object, Error> {
    kernel::open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => Error::OldKernel(error),
        _ => in_pin(path)(error),
    })
}

pub(crate) fn in_pin(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Pin {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn refused(path: &Path, reason: &'static str) -> Error {
    Error::Refused {
        path: path.to_owned(),
        reason,
    }
}

/// Whether a folder is on a bpffs and nobody but us and root gets in.
fn ours(folder: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(folder).map_err(in_pin(folder))?;
    if !metadata.is_dir() {
        return Err(refused(folder, "it is no folder"));
    }
    on_bpffs(folder)?;
    // SAFETY: takes nothing and cannot fail.
    if metadata.uid() != unsafe { libc::geteuid() } {
        return Err(refused(folder, "it belongs to another user"));
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(refused(
            folder,
            "others may enter it; its mode must be 0700",
        ));
    }
    Ok(())
}

fn on_bpffs(folder: &Path) -> Result<(), Error> {
    let failed = in_pin(folder);
    let path = CString::new(folder.as_os_str().as_bytes())
        .map_err(|error| failed(io::Error::from(error)))?;
    // SAFETY: all of its fields are numbers, for which zeros are a value.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and both live across the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut about) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    if about.f_type != libc::BPF_FS_MAGIC as libc::__fsword_t {
        return Err(Error::NotBpffs(folder.to_owned()));
    }
    Ok(())
}
