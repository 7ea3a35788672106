//! What the programs in the kernel and their loader must read the same way: map keys and values, verdicts, headers, hashes.
#![no_std]

pub mod account;
pub mod chain;
pub mod count;
pub mod datagram;
pub mod flow;
pub mod place;
pub mod siphash;
pub mod source;
pub mod table;
pub mod too_big;
pub mod verdict;

/// Values that maps hold: the kernel copies them byte by byte.
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)`, has no padding, and every bit pattern, all zeros
/// included, is a value of it.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: integers have no padding and no invalid bit pattern.
unsafe impl Plain for u64 {}

/// Names of the maps as the object has them.
pub mod maps {
    /// Array of maps: its one entry is an array that holds the one table in force.
    pub const TABLES: &str = "TABLES";
    /// Packets and bytes of every verdict, for each CPU.
    pub const COUNTS: &str = "COUNTS";
    /// Longest prefix of a source → what is done with it.
    pub const SOURCES: &str = "SOURCES";
    /// Source → when its next SYN is due.
    pub const SYNS: &str = "SYNS";
    /// Among how many flows a measurement spreads its packets.
    pub const MEASURED_FLOWS: &str = "MEASURED_FLOWS";
    /// Highest generation that a genuine tunnel header named, for each CPU.
    pub const NEWEST_GENERATION: &str = "NEWEST_GENERATION";
    /// Hash of a UDP flow that this node has → when its last datagram came.
    pub const DATAGRAMS: &str = "DATAGRAMS";
    /// When the next answer to a packet that is too big is due, for each CPU.
    pub const ANSWERS: &str = "ANSWERS";
    /// Programs that `steer` goes on to.
    pub const NEXT: &str = "NEXT";
    /// Slot → listening socket of a group.
    pub const PLACE_SOCKETS: &str = "PLACE_SOCKETS";
    /// Slot → what its worker published.
    pub const PLACE_LOADS: &str = "PLACE_LOADS";
    /// Slot → connections ever placed on it.
    pub const PLACE_PLACED: &str = "PLACE_PLACED";
    /// The rules of the choice.
    pub const PLACE_RULES: &str = "PLACE_RULES";
    /// Decision → how many, for each CPU.
    pub const PLACE_DECISIONS: &str = "PLACE_DECISIONS";
    /// Connection → its counters.
    pub const ACCOUNT_FLOWS: &str = "ACCOUNT_FLOWS";
    /// Ring of flows that had to make room.
    pub const ACCOUNT_REPLACED: &str = "ACCOUNT_REPLACED";
    /// What is in no flow, for each CPU.
    pub const ACCOUNT_SUMS: &str = "ACCOUNT_SUMS";
}

/// Names of the programs as the object has them.
pub mod programs {
    /// XDP: what becomes of every packet that arrives.
    pub const STEER: &str = "steer";
    /// XDP: lets everything pass.
    pub const PASS: &str = "pass";
    /// XDP, for measurements: `steer`, with its tunnel undone.
    pub const STEER_UNDONE: &str = "steer_undone";
    /// XDP, called by `steer`: what other nodes forwarded here.
    pub const REDIRECT: &str = "redirect";
    /// SK_REUSEPORT: the core for a new connection.
    pub const PLACE: &str = "place";
    /// Control group, ingress: packets towards sockets.
    pub const ACCOUNT_IN: &str = "account_in";
    /// Control group, egress: packets from sockets.
    pub const ACCOUNT_OUT: &str = "account_out";
    /// Control group, for measurements: does nothing.
    pub const ACCOUNT_NOTHING: &str = "account_nothing";
    /// Control group, SOCK_OPS: sockets that connect and close.
    pub const ACCOUNT_LIFE: &str = "account_life";
}

/// Index of `redirect` in [`maps::NEXT`].
pub const NEXT_REDIRECT: u32 = 0;
