//! Programs that measurements need and no node attaches: one that does nothing, and `steer` with what it did undone.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::verdict::Verdict;

use crate::packet::Window;
use crate::{ip, maps, steer, tunnel};

/// `steer` on a packet of a random flow, as the kernel's test run repeats it: that hands each run
/// the packet that the one before left, so what went into a tunnel is taken out again.
#[inline(always)]
pub fn steer_and_undo(context: &XdpContext, frame_bytes: u64) {
    vary(context);
    let verdict = steer::judge(context);
    maps::count(verdict, frame_bytes);
    if verdict == Verdict::ToFirst
        && let Ok(outer) = ip::read(context)
    {
        let _ = tunnel::unwrap(context, &outer, false);
    }
}

/// Gives an IPv4 packet one of as many source addresses and ports as the map says, at random.
#[inline(always)]
fn vary(context: &XdpContext) {
    let flows = maps::measured_flows();
    if flows <= 1 {
        return;
    }
    // SAFETY: reads the kernel's generator of random numbers.
    let flow = unsafe { bpf_get_prandom_u32() } & (flows - 1);
    if let Some(frame) = Window::<36>::at(context, 0) {
        frame.set_u16::<28>((flow >> 16) as u16);
        frame.set_u16::<34>(flow as u16);
    }
}
