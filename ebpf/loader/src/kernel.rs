//! The kernel's calls for pins and links, and what it tells of its objects: aya has not all of them, and asks for capabilities in some.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_map_info, bpf_prog_info,
};

use crate::Mode;

/// The kernel refuses attributes whose unused bytes are not 0.
pub(crate) fn zeroed() -> bpf_attr {
    // SAFETY: all of its fields are numbers, for which zeros are a value.
    unsafe { std::mem::zeroed() }
}

/// # Safety
/// Every address in `attributes` is good for what `command` reads and writes there.
pub(crate) unsafe fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: as the caller promises; the size is that of the attributes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// # Safety
/// As with [`call`], and `command` answers with a new descriptor.
unsafe fn call_for_descriptor(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let descriptor = unsafe { call(command, attributes) }?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Pins an object at `path`, where nothing may be yet.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = zeroed();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = object.as_raw_fd() as u32;
    // SAFETY: the path ends with a zero and lives across the call.
    unsafe { call(bpf_cmd::BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// What lies at a pin.
#[derive(Debug)]
pub(crate) enum Object {
    Map(OwnedFd),
    Program(OwnedFd),
    Link(OwnedFd),
}

/// Opens the object at `path`.
pub(crate) fn open(path: &Path) -> io::Result<Object> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = zeroed();
    attributes.__bindgen_anon_4.pathname = c_path.as_ptr() as u64;
    // SAFETY: the path ends with a zero and lives across the call.
    let object = unsafe { call_for_descriptor(bpf_cmd::BPF_OBJ_GET, &mut attributes) }?;
    // The kernel tells what it is by the name of the descriptor alone.
    let name = std::fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))?;
    let name = name.to_string_lossy();
    if name.contains("bpf-map") {
        Ok(Object::Map(object))
    } else if name.contains("bpf-prog") {
        Ok(Object::Program(object))
    } else if name.contains("bpf_link") || name.contains("bpf-link") {
        Ok(Object::Link(object))
    } else {
        Err(io::Error::other(
            "neither map, program nor link is pinned there",
        ))
    }
}

/// Fills `information`, one of the structures that the kernel describes its objects in.
///
/// # Safety
/// `T` is the structure for objects like `object`, and all of its bits may be anything.
unsafe fn describe<T>(object: BorrowedFd<'_>, information: &mut T) -> io::Result<()> {
    let mut attributes = zeroed();
    attributes.info.bpf_fd = object.as_raw_fd() as u32;
    attributes.info.info_len = size_of::<T>() as u32;
    attributes.info.info = std::ptr::from_mut(information) as u64;
    // SAFETY: the structure lives across the call and is as large as it says.
    unsafe { call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }.map(drop)
}

pub(crate) fn map_information(map: BorrowedFd<'_>) -> io::Result<bpf_map_info> {
    // SAFETY: numbers all, for which zeros are a value.
    let mut information: bpf_map_info = unsafe { std::mem::zeroed() };
    // SAFETY: it is the structure for maps; of another object the kernel writes other numbers.
    unsafe { describe(map, &mut information) }?;
    Ok(information)
}

pub(crate) fn program_information(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: numbers all, for which zeros are a value; no addresses: the kernel writes no lists.
    let mut information: bpf_prog_info = unsafe { std::mem::zeroed() };
    // SAFETY: it is the structure for programs; of another object the kernel writes other numbers.
    unsafe { describe(program, &mut information) }?;
    Ok(information)
}

/// What a link holds where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkFacts {
    pub program: u32,
    pub place: Place,
}

/// Where a link is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// An interface, by its number; 0 when it is gone.
    Interface(u32),
    /// A control group, by its number; 0 when it is gone.
    Group(u64),
    Other,
}

pub(crate) fn link_facts(link: BorrowedFd<'_>) -> io::Result<LinkFacts> {
    use aya_obj::generated::bpf_link_type::{BPF_LINK_TYPE_CGROUP, BPF_LINK_TYPE_XDP};
    // SAFETY: numbers all, for which zeros are a value.
    let mut information: bpf_link_info = unsafe { std::mem::zeroed() };
    // SAFETY: it is the structure for links; of another object the kernel writes other numbers.
    unsafe { describe(link, &mut information) }?;
    let place = match information.type_ {
        kind if kind == BPF_LINK_TYPE_XDP as u32 => {
            // SAFETY: the union's field for links of this type.
            Place::Interface(unsafe { information.__bindgen_anon_1.xdp.ifindex })
        }
        kind if kind == BPF_LINK_TYPE_CGROUP as u32 => {
            // SAFETY: the union's field for links of this type.
            Place::Group(unsafe { information.__bindgen_anon_1.cgroup.cgroup_id })
        }
        _ => Place::Other,
    };
    Ok(LinkFacts {
        program: information.prog_id,
        place,
    })
}

/// Attaches a program to an interface.
pub(crate) fn link_interface(
    program: BorrowedFd<'_>,
    interface: u32,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attributes.link_create.__bindgen_anon_2.target_ifindex = interface;
    attributes.link_create.attach_type = bpf_attach_type::BPF_XDP as u32;
    attributes.link_create.flags = match mode {
        Mode::Native => aya_obj::generated::XDP_FLAGS_DRV_MODE,
        Mode::Generic => aya_obj::generated::XDP_FLAGS_SKB_MODE,
    };
    // SAFETY: the attributes hold no address.
    unsafe { call_for_descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// Attaches a program to a control group.
pub(crate) fn link_group(
    program: BorrowedFd<'_>,
    group: BorrowedFd<'_>,
    kind: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attributes.link_create.__bindgen_anon_2.target_fd = group.as_raw_fd() as u32;
    attributes.link_create.attach_type = kind as u32;
    // SAFETY: the attributes hold no address.
    unsafe { call_for_descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// Puts another program in a link's place, between one packet and the next.
pub(crate) fn link_update(link: impl AsFd, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = zeroed();
    attributes.link_update.link_fd = link.as_fd().as_raw_fd() as u32;
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    // SAFETY: the attributes hold no address.
    unsafe { call(bpf_cmd::BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

/// Ends a link, whoever else holds it.
pub(crate) fn link_detach(link: impl AsFd) -> io::Result<()> {
    let mut attributes = zeroed();
    attributes.link_detach.link_fd = link.as_fd().as_raw_fd() as u32;
    // SAFETY: the attributes hold no address.
    unsafe { call(bpf_cmd::BPF_LINK_DETACH, &mut attributes) }.map(drop)
}
