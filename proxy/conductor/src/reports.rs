//! Counts the connections of every bucket that live here, by asking the kernel for its sockets (sock_diag).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use postern_ebpf::from_ip;
use postern_ebpf_abi::flow::Flow;
use postern_ebpf_abi::siphash::SipKey;
use postern_ebpf_abi::table::bucket_of;
use postern_steering::BucketIndex;

use crate::ConductorError;
use crate::kernel::TCP;

/// The kernel writes no longer message of this kind.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Messages of one answer: some forty million sockets.
const MESSAGES_MAX: usize = 1 << 20;

/// Sockets that the peer may still send to, or that send: all but those that listen, are closed or
/// only wait.
fn living() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::SYN_RECV
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

/// The bucket of a connection, as the programs compute it.
#[must_use]
pub fn bucket(client: SocketAddr, service: SocketAddr, protocol: u8, key: SipKey) -> BucketIndex {
    let flow = Flow {
        source: from_ip(client.ip()),
        destination: from_ip(service.ip()),
        source_port: client.port(),
        destination_port: service.port(),
        protocol,
    };
    let bucket = bucket_of(flow.hash(key));
    BucketIndex(u16::try_from(bucket).expect("there are 65,536 buckets"))
}

/// Connections to `services` in this network namespace, by bucket, ascending; buckets without one are
/// left out. It blocks.
///
/// # Errors
/// The kernel does not tell.
pub fn count(
    services: &[SocketAddr],
    key: SipKey,
) -> Result<Vec<(BucketIndex, u32)>, ConductorError> {
    let mut flows: BTreeMap<BucketIndex, u32> = BTreeMap::new();
    for family in [AF_INET, AF_INET6] {
        each_socket(family, living(), |local, remote| {
            if services.contains(&local) {
                let count = flows.entry(bucket(remote, local, TCP, key)).or_default();
                *count = count.saturating_add(1);
            }
        })?;
    }
    Ok(flows.into_iter().collect())
}

/// Ports that somebody listens on in this network namespace. It blocks.
///
/// # Errors
/// The kernel does not tell.
pub fn listening() -> Result<BTreeSet<u16>, ConductorError> {
    let mut ports = BTreeSet::new();
    for family in [AF_INET, AF_INET6] {
        each_socket(family, StateFlags::LISTEN, |local, _| {
            ports.insert(local.port());
        })?;
    }
    Ok(ports)
}

fn each_socket(
    family: u8,
    states: StateFlags,
    mut each: impl FnMut(SocketAddr, SocketAddr),
) -> Result<(), ConductorError> {
    let failed = |source| ConductorError::System {
        what: "the list of its sockets",
        source,
    };
    let broken = |why: &str| failed(std::io::Error::other(why.to_owned()));
    let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(failed)?;
    socket
        .connect(&netlink_sys::SocketAddr::new(0, 0))
        .map_err(failed)?;
    let sent = socket.send(&request(family, states), 0).map_err(failed)?;
    if sent == 0 {
        return Err(broken("nothing was sent"));
    }
    let mut buffer = Vec::with_capacity(MESSAGE_BYTES_MAX);
    for _ in 0..MESSAGES_MAX {
        buffer.clear();
        let size = socket.recv(&mut buffer, 0).map_err(failed)?;
        let mut rest = buffer.get(..size).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| broken(&error.to_string()))?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(failed(error.to_io())),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    let id = &found.header.socket_id;
                    let of = |address: std::net::IpAddr, port| {
                        SocketAddr::new(address.to_canonical(), port)
                    };
                    each(
                        of(id.source_address, id.source_port),
                        of(id.destination_address, id.destination_port),
                    );
                }
                _ => {}
            }
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            // A message of no length would be read for ever.
            rest = match rest.get(length.next_multiple_of(4).max(4)..) {
                Some(rest) => rest,
                None => &[],
            };
        }
    }
    Err(broken("the answer has no end"))
}

fn request(family: u8, states: StateFlags) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let socket_id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    });
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn living_connections_to_services_are_counted_by_bucket_and_nothing_else() {
        let key = SipKey::from_bytes([7; 16]);
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let service = listener.local_addr().unwrap();
            let other = TcpListener::bind(address).unwrap();
            assert_eq!(count(&[service], key).unwrap(), []);
            assert!(listening().unwrap().contains(&service.port()));

            let clients: Vec<TcpStream> = (0..20)
                .map(|_| TcpStream::connect(service).unwrap())
                .collect();
            let taken: Vec<_> = (0..20).map(|_| listener.accept().unwrap()).collect();
            let strangers = TcpStream::connect(other.local_addr().unwrap()).unwrap();
            let counted = count(&[service], key).unwrap();
            let sum: u32 = counted.iter().map(|(_, flows)| flows).sum();
            assert_eq!(sum, 20);
            assert!(counted.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for client in &clients {
                let own = bucket(client.local_addr().unwrap(), service, TCP, key);
                assert!(counted.iter().any(|(found, _)| *found == own));
            }
            drop((clients, strangers));
            drop(taken);
            assert_eq!(count(&[service], key).unwrap(), []);
        }
    }

    #[test]
    fn a_socket_of_both_families_counts_as_ipv4_where_its_client_is() {
        let key = SipKey::from_bytes([7; 16]);
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = SocketAddr::from(([127, 0, 0, 1], port));
        let client = TcpStream::connect(service).unwrap();
        let (_taken, _) = listener.accept().unwrap();
        let expected = bucket(client.local_addr().unwrap(), service, TCP, key);
        assert_eq!(count(&[service], key).unwrap(), [(expected, 1)]);
    }
}
