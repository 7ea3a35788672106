//! The tables among the pins, and the array of maps through which one comes into force: one place, swapped by one write.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya_obj::generated::bpf_map_type;
use postern_ebpf_abi::table::{Settings, Table};

use crate::carry::{read, write};
use crate::kernel::map_information;

/// Key of the only entry.
const KEY: [u8; 4] = [0; 4];

/// An array of maps with one place.
#[derive(Debug)]
pub(crate) struct Slot {
    outer: OwnedFd,
}

impl Slot {
    /// # Errors
    /// It is another kind of map.
    pub(crate) fn of(outer: OwnedFd) -> io::Result<Self> {
        let information = map_information(outer.as_fd())?;
        if information.type_ != bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32 {
            return Err(io::Error::other("it is no array of maps"));
        }
        Ok(Self { outer })
    }

    /// The number of the map that is in it.
    pub(crate) fn get(&self) -> io::Result<Option<u32>> {
        let mut number = [0; 4];
        // SAFETY: keys and values of arrays of maps are four bytes long.
        let found = unsafe { read(self.outer.as_fd(), &KEY, &mut number) }?;
        Ok(found.then(|| u32::from_ne_bytes(number)))
    }

    /// Puts `inner` into it. The kernel answers when no program is running any more that began
    /// with what was there: it waits so after every change of an array of maps.
    pub(crate) fn put(&self, inner: BorrowedFd<'_>) -> io::Result<()> {
        let descriptor = inner.as_raw_fd().to_ne_bytes();
        // SAFETY: keys and values of arrays of maps are four bytes long.
        unsafe { write(self.outer.as_fd(), &KEY, &descriptor) }.map(drop)
    }
}

/// A map with one table, which never lies on the stack: it is larger than some.
#[derive(Debug)]
pub(crate) struct Inner {
    pub number: u32,
    pub map: OwnedFd,
}

impl Inner {
    /// # Errors
    /// It is no array of one table.
    pub(crate) fn of(map: OwnedFd) -> io::Result<Self> {
        let information = map_information(map.as_fd())?;
        let is = [
            information.type_,
            information.key_size,
            information.value_size,
            information.max_entries,
        ];
        let array = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        if is != [array, KEY.len() as u32, size_of::<Table>() as u32, 1] {
            return Err(io::Error::other("it is no table"));
        }
        Ok(Self {
            number: information.id,
            map,
        })
    }

    pub(crate) fn write(&self, table: &Table) -> io::Result<()> {
        let bytes = std::ptr::from_ref(table).cast::<u8>();
        // SAFETY: of a `Plain` value every byte is set, and these are the table's.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, size_of::<Table>()) };
        // SAFETY: the map's keys and values are so long, as was seen when it was opened.
        unsafe { write(self.map.as_fd(), &KEY, bytes) }.map(drop)
    }

    pub(crate) fn settings(&self) -> io::Result<Settings> {
        let mut bytes = vec![0; size_of::<Table>()];
        // SAFETY: the map's keys and values are so long, as was seen when it was opened.
        unsafe { read(self.map.as_fd(), &KEY, &mut bytes) }?;
        const { assert!(std::mem::offset_of!(Table, settings) == 0) };
        // SAFETY: the table begins with them, and of `Plain` parts every pattern is a value.
        Ok(unsafe { bytes.as_ptr().cast::<Settings>().read_unaligned() })
    }
}
