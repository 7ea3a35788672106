//! Reading and writing a packet: windows whose bounds the kernel's verifier has seen checked.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// Bytes of the frame.
#[inline(always)]
pub fn frame_bytes(context: &XdpContext) -> u64 {
    (context.data_end() - context.data()) as u64
}

/// `BYTES` bytes of the packet that are there. Moving the packet's head ends it: the verifier
/// refuses a program that uses it then.
#[derive(Clone, Copy)]
pub struct Window<const BYTES: usize> {
    start: usize,
}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty, $mnemonic:literal) => {
        /// The number at `OFFSET`, in the byte order of this machine.
        #[inline(always)]
        pub fn $load<const OFFSET: usize>(self) -> $type {
            const { assert!(OFFSET + size_of::<$type>() <= BYTES) };
            let value: u64;
            // SAFETY: the bytes are within the window, whose bounds were checked. Packets lie at any
            // address; what Rust may not load from there, a BPF instruction may.
            unsafe {
                asm!(
                    concat!("{value} = *(", $mnemonic, " *)({start} + {offset})"),
                    value = out(reg) value,
                    start = in(reg) self.start,
                    offset = const OFFSET,
                    options(pure, readonly, nostack),
                );
            }
            value as $type
        }

        /// Writes the number at `OFFSET`, in the byte order of this machine.
        #[inline(always)]
        pub fn $store<const OFFSET: usize>(self, value: $type) {
            const { assert!(OFFSET + size_of::<$type>() <= BYTES) };
            // SAFETY: as above; packets are writable, and nothing holds a reference into one.
            unsafe {
                asm!(
                    concat!("*(", $mnemonic, " *)({start} + {offset}) = {value}"),
                    value = in(reg) value as u64,
                    start = in(reg) self.start,
                    offset = const OFFSET,
                    options(nostack),
                );
            }
        }
    };
}

impl<const BYTES: usize> Window<BYTES> {
    /// The window that begins `offset` bytes into the frame, if all of it is there.
    #[inline(always)]
    pub fn at(context: &XdpContext, offset: usize) -> Option<Self> {
        let start = context.data() + offset;
        if start + BYTES > context.data_end() {
            return None;
        }
        Some(Self { start })
    }

    /// Where it is, for the kernel's helpers.
    #[inline(always)]
    pub fn pointer<T>(self) -> *mut T {
        self.start as *mut T
    }

    access!(u8, set_u8, u8, "u8");
    access!(u16, set_u16, u16, "u16");
    access!(u32, set_u32, u32, "u32");
    access!(u64, set_u64, u64, "u64");

    /// The number at `OFFSET`, which is in network byte order.
    #[inline(always)]
    pub fn be16<const OFFSET: usize>(self) -> u16 {
        u16::from_be(self.u16::<OFFSET>())
    }
}

/// Ethernet's header as two words: destination and source, without the type.
#[derive(Clone, Copy)]
pub struct Link {
    pub destination: [u16; 3],
    pub source: [u16; 3],
}

impl Link {
    #[inline(always)]
    pub fn read(frame: Window<ETHERNET_BYTES>) -> Self {
        Self {
            destination: [frame.u16::<0>(), frame.u16::<2>(), frame.u16::<4>()],
            source: [frame.u16::<6>(), frame.u16::<8>(), frame.u16::<10>()],
        }
    }

    /// Writes it, with `kind` as the type.
    #[inline(always)]
    pub fn write<const BYTES: usize>(self, frame: Window<BYTES>, kind: u16) {
        let [a, b, c] = self.destination;
        frame.set_u16::<0>(a);
        frame.set_u16::<2>(b);
        frame.set_u16::<4>(c);
        let [a, b, c] = self.source;
        frame.set_u16::<6>(a);
        frame.set_u16::<8>(b);
        frame.set_u16::<10>(c);
        frame.set_u16::<12>(kind);
    }

    /// The way back.
    #[inline(always)]
    pub fn turned(self) -> Self {
        Self {
            destination: self.source,
            source: self.destination,
        }
    }
}
