//! Decides about packets that other nodes forwarded: refused, taken here or passed on.

use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::chain::{CHAIN_VERSION, Chain, DATAGRAM_HOPS_MAX, HOPS_MAX};
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::table::{NodeId, TAG_KEYS, Table};
use postern_ebpf_abi::verdict::Verdict;

use crate::traffic::{Kind, Traffic};
use crate::tunnel::{self, Arrived, Way};
use crate::turn::{self, Turn};
use crate::{ip, maps, memory, traffic};

/// The verdict about a packet, which is left as that verdict wants it.
#[inline(always)]
pub fn judge(context: &XdpContext) -> Verdict {
    let Some(table) = maps::table() else {
        return Verdict::NoRedirect;
    };
    match receive(context, table) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn receive(context: &XdpContext, table: &Table) -> Result<Verdict, Verdict> {
    let Ok(outer) = ip::read(context) else {
        return Err(Verdict::TunnelMalformed);
    };
    let Arrived { chain, carries_v6 } = tunnel::read(context, &table.settings, &outer)?;
    let key = admit(table, &chain, outer.source)?;
    tunnel::unwrap(context, &outer, carries_v6)?;
    let Ok(inner) = ip::read(context) else {
        return Err(Verdict::TunnelMalformed);
    };
    let traffic = carried(context, table, &inner)?;
    let hash = traffic.flow.hash(table.settings.flow_key);
    if !chain.is_signed(table.settings.tag_keys[key & (TAG_KEYS - 1)], hash) {
        return Err(Verdict::TunnelForged);
    }
    let generation = u64::from_be_bytes(chain.generation);
    maps::saw_generation(generation);
    let isolated = table.settings.isolated != 0;
    let datagram = traffic.kind == Kind::Datagram;
    if chain.hops_left
        > if datagram {
            DATAGRAM_HOPS_MAX
        } else {
            HOPS_MAX
        }
    {
        return Err(Verdict::TunnelHops);
    }
    let next = chain.next();
    let last = next == NodeId::NOBODY || next == table.settings.node || chain.hops_left == 0;
    if last && !isolated && traffic.kind != Kind::Syn && !datagram {
        return Ok(Verdict::TakenLast);
    }
    match turn::of(context, &traffic, hash) {
        Turn::Remembered => Ok(Verdict::TakenDatagram),
        Turn::Socket => Ok(Verdict::TakenSocket),
        _ if isolated => Err(Verdict::Isolated),
        Turn::Syn => Ok(Verdict::TakenSyn),
        Turn::Cookie => Ok(Verdict::TakenCookie),
        Turn::Unknown if last => {
            memory::remember(hash);
            Ok(Verdict::TakenNewDatagram)
        }
        Turn::Unknown => {
            let hops_left = chain.hops_left - 1;
            let back = hops_left != 0;
            let way = Way {
                hash,
                hop: next,
                next: if back {
                    table.settings.node
                } else {
                    NodeId::NOBODY
                },
                hops_left,
                generation,
            };
            tunnel::wrap(context, table, &inner, &way)?;
            Ok(Verdict::PassedOn)
        }
    }
}

/// Checks all that a chain says but its tag; the number of the tag's key.
#[inline(always)]
fn admit(table: &Table, chain: &Chain, source: Address) -> Result<usize, Verdict> {
    let key = (chain.version_key & 0xf) as usize;
    if chain.version_key >> 4 != CHAIN_VERSION || key >= TAG_KEYS {
        return Err(Verdict::TunnelMalformed);
    }
    match tunnel::node(table, chain.sender()) {
        Some(node) if node.address == source => {}
        _ => return Err(Verdict::TunnelUnlisted),
    }
    if chain.hop() != table.settings.node {
        return Err(Verdict::TunnelMisdelivered);
    }
    Ok(key)
}

/// The flow of a packet that came out of a tunnel: nothing but our services is let through.
#[inline(always)]
fn carried(context: &XdpContext, table: &Table, inner: &ip::Ip) -> Result<Traffic, Verdict> {
    let Some(vip) = traffic::vip(table, inner.destination) else {
        return Err(Verdict::TunnelForeign);
    };
    if inner.refused.is_some() {
        return Err(Verdict::TunnelForeign);
    }
    traffic::classify(context, &table.settings, vip, inner).map_err(|_| Verdict::TunnelForeign)
}
