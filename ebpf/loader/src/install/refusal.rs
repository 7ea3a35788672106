//! Why an interface does not run a program natively: what its driver says, which a link is not told, else what the kernel's error means.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_UPDATE_IF_NOEXIST};

/// Most bytes of the kernel's answer.
const ANSWER_MAX: usize = 4096;

/// Attributes of the answer that are looked at.
const ATTRIBUTES_MAX: usize = 16;

/// Bytes of a netlink message's header.
const HEADER: usize = size_of::<libc::nlmsghdr>();

/// In `if_link.h`, within `IFLA_XDP`.
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
/// In `netlink.h`: the answer has attributes, and the one that is a sentence.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_CAPPED: u16 = 0x100;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The reason for `error`, with which a link of `program` with `interface` was refused.
pub(super) fn reason(program: BorrowedFd<'_>, interface: u32, error: &io::Error) -> String {
    // Only drivers say more, and only these numbers come from them.
    let denied = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY));
    let said = if denied {
        None
    } else {
        ask(program, interface).unwrap_or_default()
    };
    let meant = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "its driver has no native mode",
        Some(libc::EBUSY | libc::EEXIST) => "another program is attached",
        Some(libc::EINVAL | libc::ERANGE | libc::E2BIG) => {
            "its driver refuses as it is set up (MTU, queues or offloads)"
        }
        Some(libc::ENOSPC | libc::ENOMEM) => "it has not enough queues or memory",
        Some(libc::EPERM | libc::EACCES) => "that takes CAP_NET_ADMIN and CAP_BPF",
        _ => "the kernel refuses",
    };
    match said {
        Some(said) => format!("{meant}: {said}"),
        None => format!("{meant} ({error})"),
    }
}

/// Tries once more by netlink, whose answer has the driver's words. Should it work this time, that
/// is undone: only a link ends together with its pin.
fn ask(program: BorrowedFd<'_>, interface: u32) -> io::Result<Option<String>> {
    let mut socket = socket()?;
    socket.write_all(&request(interface, program.as_raw_fd()))?;
    let mut answer = [0; ANSWER_MAX];
    let bytes = socket.read(&mut answer)?;
    let (number, said) = parse(&answer[..bytes]).unwrap_or((libc::EPROTO, None));
    if number == 0 {
        // The kernel does it before this returns; nobody reads its answer.
        socket.write_all(&request(interface, -1))?;
    }
    Ok(said)
}

fn socket() -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let on: libc::c_int = 1;
    // SAFETY: the value lives across the call, and its size is told.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(File::from(socket))
}

/// `RTM_SETLINK` that attaches a program natively where none is, or takes it away: descriptor -1.
fn request(interface: u32, program: i32) -> Vec<u8> {
    let flags = if program < 0 {
        XDP_FLAGS_DRV_MODE
    } else {
        XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST
    };
    let mut attributes = attribute(IFLA_XDP_FD, &program.to_ne_bytes());
    attributes.extend(attribute(IFLA_XDP_FLAGS, &flags.to_ne_bytes()));
    let nested = libc::IFLA_XDP | libc::NLA_F_NESTED as u16;
    let attributes = attribute(nested, &attributes);
    // struct ifinfomsg: family, padding, type, index, flags, change.
    let mut body = vec![0; 4];
    body.extend(interface.to_ne_bytes());
    body.extend([0; 8]);
    body.extend(attributes);
    // struct nlmsghdr: length, type, flags, sequence, port.
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(libc::RTM_SETLINK.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The error's number, 0 for none, and the sentence of an `NLMSG_ERROR`.
fn parse(answer: &[u8]) -> Option<(i32, Option<String>)> {
    let (header, body) = answer.split_at_checked(HEADER)?;
    if half(header, 4)? != libc::NLMSG_ERROR as u16 {
        return None;
    }
    let flags = half(header, 6)?;
    let number = word(body, 0)? as i32;
    // Behind the number the request is quoted: all of it, or its header where that is enough.
    let quoted = if flags & NLM_F_CAPPED != 0 || number == 0 {
        HEADER
    } else {
        word(body, 4)? as usize
    };
    let mut rest = body.get(4 + quoted.next_multiple_of(4)..).unwrap_or(&[]);
    if flags & NLM_F_ACK_TLVS == 0 {
        rest = &[];
    }
    for _ in 0..ATTRIBUTES_MAX {
        let (Some(bytes), Some(kind)) = (half(rest, 0), half(rest, 2)) else {
            break;
        };
        let bytes = usize::from(bytes);
        let Some(value) = rest.get(4..bytes) else {
            break;
        };
        if kind == NLMSGERR_ATTR_MSG {
            let text = value.split(|byte| *byte == 0).next().unwrap_or(value);
            let text = String::from_utf8_lossy(text);
            let text = text.trim().trim_end_matches('.').to_owned();
            return Some((number, Some(text).filter(|text| !text.is_empty())));
        }
        rest = rest.get(bytes.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some((number, None))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(flags: u16, number: i32, quoted: &[u8], attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(number.to_ne_bytes());
        bytes.extend(quoted);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn the_sentence_of_an_answer_is_found_behind_what_it_quotes() {
        let sent = request(7, 5);
        let sentence = [
            attribute(2, &[9; 4]),
            attribute(NLMSGERR_ATTR_MSG, b"MTU too large.\0"),
        ]
        .concat();
        let said = Some("MTU too large".to_owned());
        let refused = -libc::EINVAL;
        for (bytes, expected) in [
            (
                answer(NLM_F_ACK_TLVS, refused, &sent, &sentence),
                Some((refused, said.clone())),
            ),
            (
                answer(
                    NLM_F_ACK_TLVS | NLM_F_CAPPED,
                    refused,
                    &sent[..HEADER],
                    &sentence,
                ),
                Some((refused, said)),
            ),
            (answer(0, refused, &sent, &sentence), Some((refused, None))),
            (answer(0, 0, &sent[..HEADER], &[]), Some((0, None))),
            (
                answer(NLM_F_ACK_TLVS, refused, &sent, &sentence[..10]),
                Some((refused, None)),
            ),
            (vec![0; 40], None),
            (Vec::new(), None),
        ] {
            assert_eq!(parse(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn no_answer_of_the_kernel_is_read_beyond_its_end() {
        let sentence = attribute(NLMSGERR_ATTR_MSG, b"words\0");
        let whole = answer(NLM_F_ACK_TLVS, -1, &request(7, 5), &sentence);
        // The attribute ends with two bytes that fill a word.
        for end in 0..whole.len() - 2 {
            let said = parse(&whole[..end]).and_then(|(_, said)| said);
            assert_eq!(said, None, "{end} of {}", whole.len());
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _ = parse(&broken);
        }
    }
}
