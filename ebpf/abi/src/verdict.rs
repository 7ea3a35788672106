//! What became of a packet: every packet is counted under exactly one verdict, and the verdict decides what is done with it.

/// What the kernel does next with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The node's own network stack takes it.
    Pass,
    Drop,
    /// It leaves by the interface that it came in by, as it now is.
    Transmit,
}

macro_rules! verdicts {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $action:ident;)*) => {
        /// What became of a packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Verdict {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Verdict {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The one table of what is done: what is unknown or broken passes or is dropped here.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self {
                    $(Self::$variant => Action::$action,)*
                }
            }

            /// Its name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

verdicts! {
    // Not ours: nothing of the node's other traffic is touched.
    /// No table is in force.
    NoTable = 0, "no_table", Pass;
    /// Neither IPv4 nor IPv6 directly in Ethernet: ARP, VLAN tags and others.
    NotIp = 1, "not_ip", Pass;
    /// To none of our addresses.
    NotOurs = 2, "not_ours", Pass;

    // To one of our addresses, or too broken to tell, and refused.
    /// Headers that are cut off or contradict themselves.
    Malformed = 3, "malformed", Drop;
    /// From a source that the list denies.
    Denied = 4, "denied", Drop;
    /// A source begins more connections than it may.
    SynLimited = 5, "syn_limited", Drop;
    /// A fragment: only the first of a packet shows ports, so the others could not follow it.
    Fragment = 6, "fragment", Drop;
    /// IPv4 with options.
    IpOptions = 7, "ip_options", Drop;
    /// IPv6 with extension headers.
    Ipv6Extension = 8, "ipv6_extension", Drop;
    /// A protocol or port that is not served at this address.
    NotServed = 9, "not_served", Drop;
    /// ICMP that is neither an echo request nor an error about one of our flows.
    IcmpUnhandled = 10, "icmp_unhandled", Drop;
    /// The bucket, or the bucket's node, is nobody.
    Unassigned = 11, "unassigned", Drop;
    /// With the tunnel's headers the packet would exceed the MTU, and no answer may be given.
    TooBig = 12, "too_big", Drop;
    /// No room in front of the packet for the tunnel's headers.
    NoHeadroom = 13, "no_headroom", Drop;

    // To one of our addresses, and served.
    /// An echo request, answered here.
    EchoAnswered = 14, "echo_answered", Transmit;
    /// This node is the flow's first, and nobody else may have it.
    Local = 15, "local", Pass;
    /// This node is the flow's first, and has the connection.
    LocalSocket = 16, "local_socket", Pass;
    /// This node is the flow's first, and the packet carries a SYN cookie that it gave.
    LocalCookie = 17, "local_cookie", Pass;
    /// Sent to the flow's first node.
    ToFirst = 18, "to_first", Transmit;
    /// This node is the flow's first and does not know the connection: sent to the second.
    ToSecond = 19, "to_second", Transmit;

    // From another node, and refused.
    /// The program that takes tunnelled packets is missing.
    NoRedirect = 20, "no_redirect", Drop;
    /// Tunnel headers that are cut off, unknown or contradict themselves.
    TunnelMalformed = 21, "tunnel_malformed", Drop;
    /// From an address that is not that of the node it says it comes from.
    TunnelUnlisted = 22, "tunnel_unlisted", Drop;
    /// The tag is wrong.
    TunnelForged = 23, "tunnel_forged", Drop;
    /// Meant for another node.
    TunnelMisdelivered = 24, "tunnel_misdelivered", Drop;
    /// More hops left than any packet begins with.
    TunnelHops = 25, "tunnel_hops", Drop;
    /// What it carries is not for a service of ours.
    TunnelForeign = 26, "tunnel_foreign", Drop;

    // From another node, and served.
    /// A connection begins.
    TakenSyn = 27, "taken_syn", Pass;
    /// This node has the connection.
    TakenSocket = 28, "taken_socket", Pass;
    /// It carries a SYN cookie that this node gave.
    TakenCookie = 29, "taken_cookie", Pass;
    /// This node remembers the UDP flow.
    TakenDatagram = 30, "taken_datagram", Pass;
    /// Nobody knows the connection, and this is the last hop: its stack answers.
    TakenLast = 31, "taken_last", Pass;
    /// This node does not know the connection: sent to the next.
    PassedOn = 32, "passed_on", Transmit;

    // From anywhere.
    /// This node is isolated, and has neither the connection nor the UDP flow.
    Isolated = 33, "isolated", Drop;

    // UDP.
    /// This node is the flow's first, and remembers it.
    LocalDatagram = 34, "local_datagram", Pass;
    /// From another node: nobody remembers the flow, and this is the last hop, which does from now.
    TakenNewDatagram = 35, "taken_new_datagram", Pass;

    // Too big.
    /// With the tunnel's headers the packet would exceed the MTU: the client is told so.
    TooBigAnswered = 36, "too_big_answered", Transmit;
}

/// Entries of the map of counts.
pub const VERDICTS: u32 = 37;

const _: () = assert!(Verdict::ALL.len() == VERDICTS as usize);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_dense_and_names_differ() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index, "{}", verdict.name());
        }
        let names: BTreeSet<_> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
        assert_eq!(names.len(), Verdict::ALL.len());
    }

    #[test]
    fn nothing_that_is_refused_from_a_tunnel_passes() {
        for verdict in Verdict::ALL {
            if verdict.name().starts_with("tunnel_") {
                assert_eq!(verdict.action(), Action::Drop, "{}", verdict.name());
            }
        }
    }
}
