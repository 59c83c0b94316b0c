// SPDX-License-Identifier: GPL-2.0

//! The user connects, and gives up.

use crate::wire::*;

/// The peer answers, and sends, while the user gives up to connect; then the user connects to
/// another one.
pub(crate) fn connect_and_signal(how: How) -> Tried {
    explore(how, || {
        let sock = socket();
        let worker = thread::spawn(|| {
            comes(Op::Response);
            packet(PEER, Op::Rw, 0, b"from the first", 0);
        });
        let ret = vsock::connect::<On>(&sock, addr(PEER), Patience::Signal);
        worker.join().unwrap();
        transmit();
        let conn = conn_of(&sock.lock());
        quiet(&sock, &conn);
        let state = sock.state();
        if ret.is_ok() {
            check(sock.fields().connected == 1, "the socket is told");
            check(state == SockState::Established, "it is connected");
        } else {
            check(state == SockState::Close, "it is not connected");
            check(seen(Op::Rst, PEER) > 0, "a peer that answered is told");
            // To another one.
            vsock::connect::<On>(&sock, addr(OTHER), Patience::None).unwrap();
            packet(OTHER, Op::Response, 0, &[], 0);
            check(
                sock.state() == SockState::Established,
                "the next one answers",
            );
            check(
                conn.unread() == 0,
                "nothing of the first is read from the next",
            );
            packet(OTHER, Op::Rw, 0, b"x", 0);
            check(
                vsock::recv::<On>(&sock, 9, false).is_ok_and(|x| x == b"x"),
                "it can be read",
            );
            check_credit(&conn, 1);
        }
        finish(sock);
    })
}

/// The peer answers `op` while the user closes a socket that connects.
pub(crate) fn connect_and_close(how: How, op: Op) -> Tried {
    explore(how, move || {
        let sock = socket();
        vsock::connect::<On>(&sock, addr(PEER), Patience::None).unwrap();
        transmit();
        let worker = thread::spawn(move || comes(op));
        vsock::close::<On>(&sock);
        worker.join().unwrap();
        sock.fire_close_timer();
        transmit();
        let conn = conn_of(&sock.lock());
        quiet(&sock, &conn);
        drop(conn);
        let told = seen(Op::Rst, PEER) + seen(Op::Shutdown, PEER);
        check(told > 0 || op == Op::Rst, "a peer that answered is told");
        check(sock.references() == 1, "nobody refers to a closed socket");
    })
}

/// The answer of one peer comes while the user gives up, and connects to the next.
pub(crate) fn late_answer(how: How, op: Op) -> Tried {
    explore(how, move || {
        let sock = socket();
        let worker = thread::spawn(move || comes(op));
        let first = vsock::connect::<On>(&sock, addr(PEER), Patience::Signal);
        let second = first.is_err();
        if second {
            sock.fields().connected = 0;
            let _ = vsock::connect::<On>(&sock, addr(OTHER), Patience::None);
        }
        worker.join().unwrap();
        transmit();
        if second {
            check(
                sock.fields().connected == 0,
                "one peer does not answer for another",
            );
            check(
                sock.state() == SockState::SynSent,
                "nor does it refuse for it",
            );
            check(
                seen(Op::Rst, OTHER) == 0,
                "the one is not refused for the other",
            );
        }
        finish(sock);
    })
}

/// The peer answers while the user waits for that.
pub(crate) fn connect(how: How, op: Op) -> Tried {
    explore(how, move || {
        let sock = socket();
        let worker = thread::spawn(move || loop {
            // As soon as the peer has the REQUEST.
            transmit();
            if seen(Op::Request, PEER) > 0 {
                comes(op);
                return;
            }
            thread::yield_now();
        });
        let ret = vsock::connect::<On>(&sock, addr(PEER), Patience::Forever);
        worker.join().unwrap();
        let conn = conn_of(&sock.lock());
        quiet(&sock, &conn);
        check(
            ret.is_ok() == (op == Op::Response),
            "the user learns the answer",
        );
        drop(conn);
        finish(sock);
    })
}

/// The peer ends a connection, and the user makes the next one between the same ports, while what
/// is for the peer waits in the queue.
pub(crate) fn connect_again(how: How) -> Tried {
    explore(how, || {
        let (old, _) = connected(4096);
        let sock = socket();
        comes(Op::Shutdown);
        vsock::close::<On>(&old);
        let worker = thread::spawn(transmit);
        vsock::connect::<On>(&sock, addr(PEER), Patience::None).unwrap();
        worker.join().unwrap();
        transmit();
        let seen: Vec<Op> = lines()
            .lock()
            .unwrap()
            .seen
            .iter()
            .map(Header::op)
            .collect();
        let asked = seen.iter().position(|op| *op == Op::Request);
        let told = seen.iter().position(|op| *op == Op::Rst);
        let last = seen.iter().rposition(|op| *op == Op::Rst);
        check(told.is_some() && told < asked, "the peer is told first");
        check(last < asked, "and not again");
        check(old.references() == 1, "nobody refers to a closed socket");
        packet(PEER, Op::Response, 0, &[], 0);
        check(sock.state() == SockState::Established, "the next one is it");
        finish(sock);
    })
}
