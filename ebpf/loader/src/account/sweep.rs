//! The map of flows in big bites: batches to look through, and taking out one at a time. aya has neither call.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::bpf_cmd;
use postern_ebpf_abi::account::{FlowKey, FlowRecord};

use crate::kernel::{call, zeroed};

/// Flows in a batch. The kernel fills it with whole buckets of its hash table, which hold a few.
const BATCH: usize = 4096;

/// A walk over all flows that are in the map from beginning to end. One that enters or leaves in
/// the meantime may be missed or not.
pub(super) struct Sweep<'a> {
    map: BorrowedFd<'a>,
    /// Where the kernel goes on; none at the beginning.
    cursor: Option<u32>,
    ended: bool,
    keys: Vec<FlowKey>,
    records: Vec<FlowRecord>,
}

impl<'a> Sweep<'a> {
    /// `map` is the map of flows.
    pub(super) fn of(map: BorrowedFd<'a>) -> Self {
        let nobody = FlowKey::between(([0, 0, 0, 0], 0).into(), ([0, 0, 0, 0], 0).into());
        Self {
            map,
            cursor: None,
            ended: false,
            keys: vec![nobody; BATCH],
            records: vec![FlowRecord::default(); BATCH],
        }
    }

    /// The next flows; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<(FlowKey, FlowRecord)>>> {
        if self.ended {
            return Ok(None);
        }
        let mut next = 0u32;
        let mut attributes = zeroed();
        attributes.batch.in_batch = self
            .cursor
            .as_ref()
            .map_or(0, |cursor| std::ptr::from_ref(cursor) as u64);
        attributes.batch.out_batch = &raw mut next as u64;
        attributes.batch.keys = self.keys.as_mut_ptr() as u64;
        attributes.batch.values = self.records.as_mut_ptr() as u64;
        attributes.batch.count = BATCH as u32;
        attributes.batch.map_fd = self.map.as_raw_fd() as u32;
        // SAFETY: cursor, keys and records live across the call, have room for `BATCH` entries of
        // the map's key and value types, and of these every pattern is a value.
        match unsafe { call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.ended = true,
            Err(error) => return Err(error),
        }
        self.cursor = Some(next);
        // SAFETY: the call was for `batch`, the union's field that was written last.
        let count = unsafe { attributes.batch.count } as usize;
        let found = self.keys.iter().zip(&self.records).take(count.min(BATCH));
        Ok(Some(found.map(|(key, record)| (*key, *record)).collect()))
    }
}

/// Takes a flow out of `map`, the map of flows; none when it is not in there.
pub(super) fn take(map: BorrowedFd<'_>, key: &FlowKey) -> io::Result<Option<FlowRecord>> {
    let mut record = FlowRecord::default();
    let mut attributes = zeroed();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attributes.__bindgen_anon_2.key = std::ptr::from_ref(key) as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = &raw mut record as u64;
    // SAFETY: key and record live across the call and are the map's key and value types.
    match unsafe { call(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attributes) } {
        Ok(_) => Ok(Some(record)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
