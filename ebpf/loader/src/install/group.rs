//! The pinned links of `account_*` with a control group.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_attach_type;
use postern_ebpf_abi::programs;

use crate::Error;
use crate::install::hook::end;
use crate::kernel::{self, LinkFacts, Object, Place};
use crate::pins::{Pins, in_pin, open, refused, unpin};
use crate::set::{ACCOUNTS, Set};

/// Programs and where they are attached, in this order: whoever hears of beginnings must have seen
/// the packet that began.
const LINKS: [(&str, bpf_attach_type); 3] = [
    (
        programs::ACCOUNT_IN,
        bpf_attach_type::BPF_CGROUP_INET_INGRESS,
    ),
    (
        programs::ACCOUNT_OUT,
        bpf_attach_type::BPF_CGROUP_INET_EGRESS,
    ),
    (programs::ACCOUNT_LIFE, bpf_attach_type::BPF_CGROUP_SOCK_OPS),
];

/// End of the name of a link that is about to take another's place.
const BESIDE: &str = "_new";

/// A control group of version 2.
#[derive(Debug)]
pub(super) struct Group {
    file: File,
    /// Of its folder; the kernel names the group by it.
    number: u64,
}

impl Group {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::System)?;
        let number = file.metadata().map_err(Error::System)?.ino();
        Ok(Self { file, number })
    }

    /// Attaches the set's programs, or puts them in the place of others.
    /// A link with programs of none of the sets is refused.
    pub(super) fn attach(&self, pins: &Pins, set: &Set, others: &[Set]) -> Result<(), Error> {
        for (name, kind) in LINKS {
            let program = set.program(name)?;
            let path = path(pins, name);
            let Some((link, facts)) = pinned(&path)? else {
                self.link(&program, kind, &path)?;
                continue;
            };
            let mut sets = others.iter().chain([set]);
            if !sets.any(|set| set.program_id(name).is_ok_and(|id| id == facts.program)) {
                return Err(refused(&path, "its program is none of ours"));
            }
            if facts.place == Place::Group(self.number) {
                kernel::link_update(&link, program.as_fd()).map_err(in_pin(&path))?;
                continue;
            }
            let beside = path.with_file_name(format!("link_{name}{BESIDE}"));
            unpin(&beside)?;
            self.link(&program, kind, &beside)?;
            std::fs::rename(&beside, &path).map_err(in_pin(&path))?;
            kernel::link_detach(&link).map_err(in_pin(&path))?;
        }
        Ok(())
    }

    fn link(&self, program: &OwnedFd, kind: bpf_attach_type, path: &Path) -> Result<(), Error> {
        let link = kernel::link_group(program.as_fd(), self.file.as_fd(), kind);
        let link = link.map_err(Error::System)?;
        kernel::pin(link.as_fd(), path).map_err(in_pin(path))
    }
}

/// Ends all links that are pinned; the refusal of one that is not ours comes at the end.
pub(super) fn detach(pins: &Pins) -> Result<(), Error> {
    let mut refusal = Ok(());
    for (name, _) in LINKS {
        for end_of_name in ["", BESIDE] {
            let path = path(pins, &format!("{name}{end_of_name}"));
            match pinned(&path) {
                Ok(found) => found.map_or(Ok(()), |(link, _)| end(&link, &path))?,
                Err(error) => refusal = Err(error),
            }
        }
    }
    refusal
}

/// Whether a pin has the name of a link of ours.
pub(crate) fn is_link(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    LINKS.iter().any(|(program, _)| {
        let rest = name.and_then(|name| name.strip_prefix("link_")?.strip_prefix(*program));
        matches!(rest, Some("" | BESIDE))
    })
}

fn path(pins: &Pins, name: &str) -> PathBuf {
    pins.of(&ACCOUNTS).join(format!("link_{name}"))
}

/// The link at `path`; one whose group is gone is unpinned.
fn pinned(path: &Path) -> Result<Option<(OwnedFd, LinkFacts)>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let Object::Link(link) = open(path)? else {
        return Err(refused(path, "it is no link"));
    };
    let facts = kernel::link_facts(link.as_fd()).map_err(in_pin(path))?;
    match facts.place {
        Place::Group(0) => {
            unpin(path)?;
            Ok(None)
        }
        Place::Group(_) => Ok(Some((link, facts))),
        _ => Err(refused(path, "it is no link with a control group")),
    }
}
