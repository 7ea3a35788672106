//! What a leader publishes: the table, and where every node of it is, sealed as one value.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::encoding::{SEAL_BYTES, take};
use crate::{Error, Generation, MEMBERS_MAX, NodeId, Seal, Table};

/// Bytes that a publication begins with.
const MAGIC: [u8; 4] = *b"PSTP";
/// Version of the layout.
const LAYOUT: u16 = 1;

/// Magic `[u8; 4]`, layout `u16`, places `u16`; all numbers big-endian.
const HEAD_BYTES: usize = 4 + 2 + 2;
/// Node `u16`, IPv4 `[u8; 4]`, IPv6 `[u8; 16]`, Ethernet `[u8; 6]`; zeros where there is none.
const PLACE_BYTES: usize = 2 + 4 + 16 + 6;

/// Longest publication: etcd takes values of up to 1.5 MiB.
pub const PUBLICATION_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(
    HEAD_BYTES + MEMBERS_MAX * PLACE_BYTES + crate::encoding::TABLE_BYTES_MAX + SEAL_BYTES
        <= PUBLICATION_BYTES_MAX,
    "a publication must fit into one value of the store"
);

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Zeros: its packets go by way of the router.
    pub ethernet: [u8; 6],
}

impl Place {
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// The address of this node that both can speak to each other by: IPv4 where both have it.
    #[must_use]
    pub fn reached_from(&self, other: &Self) -> Option<IpAddr> {
        let v4 = self.v4.filter(|_| other.v4.is_some()).map(IpAddr::V4);
        v4.or(self.v6.filter(|_| other.v6.is_some()).map(IpAddr::V6))
    }
}

/// Every admitted node, those without a bucket included.
pub type Roster = BTreeMap<NodeId, Place>;

/// One generation, complete: who has it can steer by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// INVARIANT: has every member of the table, and no more than [`MEMBERS_MAX`] nodes, each with an address.
    roster: Roster,
    table: Table,
}

impl Publication {
    /// # Errors
    /// A member of the table has no place, a place has no address, or there are too many.
    pub fn new(roster: Roster, table: Table) -> Result<Self, Error> {
        if roster.len() > MEMBERS_MAX {
            return Err(Error::TooManyMembers(roster.len()));
        }
        if let Some((node, _)) = roster
            .iter()
            .find(|(_, place)| place.addresses().next().is_none())
        {
            return Err(Error::NoPlace(*node));
        }
        let mut members = table.members().iter().map(|entry| entry.node);
        if let Some(node) = members.find(|node| !roster.contains_key(node)) {
            return Err(Error::NoPlace(node));
        }
        Ok(Self { roster, table })
    }

    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        self.table.generation()
    }

    /// The sealed bytes.
    #[must_use]
    pub fn encode(&self, seal: &Seal) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(LAYOUT.to_be_bytes());
        let count =
            u16::try_from(self.roster.len()).expect("a roster has at most MEMBERS_MAX nodes");
        bytes.extend(count.to_be_bytes());
        for (node, place) in &self.roster {
            bytes.extend(node.get().to_be_bytes());
            bytes.extend(place.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
            bytes.extend(place.v6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
            bytes.extend(place.ethernet);
        }
        bytes.extend(self.table.encode(seal));
        seal.close(&mut bytes);
        bytes
    }

    /// The publication in bytes that came from anywhere.
    ///
    /// # Errors
    /// They are not one that somebody with the seal has made.
    pub fn decode(bytes: &[u8], seal: &Seal) -> Result<Self, Error> {
        let mut rest = bytes;
        if take(&mut rest) != Some(MAGIC) {
            return Err(Error::Magic);
        }
        let short = Error::Length {
            found: bytes.len(),
            expected: HEAD_BYTES + SEAL_BYTES,
        };
        let layout = u16::from_be_bytes(take(&mut rest).ok_or_else(|| short.clone())?);
        if layout != LAYOUT {
            return Err(Error::Layout(layout));
        }
        let count = usize::from(u16::from_be_bytes(take(&mut rest).ok_or(short)?));
        if count > MEMBERS_MAX {
            return Err(Error::TooManyMembers(count));
        }
        let expected = HEAD_BYTES + count * PLACE_BYTES + SEAL_BYTES;
        if bytes.len() < expected {
            return Err(Error::Length {
                found: bytes.len(),
                expected,
            });
        }
        let sealed = seal.open(bytes)?;
        let (places, table) = sealed[HEAD_BYTES..].split_at(count * PLACE_BYTES);
        let mut roster = Roster::new();
        for (node, place) in places.chunks_exact(PLACE_BYTES).map(place) {
            let node = node.ok_or(Error::Nobody)?;
            if roster
                .last_key_value()
                .is_some_and(|(last, _)| *last >= node)
            {
                return Err(Error::MemberOrder(node));
            }
            roster.insert(node, place);
        }
        Self::new(roster, Table::decode(table, seal)?)
    }
}

fn place(bytes: &[u8]) -> (Option<NodeId>, Place) {
    let part = |from: usize, bytes: &[u8]| -> [u8; 2] { [bytes[from], bytes[from + 1]] };
    let node = NodeId::new(u16::from_be_bytes(part(0, bytes)));
    let mut v4 = [0; 4];
    v4.copy_from_slice(&bytes[2..6]);
    let mut v6 = [0; 16];
    v6.copy_from_slice(&bytes[6..22]);
    let mut ethernet = [0; 6];
    ethernet.copy_from_slice(&bytes[22..28]);
    let place = Place {
        v4: Some(Ipv4Addr::from(v4)).filter(|address| !address.is_unspecified()),
        v6: Some(Ipv6Addr::from(v6)).filter(|address| !address.is_unspecified()),
        ethernet,
    };
    (node, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weight;

    fn seal() -> Seal {
        Seal::new(&[7; 32])
    }

    fn node(number: u16) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn place_of(number: u8) -> Place {
        Place {
            v4: Some(Ipv4Addr::new(10, 0, 0, number)),
            v6: (number > 1).then(|| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())),
            ethernet: [2, 0, 0, 0, 0, number],
        }
    }

    fn table() -> Table {
        let members = [1, 2].map(|number| (node(number), Weight::new(100).unwrap()));
        Table::initial(Generation(5), &members).unwrap()
    }

    fn publication() -> Publication {
        let roster = [1, 2, 3].map(|number| (node(number.into()), place_of(number)));
        Publication::new(roster.into(), table()).unwrap()
    }

    /// The bytes with some of them changed, and a seal that is right again.
    fn forged(at: usize, with: &[u8]) -> Vec<u8> {
        let mut bytes = publication().encode(&seal());
        bytes.truncate(bytes.len() - SEAL_BYTES);
        bytes[at..at + with.len()].copy_from_slice(with);
        seal().close(&mut bytes);
        bytes
    }

    #[test]
    fn a_publication_comes_back_as_it_went() {
        let bytes = publication().encode(&seal());
        assert_eq!(Publication::decode(&bytes, &seal()), Ok(publication()));
        assert_eq!(bytes[..8], *b"PSTP\0\x01\0\x03");
        assert_eq!(bytes[8..14], [0, 1, 10, 0, 0, 1]);
    }

    #[test]
    fn broken_and_foreign_bytes_are_refused() {
        let check = |bytes: &[u8], expected: Error| {
            assert_eq!(Publication::decode(bytes, &seal()), Err(expected));
        };
        let whole = publication().encode(&seal());
        check(b"", Error::Magic);
        check(&table().encode(&seal()), Error::Magic);
        check(&forged(4, &[0, 2]), Error::Layout(2));
        check(&forged(6, &[0xff, 0xff]), Error::TooManyMembers(65_535));
        check(&publication().encode(&Seal::new(&[8; 32])), Error::Seal);
        check(&whole[..whole.len() - 1], Error::Seal);
        let mut moved = whole.clone();
        moved[HEAD_BYTES + 5] ^= 1;
        check(&moved, Error::Seal);
        check(&forged(HEAD_BYTES, &[0, 0]), Error::Nobody);
        check(&forged(HEAD_BYTES, &[0, 2]), Error::MemberOrder(node(2)));
        check(
            &forged(HEAD_BYTES, &[0, 1, 0, 0, 0, 0]),
            Error::NoPlace(node(1)),
        );
        let second = HEAD_BYTES + PLACE_BYTES;
        check(&forged(second + 2 * PLACE_BYTES, b"J"), Error::Magic);
        let head = &whole[..HEAD_BYTES];
        let expected = HEAD_BYTES + 3 * PLACE_BYTES + SEAL_BYTES;
        check(
            head,
            Error::Length {
                found: HEAD_BYTES,
                expected,
            },
        );
    }

    #[test]
    fn every_member_has_a_place_with_an_address() {
        let check = |roster: Roster, expected: NodeId| {
            let made = Publication::new(roster, table());
            assert_eq!(made, Err(Error::NoPlace(expected)));
        };
        let nowhere = Place {
            v4: None,
            v6: None,
            ethernet: [0; 6],
        };
        check([(node(1), place_of(1))].into(), node(2));
        let three = [(1, place_of(1)), (2, place_of(2)), (3, nowhere)];
        check(
            three.map(|(number, place)| (node(number), place)).into(),
            node(3),
        );
    }

    #[test]
    fn two_nodes_speak_by_a_family_that_both_have() {
        let [v4, both] = [place_of(1), place_of(2)];
        let v6 = Place { v4: None, ..both };
        let check = |of: Place, from: Place, expected: Option<IpAddr>| {
            assert_eq!(of.reached_from(&from), expected);
        };
        check(v4, both, v4.v4.map(IpAddr::V4));
        check(both, v4, both.v4.map(IpAddr::V4));
        check(both, v6, both.v6.map(IpAddr::V6));
        check(v4, v6, None);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        use proptest::prelude::*;
        let whole = publication().encode(&seal());
        proptest!(ProptestConfig::with_cases(200), |(cut in 0..whole.len(), at in 0..200_usize, with: u8)| {
            let mut bytes = whole[..cut.max(200)].to_vec();
            bytes[at] = with;
            let _ = Publication::decode(&bytes, &seal());
            // With a seal that holds everything behind it is looked at.
            seal().close(&mut bytes);
            let _ = Publication::decode(&bytes, &seal());
        });
    }
}
