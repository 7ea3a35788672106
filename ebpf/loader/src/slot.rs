//! The array of maps through which a table comes into force: one place, swapped by one write.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use crate::carry::element;
use crate::kernel::map_information;

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
        let outer = self.outer.as_fd();
        // SAFETY: keys and values of arrays of maps are four bytes long.
        let found = unsafe { element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, outer, &[0; 4], &mut number) }?;
        Ok(found.then(|| u32::from_ne_bytes(number)))
    }

    /// Puts `inner` into it, and waits for the programs that still run with what was there.
    pub(crate) fn put(&self, inner: BorrowedFd<'_>) -> io::Result<()> {
        let mut descriptor = inner.as_raw_fd().to_ne_bytes();
        let outer = self.outer.as_fd();
        // SAFETY: keys and values of arrays of maps are four bytes long.
        let done = unsafe {
            element(
                bpf_cmd::BPF_MAP_UPDATE_ELEM,
                outer,
                &[0; 4],
                &mut descriptor,
            )
        }?;
        debug_assert!(done, "the place is always there");
        Ok(())
    }
}
