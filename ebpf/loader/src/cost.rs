//! What the programs cost: the kernel's test run on packets of each path, with what the run itself takes subtracted.

mod account;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use aya::maps::Array;
use postern_ebpf_abi as abi;
use postern_ebpf_abi::flow::{Address, Flow};
use postern_ebpf_abi::siphash::SipKey;
use postern_ebpf_abi::source::DENY;
use postern_ebpf_abi::table::{Bucket, NodeId, Settings};
use postern_ebpf_abi::verdict::Verdict;

use crate::{Draft, Endpoint, Error, Program, Programs, Remembered, from_ip};

/// Flows that [`Path::GueMany`] spreads its packets over.
pub const FLOWS: u32 = 131_072;
/// Flows that [`Path::DatagramMany`] does, all of which are remembered.
pub const DATAGRAM_FLOWS: u32 = 65_536;

const SELF: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PORT: u16 = 443;
/// Of the IP header.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A path through the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The source is on the list of the denied.
    Denied,
    /// To an address that is not ours.
    NotOurs,
    /// This node has the flow.
    Own,
    /// Into a tunnel to another node, one flow. Taking it out again is part of what is measured.
    Gue,
    /// The same over [`FLOWS`] random flows.
    GueMany,
    /// This node is the first and asks its stack, which has the connection.
    Lookup,
    /// A datagram of a flow that this node remembers, one flow.
    Datagram,
    /// The same over [`DATAGRAM_FLOWS`] random flows: a memory that no cache holds.
    DatagramMany,
    /// Counted in its flow's account, which is in the map.
    Account,
}

impl Path {
    pub const ALL: [Self; 9] = [
        Self::Denied,
        Self::NotOurs,
        Self::Own,
        Self::Gue,
        Self::GueMany,
        Self::Lookup,
        Self::Datagram,
        Self::DatagramMany,
        Self::Account,
    ];

    /// Its name as a case of the bench.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "steer-denied",
            Self::NotOurs => "steer-not-ours",
            Self::Own => "steer-self",
            Self::Gue => "steer-gue",
            Self::GueMany => "steer-gue-131k",
            Self::Lookup => "steer-lookup",
            Self::Datagram => "steer-datagram",
            Self::DatagramMany => "steer-datagram-65k",
            Self::Account => "steer-account",
        }
    }

    /// What every packet of it must be counted as, where `steer` sees it.
    const fn verdict(self) -> Verdict {
        match self {
            Self::Denied => Verdict::Denied,
            Self::NotOurs => Verdict::NotOurs,
            Self::Own | Self::DatagramMany | Self::Account => Verdict::Local,
            Self::Datagram => Verdict::LocalDatagram,
            Self::Gue | Self::GueMany => Verdict::ToFirst,
            Self::Lookup => Verdict::LocalSocket,
        }
    }
}

/// What a path costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    pub path: Path,
    /// Time a packet, of every round, with the run itself subtracted; in order.
    pub rounds: Vec<Duration>,
}

impl Cost {
    #[must_use]
    pub fn least(&self) -> Duration {
        self.rounds.first().copied().unwrap_or_default()
    }

    #[must_use]
    pub fn median(&self) -> Duration {
        let middle = self.rounds.get(self.rounds.len() / 2);
        middle.copied().unwrap_or_default()
    }
}

/// Programs that are ready to be measured.
#[derive(Debug)]
pub struct Bench {
    programs: Programs,
}

impl Bench {
    /// # Errors
    /// The programs cannot be loaded.
    pub fn new() -> Result<Self, Error> {
        let mut programs = Programs::load_to_measure()?;
        let denied = Address::from_octets(CLIENT.to_ipv6_mapped().octets());
        programs.put_source(denied, 128, DENY)?;
        // The list is never empty where it matters what a look into it costs.
        for number in 0..1_000_u32 {
            let address = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + (number << 8)));
            programs.put_source(from_ip(address), 96 + 24, DENY)?;
        }
        account::prepare(&mut programs)?;
        Ok(Self { programs })
    }

    /// Measures `path` in `rounds` rounds of `packets` packets each, beside an empty program.
    ///
    /// # Errors
    /// A packet did not go the way that is to be measured.
    pub fn measure(&mut self, path: Path, rounds: usize, packets: u32) -> Result<Cost, Error> {
        let mut rounds = if path == Path::Account {
            (0..rounds)
                .map(|_| account::round(&self.programs, packets))
                .collect::<Result<Vec<_>, _>>()?
        } else {
            self.steered(path, rounds, packets)?
        };
        rounds.sort();
        Ok(Cost { path, rounds })
    }

    /// Time a packet on a path through `steer`, round by round.
    fn steered(&mut self, path: Path, rounds: usize, packets: u32) -> Result<Vec<Duration>, Error> {
        let socket = Connection::open()?;
        let (client, vip) = match path {
            Path::Lookup => (socket.client, socket.server),
            _ => (
                SocketAddr::from((CLIENT, 50_000)),
                SocketAddr::from((VIP, PORT)),
            ),
        };
        let table = draft(path, vip)?;
        self.programs.put_table(table.table())?;
        self.spread(match path {
            Path::GueMany => FLOWS,
            Path::DatagramMany => DATAGRAM_FLOWS,
            _ => 1,
        })?;
        let to = match path {
            Path::NotOurs => SocketAddr::from((Ipv4Addr::new(203, 0, 113, 1), PORT)),
            _ => vip,
        };
        let frame = match path {
            Path::Datagram | Path::DatagramMany => datagram(client, to),
            _ => acknowledgement(client, to),
        };
        if path == Path::Datagram {
            let hash = flow(client, to).hash(table.table().settings.flow_key);
            let quiet = Duration::ZERO;
            self.programs.remember(Remembered { hash, quiet })?;
        }
        let program = match path {
            Path::Gue | Path::GueMany | Path::DatagramMany => Program::SteerUndone,
            _ => Program::Steer,
        };
        let mut costs = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let empty = self.programs.run(Program::Pass, &frame, packets)?.duration;
            let before = self.programs.count(path.verdict())?.packets;
            let full = self.programs.run(program, &frame, packets)?.duration;
            let after = self.programs.count(path.verdict())?.packets;
            if after - before != u64::from(packets) {
                return Err(Error::Strayed(path.name()));
            }
            costs.push(full.saturating_sub(empty));
        }
        Ok(costs)
    }

    /// How long it takes to put a table of 1,000 nodes and all buckets in force, in order.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn swap(&mut self, rounds: usize) -> Result<Vec<Duration>, Error> {
        let table = draft(Path::Gue, SocketAddr::from((VIP, PORT)))?;
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            self.programs.put_table(table.table())?;
            times.push(start.elapsed());
        }
        times.sort();
        Ok(times)
    }

    fn spread(&mut self, flows: u32) -> Result<(), Error> {
        let name = abi::maps::MEASURED_FLOWS;
        let failed = |source| Error::Map { name, source };
        let map = self.programs.ebpf.map_mut(name);
        let map = map.ok_or(Error::Missing(name))?;
        let mut array = Array::<_, u32>::try_from(map).map_err(failed)?;
        array.set(0, flows, 0).map_err(failed)
    }
}

/// An established connection on the loopback interface, which is where test runs look.
struct Connection {
    client: SocketAddr,
    server: SocketAddr,
    _sockets: [std::net::TcpStream; 2],
}

impl Connection {
    fn open() -> Result<Self, Error> {
        let open = || -> std::io::Result<Self> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let server = listener.local_addr()?;
            let connected = std::net::TcpStream::connect(server)?;
            let (accepted, client) = listener.accept()?;
            Ok(Self {
                client,
                server,
                _sockets: [connected, accepted],
            })
        };
        open().map_err(Error::System)
    }
}

fn draft(path: Path, vip: SocketAddr) -> Result<Draft, Error> {
    let mut draft = Draft::new(Settings {
        generation: 1,
        flow_key: SipKey::from_bytes(*b"key of the flows"),
        tag_keys: [SipKey::from_bytes(*b"key of the tags."); 2],
        address_v4: from_ip(Ipv4Addr::new(10, 0, 0, 1).into()),
        address_v6: Address::NONE,
        vip_seed: 0,
        syn_interval_ns: 0,
        syn_burst_ns: 0,
        node: SELF,
        tunnel_port: 6080,
        mtu: 1500,
        tag_key: 0,
        sources: u8::from(path == Path::Denied),
        isolated: 0,
        reserved: [0; 7],
    });
    draft.serve(&[TCP, UDP].map(|protocol| Endpoint {
        address: vip,
        protocol,
    }))?;
    draft.node(SELF, Ipv4Addr::new(10, 0, 0, 1).into(), [0; 6])?;
    for number in 2..=1_000 {
        let address = Ipv4Addr::from(0x0a00_0000 + u32::from(number));
        draft.node(NodeId(number), address.into(), [0; 6])?;
    }
    for (number, bucket) in draft.buckets().iter_mut().enumerate() {
        *bucket = match path {
            Path::Lookup | Path::Datagram => Bucket {
                first: SELF,
                second: OTHER,
            },
            Path::Gue | Path::GueMany => Bucket {
                first: NodeId(2 + (number % 999) as u16),
                second: SELF,
            },
            _ => Bucket {
                first: SELF,
                second: NodeId::NOBODY,
            },
        };
    }
    Ok(draft)
}

/// A TCP segment with nothing but an acknowledgement.
fn acknowledgement(client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    frame(client, vip, TCP, &rest)
}

/// An empty datagram with Ethernet's padding.
fn datagram(client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let mut frame = frame(client, vip, UDP, &[0, 8, 0, 0]);
    frame.extend([0; 12]);
    frame
}

fn flow(client: SocketAddr, vip: SocketAddr) -> Flow {
    Flow {
        source: from_ip(client.ip()),
        destination: from_ip(vip.ip()),
        source_port: client.port(),
        destination_port: vip.port(),
        protocol: UDP,
    }
}

/// A frame with what follows the ports; no program looks at its checksums.
fn frame(client: SocketAddr, vip: SocketAddr, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let bytes = 24 + rest.len() as u8;
    frame.extend([0x45, 0, 0, bytes, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(octets(client));
    frame.extend(octets(vip));
    frame.extend(client.port().to_be_bytes());
    frame.extend(vip.port().to_be_bytes());
    frame.extend(rest);
    frame.extend([0; 6]);
    frame
}
