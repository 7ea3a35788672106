//! Decides about packets that other nodes forwarded: refused, taken here or passed on.

use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::verdict::Verdict;

use crate::packet;

/// The verdict about a packet, which is left as that verdict wants it.
#[inline(always)]
pub fn judge(context: &XdpContext) -> Verdict {
    match packet::at::<[u8; 42]>(context, 0) {
        None => Verdict::TunnelMalformed,
        Some(_) => Verdict::TunnelMalformed,
    }
}
