// SPDX-License-Identifier: GPL-2.0

//! Peers that say nothing: who waits for them, and what becomes of that.
//!
//! All connections of a carrier are looked at once in a second, but only as long as there is
//! somebody for whom that has to be: a socket with `SO_KEEPALIVE`, or a writer that waits for
//! credit. Whoever waits says so ([`note`]); packets cost a store each
//! ([`TxCredit::peer_update`](vsock_proto::credit::TxCredit::peer_update)).
//!
//! A socket that sets `SO_KEEPALIVE` is watched from when it next waits for data or room, or is
//! polled: the core has no way to tell of the option.
//!
//! A peer that somebody [stopped](Carrier::is_paused) is silent for no fault of its own: such
//! seconds do not count.
//!
//! # Locks
//!
//! None is held while a connection is looked at but its gate, for some instructions;
//! [`close::end`] has rules of its own.

use crate::{
    carrier::{
        Carrier,
        Over, //
    },
    close,
    conn::Conn,
    control,
    kinds::Control,
    watch, //
};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    sock::VsockSock,
    vsock, //
};
use vsock_proto::keepalive::{
    self,
    Due,
    Keepalive, //
};

kernel_ext::module_parameters! {
    /// See [`Keepalive::time`].
    static keepalive_time: u16 = 7200,
        "Seconds without a packet after which the peer of a socket with SO_KEEPALIVE is asked (default: 7200, at most: 32767, never: 0)";
    /// See [`Keepalive::interval`].
    static keepalive_interval: u16 = 75,
        "Seconds between the questions (default: 75)";
    /// See [`Keepalive::probes`].
    static keepalive_probes: u16 = 9,
        "Questions without an answer after which the connection is lost (default: 9)";
}

fn parameters() -> Keepalive {
    Keepalive {
        time: keepalive_time.get(),
        interval: keepalive_interval.get(),
        probes: keepalive_probes.get(),
    }
}

/// A second passed for all connections of carrier `C`; says whether one is to be watched any
/// longer.
///
/// Context: may sleep.
fn round<C: Carrier>() -> bool {
    let times = parameters();
    let mut busy = false;
    for (sock, conn) in vsock::connections::<Over<C>>(None) {
        busy |= look::<C>(&sock, &conn, &times);
    }
    busy
}

/// A second passed for a connection; says whether it is to be watched any longer.
fn look<C: Carrier>(sock: &VsockSock, conn: &Arc<Conn>, times: &Keepalive) -> bool {
    let keeps_alive = sock.keeps_alive() && times.time > 0;
    let mut gate = conn.gate();
    if !gate.is_live() {
        return false;
    }
    let is_watched = keeps_alive || gate.tx.is_stalled();
    if is_watched && C::is_paused(sock, gate.ends.peer.cid) {
        return true;
    }
    let silence = gate.tx.second(keeps_alive);
    drop(gate);
    let due = if keeps_alive {
        times.due(silence.peer)
    } else {
        Due::Nothing
    };
    match due {
        Due::GiveUp => {
            close::end::<C>(sock, conn, ETIMEDOUT, true);
            return false;
        }
        Due::Nothing if !keepalive::stalled(silence.writer) => (),
        Due::Nothing | Due::Ask => {
            // Without memory for it, or while the last one waits to be taken, there is one less.
            let _ = control::send::<C>(sock, conn, Control::Probe, false);
        }
    }
    keeps_alive || silence.writer > 0
}

/// A user of the socket waits for the peer, if only perhaps; `for_room` says that it does for
/// credit.
///
/// Context: does not sleep.
#[inline]
pub(crate) fn note<C: Carrier>(sock: &VsockSock, for_room: bool) {
    if for_room || sock.keeps_alive() {
        if let Some(slot) = C::watch() {
            watch::wake(slot);
        }
    }
}

/// As long as a module has this, peers are watched.
pub struct Watching<C: Carrier>(PhantomData<C>);

impl<C: Carrier> Watching<C> {
    /// Begins to watch the peers of carrier `C`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        if let Some(slot) = C::watch() {
            watch::begin(slot, round::<C>)?;
        }
        Ok(Self(PhantomData))
    }
}

impl<C: Carrier> Drop for Watching<C> {
    fn drop(&mut self) {
        if let Some(slot) = C::watch() {
            watch::end(slot);
        }
    }
}
