//! The seal of a value: only who has the cluster's secret can make one, and it holds under one key alone.

use ring::hmac;

use super::limits::VALUE_BYTES_MAX;
use crate::Secret;

/// HMAC-SHA256 ([RFC 2104]), before the value.
///
/// [RFC 2104]: https://www.rfc-editor.org/rfc/rfc2104
const SEAL_BYTES: usize = 32;

/// Why a value is not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not a name of ours.
    Key,
    /// Longer than any value of ours.
    Length,
    /// Not sealed under this key by somebody who has the secret.
    Seal,
}

impl Refusal {
    /// What metrics call it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Length => "length",
            Self::Seal => "seal",
        }
    }
}

/// Seals values and opens them.
#[derive(Clone)]
pub struct Sealer(hmac::Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Sealer(…)")
    }
}

impl Sealer {
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*secret.store_key()))
    }

    /// The seal `[u8; 32]` over name, 0 and value, then the value. No name has a 0 in it.
    pub(super) fn seal(&self, name: &str, value: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(value);
        [context.sign().as_ref(), value].concat()
    }

    /// The value in `sealed`, which lay under `name`.
    ///
    /// # Errors
    /// It was not sealed for that name.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, Refusal> {
        if sealed.len() > VALUE_BYTES_MAX {
            return Err(Refusal::Length);
        }
        let (seal, value) = sealed
            .split_first_chunk::<SEAL_BYTES>()
            .ok_or(Refusal::Seal)?;
        let message = [name.as_bytes(), &[0], value].concat();
        hmac::verify(&self.0, &message, seal).map_err(|_| Refusal::Seal)?;
        Ok(value.to_vec())
    }
}

/// True where `value` can be stored.
pub(super) fn fits(value: &[u8]) -> bool {
    value.len() + SEAL_BYTES <= VALUE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(number: u8) -> Sealer {
        Sealer::new(&Secret::new(&[number; 32]))
    }

    #[test]
    fn a_value_opens_under_the_key_that_it_was_sealed_for_and_under_no_other() {
        let sealed = sealer(1).seal("/p/members/1", b"value");
        let check = |who: u8, name: &str, expected: Result<&[u8], Refusal>| {
            let opened = sealer(who).open(name, &sealed);
            assert_eq!(
                opened.as_deref(),
                expected.as_ref().copied(),
                "{who} {name}"
            );
        };
        check(1, "/p/members/1", Ok(b"value"));
        check(1, "/p/members/2", Err(Refusal::Seal));
        check(1, "/q/members/1", Err(Refusal::Seal));
        check(1, "/p/members/", Err(Refusal::Seal));
        check(2, "/p/members/1", Err(Refusal::Seal));
    }

    #[test]
    fn every_changed_bit_and_every_cut_breaks_the_seal() {
        let sealed = sealer(1).seal("k", b"value");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                sealer(1).open("k", &changed),
                Err(Refusal::Seal),
                "bit {bit}"
            );
        }
        for length in 0..sealed.len() {
            let cut = &sealed[..length];
            assert_eq!(sealer(1).open("k", cut), Err(Refusal::Seal), "{length}");
        }
    }

    #[test]
    fn an_empty_value_is_one_and_a_long_one_is_refused() {
        let sealed = sealer(1).seal("k", b"");
        assert_eq!(sealer(1).open("k", &sealed), Ok(Vec::new()));
        let long = vec![7; VALUE_BYTES_MAX - SEAL_BYTES + 1];
        assert!(!fits(&long) && fits(&long[1..]));
        let sealed = sealer(1).seal("k", &long);
        assert_eq!(sealer(1).open("k", &sealed), Err(Refusal::Length));
    }

    #[test]
    fn the_seal_hides_its_key() {
        assert_eq!(format!("{:?}", sealer(1)), "Sealer(…)");
    }
}
