//! What of an old map a new one of the same name takes over: the map itself, its entries, or nothing.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::{bpf_cmd, bpf_map_info, bpf_map_type};

use crate::kernel::{call, map_information, zeroed};

/// How an old map is carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// It goes on as it is.
    Whole,
    /// Its entries fit into a new map.
    Entries,
    Nothing,
}

/// Compares a map with what its successor is to be.
pub(crate) fn carry(old: BorrowedFd<'_>, new: &aya_obj::Map) -> io::Result<Carried> {
    let old = map_information(old)?;
    let entry = [old.type_, old.key_size, old.value_size];
    if entry != [new.map_type(), new.key_size(), new.value_size()] {
        return Ok(Carried::Nothing);
    }
    if [old.max_entries, old.map_flags] == [new.max_entries(), new.map_flags()] {
        return Ok(Carried::Whole);
    }
    // Maps of descriptors and rings have no entries that could be written again.
    use bpf_map_type::{
        BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH,
        BPF_MAP_TYPE_LRU_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_HASH,
    };
    let copied = [
        BPF_MAP_TYPE_ARRAY,
        BPF_MAP_TYPE_HASH,
        BPF_MAP_TYPE_LPM_TRIE,
        BPF_MAP_TYPE_LRU_HASH,
        BPF_MAP_TYPE_LRU_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_PERCPU_HASH,
    ];
    if copied.iter().any(|kind| *kind as u32 == old.type_) {
        Ok(Carried::Entries)
    } else {
        Ok(Carried::Nothing)
    }
}

/// Copies the entries of `from` into `to`, which has the same keys and values, as far as there is
/// room. What programs write meanwhile may be missed.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let information = map_information(from)?;
    let mut key = vec![0u8; information.key_size as usize];
    let mut next = key.clone();
    let mut value = vec![0u8; value_bytes(&information)?];
    let mut first = true;
    // A key that goes while it is looked at makes the kernel begin anew: twice around is enough.
    for _ in 0..u64::from(information.max_entries) * 2 {
        let after = (!first).then_some(key.as_slice());
        // SAFETY: keys are as long as the map's.
        if !unsafe { following(from, after, &mut next) }? {
            break;
        }
        first = false;
        std::mem::swap(&mut key, &mut next);
        // SAFETY: key and value are as long as the map's, on all CPUs.
        if unsafe { read(from, &key, &mut value) }? {
            // SAFETY: the same; `to` has the same keys and values.
            unsafe { write(to, &key, &value) }?;
        }
    }
    Ok(())
}

/// Bytes that the kernel reads or writes for a value.
fn value_bytes(information: &bpf_map_info) -> io::Result<usize> {
    let bytes = information.value_size as usize;
    let each = [
        bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
        bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
        bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
    ];
    if each.iter().any(|kind| *kind as u32 == information.type_) {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        return Ok(bytes.next_multiple_of(8) * cpus);
    }
    Ok(bytes)
}

/// Writes the key after `key`, or the first one, into `next`; false at the end.
///
/// # Safety
/// Both are as long as the map's keys.
unsafe fn following(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attributes = zeroed();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attributes.__bindgen_anon_2.key = key.map_or(0, |key| key.as_ptr() as u64);
    attributes.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
    // SAFETY: as the caller promises, and both live across the call.
    match unsafe { call(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attributes) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads an entry; false where there is none.
///
/// # Safety
/// `key` and `value` are as long as the map's, the value on all CPUs.
pub(crate) unsafe fn read(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let command = bpf_cmd::BPF_MAP_LOOKUP_ELEM;
    // SAFETY: as the caller promises; the kernel may write to the value.
    unsafe { element(command, map, key, value.as_mut_ptr() as u64) }
}

/// Writes an entry; false where it finds no room.
///
/// # Safety
/// As with [`read`].
pub(crate) unsafe fn write(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<bool> {
    let command = bpf_cmd::BPF_MAP_UPDATE_ELEM;
    // SAFETY: as the caller promises; the kernel only reads the value.
    unsafe { element(command, map, key, value.as_ptr() as u64) }
}

/// # Safety
/// `key` is as long as the map's, and what `command` does at the address `value` is allowed.
unsafe fn element(
    command: bpf_cmd,
    map: BorrowedFd<'_>,
    key: &[u8],
    value: u64,
) -> io::Result<bool> {
    let mut attributes = zeroed();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attributes.__bindgen_anon_2.key = key.as_ptr() as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = value;
    // SAFETY: as the caller promises, and both live across the call.
    match unsafe { call(command, &mut attributes) } {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::E2BIG | libc::ENOSPC)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};

    use aya::maps::MapData;
    use bpf_map_type::{
        BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH,
        BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_RINGBUF,
    };

    use super::*;

    /// Type, bytes of a key, bytes of a value, entries, flags.
    type Layout = (bpf_map_type, u32, u32, u32, u32);

    const NO_PREALLOC: u32 = aya_obj::generated::BPF_F_NO_PREALLOC;

    fn definition((kind, key, value, entries, flags): Layout) -> aya_obj::Map {
        aya_obj::Map::new_from_params(kind as u32, key, value, entries, flags)
    }

    fn made(layout: Layout) -> OwnedFd {
        let map = MapData::create(definition(layout), "carried", None).unwrap();
        map.fd().as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn a_map_is_carried_over_as_far_as_its_layout_is_the_same() {
        let hash = (BPF_MAP_TYPE_HASH, 8, 16, 64, 0);
        let ring = (BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0);
        for (old, new, expected) in [
            (hash, hash, Carried::Whole),
            (hash, (hash.0, 8, 16, 65, 0), Carried::Entries),
            (hash, (hash.0, 8, 16, 64, NO_PREALLOC), Carried::Entries),
            (hash, (hash.0, 8, 24, 64, 0), Carried::Nothing),
            (hash, (hash.0, 4, 16, 64, 0), Carried::Nothing),
            (
                hash,
                (BPF_MAP_TYPE_LRU_HASH, 8, 16, 64, 0),
                Carried::Nothing,
            ),
            (ring, ring, Carried::Whole),
            (ring, (ring.0, 0, 0, 8192, 0), Carried::Nothing),
        ] {
            let map = made(old);
            let carried = carry(map.as_fd(), &definition(new)).unwrap();
            assert_eq!(carried, expected, "{old:?} to {new:?}");
        }
    }

    /// Keys and values of a map, in order.
    fn content(map: &OwnedFd, key_bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let bytes = value_bytes(&map_information(map.as_fd()).unwrap()).unwrap();
        let mut key = vec![0; key_bytes];
        let mut content = Vec::new();
        let mut before: Option<Vec<u8>> = None;
        // SAFETY: keys and values are as long as the map's.
        while unsafe { following(map.as_fd(), before.as_deref(), &mut key) }.unwrap() {
            let mut value = vec![0; bytes];
            // SAFETY: the same.
            assert!(unsafe { read(map.as_fd(), &key, &mut value) }.unwrap());
            content.push((key.clone(), value));
            before = Some(key.clone());
        }
        content.sort();
        content
    }

    #[test]
    fn entries_are_copied_on_all_cpus_as_far_as_there_is_room() {
        const ENTRIES: u32 = 8;
        for (kind, key, value, flags) in [
            (BPF_MAP_TYPE_HASH, 8, 16, 0),
            (BPF_MAP_TYPE_LRU_HASH, 8, 16, 0),
            (BPF_MAP_TYPE_ARRAY, 4, 16, 0),
            (BPF_MAP_TYPE_PERCPU_ARRAY, 4, 12, 0),
            (BPF_MAP_TYPE_LPM_TRIE, 8, 4, NO_PREALLOC),
        ] {
            let old = made((kind, key, value, ENTRIES, flags));
            let bytes = value_bytes(&map_information(old.as_fd()).unwrap()).unwrap();
            for number in 0..ENTRIES {
                // A prefix begins with its length: 32 bits, and then the number.
                let prefix = [32u32.to_ne_bytes(), number.to_ne_bytes()].concat();
                let key = match kind {
                    BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_PERCPU_ARRAY => &prefix[4..],
                    _ => &prefix,
                };
                let value: Vec<u8> = (0..bytes).map(|at| at as u8 ^ number as u8).collect();
                // SAFETY: keys and values are as long as the map's.
                assert!(unsafe { write(old.as_fd(), key, &value) }.unwrap());
            }
            let entries = content(&old, key as usize);
            assert_eq!(entries.len(), ENTRIES as usize, "{kind:?}");
            for size in [ENTRIES / 2, ENTRIES, ENTRIES * 2] {
                let new = made((kind, key, value, size, flags));
                copy(old.as_fd(), new.as_fd()).unwrap();
                let mut copied = content(&new, key as usize);
                // Arrays have all their entries from the beginning.
                copied.retain(|(_, value)| value.iter().any(|byte| *byte != 0));
                assert!(copied.iter().all(|one| entries.contains(one)), "{kind:?}");
                if size >= ENTRIES {
                    assert_eq!(copied, entries, "{kind:?}, {size}");
                } else {
                    assert!(!copied.is_empty(), "{kind:?}, {size}");
                }
            }
        }
    }
}
