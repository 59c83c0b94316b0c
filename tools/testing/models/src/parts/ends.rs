// SPDX-License-Identifier: GPL-2.0

//! Listeners, and the end of a device.

use crate::wire::*;

fn listener(max: usize) -> VsockSock {
    let sock = VsockSock::create(SockType::Stream, false);
    let mut fields = sock.fields();
    fields.local = addr(LOCAL);
    fields.state = SockState::Listen;
    fields.max_accept_queue = max;
    drop(fields);
    world::the::<Sockets>().bind(sock.clone());
    sock
}

/// A connection comes while a user has the listener, and closes it.
pub(crate) fn listen_and_close(how: How) -> Tried {
    explore(how, || {
        let sock = listener(1);
        let worker = thread::spawn(|| comes(Op::Request));
        drop(sock.lock());
        vsock::close::<On>(&sock);
        worker.join().unwrap();
        world::the::<Sockets>().fire_close_timers();
        transmit();
        sock.check_idle();
        let (yes, no) = (seen(Op::Response, PEER), seen(Op::Rst, PEER));
        let bye = seen(Op::Shutdown, PEER);
        check(yes <= 1, "a child is queued once");
        check(yes == 1 || no == 1, "the peer is answered");
        check(yes == 0 || no + bye > 0, "the peer is told of the close");
        check(sock.references() == 1, "nobody refers to a closed listener");
    })
}

/// Connections come while a user has the listener.
pub(crate) fn listen(how: How, workers: u32, each: u32, max: usize) -> Tried {
    explore(how, move || {
        let sock = listener(max);
        let locked = sock.lock();
        let request = move |i| packet(Addr::new(PEER.cid, Port::new(i)), Op::Request, 0, &[], 0);
        let workers: Vec<_> = (0..workers)
            .map(|n| thread::spawn(move || (n * each..(n + 1) * each).for_each(request)))
            .collect();
        drop(locked);
        let all = workers.len() as u32 * each;
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        sock.check_idle();
        transmit();
        let queued = sock.fields().accept_queue.len();
        check(queued <= max + 1, "no more wait than may");
        for i in 0..all {
            let peer = Addr::new(PEER.cid, Port::new(i));
            let (yes, no) = (seen(Op::Response, peer), seen(Op::Rst, peer));
            check(yes + no == 1, "each peer is answered, once");
        }
        vsock::close::<On>(&sock);
        world::the::<Sockets>().fire_close_timers();
        transmit();
        check(sock.references() == 1, "nobody refers to a closed listener");
    })
}

/// A peer asks for connections without end while a user has the listener.
pub(crate) fn listen_stuck(how: How, asks: u32, max: usize) -> Tried {
    explore(how, move || {
        let sock = listener(max);
        let locked = sock.lock();
        for i in 0..asks {
            packet(Addr::new(PEER.cid, Port::new(i)), Op::Request, 0, &[], 0);
        }
        let made = world::the::<Sockets>().children.get();
        check(made <= max + 1, "no more are made than may wait");
        drop(locked);
        sock.check_idle();
        transmit();
        for i in 0..asks {
            let peer = Addr::new(PEER.cid, Port::new(i));
            let (yes, no) = (seen(Op::Response, peer), seen(Op::Rst, peer));
            check(yes + no == 1, "each peer is answered, once");
        }
        vsock::close::<On>(&sock);
        world::the::<Sockets>().fire_close_timers();
        transmit();
    })
}

/// The device ends.
fn unplug() {
    lines().lock().unwrap().gone = true;
    close::reset_connections::<Wire>(Peers::All, |_| true);
}

/// The device ends while a user begins to connect.
pub(crate) fn connect_and_unplug(how: How) -> Tried {
    explore(how, || {
        let sock = socket();
        let device = thread::spawn(unplug);
        let ret = vsock::connect::<On>(&sock, addr(PEER), Patience::None);
        device.join().unwrap();
        let conn = conn_of(&sock.lock());
        quiet(&sock, &conn);
        drop(conn);
        let told = sock.fields().err.is_some() && sock.state() == SockState::Close;
        check(
            ret.is_err() || told,
            "nobody waits for a device that is gone",
        );
        finish(sock);
    })
}

/// The device ends while the user reads what came.
pub(crate) fn read_and_unplug(how: How) -> Tried {
    explore(how, || {
        let (sock, conn) = connected(4096);
        packet(PEER, Op::Rw, 0, b"ab", 0);
        let device = thread::spawn(unplug);
        let (bytes, ret) = read_all(&sock, 9);
        device.join().unwrap();
        check(
            bytes == b"ab" && ret == Err(ECONNRESET),
            "bytes, then the error",
        );
        quiet(&sock, &conn);
        check_credit(&conn, 2);
        finish(sock);
    })
}

/// The device ends while bytes come by another worker.
pub(crate) fn deliver_and_unplug(how: How) -> Tried {
    explore(how, || {
        let (sock, conn) = connected(4096);
        let device = thread::spawn(unplug);
        packet(PEER, Op::Rw, 0, b"ab", 0);
        device.join().unwrap();
        quiet(&sock, &conn);
        let (bytes, ret) = read_all(&sock, 9);
        let whole = bytes.is_empty() || bytes == b"ab";
        check(whole && ret == Err(ECONNRESET), "bytes, then the error");
        finish(sock);
    })
}

/// The device ends while the user closes.
pub(crate) fn close_and_unplug(how: How) -> Tried {
    explore(how, || {
        let (sock, conn) = connected(4096);
        let device = thread::spawn(unplug);
        vsock::close::<On>(&sock);
        device.join().unwrap();
        sock.fire_close_timer();
        transmit();
        quiet(&sock, &conn);
        drop(conn);
        check(sock.references() == 1, "nobody refers to a closed socket");
    })
}
