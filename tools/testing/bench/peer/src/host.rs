// SPDX-License-Identifier: GPL-2.0

//! The host's end of all connections: a packet of the guest in, packets for the guest out.

use crate::{
    conn::{Command, Conn, Like, Outgoing, Service},
    counters::Counters,
};
use ring::packet::{self, Header};
use std::collections::{HashMap, VecDeque};

/// Both directions are closed.
const SHUTDOWN_BOTH: u32 = 3;

/// What tells connections apart: ports of the guest and of the host, and the type.
type Key = (u32, u32, u16);

/// The host.
pub struct Host {
    like: Like,
    conns: HashMap<Key, Conn>,
    /// Connections that something happened to, in this order, until [`Host::settle`].
    touched: Vec<Key>,
    /// What the guest has not been given yet.
    pub out: VecDeque<Outgoing>,
}

impl Host {
    pub fn new(like: Like) -> Self {
        Self {
            like,
            conns: HashMap::new(),
            touched: Vec::new(),
            out: VecDeque::new(),
        }
    }

    /// The guest was started again: it knows of no connection.
    pub fn reset(&mut self) {
        self.conns.clear();
        self.touched.clear();
        self.out.clear();
    }

    /// A packet of the guest.
    pub fn packet(&mut self, header: &Header, data: &[u8], counters: &mut Counters) {
        let service = Service::of_port(header.dst_port);
        if service != Some(Service::Control) {
            counters.sent(header.op);
        }
        let key = (header.src_port, header.dst_port, header.ty);
        if header.op == packet::REQUEST {
            if let Some(service) = service {
                let mut conn = Conn::new(self.like, service, header);
                self.out
                    .push_back(conn.packet(packet::RESPONSE, 0, Vec::new()));
                self.conns.insert(key, conn);
                return;
            }
        }
        let Some(conn) = self.conns.get_mut(&key) else {
            if header.op != packet::RST {
                // As a host that has no such socket.
                let mut none = Conn::new(self.like, Service::Close, header);
                self.out.push_back(none.packet(packet::RST, 0, Vec::new()));
            }
            return;
        };
        conn.credit(header);
        match header.op {
            packet::RW if conn.receive(header, data) => self.touch(key),
            packet::CREDIT_UPDATE => self.touch(key),
            packet::CREDIT_REQUEST => {
                self.out
                    .push_back(conn.packet(packet::CREDIT_UPDATE, 0, Vec::new()));
                self.touch(key);
            }
            packet::SHUTDOWN if header.flags & SHUTDOWN_BOTH == SHUTDOWN_BOTH => {
                self.out.push_back(conn.packet(packet::RST, 0, Vec::new()));
                self.conns.remove(&key);
            }
            packet::SHUTDOWN => {}
            _ => {
                // RST, or what no good guest sends.
                self.conns.remove(&key);
            }
        }
    }

    fn touch(&mut self, key: Key) {
        if !self.touched.contains(&key) {
            self.touched.push(key);
        }
    }

    /// The programs of the host run. Returns the last command that one of them was given.
    pub fn settle(&mut self, counters: &Counters) -> Option<Command> {
        let mut given = None;
        for key in std::mem::take(&mut self.touched) {
            if let Some(conn) = self.conns.get_mut(&key) {
                let text = match conn.service() {
                    Service::Control => counters.line(),
                    _ => String::new(),
                };
                given = conn.settle(&text, &mut self.out).or(given);
            }
        }
        given
    }
}

/// The header of the next piece of a packet, and how many bytes of payload it takes: what fits into
/// a buffer of the guest, as vhost splits packets. The end of a record is said with its last byte.
pub fn piece(packet: &Outgoing, done: usize, room: usize) -> (Header, usize) {
    let left = packet.data.len().saturating_sub(done);
    let bytes = left.min(room);
    let header = packet.header.with(|header| {
        header.len = bytes as u32;
        if bytes < left {
            header.flags &= !(packet::EOM | packet::EOR);
        }
    });
    (header, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_guest(op: u16, port: u32) -> Header {
        Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 500,
            dst_port: port,
            ty: packet::STREAM,
            op,
            buf_alloc: 1 << 18,
            ..Header::default()
        }
    }

    fn ops(host: &mut Host) -> Vec<u16> {
        host.out.drain(..).map(|p| p.header.op).collect()
    }

    #[test]
    fn a_connection_is_accepted_and_its_end_answered_with_a_reset() {
        let (mut host, mut counters) = (Host::new(Like::C), Counters::default());
        host.packet(&from_guest(packet::REQUEST, 9003), &[], &mut counters);
        let answer = host.out[0].header;
        assert_eq!(
            (answer.dst_port, answer.src_port, answer.dst_cid),
            (500, 9003, 3)
        );
        assert_eq!(ops(&mut host), [packet::RESPONSE]);
        let end = from_guest(packet::SHUTDOWN, 9003);
        host.packet(&end.with(|h| h.flags = 1), &[], &mut counters);
        assert!(ops(&mut host).is_empty());
        host.packet(&end.with(|h| h.flags = 3), &[], &mut counters);
        assert_eq!(ops(&mut host), [packet::RST]);
        host.packet(&end.with(|h| h.flags = 3), &[], &mut counters);
        assert_eq!(ops(&mut host), [packet::RST]);
        host.packet(&from_guest(packet::RST, 9003), &[], &mut counters);
        assert!(ops(&mut host).is_empty());
        assert_eq!(counters.line().split(' ').next(), Some("from=5"));
    }

    #[test]
    fn a_port_without_a_program_is_refused() {
        let (mut host, mut counters) = (Host::new(Like::C), Counters::default());
        host.packet(&from_guest(packet::REQUEST, 1), &[], &mut counters);
        assert_eq!(ops(&mut host), [packet::RST]);
    }

    #[test]
    fn a_request_for_credit_is_answered() {
        let (mut host, mut counters) = (Host::new(Like::Ours), Counters::default());
        host.packet(&from_guest(packet::REQUEST, 9000), &[], &mut counters);
        host.packet(
            &from_guest(packet::CREDIT_REQUEST, 9000),
            &[],
            &mut counters,
        );
        assert_eq!(ops(&mut host), [packet::RESPONSE, packet::CREDIT_UPDATE]);
    }

    #[test]
    fn a_record_is_split_and_ends_once() {
        let mut host = Host::new(Like::C);
        let request = from_guest(packet::REQUEST, 9000);
        let mut conn = Conn::new(Like::C, Service::Sink, &request);
        let packet = conn.packet(packet::RW, packet::EOM, vec![0; 5000]);
        host.out.push_back(packet.clone());
        let (first, bytes) = piece(&packet, 0, 3732);
        assert_eq!((first.len, first.flags, bytes), (3732, 0, 3732));
        let (last, bytes) = piece(&packet, 3732, 3732);
        assert_eq!((last.len, last.flags, bytes), (1268, packet::EOM, 1268));
    }
}
