//! Makes the table that the kernel reads: gives every address a slot, every node its place, every bucket its nodes.

use std::net::{IpAddr, SocketAddr};

use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::table::{
    BUCKETS, Bucket, NODES_MAX, Node, NodeId, SERVICES_MAX, Service, Settings, Table, VIP_SLOTS,
    VIPS_MAX, Vip, vip_slot,
};

use crate::Error;

/// Seeds tried before giving up; with [`VIPS_MAX`] addresses one in eight fits.
const SEEDS_MAX: u64 = 10_000;

/// A service that all nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Of the IP header: 6 or 17.
    pub protocol: u8,
}

/// A table that is being made. It is large, so it lives on the heap.
#[derive(Clone)]
pub struct Draft {
    table: Box<Table>,
}

impl Draft {
    /// A table with these settings, which serves nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let table = Box::new(Table {
            settings,
            vips: [Vip::NONE; VIP_SLOTS],
            nodes: [Node::NONE; NODES_MAX],
            buckets: [Bucket::NONE; BUCKETS],
        });
        Self { table }
    }

    /// Settings, to be changed.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.table.settings
    }

    /// Serves `endpoints`, and nothing else.
    ///
    /// # Errors
    /// There are more addresses or services than fit.
    pub fn serve(&mut self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let vips = grouped(endpoints)?;
        let seed = (1..=SEEDS_MAX)
            .map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
            .find(|seed| separates(*seed, &vips))
            .ok_or(Error::NoSeed)?;
        self.table.vips = [Vip::NONE; VIP_SLOTS];
        self.table.settings.vip_seed = seed;
        for vip in vips {
            self.table.vips[vip_slot(vip.address, seed)] = vip;
        }
        Ok(())
    }

    /// Says where `id` is.
    ///
    /// # Errors
    /// The number is 0 or too large.
    pub fn node(&mut self, id: NodeId, address: IpAddr, ethernet: [u8; 6]) -> Result<(), Error> {
        let place = self.table.nodes.get_mut(usize::from(id.0));
        match place {
            Some(place) if id != NodeId::NOBODY => {
                *place = Node {
                    address: from_ip(address),
                    ethernet,
                    reserved: [0; 2],
                };
                Ok(())
            }
            _ => Err(Error::UnknownNode(id.0)),
        }
    }

    /// The buckets, to be filled.
    pub fn buckets(&mut self) -> &mut [Bucket; BUCKETS] {
        &mut self.table.buckets
    }

    /// The table, to be put in force.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Draft")
            .field("settings", &self.table.settings)
            .finish_non_exhaustive()
    }
}

/// The address as the kernel's programs have it.
#[must_use]
pub fn from_ip(address: IpAddr) -> Address {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    Address::from_octets(v6.octets())
}

fn grouped(endpoints: &[Endpoint]) -> Result<Vec<Vip>, Error> {
    let mut vips: Vec<(Vip, usize)> = Vec::new();
    for endpoint in endpoints {
        let address = from_ip(endpoint.address.ip());
        let at = vips.iter().position(|(vip, _)| vip.address == address);
        let at = at.unwrap_or_else(|| {
            vips.push((
                Vip {
                    address,
                    ..Vip::NONE
                },
                0,
            ));
            vips.len() - 1
        });
        let (vip, services) = &mut vips[at];
        let place = vip.services.get_mut(*services).ok_or(Error::TooMany {
            what: "services at one address",
            count: SERVICES_MAX + 1,
            most: SERVICES_MAX,
        })?;
        *services += 1;
        *place = Service {
            port: endpoint.address.port(),
            protocol: endpoint.protocol,
            reserved: 0,
        };
    }
    if vips.len() > VIPS_MAX {
        return Err(Error::TooMany {
            what: "addresses",
            count: vips.len(),
            most: VIPS_MAX,
        });
    }
    Ok(vips.into_iter().map(|(vip, _)| vip).collect())
}

/// True where `seed` gives every address a slot of its own.
fn separates(seed: u64, vips: &[Vip]) -> bool {
    let mut taken = [false; VIP_SLOTS];
    vips.iter()
        .all(|vip| !std::mem::replace(&mut taken[vip_slot(vip.address, seed)], true))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use postern_ebpf_abi::siphash::SipKey;

    use super::*;

    fn settings() -> Settings {
        Settings {
            generation: 1,
            flow_key: SipKey::ZERO,
            tag_keys: [SipKey::ZERO; 2],
            address_v4: Address::NONE,
            address_v6: Address::NONE,
            vip_seed: 0,
            syn_interval_ns: 0,
            syn_burst_ns: 0,
            node: NodeId(1),
            tunnel_port: 6080,
            mtu: 1500,
            tag_key: 0,
            sources: 0,
            isolated: 0,
            reserved: [0; 7],
        }
    }

    fn endpoint(number: u32, port: u16) -> Endpoint {
        let address = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + number), port));
        Endpoint {
            address,
            protocol: 6,
        }
    }

    #[test]
    fn as_many_addresses_as_fit_find_their_slots() {
        let endpoints: Vec<_> = (0..VIPS_MAX as u32)
            .map(|number| endpoint(number, 443))
            .collect();
        let mut draft = Draft::new(settings());
        draft.serve(&endpoints).unwrap();
        let seed = draft.table().settings.vip_seed;
        for one in &endpoints {
            let address = from_ip(one.address.ip());
            assert_eq!(draft.table().vips[vip_slot(address, seed)].address, address);
        }
    }

    #[test]
    fn more_than_fit_is_refused() {
        let mut draft = Draft::new(settings());
        let addresses: Vec<_> = (0..=VIPS_MAX as u32)
            .map(|number| endpoint(number, 443))
            .collect();
        assert!(matches!(
            draft.serve(&addresses),
            Err(Error::TooMany { .. })
        ));
        let services: Vec<_> = (0..=SERVICES_MAX as u16)
            .map(|port| endpoint(1, port + 1))
            .collect();
        assert!(matches!(draft.serve(&services), Err(Error::TooMany { .. })));
        let node = draft.node(NodeId::NOBODY, Ipv4Addr::LOCALHOST.into(), [0; 6]);
        assert!(matches!(node, Err(Error::UnknownNode(0))));
    }
}
