// SPDX-License-Identifier: GPL-2.0

//! What is told to a socket, and what its user reads, and writes.

use crate::wire::*;

/// The peer ends the connection while a user has the socket.
pub(crate) fn end_while_owned(how: How, last: &'static [Op]) -> Tried {
    explore(how, move || {
        let (sock, conn) = connected(4096);
        let worker = thread::spawn(move || last.iter().copied().for_each(comes));
        drop(sock.lock());
        worker.join().unwrap();
        quiet(&sock, &conn);
        check(sock.fields().ended == 1, "the end is told once");
        check(
            sock.state() == SockState::Closing,
            "nothing is left to read",
        );
        finish(sock);
    })
}

/// The peer shuts down one way, and then all, and the device ends, while a user has the socket.
pub(crate) fn news_of_two(how: How) -> Tried {
    explore(how, || {
        let (sock, conn) = connected(4096);
        let worker = thread::spawn(|| {
            packet(PEER, Op::Shutdown, 1, &[], 0);
            comes(Op::Rst);
        });
        let device = thread::spawn(|| close::reset_connections::<Wire>(Peers::All, |_| true));
        drop(sock.lock());
        worker.join().unwrap();
        device.join().unwrap();
        quiet(&sock, &conn);
        check(sock.fields().ended == 1, "the end is told once");
        check(sock.fields().peer_shutdown.is_both(), "nothing more comes");
        finish(sock);
    })
}

/// The socket gets another transport while packets come.
pub(crate) fn moves(how: How) -> Tried {
    explore(how, || {
        let (sock, conn) = connected(4096);
        let worker = thread::spawn(|| {
            packet(PEER, Op::Shutdown, 1, &[], 0);
            comes(Op::Rst);
        });
        let mut locked = sock.lock();
        vsock::leave_transport::<On>(&mut locked);
        let ended = sock.fields().ended;
        drop(locked);
        worker.join().unwrap();
        quiet(&sock, &conn);
        let fields = sock.fields();
        let told = fields.ended != ended || fields.peer_shutdown != Shutdown::NONE;
        check(!told, "nothing is told to a socket that left");
    })
}

/// Packets of so many bytes, of which the first `before` were there before, and then maybe the end;
/// the user reads `len` bytes at a time.
pub(crate) fn stream(
    how: How,
    before: usize,
    sizes: &'static [usize],
    end: Option<Op>,
    len: usize,
) -> Tried {
    explore(how, move || {
        let (sock, conn) = connected(4096);
        let send = |n: &usize| packet(PEER, Op::Rw, 0, &vec![*n as u8; *n], 0);
        let (first, then) = sizes.split_at(before);
        first.iter().for_each(send);
        let worker = thread::spawn(move || {
            then.iter().for_each(send);
            end.into_iter().for_each(comes);
        });
        let sent: Vec<_> = sizes.iter().flat_map(|n| vec![*n as u8; *n]).collect();
        let bytes = match end {
            Some(_) => read_all(&sock, len),
            None => read_some(&sock, len, sent.len()),
        };
        check(
            bytes == (sent.clone(), Ok(())),
            "what came before the end is read",
        );
        worker.join().unwrap();
        quiet(&sock, &conn);
        check_credit(&conn, sent.len() as u32);
        finish(sock);
    })
}

/// Bytes come while the user looks at those before, and reads.
pub(crate) fn peek(how: How) -> Tried {
    explore(how, || {
        let (sock, conn) = connected(4096);
        packet(PEER, Op::Rw, 0, b"a", 0);
        let worker = thread::spawn(|| packet(PEER, Op::Rw, 0, b"bc", 0));
        let seen = vsock::recv::<On>(&sock, 3, true).unwrap();
        check(
            b"abc".starts_with(&seen) && !seen.is_empty(),
            "what is there is seen",
        );
        let mut read = vsock::recv::<On>(&sock, 2, false).unwrap();
        check(
            read.starts_with(&seen[..seen.len().min(2)]),
            "what was seen is read",
        );
        worker.join().unwrap();
        while read.len() < 3 {
            read.extend(vsock::recv::<On>(&sock, 3, false).unwrap());
        }
        check(read == b"abc", "a peek changes nothing");
        quiet(&sock, &conn);
        check_credit(&conn, 3);
        finish(sock);
    })
}

/// The user closes while bytes come, and maybe the end.
pub(crate) fn close(how: How, last: &'static [Op]) -> Tried {
    explore(how, move || {
        let (sock, conn) = connected(4096);
        let worker = thread::spawn(move || {
            packet(PEER, Op::Rw, 0, b"ab", 0);
            last.iter().copied().for_each(comes);
        });
        vsock::close::<On>(&sock);
        worker.join().unwrap();
        check(conn.unread() == 0, "a closed socket keeps nothing");
        sock.fire_close_timer();
        quiet(&sock, &conn);
        drop(conn);
        transmit();
        let told = seen(Op::Rst, PEER) + seen(Op::Shutdown, PEER);
        check(told > 0 || last.contains(&Op::Rst), "the peer is told");
        let conn = conn_of(&sock.lock());
        check(conn.unread() == 0, "a closed socket keeps nothing");
        drop(conn);
        check(sock.references() == 1, "nobody refers to a closed socket");
    })
}

/// The peer has room again while a writer waits, and says so with a packet that takes the long way.
pub(crate) fn writer(how: How, op: Op, cid: u32, memory: bool) -> Tried {
    explore(how, move || {
        let (sock, conn) = connected(0);
        let worker = thread::spawn(move || {
            world::set_no_atomic_memory(!memory);
            let bytes: &[u8] = if op == Op::Rw { b"ab" } else { &[] };
            let to = Addr::new(Cid::new(cid), LOCAL.port);
            packet_to(PEER, to, op, bytes);
        });
        check(vsock::poll_out::<On>(&sock) == Ok(true), "there is room");
        worker.join().unwrap();
        quiet(&sock, &conn);
        drop(conn);
        finish(sock);
    })
}
