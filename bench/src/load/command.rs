//! What a client asks the server to do with their connection: one order after another.

use anyhow::{Result, bail};

/// Length of every order on the wire.
pub const COMMAND_BYTES: usize = 24;

/// The server's answer to an order, before it begins.
pub const BEGUN: &[u8; 1] = b"+";

/// First byte of a message of [`Command::Echo`] after which no more come.
pub const LAST: u8 = 1;

/// First byte of all others.
pub const MORE: u8 = 0;

/// One order: a tag and two numbers, each 8 bytes, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Sends messages back until one begins with [`LAST`].
    Echo,
    /// Takes so many bytes of the pattern, then says so in 8 bytes.
    Sink { bytes: u64 },
    /// Sends so many bytes of the pattern.
    Source { bytes: u64 },
    /// Answers so many bursts with one message each.
    Bursts { rounds: u64 },
    /// Behaves like a desktop for so long.
    Desktop { ms: u64, seed: u64 },
    /// Says in 8 bytes how many nanoseconds of CPU the server has used.
    Cpu,
}

impl Command {
    #[must_use]
    pub fn encode(self) -> [u8; COMMAND_BYTES] {
        let (tag, first, second) = match self {
            Self::Echo => (1, 0, 0),
            Self::Sink { bytes } => (2, bytes, 0),
            Self::Source { bytes } => (3, bytes, 0),
            Self::Bursts { rounds } => (4, rounds, 0),
            Self::Desktop { ms, seed } => (5, ms, seed),
            Self::Cpu => (6, 0, 0),
        };
        let mut bytes = [0; COMMAND_BYTES];
        for (place, number) in bytes.chunks_exact_mut(8).zip([tag, first, second]) {
            place.copy_from_slice(&u64::to_be_bytes(number));
        }
        bytes
    }

    /// # Errors
    /// There is no such order.
    pub fn parse(bytes: &[u8; COMMAND_BYTES]) -> Result<Self> {
        let number = |at: usize| {
            let digits = bytes[8 * at..8 * (at + 1)].iter();
            digits.fold(0, |sum, digit| sum << 8 | u64::from(*digit))
        };
        Ok(match number(0) {
            1 => Self::Echo,
            2 => Self::Sink { bytes: number(1) },
            3 => Self::Source { bytes: number(1) },
            4 => Self::Bursts { rounds: number(1) },
            5 => Self::Desktop {
                ms: number(1),
                seed: number(2),
            },
            6 => Self::Cpu,
            tag => bail!("an order with tag {tag}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood() {
        let all = [
            Command::Echo,
            Command::Sink { bytes: u64::MAX },
            Command::Source { bytes: 1 },
            Command::Bursts { rounds: 300 },
            Command::Desktop { ms: 5000, seed: 7 },
            Command::Cpu,
        ];
        for command in all {
            assert_eq!(Command::parse(&command.encode()).unwrap(), command);
        }
        assert!(Command::parse(&[0xff; COMMAND_BYTES]).is_err());
    }
}
