//! The node under test: its addresses and routes, the services that end there, and steering where it is to be measured.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context as _, Result};
use postern_ebpf::{Attached, Draft, Endpoint, Mode, Program, Programs, from_ip};
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::siphash::SipKey;
use postern_ebpf_abi::table::{Bucket, NodeId, Settings};
use postern_ebpf_abi::verdict::{Action, Verdict};
use socket2::{Domain, Socket, Type};

use super::Way;
use super::namespace::Namespace;

const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Another node, behind the same cable.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// Nobody has it: what goes there ends at the far end of the cable, as cheaply as a packet can.
const NOBODYS_ETHERNET: &str = "02:00:00:00:00:99";
const NOBODYS_ETHERNET_BYTES: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

const PORT: u16 = 443;
const TUNNEL_PORT: u16 = 6080;
const MTU: u16 = 1500;
const UDP: u8 = 17;
const TCP: u8 = 6;

const SELF_ID: NodeId = NodeId(1);
const OTHER_ID: NodeId = NodeId(2);

/// A node in a namespace.
#[derive(Debug)]
pub struct Node {
    pub namespace: Namespace,
    /// With a table by which everything stays.
    own: Programs,
    /// With a table by which everything goes to the other node.
    forward: Programs,
    /// INVARIANT: nobody reads or accepts, so that packets end there.
    _services: (UdpSocket, Socket),
}

/// The service whose packets go this way, whether by steering or by routes.
#[must_use]
pub const fn service(way: Way) -> SocketAddrV4 {
    let address = match way {
        Way::Own => Ipv4Addr::new(192, 0, 2, 10),
        Way::Forward => Ipv4Addr::new(192, 0, 2, 11),
    };
    SocketAddrV4::new(address, PORT)
}

impl Node {
    /// Gives the node in `namespace` what it needs; `interface` is its end of the cable.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn set_up(namespace: Namespace, interface: &str) -> Result<Self> {
        namespace.within(|| {
            for (setting, value) in [
                ("ip_forward", "1"),
                // Packets go back out where they came in, as steering sends them, and nobody is told of a better way.
                ("conf/all/send_redirects", "0"),
                ("conf/default/send_redirects", "0"),
                (&*format!("conf/{interface}/send_redirects"), "0"),
                ("conf/all/rp_filter", "0"),
                (&*format!("conf/{interface}/rp_filter"), "0"),
                // A listener that is full drops, and answers nobody.
                ("tcp_syncookies", "0"),
            ] {
                let path = format!("/proc/sys/net/ipv4/{setting}");
                fs::write(&path, value).context(path)?;
            }
            Ok(())
        })?;
        for command in [
            "link set lo up".to_owned(),
            format!("addr add {NODE}/24 dev {interface}"),
            format!("addr add {}/32 dev lo", service(Way::Own).ip()),
            format!("neigh add {SENDER} lladdr {NOBODYS_ETHERNET} dev {interface} nud permanent"),
            format!("neigh add {OTHER} lladdr {NOBODYS_ETHERNET} dev {interface} nud permanent"),
            format!("route add default via {SENDER}"),
            format!("route add {} via {OTHER}", service(Way::Forward).ip()),
        ] {
            namespace.ip(&command)?;
        }
        let services = namespace.within(services)?;
        let programs = |way| -> Result<Programs> {
            let mut programs = Programs::load().context("the kernel's programs")?;
            programs.put_table(draft(way)?.table())?;
            Ok(programs)
        };
        Ok(Self {
            namespace,
            own: programs(Way::Own)?,
            forward: programs(Way::Forward)?,
            _services: services,
        })
    }

    /// Runs `program` on what arrives, as long as what is returned lives; to steer, by the table for `way`.
    ///
    /// # Errors
    /// The interface does not take the program in this mode.
    pub fn attach(
        &mut self,
        way: Way,
        program: Program,
        interface: &str,
        mode: Mode,
    ) -> Result<Attached> {
        let programs = match way {
            Way::Own => &mut self.own,
            Way::Forward => &mut self.forward,
        };
        let attach = || Ok(programs.attach_as(program, interface, mode)?);
        self.namespace.within(attach)
    }

    /// Lets the other end of the cable, in namespace `sender`, take frames that a native program sends: without a program of its own it
    /// leaves them in its queue.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn let_pass(&mut self, sender: &Namespace, interface: &str) -> Result<Attached> {
        let programs = &mut self.own;
        sender.within(|| Ok(programs.attach_as(Program::Pass, interface, Mode::Native)?))
    }

    /// Packets that steering let go `way`, and those that it did something else with.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn steered(&self, way: Way) -> Result<(u64, u64)> {
        let (action, programs) = match way {
            Way::Own => (Action::Pass, &self.own),
            Way::Forward => (Action::Transmit, &self.forward),
        };
        let counts = programs.counts()?;
        let (mut right, mut wrong) = (0, 0);
        for verdict in Verdict::ALL {
            let packets = counts[*verdict as usize].packets;
            if *verdict != Verdict::NotOurs && verdict.action() == action {
                right += packets;
            } else {
                wrong += packets;
            }
        }
        Ok((right, wrong))
    }
}

/// Both protocols at the node's own service.
fn services() -> Result<(UdpSocket, Socket)> {
    let datagrams = UdpSocket::bind(service(Way::Own))?;
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&service(Way::Own).into())?;
    listener.listen(1)?;
    Ok((datagrams, listener))
}

/// The table by which packets go `way`.
fn draft(way: Way) -> Result<Draft> {
    let mut draft = Draft::new(Settings {
        generation: 1,
        flow_key: SipKey::from_bytes(*b"key of the flows"),
        tag_keys: [SipKey::from_bytes(*b"key of the tags."); 2],
        address_v4: from_ip(NODE.into()),
        address_v6: Address::NONE,
        vip_seed: 0,
        syn_interval_ns: 0,
        syn_burst_ns: 0,
        node: SELF_ID,
        tunnel_port: TUNNEL_PORT,
        mtu: MTU,
        tag_key: 0,
        sources: 0,
        isolated: 0,
        reserved: [0; 7],
    });
    let endpoint = |protocol| Endpoint {
        address: service(way).into(),
        protocol,
    };
    draft.serve(&[endpoint(UDP), endpoint(TCP)])?;
    draft.node(SELF_ID, NODE.into(), [0; 6])?;
    draft.node(OTHER_ID, OTHER.into(), NOBODYS_ETHERNET_BYTES)?;
    let first = match way {
        Way::Own => SELF_ID,
        Way::Forward => OTHER_ID,
    };
    draft.buckets().fill(Bucket {
        first,
        second: NodeId::NOBODY,
    });
    Ok(draft)
}
