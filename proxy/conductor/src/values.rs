//! What nodes write into the store for each other: registration, heartbeat, flows, intent.
//!
//! The store hands over only what was sealed under its own key. What is in it is still judged by who
//! reads it: a value may be old, and a node may be wrong about itself.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use postern_steering::{BucketIndex, Generation, Load, NodeId, Place, Weight};
use serde::{Deserialize, Serialize};

/// Longest value but reports of flows and tables.
pub const SMALL_BYTES_MAX: usize = 4 * 1024;

/// One run of one machine: a node that has rebooted, and another machine under the same number, have another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Boot(pub u128);

impl fmt::Display for Boot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

impl Boot {
    /// Of 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_sound = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sound.then(|| u128::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl Serialize for Boot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Boot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not 32 hex digits"))
    }
}

/// `members/<id>`: a node that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub ethernet: [u8; 6],
    weight: u32,
    pub boot: Boot,
}

impl Registration {
    #[must_use]
    pub fn new(place: Place, weight: Weight, boot: Boot) -> Self {
        Self {
            v4: place.v4,
            v6: place.v6,
            ethernet: place.ethernet,
            weight: weight.get(),
            boot,
        }
    }

    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            v4: self.v4,
            v6: self.v6,
            ethernet: self.ethernet,
        }
    }

    /// `None` where it is out of range.
    #[must_use]
    pub fn weight(&self) -> Option<Weight> {
        Weight::new(self.weight).ok()
    }
}

/// `heartbeats/<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub boot: Boot,
    /// Grows with every heartbeat of a boot.
    pub sequence: u64,
    /// The table that the node steers by; 0: none.
    generation: u64,
    /// The newest that other nodes' packets named.
    newest: u64,
    /// Number of the report of flows that is still true; 0: none.
    pub report: u64,
    cpu: Option<f64>,
    sessions: u32,
    sessions_max: u32,
    handshakes: u32,
    handshakes_max: u32,
}

impl Heartbeat {
    #[must_use]
    pub fn new(
        boot: Boot,
        sequence: u64,
        generation: Generation,
        newest: Generation,
        load: Option<Load>,
    ) -> Self {
        Self {
            boot,
            sequence,
            generation: generation.0,
            newest: newest.0,
            report: 0,
            cpu: load.map(|load| load.cpu),
            sessions: load.map_or(0, |load| load.sessions),
            sessions_max: load.map_or(0, |load| load.sessions_max),
            handshakes: load.map_or(0, |load| load.handshakes),
            handshakes_max: load.map_or(0, |load| load.handshakes_max),
        }
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    #[must_use]
    pub fn newest(&self) -> Generation {
        Generation(self.newest.max(self.generation))
    }

    #[must_use]
    pub fn load(&self) -> Option<Load> {
        self.cpu.map(|cpu| Load {
            cpu,
            sessions: self.sessions,
            sessions_max: self.sessions_max,
            handshakes: self.handshakes,
            handshakes_max: self.handshakes_max,
        })
    }

    /// True where it says the same but for its number, so that it need not be written at once.
    #[must_use]
    pub fn says_what(&self, other: &Self) -> bool {
        let rounded = |cpu: Option<f64>| cpu.map(|cpu| (cpu * 20.0).round());
        self.boot == other.boot
            && self.generation == other.generation
            && self.newest == other.newest
            && rounded(self.cpu) == rounded(other.cpu)
            && self.sessions == other.sessions
            && self.handshakes == other.handshakes
    }
}

/// `leader`: who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    pub node: u16,
    pub boot: Boot,
}

/// `intents/<id>`: what operators want of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    #[default]
    Serve,
    /// No new connections.
    Drain,
    /// No member any more, until it is to serve or drain again.
    Remove,
}

impl Intent {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Drain => "drain",
            Self::Remove => "remove",
        }
    }
}

/// The bytes of a small value.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("text and numbers encode")
}

/// A small value of bytes from anywhere; `None` where it is none.
#[must_use]
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    if bytes.len() > SMALL_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// `flows/<id>`: connections of each bucket that has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowsReport {
    pub boot: Boot,
    /// Grows with every report of a boot.
    pub sequence: u64,
    /// INVARIANT: ascending by bucket, each once.
    pub flows: Vec<(BucketIndex, u32)>,
}

/// Version `u8`, boot `[u8; 16]`, sequence `u64`; all numbers big-endian.
const REPORT_HEAD_BYTES: usize = 1 + 16 + 8;
/// Bucket `u16`, connections `u32`.
const REPORT_ENTRY_BYTES: usize = 2 + 4;
const REPORT_VERSION: u8 = 1;

impl FlowsReport {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = REPORT_HEAD_BYTES + self.flows.len() * REPORT_ENTRY_BYTES;
        let mut bytes = Vec::with_capacity(length);
        bytes.push(REPORT_VERSION);
        bytes.extend(self.boot.0.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        for (bucket, flows) in &self.flows {
            bytes.extend(bucket.0.to_be_bytes());
            bytes.extend(flows.to_be_bytes());
        }
        bytes
    }

    /// Of bytes from anywhere; `None` where they are no report.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, entries) = bytes.split_first_chunk::<REPORT_HEAD_BYTES>()?;
        let boot = head[1..17].try_into().ok().map(u128::from_be_bytes)?;
        let sequence = head[17..].try_into().ok().map(u64::from_be_bytes)?;
        if head[0] != REPORT_VERSION || !entries.len().is_multiple_of(REPORT_ENTRY_BYTES) {
            return None;
        }
        let mut flows = Vec::with_capacity(entries.len() / REPORT_ENTRY_BYTES);
        let mut last = None;
        for entry in entries.chunks_exact(REPORT_ENTRY_BYTES) {
            let bucket = BucketIndex(u16::from_be_bytes([entry[0], entry[1]]));
            // Ascending indices of 16 bits are also the bound of the report's length.
            if last.replace(bucket) >= Some(bucket) {
                return None;
            }
            let count = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            flows.push((bucket, count));
        }
        Some(Self {
            boot: Boot(boot),
            sequence,
            flows,
        })
    }
}

/// A change of what the nodes say; `None` where a value is gone.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Registration(NodeId, Option<Registration>),
    Heartbeat(NodeId, Option<Heartbeat>),
    Flows(NodeId, Option<FlowsReport>),
    Intent(NodeId, Option<Intent>),
}

/// Folders of the store, one key a node in each.
pub const MEMBERS: &str = "members";
pub const HEARTBEATS: &str = "heartbeats";
pub const FLOWS: &str = "flows";
pub const INTENTS: &str = "intents";
/// Who decides.
pub const LEADER: &str = "leader";
/// What was decided last.
pub const TABLE: &str = "table";

/// The number in a key's last part: decimal, and written in one way alone.
#[must_use]
pub fn node_of(text: &str) -> Option<NodeId> {
    let node = NodeId::new(text.parse().ok()?)?;
    (node.get().to_string() == text).then_some(node)
}

impl Change {
    /// The change that a key's new value is: `None` of a key that is not a node's, the reason of a value
    /// that is none.
    #[must_use]
    pub fn read(key: &str, value: Option<&[u8]>) -> Option<Result<Self, &'static str>> {
        let (folder, number) = key.split_once('/')?;
        let broken = "malformed";
        let Some(node) = node_of(number) else {
            let is_ours = [MEMBERS, HEARTBEATS, FLOWS, INTENTS].contains(&folder);
            return is_ours.then_some(Err(broken));
        };
        fn small<T: for<'de> Deserialize<'de>>(value: Option<&[u8]>) -> Option<Option<T>> {
            value.map_or(Some(None), |bytes| decode(bytes).map(Some))
        }
        let change = match folder {
            MEMBERS => small(value).map(|value| Self::Registration(node, value)),
            HEARTBEATS => small(value).map(|value| Self::Heartbeat(node, value)),
            INTENTS => small(value).map(|value| Self::Intent(node, value)),
            FLOWS => match value {
                None => Some(Self::Flows(node, None)),
                Some(bytes) => {
                    FlowsReport::decode(bytes).map(|report| Self::Flows(node, Some(report)))
                }
            },
            _ => return None,
        };
        Some(change.ok_or(broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Boot = Boot(0x0123_4567_89ab_cdef_0000_0000_0000_0001);

    fn node(number: u16) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let place = Place {
            v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
            v6: None,
            ethernet: [2; 6],
        };
        let registration = Registration::new(place, Weight::new(7).unwrap(), BOOT);
        let load = Load {
            cpu: 0.5,
            sessions: 1,
            sessions_max: 2,
            handshakes: 3,
            handshakes_max: 4,
        };
        let heartbeat = Heartbeat::new(BOOT, 9, Generation(3), Generation(4), Some(load));
        assert_eq!(heartbeat.load(), Some(load));
        let report = FlowsReport {
            boot: BOOT,
            sequence: 5,
            flows: vec![(BucketIndex(1), 2), (BucketIndex(65_535), u32::MAX)],
        };
        let check = |key: &str, value: Option<Vec<u8>>, expected: Change| {
            assert_eq!(Change::read(key, value.as_deref()), Some(Ok(expected)));
        };
        let one = node(1);
        let registered = Change::Registration(one, Some(registration));
        check("members/1", Some(encode(&registration)), registered);
        check("members/1", None, Change::Registration(one, None));
        let heard = Change::Heartbeat(one, Some(heartbeat));
        check("heartbeats/1", Some(encode(&heartbeat)), heard);
        let bytes = report.encode();
        check("flows/1", Some(bytes), Change::Flows(one, Some(report)));
        for intent in [Intent::Serve, Intent::Drain, Intent::Remove] {
            let change = Change::Intent(one, Some(intent));
            check("intents/1", Some(encode(&intent)), change);
            assert_eq!(encode(&intent), format!("\"{}\"", intent.name()).as_bytes());
        }
    }

    #[test]
    fn what_is_no_value_is_refused_and_other_keys_are_nobodys() {
        let check = |key: &str, value: &[u8]| {
            let read = Change::read(key, Some(value));
            assert_eq!(read, Some(Err("malformed")), "{key}");
        };
        check("members/0", b"{}");
        check("members/01", b"{}");
        check("members/65536", b"{}");
        check("members/x", b"{}");
        check("members/1", b"{}");
        check("members/1", b"");
        check("heartbeats/1", b"[1]");
        check("intents/1", b"\"dance\"");
        check("intents/1", &b" ".repeat(SMALL_BYTES_MAX + 1));
        check("flows/1", b"");
        check("flows/1", &[1; REPORT_HEAD_BYTES + 1]);
        check("flows/1", &[2; REPORT_HEAD_BYTES]);
        let mut twice = [1; REPORT_HEAD_BYTES].to_vec();
        twice.extend([0, 5, 0, 0, 0, 1, 0, 5, 0, 0, 0, 1]);
        check("flows/1", &twice);
        assert_eq!(Change::read("table", Some(b"")), None);
        assert_eq!(Change::read("strangers/1", Some(b"")), None);
    }

    #[test]
    fn only_what_others_act_on_makes_a_heartbeat_urgent() {
        let load = |cpu: f64| {
            Some(Load {
                cpu,
                sessions: 1,
                sessions_max: 2,
                handshakes: 3,
                handshakes_max: 4,
            })
        };
        let of = |sequence, generation, cpu| {
            Heartbeat::new(
                BOOT,
                sequence,
                Generation(generation),
                Generation(0),
                load(cpu),
            )
        };
        assert!(of(1, 1, 0.5).says_what(&of(2, 1, 0.501)));
        assert!(!of(1, 1, 0.5).says_what(&of(2, 2, 0.5)));
        assert!(!of(1, 1, 0.5).says_what(&of(2, 1, 0.6)));
    }
}
