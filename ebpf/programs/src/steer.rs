//! Decides about every packet that arrives: not ours, refused, taken here or sent to the node that has its flow.

use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::verdict::Verdict;

use crate::{maps, packet};

/// The verdict about a packet, which is left as that verdict wants it.
#[inline(always)]
pub fn judge(context: &XdpContext) -> Verdict {
    let Some(_table) = maps::table() else {
        return Verdict::NoTable;
    };
    match packet::at::<[u8; 14]>(context, 0) {
        None => Verdict::Malformed,
        Some(_) => Verdict::NotIp,
    }
}
