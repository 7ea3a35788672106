//! A table as bytes that travel through a store which others may write to: sealed, and refused unless whole.

use ring::hmac;

use crate::table::{Bucket, Entry, MEMBERS_MAX, Table};
use crate::{BUCKETS, Error, Generation, NodeId};

/// Bytes that a table begins with.
const MAGIC: [u8; 4] = *b"PSTT";
/// Version of the layout.
const LAYOUT: u16 = 1;

/// Magic `[u8; 4]`, layout `u16`, generation `u64`, members `u16`; all numbers big-endian.
const HEAD_BYTES: usize = 4 + 2 + 8 + 2;
/// Node `u16`, weight `u32`.
const MEMBER_BYTES: usize = 2 + 4;
/// First hop `u16`, second hop `u16`, 0 where there is none.
const BUCKET_BYTES: usize = 2 + 2;
/// HMAC-SHA256 over all bytes before it.
pub(crate) const SEAL_BYTES: usize = 32;

/// Longest table.
pub(crate) const TABLE_BYTES_MAX: usize = length(MEMBERS_MAX);

/// etcd takes values of up to 1.5 MiB.
const _: () = assert!(
    HEAD_BYTES + MEMBERS_MAX * MEMBER_BYTES + BUCKETS * BUCKET_BYTES + SEAL_BYTES < 1 << 20,
    "a table must fit into one value of the store"
);

/// The cluster's secret: who has it may publish tables.
#[derive(Debug, Clone)]
pub struct Seal(hmac::Key);

impl Seal {
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Ends what was written with its tag.
    pub(crate) fn close(&self, bytes: &mut Vec<u8>) {
        let tag = hmac::sign(&self.0, bytes);
        bytes.extend(tag.as_ref());
    }

    /// What stands before the tag, where that is right.
    ///
    /// # Errors
    /// It is not, or there is none.
    pub(crate) fn open<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let (sealed, tag) = bytes.split_last_chunk::<SEAL_BYTES>().ok_or(Error::Seal)?;
        hmac::verify(&self.0, sealed, tag).map_err(|_| Error::Seal)?;
        Ok(sealed)
    }
}

impl Table {
    /// The sealed bytes.
    #[must_use]
    pub fn encode(&self, seal: &Seal) -> Vec<u8> {
        let members = self.members();
        let mut bytes = Vec::with_capacity(length(members.len()));
        bytes.extend(MAGIC);
        bytes.extend(LAYOUT.to_be_bytes());
        bytes.extend(self.generation().0.to_be_bytes());
        let count = u16::try_from(members.len()).expect("a table has at most MEMBERS_MAX members");
        bytes.extend(count.to_be_bytes());
        for entry in members {
            bytes.extend(entry.node.get().to_be_bytes());
            bytes.extend(entry.weight.to_be_bytes());
        }
        for bucket in self.buckets() {
            bytes.extend(bucket.first.get().to_be_bytes());
            bytes.extend(bucket.second.map_or(0, NodeId::get).to_be_bytes());
        }
        seal.close(&mut bytes);
        bytes
    }

    /// The table in bytes that came from anywhere.
    ///
    /// # Errors
    /// They are not a table that somebody with the seal has made.
    pub fn decode(bytes: &[u8], seal: &Seal) -> Result<Self, Error> {
        let mut rest = bytes;
        if take(&mut rest) != Some(MAGIC) {
            return Err(Error::Magic);
        }
        let short = Error::Length {
            found: bytes.len(),
            expected: length(1),
        };
        let layout = u16::from_be_bytes(take(&mut rest).ok_or_else(|| short.clone())?);
        if layout != LAYOUT {
            return Err(Error::Layout(layout));
        }
        let generation = u64::from_be_bytes(take(&mut rest).ok_or_else(|| short.clone())?);
        let count = usize::from(u16::from_be_bytes(take(&mut rest).ok_or(short)?));
        if count > MEMBERS_MAX {
            return Err(Error::TooManyMembers(count));
        }
        if bytes.len() != length(count) {
            return Err(Error::Length {
                found: bytes.len(),
                expected: length(count),
            });
        }
        let sealed = seal.open(bytes)?;
        let (members, buckets) = sealed[HEAD_BYTES..].split_at(count * MEMBER_BYTES);
        let members = members.chunks_exact(MEMBER_BYTES).map(|entry| {
            let node = NodeId::new(u16::from_be_bytes([entry[0], entry[1]]));
            let weight = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            let node = node.ok_or(Error::Nobody)?;
            Ok(Entry { node, weight })
        });
        let members = members.collect::<Result<_, _>>()?;
        let buckets = buckets.chunks_exact(BUCKET_BYTES).map(|bucket| {
            let [first, second] =
                [[bucket[0], bucket[1]], [bucket[2], bucket[3]]].map(u16::from_be_bytes);
            Ok(Bucket {
                first: NodeId::new(first).ok_or(Error::Nobody)?,
                second: NodeId::new(second),
            })
        });
        let buckets = buckets.collect::<Result<_, _>>()?;
        Self::new(Generation(generation), members, buckets)
    }

    /// What a node does with bytes found under the store's key for generation `key`: `self`, which it
    /// steers by, is replaced by a newer table of this cluster's nodes and by nothing else.
    ///
    /// # Errors
    /// The bytes are refused; `self` stays.
    pub fn replaced_by(
        &self,
        bytes: &[u8],
        key: Generation,
        seal: &Seal,
        is_known: impl Fn(NodeId) -> bool,
    ) -> Result<Self, Error> {
        let offered = Self::decode(bytes, seal)?;
        if offered.generation() != key {
            return Err(Error::KeyMismatch {
                key,
                table: offered.generation(),
            });
        }
        if offered.generation() <= self.generation() {
            return Err(Error::NotNewer {
                offered: offered.generation(),
                current: self.generation(),
            });
        }
        let mut nodes = offered.members().iter().map(|entry| entry.node);
        match nodes.find(|node| !is_known(*node)) {
            Some(node) => Err(Error::ForeignNode { node }),
            None => Ok(offered),
        }
    }
}

/// Bytes of a table with so many members.
const fn length(members: usize) -> usize {
    HEAD_BYTES + members * MEMBER_BYTES + BUCKETS * BUCKET_BYTES + SEAL_BYTES
}

pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weight;

    const FIRST_MEMBER: usize = HEAD_BYTES;
    const FIRST_BUCKET: usize = HEAD_BYTES + 3 * MEMBER_BYTES;

    fn seal() -> Seal {
        Seal::new(&[7; 32])
    }

    fn node(number: u16) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn table(generation: u64) -> Table {
        let members = [1, 2, 3].map(|number| (node(number), Weight::new(100).unwrap()));
        Table::initial(Generation(generation), &members).unwrap()
    }

    /// The bytes with some of them changed, and a seal that is right again.
    fn forged(at: usize, with: &[u8]) -> Vec<u8> {
        let mut bytes = table(5).encode(&seal());
        bytes.truncate(bytes.len() - SEAL_BYTES);
        bytes[at..at + with.len()].copy_from_slice(with);
        seal().close(&mut bytes);
        bytes
    }

    #[test]
    fn a_table_comes_back_as_it_went() {
        let bytes = table(5).encode(&seal());
        assert_eq!(bytes.len(), length(3));
        assert_eq!(Table::decode(&bytes, &seal()), Ok(table(5)));
    }

    #[test]
    fn the_layout_is_as_it_is_written_down() {
        let bytes = table(5).encode(&seal());
        assert_eq!(bytes[..6], *b"PSTT\0\x01");
        assert_eq!(bytes[6..16], [0, 0, 0, 0, 0, 0, 0, 5, 0, 3]);
        assert_eq!(bytes[FIRST_MEMBER..][..6], [0, 1, 0, 0, 0, 100]);
        assert_eq!(bytes[FIRST_BUCKET..][..2], [0, 1]);
    }

    #[test]
    fn broken_bytes_are_refused() {
        let whole = table(5).encode(&seal());
        let check = |bytes: &[u8], expected: Error| {
            assert_eq!(Table::decode(bytes, &seal()), Err(expected));
        };
        check(b"", Error::Magic);
        check(b"JSON{}", Error::Magic);
        check(&forged(4, &[0, 2]), Error::Layout(2));
        let expected = length(3);
        let found = whole.len() - 1;
        check(&whole[..found], Error::Length { found, expected });
        let longer = [whole.as_slice(), &[0]].concat();
        let found = longer.len();
        check(&longer, Error::Length { found, expected });
        check(&forged(14, &[0xff, 0xff]), Error::TooManyMembers(65_535));
        check(&forged(FIRST_MEMBER, &[0, 0]), Error::Nobody);
        check(&forged(FIRST_MEMBER, &[0, 2]), Error::MemberOrder(node(2)));
        check(&forged(FIRST_BUCKET, &[0, 0]), Error::Nobody);
        let unknown = |bucket, number| Error::UnknownNode {
            bucket,
            node: node(number),
        };
        check(&forged(FIRST_BUCKET, &[0, 4]), unknown(0, 4));
        check(&forged(FIRST_BUCKET + 6, &[0xff, 0xff]), unknown(1, 65_535));
        let same = Error::SameHops {
            bucket: 0,
            node: node(1),
        };
        check(&forged(FIRST_BUCKET, &[0, 1, 0, 1]), same);
    }

    #[test]
    fn who_lacks_the_seal_cannot_publish() {
        let bytes = table(5).encode(&Seal::new(&[8; 32]));
        assert_eq!(Table::decode(&bytes, &seal()), Err(Error::Seal));
        let mut changed = table(5).encode(&seal());
        changed[FIRST_BUCKET + 1] = 2;
        assert_eq!(Table::decode(&changed, &seal()), Err(Error::Seal));
    }

    #[test]
    fn old_misplaced_and_foreign_tables_are_refused() {
        let current = table(5);
        let check = |generation: u64, key: u64, known: u16, expected: Option<Error>| {
            let bytes = table(generation).encode(&seal());
            let is_known = |node: NodeId| node.get() <= known;
            let outcome = current.replaced_by(&bytes, Generation(key), &seal(), is_known);
            assert_eq!(outcome.err(), expected, "{generation} {key} {known}");
        };
        let not_newer = |offered| Error::NotNewer {
            offered: Generation(offered),
            current: Generation(5),
        };
        check(6, 6, 3, None);
        check(9, 9, 3, None);
        check(5, 5, 3, Some(not_newer(5)));
        check(4, 4, 3, Some(not_newer(4)));
        let mismatch = Error::KeyMismatch {
            key: Generation(7),
            table: Generation(6),
        };
        check(6, 7, 3, Some(mismatch));
        check(6, 6, 2, Some(Error::ForeignNode { node: node(3) }));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        use proptest::prelude::*;
        let whole = table(5).encode(&seal());
        proptest!(ProptestConfig::with_cases(200), |(cut in 0..whole.len(), at in 0..64_usize, with: u8)| {
            let mut bytes = whole[..cut.max(64)].to_vec();
            bytes[at] = with;
            let _ = Table::decode(&bytes, &seal());
        });
    }
}
