//! What is asked of the kernel, as submission entries, and how its answers are told apart.

use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use postern_relay::Leg;
use postern_relay::memory::RECEIVE_BYTES_MAX;

use crate::relay::buffers::GROUP;
use crate::relay::machine::Key;
use crate::relay::slab::GENERATION_BITS;

use super::setup::ReceiveMode;

/// Where a submission entry has its byte counts (`struct io_uring_sqe`): of one receive, and of all
/// receives of a multishot request.
const LEN_OFFSET: usize = 24;
const OPTLEN_OFFSET: usize = 44;

const _: () = assert!(size_of::<Entry>() == 64 && align_of::<Entry>() >= align_of::<u32>());
const _: () = assert!(OPTLEN_OFFSET + size_of::<u32>() <= size_of::<Entry>());

/// Bits of an answer's tag, from the lowest: index, generation, leg, kind.
const INDEX_BITS: u32 = 32;
const LEG_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;
const KIND_SHIFT: u32 = LEG_SHIFT + 1;

const _: () = assert!(KIND_SHIFT < u64::BITS - 2, "a kind takes three bits");

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Receive,
    Send,
    ShutDown,
    /// For a spliced lane: its source has bytes or its sink has room.
    Ready,
    /// Nobody waits for the answer.
    Cancel,
    /// The hand-over queue rang.
    Wake,
    /// A descriptor for a socket that is in the ring's table alone.
    Descriptor,
}

/// Comes back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    pub kind: Kind,
    pub leg: Leg,
    pub key: Key,
}

/// How the kernel is told of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A place in the ring's own table.
    Fixed(u32),
    Descriptor(RawFd),
}

const NOBODY: Key = Key {
    index: 0,
    generation: 0,
};

impl Kind {
    const ALL: [Self; 7] = [
        Self::Receive,
        Self::Send,
        Self::ShutDown,
        Self::Ready,
        Self::Cancel,
        Self::Wake,
        Self::Descriptor,
    ];
}

impl Tag {
    #[must_use]
    pub fn new(kind: Kind, key: Key, leg: Leg) -> Self {
        Self { kind, leg, key }
    }

    #[must_use]
    pub fn pack(self) -> u64 {
        u64::from(self.key.index)
            | u64::from(self.key.generation) << INDEX_BITS
            | (self.leg.index() as u64) << LEG_SHIFT
            | (self.kind as u64) << KIND_SHIFT
    }

    /// The tag of an answer; none when it is not one of ours.
    #[must_use]
    pub fn unpack(bits: u64) -> Option<Self> {
        let kind = *Kind::ALL.get((bits >> KIND_SHIFT) as usize)?;
        let generation = (bits >> INDEX_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
        Some(Self {
            kind,
            leg: Leg::BOTH[(bits >> LEG_SHIFT) as usize & 1],
            key: Key {
                index: bits as u32,
                generation,
            },
        })
    }
}

impl Target {
    fn descriptor(self) -> types::Fd {
        types::Fd(match self {
            Self::Fixed(slot) => RawFd::try_from(slot).expect("tables are far smaller than 2^31"),
            Self::Descriptor(descriptor) => descriptor,
        })
    }

    fn flags(self) -> Flags {
        match self {
            Self::Fixed(_) => Flags::FIXED_FILE,
            Self::Descriptor(_) => Flags::empty(),
        }
    }

    /// Receives at most [`RECEIVE_BYTES_MAX`] into provided buffers.
    #[must_use]
    pub fn receive(self, mode: ReceiveMode, tag: Tag) -> Entry {
        let entry = match mode {
            ReceiveMode::CappedBundles => capped_bundles(self, RECEIVE_BYTES_MAX as u32),
            ReceiveMode::Single => single(self, RECEIVE_BYTES_MAX as u32),
        };
        entry.user_data(tag.pack())
    }

    /// Sends all of `bytes`, which must stay where they are until the answer has come.
    #[must_use]
    pub fn send(self, bytes: &[u8], tag: Tag) -> Entry {
        self.send_flagged(bytes, libc::MSG_WAITALL | libc::MSG_NOSIGNAL, tag)
    }

    /// Sends some of `bytes`, as above: TLS in the kernel refuses to be asked for all (`EOPNOTSUPP`).
    #[must_use]
    pub fn send_some(self, bytes: &[u8], tag: Tag) -> Entry {
        self.send_flagged(bytes, libc::MSG_NOSIGNAL, tag)
    }

    fn send_flagged(self, bytes: &[u8], flags: i32, tag: Tag) -> Entry {
        let length = u32::try_from(bytes.len()).expect("a block is far smaller than 4 GiB");
        opcode::Send::new(self.descriptor(), bytes.as_ptr(), length)
            .flags(flags)
            .build()
            .flags(self.flags())
            .user_data(tag.pack())
    }

    /// Sends a message that never ends and that nobody writes to.
    #[must_use]
    pub fn send_message(self, message: &'static libc::msghdr, tag: Tag) -> Entry {
        opcode::SendMsg::new(self.descriptor(), message)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .flags(self.flags())
            .user_data(tag.pack())
    }

    /// Ends our sending side.
    #[must_use]
    pub fn shut_down(self, tag: Tag) -> Entry {
        opcode::Shutdown::new(self.descriptor(), libc::SHUT_WR)
            .build()
            .flags(self.flags())
            .user_data(tag.pack())
    }

    /// Makes a descriptor of a place in the ring's own table (Linux 6.8); none for what has one.
    #[must_use]
    pub fn install(self, tag: Tag) -> Option<Entry> {
        let Self::Fixed(place) = self else {
            return None;
        };
        let entry = opcode::FixedFdInstall::new(types::Fixed(place), 0).build();
        Some(entry.user_data(tag.pack()))
    }

    /// Answers once when one of `events` (`POLL…`) is there.
    #[must_use]
    pub fn poll(self, events: i16, tag: Tag) -> Entry {
        opcode::PollAdd::new(self.descriptor(), events as u32)
            .build()
            .flags(self.flags())
            .user_data(tag.pack())
    }
}

/// Ends what was asked with this tag; that answers as usual, this only when there was nothing to end.
#[must_use]
pub fn cancel(tag: Tag) -> Entry {
    opcode::AsyncCancel::new(tag.pack())
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Tag::new(Kind::Cancel, NOBODY, Leg::Client).pack())
}

/// Answers once when the hand-over queue rang.
#[must_use]
pub fn await_wake(descriptor: RawFd) -> Entry {
    let tag = Tag::new(Kind::Wake, NOBODY, Leg::Client);
    Target::Descriptor(descriptor).poll(libc::POLLIN, tag)
}

/// A multishot receive of bundles that ends after `bytes` in total.
#[must_use]
pub fn capped_bundles(target: Target, bytes: u32) -> Entry {
    let mut entry = opcode::RecvMultiBundle::new(target.descriptor(), GROUP).build();
    cap(&mut entry, bytes);
    entry.flags(target.flags())
}

/// One receive into one buffer.
fn single(target: Target, bytes: u32) -> Entry {
    opcode::Recv::new(target.descriptor(), std::ptr::null_mut(), bytes)
        .buf_group(GROUP)
        .build()
        .flags(target.flags() | Flags::BUFFER_SELECT)
}

/// Limits a multishot receive to `bytes`, each time and in total (Linux 6.17). The crate's builder does
/// not know these fields yet.
fn cap(entry: &mut Entry, bytes: u32) {
    let start = std::ptr::from_mut(entry).cast::<u8>();
    for offset in [LEN_OFFSET, OPTLEN_OFFSET] {
        // SAFETY: an entry is the kernel's 64 bytes (`repr(C)`, size and alignment asserted above) of
        // plain integers; both fields are aligned u32 inside it, and the entry is borrowed exclusively.
        unsafe { start.add(offset).cast::<u32>().write(bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ktls::control::close_notify;

    #[test]
    fn tags_come_back_as_they_went() {
        for kind in Kind::ALL {
            for leg in Leg::BOTH {
                for (index, generation) in [(0, 0), (u32::MAX, (1 << GENERATION_BITS) - 1), (7, 9)]
                {
                    let tag = Tag::new(kind, Key { index, generation }, leg);
                    assert_eq!(Tag::unpack(tag.pack()), Some(tag));
                }
            }
        }
        assert_eq!(Tag::unpack(u64::MAX), None);
    }

    #[test]
    fn tls_in_the_kernel_is_asked_for_nothing_that_it_refuses() {
        let tag = Tag::new(Kind::Send, NOBODY, Leg::Client);
        let flags = |entry: &Entry| {
            // SAFETY: an entry is 64 initialised bytes of plain integers.
            let bytes = unsafe { *std::ptr::from_ref(entry).cast::<[u8; 64]>() };
            i32::from_ne_bytes(bytes[28..32].try_into().expect("four bytes"))
        };
        let target = Target::Descriptor(5);
        let all = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        assert_eq!(flags(&target.send(b"all", tag)), all);
        assert_eq!(flags(&target.send_some(b"some", tag)), libc::MSG_NOSIGNAL);
        let close = target.send_message(close_notify(), tag);
        assert_eq!(flags(&close), libc::MSG_NOSIGNAL);
    }

    #[test]
    fn a_cap_changes_its_two_fields_and_nothing_else() {
        let bytes = |entry: &Entry| {
            // SAFETY: an entry is 64 initialised bytes of plain integers.
            unsafe { *std::ptr::from_ref(entry).cast::<[u8; 64]>() }
        };
        let mut entry = opcode::RecvMultiBundle::new(types::Fd(5), GROUP).build();
        let mut expected = bytes(&entry);
        cap(&mut entry, 0x0102_0304);
        for offset in [LEN_OFFSET, OPTLEN_OFFSET] {
            expected[offset..offset + 4].copy_from_slice(&0x0102_0304_u32.to_ne_bytes());
        }
        assert_eq!(bytes(&entry), expected);
        // The count of a plain receive stands where `LEN_OFFSET` says.
        let plain = single(Target::Descriptor(5), 0x0506_0708);
        assert_eq!(
            bytes(&plain)[LEN_OFFSET..LEN_OFFSET + 4],
            0x0506_0708_u32.to_ne_bytes()
        );
    }
}
