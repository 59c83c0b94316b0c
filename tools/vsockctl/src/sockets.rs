// SPDX-License-Identifier: GPL-2.0

//! The vsock sockets of this network namespace, as `vsock_diag` of the kernel dumps them.
//!
//! Source: `include/uapi/linux/vm_sockets_diag.h`, `include/uapi/linux/sock_diag.h`.

use crate::{error::Error, processes};
use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{protocols::NETLINK_SOCK_DIAG, Socket, SocketAddr};
use serde::Serialize;
use std::collections::HashMap;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_VSOCK: u8 = 40;
const HEADER: usize = 16;
/// `struct vsock_diag_msg`.
const MESSAGE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Address {
    pub cid: u32,
    pub port: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SocketInfo {
    pub kind: &'static str,
    pub state: &'static str,
    pub local: Address,
    pub peer: Address,
    pub inode: u32,
    /// Who has it open, as far as that may be seen.
    pub pid: Option<u32>,
    pub program: Option<String>,
}

fn kind(value: u8) -> &'static str {
    match value {
        1 => "stream",
        2 => "dgram",
        5 => "seqpacket",
        _ => "?",
    }
}

/// The states are those of TCP: `include/net/tcp_states.h`.
fn state(value: u8) -> &'static str {
    match value {
        1 => "established",
        2 => "connecting",
        7 => "unconnected",
        8 => "closing",
        10 => "listening",
        _ => "?",
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

/// Reads one message of the kernel.
fn parse(payload: &[u8]) -> Option<SocketInfo> {
    if payload.len() < MESSAGE || payload[0] != AF_VSOCK {
        return None;
    }
    Some(SocketInfo {
        kind: kind(payload[1]),
        state: state(payload[2]),
        local: Address {
            cid: u32_at(payload, 4)?,
            port: u32_at(payload, 8)?,
        },
        peer: Address {
            cid: u32_at(payload, 12)?,
            port: u32_at(payload, 16)?,
        },
        inode: u32_at(payload, 20)?,
        pid: None,
        program: None,
    })
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    // struct nlmsghdr
    bytes.extend_from_slice(&(HEADER as u32 + 24).to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend_from_slice(&1u32.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    // struct vsock_diag_req: all states
    bytes.extend_from_slice(&[AF_VSOCK, 0, 0, 0]);
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes
}

/// All sockets, with their processes.
///
/// # Errors
///
/// The kernel has no `vsock_diag`, or refuses.
pub fn list() -> Result<Vec<SocketInfo>, Error> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut found = Vec::new();
    'dump: loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while rest.len() >= HEADER {
            let message = NetlinkBuffer::new_checked(rest)?;
            let len = message.length() as usize;
            match message.message_type() {
                NLMSG_DONE => break 'dump,
                NLMSG_ERROR => {
                    let code = u32_at(message.payload(), 0).unwrap_or(0) as i32;
                    let error = std::io::Error::from_raw_os_error(-code);
                    return Err(format!(
                        "the kernel does not list vsock sockets: {error} (is vsock_diag there?)"
                    )
                    .into());
                }
                _ => found.extend(parse(message.payload())),
            }
            // Messages are aligned to 4 bytes.
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    name_processes(&mut found);
    Ok(found)
}

fn name_processes(sockets: &mut [SocketInfo]) {
    let mut by_inode: HashMap<String, &mut SocketInfo> = sockets
        .iter_mut()
        .map(|socket| (format!("socket:[{}]", socket.inode), socket))
        .collect();
    for descriptor in processes::descriptors() {
        let Some(socket) = descriptor
            .target
            .to_str()
            .and_then(|name| by_inode.get_mut(name))
        else {
            continue;
        };
        if socket.pid.is_none() {
            socket.pid = Some(descriptor.pid);
            socket.program = Some(processes::program(descriptor.pid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message() {
        let mut bytes = vec![AF_VSOCK, 5, 1, 0];
        for word in [2u32, 1234, 42, 5678, 99, 0, 0] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        let socket = parse(&bytes).unwrap();
        assert_eq!((socket.kind, socket.state), ("seqpacket", "established"));
        let peer = Address {
            cid: 42,
            port: 5678,
        };
        assert_eq!((socket.peer, socket.inode), (peer, 99));
    }

    #[test]
    fn a_short_message_is_none() {
        assert_eq!(parse(&[AF_VSOCK; 31]), None);
    }

    #[test]
    fn the_request_has_the_length_it_says() {
        let bytes = request();
        assert_eq!(u32_at(&bytes, 0), Some(bytes.len() as u32));
    }
}
