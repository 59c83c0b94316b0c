// SPDX-License-Identifier: GPL-2.0

//! The way in: packets from the device to the sockets.

use crate::{
    device::{
        queue_bh,
        queue_work,
        Broken,
        Device,
        Epoch,
        Guest,
        RESET_WORK,
        RX_WORK,
        TX_WORK, //
    },
    feed::{
        give_back,
        is_low,
        replace,
        tell, //
    },
    hand::Turn,
    params,
    pool::RxPool,
    queues::{
        Checked,
        Held,
        LiveRx, //
    }, //
};
use kernel::{
    pr_warn_once,
    prelude::*,
    sync::{
        atomic::{
            Full,
            Relaxed, //
        },
        barrier::smp_mb,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use kernel_ext::{
    gfp::Gfp,
    peek::Peek,
    skb::{
        Block,
        Filled, //
    },
    virtio::DeviceLen, //
};
use virtio_transport_common::{
    receive,
    receive_now,
    receive_rest,
    RxPacket, //
};
use vsock_proto::{
    addr::Cid,
    header::{
        Header,
        Op,
        HEADER_LEN, //
    }, //
};

/// Most packets that are taken at once: then others get their turn, and the queue's lock is free
/// for a moment.
const RUN: usize = 64;

/// Most packets that need a thread, in one run of it.
const BUDGET: usize = 256;

/// How long to wait for memory when the device has no buffer at all.
const NO_MEMORY_DELAY: Delta = Delta::from_millis(20);

/// How a run of the work ended.
enum Outcome {
    /// There are no more packets; the device will interrupt when there are.
    Idle,
    /// There are too many replies to send before more packets can be taken.
    Paused,
    /// There may be more packets; others get their turn first.
    Again,
    /// A packet needs a thread.
    Held,
}

/// What a thread has done, and found.
struct Taken {
    outcome: Outcome,
    /// The device has few buffers.
    low: bool,
    broken: bool,
    /// When that was found.
    epoch: Epoch,
}

/// Why a packet is not taken.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Refusal(&'static str);

impl Refusal {
    const MISADDRESSED: Self = Self("for another machine");

    /// Whether that is because of our address, which may be another by now.
    fn may_be_ours(self) -> bool {
        self == Self::MISADDRESSED
    }
}

/// Copies the header of a packet, once, and checks the lengths.
fn check(block: &Block, written: DeviceLen) -> Result<Checked> {
    let room = written
        .at_most(block.capacity())?
        .checked_sub(HEADER_LEN)
        .ok_or(EBADMSG)?;
    let header: [u8; HEADER_LEN] = block.copy_head();
    let header = Header::read_from_bytes(&header).map_err(|_| EBADMSG)?;
    match usize::try_from(header.len()) {
        Ok(payload) if payload <= room => Ok(Checked { header, payload }),
        _ => Err(EBADMSG),
    }
}

/// Why a packet is not for the machine with the address `own`, or not from one that may send it;
/// `None` if it is taken.
///
/// That is the host, and with the parameter `siblings` any other machine. A connection is looked up
/// by all four parts of its addresses, hence without the parameter only requests are refused: whom
/// a user of this machine connected to may answer.
#[inline]
fn refusal(header: &Header, own: Cid) -> Option<Refusal> {
    let (Ok(src), Ok(dst)) = (header.src(), header.dst()) else {
        return Some(Refusal("with an address that is none"));
    };
    if dst.cid != own {
        return Some(Refusal::MISADDRESSED);
    }
    match src.cid {
        Cid::HOST => None,
        cid if cid == own => Some(Refusal("in our name")),
        Cid::HYPERVISOR | Cid::LOCAL | Cid::ANY => Some(Refusal("from an address that nobody has")),
        _ if params::siblings() || header.op() != Op::Request => None,
        _ => Some(Refusal("from a machine that may not connect")),
    }
}

/// Says once what a packet was that is dropped, for who looks for one that is missing. (Device
/// models are known that hand out a header of zeroes when their connection is gone.)
#[cold]
fn say_refused(header: &Header, Refusal(why): Refusal) {
    pr_warn_once!(
        "dropped a packet {}: {}:{} to {}:{}, operation {}; no connection lost anything\n",
        why,
        header.src_cid_raw(),
        header.src_port().get(),
        header.dst_cid_raw(),
        header.dst_port().get(),
        header.op().raw(),
    );
}

impl Device {
    /// Fills the receive queue, and takes packets.
    ///
    /// Context: may sleep.
    pub(crate) fn start_rx(&self) -> Result {
        let size = self.rx.lock().ok_or(ENODEV)?.size();
        let pool = RxPool::new(size)?;
        let mut queue = self.rx.lock().ok_or(ENODEV)?;
        self.max_replies.store(size, Relaxed);
        let state = queue.state();
        let old = core::mem::replace(&mut state.pool, pool);
        let held = state.hand.start();
        drop(queue);
        drop((old, held));
        self.feed();
        match self.rx.lock() {
            Some(queue) if queue.posted() > 0 => Ok(()),
            // The device broke it before it had a buffer.
            Some(queue) if queue.is_broken() => Err(EIO),
            Some(_) => Err(ENOMEM),
            None => Err(ENODEV),
        }
    }

    /// Takes no more packets. None is being received when this returns.
    ///
    /// Context: may sleep.
    pub(crate) fn stop_rx(&self) {
        let held = self
            .rx
            .lock()
            .and_then(|mut queue| queue.state().hand.stop());
        drop(held);
        // Whoever has one in hand is waited for. Who comes later sees that it must not take any.
        drop(self.rx_hand.lock());
    }

    /// Takes packets, and leaves to [`receive_packets`](Self::receive_packets) what needs a thread.
    ///
    /// Context: softirq.
    pub(crate) fn receive_bh(self: ArcBorrow<'_, Self>) {
        let Some(mut queue) = self.rx.lock() else {
            return;
        };
        // What was left comes first: the thread goes on with the rest.
        if !queue.state().hand.may_take() {
            return;
        }
        queue.state().asked = false;
        let outcome = self.run_rx(&mut queue);
        tell(&mut queue);
        let again = matches!(outcome, Outcome::Again);
        if again {
            queue_bh(self);
        }
        let held = matches!(outcome, Outcome::Held);
        if held {
            self.rx_by_thread.store(true, Relaxed);
        }
        // Memory is for who can wait for it, and so is what is to be done about a broken queue.
        let needs_thread = held || is_low(&mut queue) || queue.is_broken();
        drop(queue);
        if needs_thread {
            queue_work::<RX_WORK>(self);
        }
        if matches!(outcome, Outcome::Paused) {
            self.paused();
        }
        self.reap_after_rx();
    }

    /// The device used buffers, or says so: packets are taken in a softirq, but for when the last
    /// one needed a thread. Connections that come and go are made of such packets, and the way over
    /// the softirq is one more.
    ///
    /// Context: hard interrupt.
    #[inline]
    pub(crate) fn received(self: ArcBorrow<'_, Self>) {
        if params::bh() && !self.rx_by_thread.peek() {
            queue_bh(self);
        } else {
            queue_work::<RX_WORK>(self);
        }
    }

    /// Takes packets.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// If the device broke the queue.
    pub(crate) fn receive_packets(self: ArcBorrow<'_, Self>) -> Result<(), Broken> {
        let Some(Taken {
            outcome,
            low,
            broken,
            epoch,
        }) = self.take_in_hand()
        else {
            return Ok(());
        };
        let starved = low && {
            self.feed();
            self.rx.lock().is_some_and(|queue| queue.posted() == 0)
        };
        self.reap_after_rx();

        if broken {
            return Err(Broken {
                queue: "receive",
                epoch,
            });
        }
        if starved {
            // Nothing comes from the device any more, hence nobody else would try again.
            fsleep(NO_MEMORY_DELAY);
            queue_work::<RX_WORK>(self);
            return Ok(());
        }
        match outcome {
            Outcome::Again | Outcome::Held => queue_work::<RX_WORK>(self),
            Outcome::Paused => self.paused(),
            Outcome::Idle => (),
        }
        Ok(())
    }

    /// Takes packets, those that need a thread as well; `None` if no packets are taken any more.
    fn take_in_hand(self: ArcBorrow<'_, Self>) -> Option<Taken> {
        let _hand = self.rx_hand.lock();
        let mut left = BUDGET;
        self.rx_by_thread.store(false, Relaxed);
        let mut queue = self.rx.lock()?;
        queue.state().asked = false;
        loop {
            let mut held = None;
            match queue.state().hand.take(&mut held) {
                Turn::Stopped => return None,
                Turn::Free => (),
                Turn::Held => {
                    self.rx_by_thread.store(true, Relaxed);
                    drop(queue);
                    let block = held.and_then(|held| self.take_held(held));
                    queue = self.rx.lock()?;
                    if let Some(block) = block {
                        give_back(&mut queue, block);
                    }
                    if !queue.state().hand.done() {
                        return None;
                    }
                }
            }
            let outcome = self.run_rx(&mut queue);
            left = left.saturating_sub(1);
            if left == 0 || !matches!(outcome, Outcome::Held) {
                tell(&mut queue);
                return Some(Taken {
                    outcome,
                    low: is_low(&mut queue),
                    broken: queue.is_broken(),
                    epoch: self.epoch(),
                });
            }
        }
    }

    /// Takes a packet that was held, and gives back its block.
    ///
    /// Context: may sleep.
    fn take_held(self: ArcBorrow<'_, Self>, held: Held) -> Option<Block> {
        let (block, Checked { header, payload }) = match held {
            Held::Packet(mut packet, rest) => {
                receive_rest::<Guest>(&mut packet, rest, None);
                return packet.into_block();
            }
            Held::Misaddressed(block, checked) => (block, checked),
        };
        self.read_address();
        if let Some(why) = refusal(&header, self.cid()) {
            say_refused(&header, why);
            return Some(block);
        }
        let filled = match block.filled(HEADER_LEN, payload) {
            Ok(filled) => filled,
            Err(block) => return Some(block),
        };
        let mut packet = RxPacket::of_filled(header, filled).ok()?;
        packet.deliver_tap();
        receive::<Guest>(&mut packet, None);
        packet.into_block()
    }

    /// Reads our address again: a packet is for another one.
    ///
    /// Context: may sleep.
    fn read_address(self: ArcBorrow<'_, Self>) {
        // The device is there as long as this queue is, with whose lock one may sleep. And nobody
        // else reads the address meanwhile.
        let Some(queue) = self.event.lock() else {
            return;
        };
        if self.address.take_early(queue.device()) {
            queue_work::<RESET_WORK>(self);
        }
    }

    /// Takes packets until one needs a thread, as many as one run may take.
    fn run_rx(self: ArcBorrow<'_, Self>, queue: &mut LiveRx<'_>) -> Outcome {
        let mut left = RUN;
        loop {
            queue.disable_cb();
            loop {
                // A packet causes one reply at most.
                let room = self.reply_room();
                if room == 0 && self.pause_rx() {
                    return Outcome::Paused;
                }
                let batch = room.min(left);
                if left == 0 {
                    return Outcome::Again;
                }
                left = left.saturating_sub(batch);
                if !self.take_packets(queue, batch) {
                    break;
                }
            }
            if queue.state().hand.is_holding() {
                return Outcome::Held;
            }
            queue.state().pool.idle();
            if queue.enable_cb() {
                return Outcome::Idle;
            }
        }
    }

    /// Takes up to `max` packets, and says whether there were as many. Nothing is taken after one
    /// that is held.
    fn take_packets(self: ArcBorrow<'_, Self>, queue: &mut LiveRx<'_>, max: usize) -> bool {
        for _ in 0..max {
            let Some((block, written)) = queue.pop() else {
                return false;
            };
            if !self.take_packet(queue, block, written) {
                return false;
            }
        }
        true
    }

    /// Takes a packet, or holds it if it needs a thread: says whether others may be taken.
    #[inline]
    fn take_packet(
        self: ArcBorrow<'_, Self>,
        queue: &mut LiveRx<'_>,
        block: Block,
        written: DeviceLen,
    ) -> bool {
        let Ok(checked) = check(&block, written) else {
            pr_warn_once!("dropped a packet with a bad length\n");
            give_back(queue, block);
            return true;
        };
        if let Some(why) = refusal(&checked.header, self.cid()) {
            // A device may send any number of such packets: the address is read again once in a
            // run.
            if why.may_be_ours() && !core::mem::replace(&mut queue.state().asked, true) {
                let state = queue.state();
                state.hand.hold(Held::Misaddressed(block, checked));
                return false;
            }
            say_refused(&checked.header, why);
            give_back(queue, block);
            return true;
        }
        let Checked { header, payload } = checked;
        queue.state().pool.note(payload, block.size());
        let packet = if payload == 0 {
            give_back(queue, block);
            RxPacket::new(header, None)
        } else {
            match block.filled(HEADER_LEN, payload) {
                Ok(filled) => in_place(queue, header, filled),
                Err(block) => {
                    give_back(queue, block);
                    return true;
                }
            }
        };
        let Ok(mut packet) = packet else {
            return true;
        };
        packet.deliver_tap();
        // The device knows nothing of namespaces: it is that of the whole machine.
        if let Some(rest) = receive_now::<Guest>(&mut packet, None) {
            queue.state().hand.hold(Held::Packet(packet, rest));
            return false;
        }
        if let Some(block) = packet.into_block() {
            give_back(queue, block);
        }
        true
    }

    /// The device may use no more of our packets until it sees us take some of its: this has the
    /// interrupt for them come with the first of them.
    fn paused(self: ArcBorrow<'_, Self>) {
        queue_work::<TX_WORK>(self);
    }

    /// How many more replies may be queued.
    fn reply_room(&self) -> usize {
        let max = self.max_replies.peek();
        max.saturating_sub(self.send_queue.replies())
    }

    /// Notes that packets wait until replies were sent, and says whether that is still so.
    fn pause_rx(&self) -> bool {
        self.rx_paused.store(true, Relaxed);
        // Pairs with the one in `resume_rx()`: either that sees the flag, or we see what it made
        // room for.
        smp_mb(Full);
        if self.reply_room() == 0 {
            return true;
        }
        // If somebody was faster, the work just runs once more.
        self.rx_paused.store(false, Relaxed);
        false
    }

    /// Takes packets again if there is room for their replies. To be called after replies left the
    /// send queue.
    pub(crate) fn resume_rx(self: ArcBorrow<'_, Self>) {
        // Pairs with the one in `pause_rx()`.
        smp_mb(Full);
        if self.reply_room() > 0 && self.rx_paused.peek() && self.rx_paused.xchg(false, Full) {
            queue_work::<RX_WORK>(self);
        }
    }
}

/// Makes a packet of what is in a block: the payload stays there if it takes so much of it that its
/// receiver may keep it, else it will be copied.
fn in_place(queue: &mut LiveRx<'_>, header: Header, filled: Filled) -> Result<RxPacket<'static>> {
    if filled.is_dense() {
        match filled.share(Gfp::Atomic) {
            Ok((skb, lent)) => {
                queue.state().pool.sub(lent.size());
                replace(queue);
                queue.state().pool.lend(lent);
                RxPacket::new(header, Some(skb))
            }
            Err(filled) => RxPacket::of_filled(header, filled),
        }
    } else {
        RxPacket::of_filled(header, filled)
    }
}
