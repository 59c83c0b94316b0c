// SPDX-License-Identifier: GPL-2.0

//! Sender and receiver on one machine.

use crate::wire::*;
use kernel_ext::gfp::Gfp;

/// The carrier within the machine, as `vsock_loopback` is: a sender delivers what it can itself.
pub(crate) struct Loop;

#[derive(Default)]
struct Inside {
    queue: VecDeque<TxPacket>,
    /// Whose readers a worker wakes.
    sleepers: Vec<(VsockSock, Arc<Conn>)>,
    /// The user is done.
    quits: bool,
}

impl Inside {
    fn get() -> Rc<loom::sync::Mutex<Self>> {
        world::the()
    }
}

impl Carrier for Loop {
    type OwnerModule = ();
    const KIND: Kind = Kind::GuestToHost;
    const IS_DIRECT: bool = true;

    fn slot() -> &'static TransportSlot<Conn> {
        unreachable!()
    }

    fn local_cid() -> Cid {
        Cid::new(1)
    }

    fn stream_allow(_sock: &VsockSock, _addr: Addr) -> bool {
        true
    }

    fn seqpacket_allow(_sock: &VsockSock, _cid: Cid) -> bool {
        true
    }

    fn send(packet: TxPacket, net: Option<&Net>) -> Result {
        if let Err(packet) = recv::deliver_now::<Self>(packet, net) {
            Inside::get().lock().unwrap().queue.push_back(packet);
        }
        Ok(())
    }

    fn deliver(mut packet: RxPacket<'_>, net: Option<&Net>) {
        recv::receive::<Self>(&mut packet, net);
    }

    fn defer_wake(sock: &VsockSock, conn: ArcBorrow<'_, Conn>) -> bool {
        Inside::get()
            .lock()
            .unwrap()
            .sleepers
            .push((sock.clone(), conn.into()));
        true
    }

    fn cancel(_sock: &mut LockedSock) -> Result {
        Ok(())
    }
}

const INSIDE: [Addr; 2] = [
    Addr::new(Cid::new(1), Port::new(1)),
    Addr::new(Cid::new(1), Port::new(2)),
];

/// The work of the carrier; the result is false if there is none, and will not be.
fn work() -> bool {
    let inside = Inside::get();
    let mut inside = inside.lock().unwrap();
    let packets = core::mem::take(&mut inside.queue);
    let sleepers = core::mem::take(&mut inside.sleepers);
    let goes_on = !inside.quits || !packets.is_empty() || !sleepers.is_empty();
    drop(inside);
    for packet in packets {
        recv::receive::<Loop>(&mut RxPacket::from_tx(packet), None);
    }
    for (sock, conn) in sleepers {
        recv::wake_later::<Loop>(&sock, &conn);
    }
    goes_on
}

/// One of two sockets within the machine.
fn inside(me: usize, state: State) -> (VsockSock, Arc<Conn>) {
    let sock = VsockSock::create(SockType::Stream, me == 1);
    let mut locked = sock.lock();
    locked.set_addrs(addr(INSIDE[me]), addr(INSIDE[1 - me]));
    vsock::init::<Over<Loop>>(&mut locked);
    locked.set_state(match state {
        State::Connecting => SockState::SynSent,
        _ => SockState::Established,
    });
    let conn: Arc<Conn> = carrier::conn_of::<Loop>(&locked).unwrap().into();
    conn.begin(&locked, state);
    let _ = conn.gate().tx.peer_update(4096, 0).unwrap();
    tables::join::<Loop>(&locked, &conn).unwrap();
    drop(locked);
    (sock, conn)
}

/// Sends as `send::stream()` does.
fn send_inside(sock: &VsockSock, conn: &Arc<Conn>, bytes: &[u8]) {
    let locked = sock.lock();
    let mut credit = conn.reserve(bytes.len() as u32);
    let len = credit.take(u32::MAX);
    let header = header_to(Op::Rw, SocketType::Stream, INSIDE[0], INSIDE[1], len);
    let packet = TxPacket::data(&locked, conn.clone(), &header, bytes);
    Loop::send(packet, None).unwrap();
}

/// A sender delivers itself, or queues, what it sends, and shuts down; `state` is that of the
/// receiver at first, to which the answer to its REQUEST is sent in the first case.
pub(crate) fn direct(how: How, state: State, sends: &'static [&'static [u8]]) -> Tried {
    vsock::explore(
        how.preemptions,
        how.fault,
        vsock::init::<Over<Loop>>,
        move || {
            let inside_lines = Inside::get();
            let (a, to_b) = inside(0, State::Established);
            let (b, to_a) = inside(1, state);
            if state == State::Connecting {
                // It could not be delivered, for what reason ever.
                let (ty, op) = (SocketType::Stream, Op::Response);
                let header = header_to(op, ty, INSIDE[0], INSIDE[1], 0);
                let _ = to_b.queue_control(Control::Response);
                let (what, gfp) = (Control::Response, Gfp::Kernel);
                let packet = TxPacket::control(&a, to_b.clone(), what, &header, true, gfp);
                Loop::send(packet.unwrap(), None).unwrap();
            }
            let sender = {
                let (a, to_b) = (a.clone(), to_b.clone());
                thread::spawn(move || sends.iter().for_each(|bytes| send_inside(&a, &to_b, bytes)))
            };
            let worker = thread::spawn(|| {
                while work() {
                    thread::yield_now();
                }
            });
            let sent = sends.concat();
            // As connect() waits.
            loop {
                b.prepare_to_wait();
                if b.state() != SockState::SynSent {
                    break;
                }
                b.schedule();
            }
            let mut got = Vec::new();
            while got.len() < sent.len() {
                match vsock::recv::<Over<Loop>>(&b, 9, false) {
                    Ok(bytes) if !bytes.is_empty() => got.extend(bytes),
                    _ => break,
                }
            }
            check(
                got == sent,
                "bytes come in the order in which they were sent",
            );
            sender.join().unwrap();
            inside_lines.lock().unwrap().quits = true;
            worker.join().unwrap();
            quiet(&a, &to_b);
            quiet(&b, &to_a);
            check_credit(&to_a, sent.len() as u32);
            let behind = to_b.stamp_if_first(
                &mut header_to(Op::Rw, SocketType::Stream, INSIDE[0], INSIDE[1], 0),
                None,
                0,
            );
            check(behind.is_some(), "nothing is behind a queue that is empty");
            for sock in [a, b] {
                vsock::close::<Over<Loop>>(&sock);
            }
            while work() {}
            world::the::<Sockets>().fire_close_timers();
            while work() {}
        },
    )
}

/// All that the work has to do, now that nobody sends.
fn settle_all() {
    while work() {}
}

/// Both users close their sockets, one of which was sent `bytes`. Without these, nobody waits for a
/// timer: who closes has the answer at once, also if the other one does so, too.
pub(crate) fn direct_close(how: How, bytes: &'static [u8]) -> Tried {
    vsock::explore(
        how.preemptions,
        how.fault,
        vsock::init::<Over<Loop>>,
        move || {
            let inside_lines = Inside::get();
            let (a, to_b) = inside(0, State::Established);
            let (b, to_a) = inside(1, State::Established);
            inside_lines.lock().unwrap().quits = true;
            if !bytes.is_empty() {
                send_inside(&a, &to_b, bytes);
            }
            let other = {
                let b = b.clone();
                thread::spawn(move || vsock::close::<Over<Loop>>(&b))
            };
            vsock::close::<Over<Loop>>(&a);
            other.join().unwrap();
            settle_all();
            for (sock, conn) in [(&a, &to_b), (&b, &to_a)] {
                let waits = sock.lock().close_is_scheduled();
                check(bytes.is_empty() <= !waits, "who closes has the answer");
                quiet(sock, conn);
            }
            world::the::<Sockets>().fire_close_timers();
            settle_all();
            drop((to_a, to_b));
            check(a.references() == 1, "nobody refers to a closed socket");
            check(b.references() == 1, "nobody refers to a closed socket");
        },
    )
}

/// A user connects to a listener, which its own user closes, maybe just before.
pub(crate) fn direct_connect(how: How) -> Tried {
    vsock::explore(
        how.preemptions,
        how.fault,
        vsock::init::<Over<Loop>>,
        move || {
            let inside_lines = Inside::get();
            inside_lines.lock().unwrap().quits = true;
            let listener = VsockSock::create(SockType::Stream, false);
            {
                let mut fields = listener.fields();
                fields.local = addr(INSIDE[1]);
                fields.state = SockState::Listen;
            }
            world::the::<Sockets>().bind(listener.clone());
            let sock = VsockSock::create(SockType::Stream, true);
            {
                let mut locked = sock.lock();
                locked.set_addrs(addr(INSIDE[0]), addr(INSIDE[1]));
                vsock::init::<Over<Loop>>(&mut locked);
            }
            let other = {
                let listener = listener.clone();
                thread::spawn(move || vsock::close::<Over<Loop>>(&listener))
            };
            let ret = vsock::connect::<Over<Loop>>(&sock, addr(INSIDE[1]), Patience::Forever);
            other.join().unwrap();
            settle_all();
            check(
                ret.is_err() || sock.fields().connected == 1,
                "the user learns of the connection once",
            );
            vsock::close::<Over<Loop>>(&sock);
            settle_all();
            world::the::<Sockets>().fire_close_timers();
            settle_all();
            sock.check_idle();
            listener.check_idle();
            check(sock.references() == 1, "nobody refers to a closed socket");
            check(
                listener.references() == 1,
                "nobody refers to a closed listener",
            );
        },
    )
}
