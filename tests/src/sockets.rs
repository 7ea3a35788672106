//! TCP connections that a network namespace has, as `/proc/net/tcp` lists them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};

/// An established connection, or one whose last acknowledgement is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// States as the kernel numbers them: ESTABLISHED and SYN_RECV.
const STATES: [&str; 2] = ["01", "03"];

/// Connections of the namespace that process `pid` is in. Those of IPv4 are told as such, on whatever
/// socket they live.
pub(crate) fn of_process(pid: u32) -> Result<Vec<Connection>> {
    let mut all = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{pid}/net/{table}");
        let text = std::fs::read_to_string(&path).context(path)?;
        all.extend(text.lines().skip(1).filter_map(connection));
    }
    Ok(all)
}

fn connection(line: &str) -> Option<Connection> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    STATES.contains(&state).then_some(())?;
    Some(Connection {
        local: address(local)?,
        remote: address(remote)?,
    })
}

/// Words of 32 bits in the machine's own order, as hex digits; then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match *bytes.as_slice() {
        [a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_kernel_are_read() {
        let check = |line: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(local, remote)| Connection {
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
            });
            assert_eq!(connection(line), expected, "{line}");
        };
        check(
            "   0: 0100007F:01BB 020011AC:8AF0 01 00000000:00000000 00:00000000 00000000 0 0 1",
            Some(("127.0.0.1:443", "172.17.0.2:35568")),
        );
        check(
            "   0: 0100007F:01BB 020011AC:8AF0 06 00000000:00000000",
            None,
        );
        check(
            "   1: B80D0120000000000000000010000000:01BB 000080FD000000000000000002000000:0400 01 0",
            Some(("[2001:db8::10]:443", "[fd80::2]:1024")),
        );
        check(
            "   1: 0000000000000000FFFF00000A0200C0:01BB 0000000000000000FFFF00000200000A:0400 03 0",
            Some(("192.0.2.10:443", "10.0.0.2:1024")),
        );
        check("sl  local_address", None);
    }
}
