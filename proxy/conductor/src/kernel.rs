//! The way to the programs in the kernel: the published table as they read it, sources, counters.

use std::collections::BTreeSet;
use std::net::IpAddr;

use postern_ebpf::{Draft, Endpoint, Pins, from_ip};
use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::siphash::SipKey;
use postern_ebpf_abi::source;
use postern_ebpf_abi::table::{self as abi, BUCKETS};
use postern_ebpf_abi::verdict::VERDICTS;
use postern_steering::{Place, Prefix, Publication, Settings, SourceRule};

use crate::ConductorError;
use crate::links::Links;

/// TCP in an IP header.
pub const TCP: u8 = 6;
/// UDP in an IP header.
pub const UDP: u8 = 17;

const NS: u64 = 1_000_000_000;

/// What is asked of installed programs. Tests without privileges have another one.
pub trait Kernel: Send + Sync {
    /// # Errors
    /// As the kernel says.
    fn put_table(&mut self, draft: &Draft) -> Result<(), ConductorError>;

    /// Packets and bytes of each verdict, by its number.
    ///
    /// # Errors
    /// As the kernel says.
    fn counts(&self) -> Result<[Count; VERDICTS as usize], ConductorError>;

    /// The newest table that packets of other nodes named.
    ///
    /// # Errors
    /// As the kernel says.
    fn newest_seen(&self) -> Result<u64, ConductorError>;

    /// Makes the list of sources this one.
    ///
    /// # Errors
    /// As the kernel says.
    fn set_sources(&mut self, sources: &[(Prefix, SourceRule)]) -> Result<(), ConductorError>;
}

/// The programs that are pinned.
#[derive(Debug)]
pub struct Pinned(postern_ebpf::Steering);

impl Pinned {
    /// # Errors
    /// Nothing is installed.
    pub fn open(pins: &Pins) -> Result<Self, ConductorError> {
        Ok(Self(postern_ebpf::Steering::open(pins)?))
    }
}

impl Kernel for Pinned {
    fn put_table(&mut self, draft: &Draft) -> Result<(), ConductorError> {
        Ok(self.0.put_table(draft.table())?)
    }

    fn counts(&self) -> Result<[Count; VERDICTS as usize], ConductorError> {
        Ok(self.0.counts()?)
    }

    fn newest_seen(&self) -> Result<u64, ConductorError> {
        Ok(self.0.newest_generation_seen()?)
    }

    fn set_sources(&mut self, sources: &[(Prefix, SourceRule)]) -> Result<(), ConductorError> {
        let wanted: Vec<(Address, u32, u32)> = sources.iter().map(listed).collect();
        let kept: BTreeSet<([u8; 16], u32)> = wanted
            .iter()
            .map(|(address, bits, _)| (address.octets(), *bits))
            .collect();
        // New ones first: nobody who is to be denied has a moment between.
        for (address, bits, rule) in wanted {
            self.0.put_source(address, bits, rule)?;
        }
        for (address, bits, _) in self.0.sources()? {
            if !kept.contains(&(address.octets(), bits)) {
                self.0.remove_source(address, bits)?;
            }
        }
        Ok(())
    }
}

/// A rule as the kernel's list has it.
fn listed((prefix, rule): &(Prefix, SourceRule)) -> (Address, u32, u32) {
    let prefix = prefix.trunc();
    let mapped = match prefix {
        Prefix::V4(_) => 96,
        Prefix::V6(_) => 0,
    };
    let rule = match rule {
        SourceRule::Deny => source::DENY,
        SourceRule::Allow => source::ALLOW,
    };
    let bits = u32::from(prefix.prefix_len()) + mapped;
    (from_ip(prefix.network()), bits, rule)
}

/// Keys that all nodes share.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    pub flow: SipKey,
    pub tag: SipKey,
}

/// The published table as the kernel of the node at `own` reads it.
///
/// # Errors
/// There are more services or higher numbers than the kernel's table has room for.
pub fn draft(
    settings: &Settings,
    keys: Keys,
    own: Place,
    links: &Links,
    publication: &Publication,
    is_isolated: bool,
) -> Result<Draft, ConductorError> {
    let interval = NS
        .checked_div(u64::from(settings.syns_per_second))
        .unwrap_or(0);
    let address = |address: Option<IpAddr>| address.map_or(Address::NONE, from_ip);
    let mut draft = Draft::new(abi::Settings {
        generation: publication.generation().0,
        flow_key: keys.flow,
        // An unused key would be one that everybody knows.
        tag_keys: [keys.tag; abi::TAG_KEYS],
        address_v4: address(own.v4.map(IpAddr::V4)),
        address_v6: address(own.v6.map(IpAddr::V6)),
        vip_seed: 0,
        syn_interval_ns: interval,
        syn_burst_ns: interval * u64::from(settings.syns_burst),
        node: abi::NodeId(settings.node.get()),
        tunnel_port: settings.tunnel_port,
        mtu: settings.mtu,
        tag_key: 0,
        sources: u8::from(!settings.sources.is_empty()),
        isolated: u8::from(is_isolated),
        reserved: [0; 7],
    });
    let endpoints: Vec<Endpoint> = settings
        .vips
        .iter()
        .map(|vip| Endpoint {
            address: *vip,
            protocol: TCP,
        })
        .collect();
    draft.serve(&endpoints)?;
    for (node, place) in publication.roster() {
        let Some(address) = place.reached_from(&own) else {
            continue;
        };
        // Behind a router its Ethernet address is nobody's here.
        let ethernet = if links.has(address) {
            place.ethernet
        } else {
            [0; 6]
        };
        draft.node(abi::NodeId(node.get()), address, ethernet)?;
    }
    let buckets: &mut [abi::Bucket; BUCKETS] = draft.buckets();
    for (bucket, hops) in buckets.iter_mut().zip(publication.table().buckets()) {
        *bucket = abi::Bucket {
            first: abi::NodeId(hops.first.get()),
            second: hops
                .second
                .map_or(abi::NodeId::NOBODY, |second| abi::NodeId(second.get())),
        };
    }
    Ok(draft)
}
