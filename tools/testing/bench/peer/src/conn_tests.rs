// SPDX-License-Identifier: GPL-2.0

use super::*;

fn request(ty: u16, port: u32) -> Header {
    Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: 77,
        dst_port: port,
        ty,
        op: packet::REQUEST,
        buf_alloc: BUF_ALLOC,
        ..Header::default()
    }
}

struct Case {
    conn: Conn,
    out: VecDeque<Outgoing>,
    ty: u16,
}

impl Case {
    fn new(like: Like, service: Service, ty: u16) -> Self {
        let conn = Conn::new(like, service, &request(ty, 9000));
        Self {
            conn,
            out: VecDeque::new(),
            ty,
        }
    }

    fn give(&mut self, data: &[u8]) -> bool {
        let mut header = request(self.ty, 9000);
        header.op = packet::RW;
        header.flags = if self.ty == packet::SEQPACKET {
            packet::EOM
        } else {
            0
        };
        self.conn.receive(&header, data)
    }

    fn command(&mut self, size: u32, count: u64) -> Option<Command> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        assert!(self.give(&bytes));
        self.conn.settle("", &mut self.out)
    }

    fn settle(&mut self) -> Vec<(u16, u32, u32)> {
        self.conn.settle("a=1", &mut self.out);
        self.ops()
    }

    /// Operation, length and credit of what the host said.
    fn ops(&mut self) -> Vec<(u16, u32, u32)> {
        self.out
            .drain(..)
            .map(|p| (p.header.op, p.header.len, p.header.fwd_cnt))
            .collect()
    }
}

#[test]
fn a_command_is_sixteen_bytes() {
    let mut case = Case::new(Like::Ours, Service::Sink, packet::STREAM);
    let given = case.command(64, 5 << 32).unwrap();
    assert_eq!((given.size, given.pace, given.count), (64, 1, 5 << 32));
    assert_eq!(case.ops(), []);
}

#[test]
fn c_tells_of_the_room_whenever_the_queue_is_empty() {
    let mut case = Case::new(Like::C, Service::Sink, packet::STREAM);
    case.command(64, 100);
    assert_eq!(case.ops(), [(packet::CREDIT_UPDATE, 0, 16)]);
    assert!(case.give(&[0; 64]));
    assert!(case.give(&[0; 64]));
    assert_eq!(case.settle(), [(packet::CREDIT_UPDATE, 0, 144)]);
    assert_eq!(case.settle(), []);
}

#[test]
fn c_tells_of_the_room_for_each_record() {
    let mut case = Case::new(Like::C, Service::Sink, packet::SEQPACKET);
    case.command(64, 100);
    case.ops();
    assert!(case.give(&[0; 64]));
    assert!(case.give(&[0; 64]));
    let update = (packet::CREDIT_UPDATE, 0, 144);
    assert_eq!(case.settle(), [update, update]);
}

#[test]
fn we_tell_of_the_room_when_less_than_a_packet_is_left() {
    let mut case = Case::new(Like::Ours, Service::Sink, packet::STREAM);
    case.command(4096, 1000);
    let mut given = 16;
    for _ in 0..48 {
        assert_eq!(case.settle(), []);
        assert!(case.give(&[0; 4096]));
        given += 4096;
    }
    // 192 KiB and 16 bytes: less than 64 KiB are left.
    assert_eq!(case.settle(), [(packet::CREDIT_UPDATE, 0, given)]);
}

#[test]
fn a_guest_that_sends_too_much_is_refused() {
    let mut case = Case::new(Like::Ours, Service::Sink, packet::STREAM);
    for _ in 0..4 {
        assert!(case.give(&[0; 65536]));
    }
    assert!(!case.give(&[0; 1]));
}

#[test]
fn a_sink_answers_the_last_byte() {
    let mut case = Case::new(Like::Ours, Service::Sink, packet::STREAM);
    case.command(10, 2);
    assert!(case.give(&[0; 10]));
    assert_eq!(case.settle(), []);
    assert!(case.give(&[0; 10]));
    assert_eq!(case.settle(), [(packet::RW, 1, 36)]);
    assert_eq!(case.settle(), []);
}

#[test]
fn an_echo_waits_for_the_whole_message() {
    let mut case = Case::new(Like::Ours, Service::Echo, packet::STREAM);
    case.command(4, 0);
    assert!(case.give(b"ab"));
    assert_eq!(case.settle(), []);
    assert!(case.give(b"cdef"));
    case.conn.settle("", &mut case.out);
    assert_eq!(case.out[0].data, b"abcd");
    assert_eq!(case.ops().len(), 1);
}

#[test]
fn a_source_stops_when_the_guest_is_full_and_goes_on_by_its_credit() {
    let mut case = Case::new(Like::Ours, Service::Source, packet::STREAM);
    case.command(60_000, 6);
    let sent: Vec<u32> = case.ops().iter().map(|p| p.1).collect();
    // The last one is cut where the room ends.
    assert_eq!(sent, [60_000, 60_000, 60_000, 60_000, 262_144 - 240_000]);
    let mut update = request(packet::STREAM, 9000);
    update.fwd_cnt = 100_000;
    case.conn.credit(&update);
    let sent: Vec<u32> = case.settle().iter().map(|p| p.1).collect();
    assert_eq!(sent, [300_000 - 262_144, 60_000]);
}

#[test]
fn a_record_is_sent_whole_or_not_at_all() {
    let mut case = Case::new(Like::Ours, Service::Source, packet::SEQPACKET);
    case.command(60_000, 6);
    assert_eq!(case.out[0].header.flags, packet::EOM);
    assert_eq!(case.ops().len(), 4);
    let mut update = request(packet::SEQPACKET, 9000);
    update.fwd_cnt = 60_000;
    case.conn.credit(&update);
    assert_eq!(case.settle().len(), 1);
}

#[test]
fn counters_wrap() {
    let mut case = Case::new(Like::Ours, Service::Source, packet::STREAM);
    case.conn.sent = u32::MAX - 9;
    case.conn.peer_fwd = u32::MAX - 9;
    case.command(65_536, 4);
    assert_eq!(case.ops().len(), 4);
    assert_eq!(case.conn.room(), 0);
    case.conn.peer_fwd = case.conn.sent;
    assert_eq!(case.conn.room(), BUF_ALLOC);
}

#[test]
fn the_control_port_answers_with_the_counters() {
    let mut case = Case::new(Like::Ours, Service::Control, packet::STREAM);
    assert!(case.give(b"?"));
    case.conn.settle("a=1", &mut case.out);
    assert_eq!(case.out[0].data, b"a=1\n");
    assert!(!case.out[0].counted);
}
