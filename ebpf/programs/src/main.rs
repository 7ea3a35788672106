//! The programs that run in the kernel: one function each, which counts the verdict and acts on it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
// Atomic additions: the compiler offers them for this target by intrinsic only.
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod account;
mod atomic;
mod icmp;
mod ip;
mod maps;
mod measure;
mod memory;
mod packet;
mod place;
mod redirect;
mod steer;
mod too_big;
mod traffic;
mod tunnel;
mod turn;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{cgroup_skb, xdp};
use aya_ebpf::programs::{SkBuffContext, XdpContext};
use postern_ebpf_abi::verdict::{Action, Verdict};

/// XDP: what becomes of every packet that arrives.
#[xdp]
pub fn steer(context: XdpContext) -> u32 {
    let bytes = packet::frame_bytes(&context);
    act(steer::judge(&context), bytes)
}

/// XDP, called by `steer`: what other nodes forwarded here.
#[xdp]
pub fn redirect(context: XdpContext) -> u32 {
    let bytes = packet::frame_bytes(&context);
    act(redirect::judge(&context), bytes)
}

/// XDP: lets everything pass.
#[xdp]
pub fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// XDP, for measurements: `steer`, with its tunnel undone.
#[xdp]
pub fn steer_undone(context: XdpContext) -> u32 {
    let bytes = packet::frame_bytes(&context);
    measure::steer_and_undo(&context, bytes);
    xdp_action::XDP_PASS
}

/// Control group, for measurements: what the kernel needs to run any program at all.
#[cgroup_skb(ingress)]
pub fn account_nothing(_: SkBuffContext) -> i32 {
    1
}

#[inline(always)]
fn act(verdict: Verdict, bytes: u64) -> u32 {
    maps::count(verdict, bytes);
    match verdict.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
    }
}

/// Nothing here panics: the kernel's verifier would refuse the loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
