//! One transaction to the kernel and its answers back.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::super::error::LabError;
use super::bytes::kind;

/// Bytes of a netlink header; an error number follows it.
const HEADER: usize = 16;

/// Sends `messages`, of which `asks` want an answer, and returns the first refusal: the index of
/// the ask, if it was about one, and the kernel's error.
pub(super) fn exchange(
    messages: &[u8],
    asks: usize,
) -> Result<Option<(Option<usize>, io::Error)>, LabError> {
    let answers = send(messages, asks).map_err(|answer| {
        if is_missing(&answer) {
            return LabError::Missing {
                feature: "netlink for netfilter".into(),
                answer,
                remedy: "load its modules (modprobe nfnetlink nf_tables) or use a kernel built \
                         with CONFIG_NF_TABLES"
                    .into(),
            };
        }
        LabError::Refused { what: "talking to nftables over netlink".into(), answer }
    })?;
    for (sequence, errno) in answers {
        if errno != 0 {
            let index = usize::try_from(sequence).ok().and_then(|number| number.checked_sub(1));
            return Ok(Some((index, io::Error::from_raw_os_error(errno))));
        }
    }
    Ok(None)
}

/// Whether the kernel says that it does not know something, rather than that it may not.
pub(super) fn is_missing(answer: &io::Error) -> bool {
    matches!(
        answer.raw_os_error(),
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT)
    )
}

/// The answers as (sequence, errno).
fn send(messages: &[u8], asks: usize) -> io::Result<Vec<(u32, i32)>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Answers without a copy of what they answer.
    socket.set_cap_ack(true)?;
    // The kernel works while we send: all answers are there when that returns.
    socket.set_non_blocking(true)?;
    socket.send(messages, 0)?;
    let mut answers = Vec::new();
    while answers.len() < asks {
        let (datagram, _) = match socket.recv_from_full() {
            Ok(datagram) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        let answer = parse(&datagram)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a netlink answer"))?;
        answers.push(answer);
        if answer.0 == 0 {
            // About the transaction as such: nothing follows.
            break;
        }
    }
    Ok(answers)
}

fn parse(datagram: &[u8]) -> Option<(u32, i32)> {
    let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
    if kind != kind::ERROR {
        return None;
    }
    let sequence = u32::from_ne_bytes(datagram.get(8..12)?.try_into().ok()?);
    let error = i32::from_ne_bytes(datagram.get(HEADER..HEADER + 4)?.try_into().ok()?);
    Some((sequence, error.checked_neg()?))
}
