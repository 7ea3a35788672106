//! Decides about every packet that arrives: not ours, refused, taken here or sent to the node that has its flow.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::NEXT_REDIRECT;
use postern_ebpf_abi::chain::{DATAGRAM_HOPS_MAX, HOPS_MAX};
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::source::{DENY, limited_as};
use postern_ebpf_abi::table::{NodeId, Settings, Table, bucket_of};
use postern_ebpf_abi::verdict::Verdict;

use crate::ip::{self, Ip};
use crate::maps;
use crate::memory;
use crate::too_big;
use crate::traffic::{self, Kind, Traffic};
use crate::tunnel::{self, Refusal, Way};
use crate::turn::{self, Turn};

/// The verdict about a packet, which is left as that verdict wants it.
#[inline(always)]
pub fn judge(context: &XdpContext) -> Verdict {
    let Some(table) = maps::table() else {
        return Verdict::NoTable;
    };
    let ip = match ip::read(context) {
        Ok(ip) => ip,
        Err(verdict) => return verdict,
    };
    let Some(vip) = traffic::vip(table, ip.destination) else {
        return go_on(context, table, &ip);
    };
    if let Some(verdict) = ip.refused {
        return verdict;
    }
    if table.settings.sources != 0 && is_denied(ip.source) {
        return Verdict::Denied;
    }
    let traffic = match traffic::classify(context, &table.settings, vip, &ip) {
        Ok(traffic) => traffic,
        Err(verdict) => return verdict,
    };
    if traffic.kind == Kind::Syn && exceeds_limit(&table.settings, ip.source) {
        return Verdict::SynLimited;
    }
    match send(context, table, &ip, &traffic) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// Lets `redirect` have what other nodes sent to this one.
#[inline(always)]
fn go_on(context: &XdpContext, table: &Table, ip: &Ip) -> Verdict {
    if ip.refused.is_some() || !tunnel::is_for(context, &table.settings, ip) {
        return Verdict::NotOurs;
    }
    // SAFETY: the index is one that the loader fills; a program that is called does not return.
    let _ = unsafe { maps::NEXT.tail_call(context, NEXT_REDIRECT) };
    Verdict::NoRedirect
}

#[inline(always)]
fn is_denied(source: Address) -> bool {
    let key = Key::new(128, source.octets());
    maps::SOURCES.get(&key) == Some(&DENY)
}

/// Counts a SYN of `source`; true where it is one too many. Each SYN moves the time at which the
/// next is due by one interval, and a source may be ahead of that by the burst.
#[inline(always)]
fn exceeds_limit(settings: &Settings, source: Address) -> bool {
    if settings.syn_interval_ns == 0 {
        return false;
    }
    // SAFETY: reads the kernel's clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let key = limited_as(source);
    let Some(due) = maps::SYNS.get_ptr_mut(&key) else {
        let first = now + settings.syn_interval_ns;
        // A full map forgets another source; one that cannot be written at all limits nobody.
        let _ = maps::SYNS.insert(&key, &first, 0);
        return false;
    };
    // SAFETY: the kernel gave a pointer into the map. Other CPUs may write it, too: then a SYN goes
    // uncounted, which a limit of a rate can bear.
    let next = unsafe { *due }.max(now);
    if next - now > settings.syn_burst_ns {
        return true;
    }
    // SAFETY: as above.
    unsafe { *due = next + settings.syn_interval_ns };
    false
}

/// Takes a packet or sends it to the node that has its flow.
#[inline(always)]
fn send(
    context: &XdpContext,
    table: &Table,
    ip: &Ip,
    traffic: &Traffic,
) -> Result<Verdict, Verdict> {
    let settings = &table.settings;
    let hash = traffic.flow.hash(settings.flow_key);
    let bucket = table.buckets[bucket_of(hash)];
    let datagram = traffic.kind == Kind::Datagram;
    let mut way = Way {
        hash,
        hop: bucket.first,
        next: bucket.second,
        hops_left: if datagram {
            DATAGRAM_HOPS_MAX
        } else {
            HOPS_MAX
        },
        generation: settings.generation,
    };
    let mut sent = Verdict::ToFirst;
    let isolated = settings.isolated != 0;
    if bucket.first == settings.node || isolated {
        let alone = bucket.second == NodeId::NOBODY || bucket.second == settings.node;
        if alone && !isolated {
            // Another node may be first when its next datagram comes.
            if datagram && !memory::knows(hash, true) {
                memory::remember(hash);
            }
            return Ok(Verdict::Local);
        }
        match turn::of(context, traffic, hash) {
            Turn::Socket => return Ok(Verdict::LocalSocket),
            Turn::Remembered => return Ok(Verdict::LocalDatagram),
            _ if isolated => return Err(Verdict::Isolated),
            Turn::Syn => return Ok(Verdict::Local),
            Turn::Cookie => return Ok(Verdict::LocalCookie),
            Turn::Unknown => {}
        }
        way.hop = bucket.second;
        // A datagram comes back when the second does not remember its flow either.
        way.next = if datagram {
            settings.node
        } else {
            NodeId::NOBODY
        };
        way.hops_left = DATAGRAM_HOPS_MAX - 1;
        sent = Verdict::ToSecond;
    }
    match tunnel::wrap(context, table, ip, &way) {
        Ok(()) => Ok(sent),
        Err(Refusal::TooBig(room)) => Err(too_big::answer(context, ip, traffic.kind, room)),
        Err(Refusal::Other(verdict)) => Err(verdict),
    }
}
