//! What values, moments and leases of the store are called.

use std::fmt;
use std::sync::Arc;

use super::limits::KEY_BYTES_MAX;

/// A key below the prefix: letters, digits, `-`, `_` and `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// `None` of what is empty, too long, or has other letters.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte);
        let sound = !name.is_empty() && name.len() <= KEY_BYTES_MAX && name.bytes().all(allowed);
        sound.then(|| Self(name.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Number of a change of the whole store; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "revision {}", self.0)
    }
}

/// Whose end takes its keys away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub(super) i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_can_be_shown_are_keys() {
        let check = |name: &str, sound: bool| {
            assert_eq!(Key::new(name).is_some(), sound, "{name:?}");
        };
        check("table", true);
        check("members/17", true);
        check("a-b_C/9", true);
        check(&"k".repeat(KEY_BYTES_MAX), true);
        check(&"k".repeat(KEY_BYTES_MAX + 1), false);
        check("", false);
        check("members/\0", false);
        check("members/1 ", false);
        check("métier", false);
    }
}
