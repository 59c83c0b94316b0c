// SPDX-License-Identifier: GPL-2.0

//! Models of the common transport: its own sources, run by threads in all orders that there are.
//!
//! # What is modelled
//!
//! The sources of `net/vmw_vsock/virtio_transport_common` that decide something about a connection
//! are compiled here as they are (see `build.rs` for which, and for what is rewritten: attributes
//! and paths), with
//! [`vsock_proto`] below them, so the real link, credit and receive queue. Above them is what a
//! user does, and what a worker of a carrier does: the files in `src/parts`. What stands for the
//! kernel is in [`kernel`] and
//! [`kernel_ext`], by hand after `net/core/sock.c`, `net/vmw_vsock/af_vsock.c`,
//! `rust/helpers/sock.c` and `rust/kernel_ext`:
//!
//! - the socket lock: `slock`, owner, `lock_sock()`, `release_sock()` with `__release_sock()`, the
//!   backlog with its length, the marks of tokens, whose function `sk_backlog_rcv` is;
//! - tasks that wait: `prepare_to_wait()`, a look, `release_sock()`, `schedule()`, and wake-ups
//!   with their keys (`POLLIN` does not wake who polls for `POLLOUT`);
//! - the core's `connect()`, `recv()`, `poll()`, `close()`, the change to another transport, and
//!   the timer of a close;
//! - the table of connections, with references counted, and two carriers with a queue and a worker:
//!   one to somewhere else, and one within the machine, where a sender delivers what it can itself.
//!
//! [Loom](loom) runs the threads in all orders of what they do with locks, or, where that would take too long, in
//! all with a few preemptions: `ALL`, `many()`, `SOME` and `FEW` in the tests. If all threads wait,
//! that is an error.
//!
//! # What is looked at
//!
//! - **No news is lost.** When all is quiet, nobody has a socket, its backlog is empty, the socket
//!   layer has its function back, the connection has no news, and the socket was told of the end
//!   once. A connection has at most one token in a backlog. Nothing of ours runs for a socket that
//!   left the transport.
//! - **No byte is lost.** A reader that does as the core does gets all that came before the end,
//!   then the end; the peer gets its credit back, to the byte; a peek changes nothing; what comes
//!   to a closed socket is not kept. Who waits is woken.
//! - **The order** of what is delivered by its sender and what went through the queue is that in
//!   which it was sent.
//! - **A connect ends one way.** Either the socket is told that it is connected, or a peer that
//!   answered gets a RST; also if the user closes, or connects to another peer, of whom nothing is
//!   mixed up with the first.
//! - **A child has one fate.** It is queued and answered, or refused, once, and within the limit;
//!   also if the listener is closed meanwhile. No socket stays for ever.
//! - **The end of a device** is seen by who connects, reads, closes, or gets packets at the same
//!   time.
//! - **Memberships** end once, and the table is empty in the end.
//!
//! - **A window** of `kernel_ext::window` shows the page that is mapped, for as long as a read
//!   section lasts, and there is one again after the changes. The notifier is by hand, after
//!   `mm/mmu_notifier.c`.
//! - **Who begins to wait** is seen by the work that looks for such: [`watches`].
//!
//! # What was broken on purpose
//!
//! `mistakes.rs` has the sources with a mistake each, and [`world::Fault`] what stands for C code
//! with one. For each of them a test says which model finds it, and by what (`finds!` in the
//! tests). Two were tried that no model finds, as they change nothing:
//!
//! - `take()` without a look at `attached`: a connection is released before that is cleared, so it
//!   is done;
//! - `sock_backlog_taken()` that leaves the state of the task alone: all that a token does wakes
//!   who waits for it. It is for tokens that sleep themselves, as the kernel warns of a task that
//!   does so in another state than `TASK_RUNNING`.
//!
//! # What was found
//!
//! Each of these was in the sources, is there no more, and is in `mistakes.rs` or a model of its
//! own:
//!
//! - a part of a payload was read before it counted: its credit never came back (`segments`);
//! - a RST of who gave up to connect was thrown away with the REQUEST (`connect_and_signal`; the
//!   queue of packets keeps a RST since);
//! - a RESPONSE that came while the user closed was swallowed: the peer stayed connected
//!   (`connect_and_close`);
//! - bytes and credit of a peer that was given up were those of the next one
//!   (`connect_and_signal`), and its late packets were taken for packets of the next one
//!   (`late_response` and the two after it);
//! - a connection that was just leaving the table took itself for the next one between its ports,
//!   and sent no RST (`close_and_shutdown`);
//! - a packet that took the long way forgot that its credit was to wake a writer
//!   (`writer_without_memory`, `writer_of_another_cid`);
//! - two tokens of a connection in one backlog (`moves`).
//!
//! # Kicks
//!
//! The same is done with `kick_work` and `inline` of `drivers/vhost/vhost_core`: who does the work
//! of a queue when its guest kicks, the thread that kicks or the worker
//! ([`return_work`](kernel_ext::return_work) is after `kernel/task_work.c`). Threads of a guest
//! offer chains, and kick if they are to; they go back to it, end, or stay in the system call with
//! the work in their list. **No kick is lost**: when all is quiet, all chains were taken. A queue
//! that was stopped is left alone.
//!
//! # What is not modelled
//!
//! - *Bottom halves.* All locks of the sources turn them off, so no lock is taken twice on a CPU.
//!   What they are for the order of things, another thread is here.
//! - *What is read without a lock*, and the order of memory there. Loom would see it, but these are
//!   no places of their own where another thread may come first: `sk_state`, `sk_shutdown` and the
//!   length of the queue of a listener, which are looked at again with the lock held, so an old
//!   value refuses a connection at most that a bit later would have been refused or taken, too;
//!   `SO_RCVLOWAT`, which a reader that changed it follows by a look of its own; `Conn::cut`, which
//!   is written and read under locks of the carrier; `sk_data_ready`, of which a change is followed
//!   by a look with the socket locked. (`sk_backlog_rcv`, which the owner reads without the
//!   `slock`, *is* modelled, with a relaxed load.) A task that says that it waits and then looks,
//!   and one that makes news and then looks for who waits, need full barriers, which
//!   `prepare_to_wait()` and `wq_has_sleeper()` have: here both are locks.
//! - *RCU.* What was found is kept by a count for as long as it is used; that a node lives for so
//!   long is for `kernel_ext::sock_table`, whose KUnit tests run under KASAN. That it may be found
//!   a while after it left is modelled.
//! - *What is sent*: payload on its way out, memory of packets, the budget of orphans, `SO_LINGER`,
//!   BPF sockmaps, namespaces, and a lack of memory other than that of
//!   [`Gfp::Atomic`](kernel_ext::gfp::Gfp).

pub mod kernel;
pub mod kernel_ext;
#[cfg(test)]
mod ring;
#[cfg(test)]
mod watches;
pub mod world;

/// The sources: as they are, and with mistakes.
#[allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::all,
    reason = "they are looked at where they are"
)]
pub mod variants {
    include!(concat!(env!("OUT_DIR"), "/variants.rs"));
}

/// Windows of `kernel_ext`: as they are, and with mistakes. The kernel's part is in `src/windows`.
#[allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::all,
    reason = "they are looked at where they are"
)]
pub mod windows {
    include!(concat!(env!("OUT_DIR"), "/windows.rs"));
}

#[cfg(test)]
mod hand;
#[cfg(test)]
mod ring_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod window_tests;
