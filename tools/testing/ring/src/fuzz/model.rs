// SPDX-License-Identifier: GPL-2.0

//! A model of the host: what it answers to a packet, written from the specification and from what
//! the C modules do, and not from ours.

use crate::packet::{self, Header};
use std::collections::BTreeMap;

/// Ports of the host: listeners for streams and for messages, and one that nobody has.
pub const STREAMS: u32 = 4321;
pub const MESSAGES: u32 = 4322;
pub const NOBODY: u32 = 99_999;

/// Buffer of a socket of the host, and the most that it has in flight.
pub const BUFFER: u32 = 256 * 1024;

/// The ports of a connection: the guest's and the host's.
pub type Ports = (u32, u32);

/// A connection, as the host sees it.
#[derive(Clone, Debug)]
struct Conn {
    ty: u16,
    /// Bytes of the guest that no program has read.
    unread: u32,
    /// How many of them belong to a message whose end did not come yet.
    unfinished: u32,
    /// Bytes that the guest was handed so far, and how many of them it says to have read.
    handed: u32,
    returned: u32,
    /// How large the guest says that its buffer is.
    guest_buffer: u32,
    /// Bytes that programs have read so far, and how many of them the guest was told of.
    freed: u32,
    told: u32,
    /// A program could not send all that it wanted to: the host asks again, after a second or more.
    waits: bool,
    /// How often it did.
    asked_again: u32,
    /// What the guest has shut down.
    shutdown: u32,
    /// The program has closed the socket: nobody will read what is unread.
    closed: bool,
}

impl Conn {
    fn in_flight(&self) -> u32 {
        self.handed.wrapping_sub(self.returned)
    }

    /// Takes what the guest says about its buffer; false if it cannot be true.
    fn credit(&mut self, header: &Header) -> bool {
        let step = header.fwd_cnt.wrapping_sub(self.returned);
        if step <= self.in_flight() {
            self.returned = header.fwd_cnt;
            self.guest_buffer = header.buf_alloc;
            return true;
        }
        // A step back is an old packet.
        step >= 1 << 31
    }
}

/// What comes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Nothing,
    /// This packet.
    Packet(u16),
    /// A connection is made, of which the listener has the socket.
    Accepted,
    /// The connection ends with this packet, in the middle of it.
    Reset,
}

/// All connections of a device.
#[derive(Clone, Debug, Default)]
pub struct Model {
    conns: BTreeMap<Ports, Conn>,
}

impl Model {
    /// The device, or a ring, is not there any more.
    pub fn forget_all(&mut self) {
        self.conns.clear();
    }

    /// Connections that the host knows.
    pub fn connections(&self) -> impl Iterator<Item = Ports> + '_ {
        self.conns.keys().copied()
    }

    /// Whether the host may send a CREDIT_UPDATE for a packet, beside its answer: the guest changes
    /// the size of its buffer, by which the host decides what of its own room is news.
    pub fn may_tell(&self, header: &Header) -> bool {
        self.conns
            .get(&(header.src_port, header.dst_port))
            .is_some_and(|conn| {
                conn.ty == header.ty
                    && header.op != packet::RST
                    && conn.freed != conn.told
                    && conn.guest_buffer != header.buf_alloc
            })
    }

    /// Whether the host may ask for credit when it cannot send all: the guest does not see that its
    /// buffer is full.
    pub fn may_ask(&self, ports: Ports) -> bool {
        let conn = self.conns.get(&ports);
        conn.is_some_and(|conn| conn.guest_buffer > conn.in_flight())
    }

    /// Whether a packet that came at any time asks for credit, for a program that waits for it. The
    /// pauses between them grow: it cannot do that often.
    pub fn is_asked_again(&mut self, header: &Header) -> bool {
        let conn = self.conns.get_mut(&(header.dst_port, header.src_port));
        let Some(conn) = conn.filter(|conn| conn.waits && conn.asked_again < 4) else {
            return false;
        };
        let asks = header.op == packet::CREDIT_REQUEST && header.ty == conn.ty;
        conn.asked_again += u32::from(asks);
        asks
    }

    /// The guest got a packet of the host.
    pub fn heard(&mut self, header: &Header) {
        if let Some(conn) = self.conns.get_mut(&(header.dst_port, header.src_port)) {
            conn.told = header.fwd_cnt;
        }
    }

    /// What the host answers to a packet with correct CIDs and lengths.
    pub fn packet(&mut self, header: &Header) -> Answer {
        let ports = (header.src_port, header.dst_port);
        let refusal = if header.op == packet::RST {
            Answer::Nothing
        } else {
            Answer::Packet(packet::RST)
        };
        if header.ty != packet::STREAM && header.ty != packet::SEQPACKET {
            return refusal;
        }
        if let Some(conn) = self.conns.get_mut(&ports) {
            if conn.ty != header.ty {
                return refusal;
            }
            if header.op == packet::RST {
                self.conns.remove(&ports);
                return Answer::Nothing;
            }
            if !conn.credit(header) {
                self.conns.remove(&ports);
                return Answer::Reset;
            }
            return self.connected(ports, header);
        }
        let listens = match header.dst_port {
            STREAMS => header.ty == packet::STREAM,
            MESSAGES => header.ty == packet::SEQPACKET,
            _ => false,
        };
        if !listens || header.op != packet::REQUEST {
            return refusal;
        }
        let mut conn = Conn {
            ty: header.ty,
            unread: 0,
            unfinished: 0,
            handed: 0,
            returned: 0,
            guest_buffer: 0,
            freed: 0,
            told: 0,
            waits: false,
            asked_again: 0,
            shutdown: 0,
            closed: false,
        };
        if !conn.credit(header) {
            return refusal;
        }
        self.conns.insert(ports, conn);
        Answer::Accepted
    }

    fn connected(&mut self, ports: Ports, header: &Header) -> Answer {
        let Some(conn) = self.conns.get_mut(&ports) else {
            return Answer::Nothing;
        };
        match header.op {
            packet::RW => {
                if header.len > BUFFER - conn.unread {
                    self.conns.remove(&ports);
                    return Answer::Reset;
                }
                conn.unread += header.len;
                conn.unfinished += header.len;
                if conn.ty == packet::STREAM || header.flags & packet::EOM != 0 {
                    conn.unfinished = 0;
                }
                Answer::Nothing
            }
            packet::CREDIT_REQUEST => Answer::Packet(packet::CREDIT_UPDATE),
            packet::SHUTDOWN => {
                conn.shutdown |= header.flags & 3;
                if conn.shutdown != 3 {
                    return Answer::Nothing;
                }
                // What is unread can still be read, but the guest may use the ports again.
                let is_over = conn.unread == 0 || conn.closed;
                self.conns.remove(&ports);
                if is_over {
                    Answer::Packet(packet::RST)
                } else {
                    Answer::Nothing
                }
            }
            _ => Answer::Nothing,
        }
    }

    /// A program of the host reads all that it can; says how much that must be.
    pub fn read(&mut self, ports: Ports) -> Option<u32> {
        let conn = self.conns.get_mut(&ports)?;
        let read = conn.unread - conn.unfinished;
        conn.unread = conn.unfinished;
        conn.freed = conn.freed.wrapping_add(read);
        Some(read)
    }

    /// A program of the host closes the socket. The guest gets no credit back for what was unread.
    pub fn close(&mut self, ports: Ports) {
        if let Some(conn) = self.conns.get_mut(&ports) {
            conn.closed = true;
        }
    }

    /// A program of the host sends `len` bytes; says how many of them go.
    pub fn write(&mut self, ports: Ports, len: u32) -> Option<u32> {
        let conn = self.conns.get_mut(&ports)?;
        if conn.shutdown & 1 != 0 {
            return None;
        }
        let window = conn.guest_buffer.min(BUFFER);
        let space = window.saturating_sub(conn.in_flight());
        let sent = match conn.ty {
            packet::SEQPACKET if len > space => 0,
            _ => len.min(space),
        };
        conn.handed = conn.handed.wrapping_add(sent);
        conn.waits |= sent < len;
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(op: u16, dst_port: u32) -> Header {
        Header {
            src_port: 5,
            dst_port,
            ty: packet::STREAM,
            op,
            buf_alloc: 1000,
            ..Header::default()
        }
    }

    fn connected() -> Model {
        let mut model = Model::default();
        let request = header(packet::REQUEST, STREAMS);
        assert_eq!(model.packet(&request), Answer::Accepted);
        model
    }

    #[test]
    fn a_rst_is_never_answered() {
        let mut model = connected();
        assert_eq!(model.packet(&header(packet::RST, NOBODY)), Answer::Nothing);
        assert_eq!(model.packet(&header(packet::RST, STREAMS)), Answer::Nothing);
        assert_eq!(model.connections().count(), 0);
        let data = header(packet::RW, STREAMS);
        assert_eq!(model.packet(&data), Answer::Packet(packet::RST));
    }

    #[test]
    fn nobody_gets_more_than_there_is_room_for() {
        let mut model = connected();
        let ports = (5, STREAMS);
        assert_eq!(model.write(ports, 700), Some(700));
        assert_eq!(model.write(ports, 700), Some(300));
        let update = header(packet::CREDIT_UPDATE, STREAMS).with(|h| h.fwd_cnt = 400);
        assert_eq!(model.packet(&update), Answer::Nothing);
        assert_eq!(model.write(ports, 700), Some(400));
        let lie = update.with(|h| h.fwd_cnt = 1401);
        assert_eq!(model.packet(&lie), Answer::Reset);
    }

    #[test]
    fn messages_are_read_when_they_are_complete() {
        let mut model = Model::default();
        let to = |op| header(op, MESSAGES).with(|h| h.ty = packet::SEQPACKET);
        assert_eq!(model.packet(&to(packet::REQUEST)), Answer::Accepted);
        let data = to(packet::RW).with(|h| h.len = 10);
        model.packet(&data);
        assert_eq!(model.read((5, MESSAGES)), Some(0));
        model.packet(&data.with(|h| h.flags = packet::EOM));
        assert_eq!(model.read((5, MESSAGES)), Some(20));
        assert_eq!(model.write((5, MESSAGES), 1001), Some(0));
    }

    #[test]
    fn an_end_is_answered_when_nothing_is_to_be_read() {
        let mut model = connected();
        let end = header(packet::SHUTDOWN, STREAMS).with(|h| h.flags = 3);
        let data = header(packet::RW, STREAMS).with(|h| h.len = 10);
        assert_eq!(model.packet(&data), Answer::Nothing);
        assert_eq!(model.packet(&end), Answer::Nothing);
        let mut model = connected();
        assert_eq!(model.packet(&end), Answer::Packet(packet::RST));
        let mut model = connected();
        model.packet(&data);
        model.close((5, STREAMS));
        assert_eq!(model.packet(&end), Answer::Packet(packet::RST));
    }
}
