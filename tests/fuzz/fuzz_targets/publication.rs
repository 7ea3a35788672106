//! What lies in a cluster's store under the table's key: what is read can be written and is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_steering::{Publication, Seal, Table};
use ring::hmac;

const SECRET: [u8; 32] = [7; 32];

/// The bytes with a seal that holds, so that what is behind it is looked at.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
    let tag = hmac::sign(&key, bytes);
    [bytes, tag.as_ref()].concat()
}

/// A table has 65,536 buckets, far more than a fuzzer makes: it fills them with the last four bytes.
fn filled(head: &[u8]) -> Vec<u8> {
    let bucket = head.last_chunk::<4>().copied().unwrap_or([0, 1, 0, 0]);
    let mut bytes = head.to_vec();
    bytes.extend(bucket.repeat(postern_steering::BUCKETS));
    sealed(&bytes)
}

fuzz_target!(|bytes: &[u8]| {
    let seal = Seal::new(&SECRET);
    for bytes in [bytes.to_vec(), sealed(bytes)] {
        // Without buckets nothing of it holds.
        assert!(Table::decode(&bytes, &seal).is_err());
        assert!(Publication::decode(&bytes, &seal).is_err());
    }
    if let Ok(table) = Table::decode(&filled(bytes), &seal) {
        assert_eq!(Table::decode(&table.encode(&seal), &seal), Ok(table));
    }
    // The first bytes are the roster, the others the table's head.
    let at = bytes.windows(4).position(|window| window == b"PSTT");
    let (roster, head) = bytes.split_at(at.unwrap_or(bytes.len()));
    let whole = sealed(&[roster, &filled(head)].concat());
    if let Ok(publication) = Publication::decode(&whole, &seal) {
        let places = publication.roster();
        let members = publication.table().members();
        assert!(members.iter().all(|entry| places.contains_key(&entry.node)));
        let again = publication.encode(&seal);
        assert_eq!(Publication::decode(&again, &seal), Ok(publication));
    }
});
