// SPDX-License-Identifier: GPL-2.0

//! The way in: packets from the device to the sockets.

use crate::{
    device::{
        queue_work,
        Broken,
        Device,
        Guest,
        RESET_WORK,
        RX_WORK,
        TX_WORK, //
    },
    params,
    queues::{
        LiveRx,
        RxPool, //
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
    skb::ReceiveBuffer,
    virtio::DeviceLen, //
};
use virtio_transport_common::{
    receive,
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

/// Most packets that one run of the work takes: then others get their turn, and the queue's lock is
/// free for a moment.
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
}

/// A packet whose header was checked against what the device says it wrote.
struct Checked {
    header: Header,
    payload: usize,
}

/// Copies the header of a packet, once, and checks the lengths.
fn check(buf: &ReceiveBuffer, written: DeviceLen) -> Result<Checked> {
    let room = written
        .at_most(buf.capacity())?
        .checked_sub(HEADER_LEN)
        .ok_or(EBADMSG)?;
    let header: [u8; HEADER_LEN] = buf.copy_head()?;
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
fn refusal(header: &Header, own: Cid) -> Option<&'static str> {
    let (Ok(src), Ok(dst)) = (header.src(), header.dst()) else {
        return Some("with an address that is none");
    };
    if dst.cid != own {
        return Some("for another machine");
    }
    match src.cid {
        Cid::HOST => None,
        cid if cid == own => Some("in our name"),
        Cid::HYPERVISOR | Cid::LOCAL | Cid::ANY => Some("from an address that nobody has"),
        _ if params::siblings() || header.op() != Op::Request => None,
        _ => Some("from a machine that may not connect"),
    }
}

/// Says once what a packet was that is dropped, for who looks for one that is missing. (Device
/// models are known that hand out a header of zeroes when their connection is gone.)
#[cold]
fn say_refused(header: &Header, why: &str) {
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
    pub(crate) fn start_rx(&self) -> Result {
        let mut queue = self.rx.lock().ok_or(ENODEV)?;
        self.max_replies.store(queue.size(), Relaxed);
        queue.state().full = 0;
        queue.state().running = true;
        fill(&mut queue);
        if queue.posted() == 0 {
            return Err(ENOMEM);
        }
        tell(&mut queue);
        Ok(())
    }

    /// Takes no more packets. None is being received when this returns.
    pub(crate) fn stop_rx(&self) {
        if let Some(mut queue) = self.rx.lock() {
            queue.state().running = false;
        }
    }

    /// The work that takes packets.
    ///
    /// # Errors
    ///
    /// If the device broke the queue.
    pub(crate) fn receive_packets(self: ArcBorrow<'_, Self>) -> Result<(), Broken> {
        let Some(mut queue) = self.rx.lock() else {
            return Ok(());
        };
        if !queue.state().running {
            return Ok(());
        }
        let outcome = self.run_rx(&mut queue);
        if is_low(&mut queue) {
            fill(&mut queue);
        }
        tell(&mut queue);
        let (broken, epoch) = (queue.is_broken(), self.epoch());
        let starved = queue.posted() == 0;
        drop(queue);
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
        } else {
            match outcome {
                Outcome::Again => queue_work::<RX_WORK>(self),
                // The device may use no more of our packets until it sees us take some of its: this
                // one has the interrupt for them come with the first of them.
                Outcome::Paused => queue_work::<TX_WORK>(self),
                Outcome::Idle => (),
            }
        }
        Ok(())
    }

    fn run_rx(self: ArcBorrow<'_, Self>, queue: &mut LiveRx<'_>) -> Outcome {
        let mut left = BUDGET;
        queue.state().asked = false;
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
            if queue.enable_cb() {
                return Outcome::Idle;
            }
        }
    }

    /// Takes up to `max` packets, and says whether there were as many.
    fn take_packets(self: ArcBorrow<'_, Self>, queue: &mut LiveRx<'_>, max: usize) -> bool {
        for _ in 0..max {
            let Some((buf, written)) = queue.pop() else {
                return false;
            };
            self.take_packet(queue, buf, written);
            if is_low(queue) {
                fill(queue);
                tell(queue);
            }
        }
        true
    }

    fn take_packet(
        self: ArcBorrow<'_, Self>,
        queue: &mut LiveRx<'_>,
        buf: ReceiveBuffer,
        written: DeviceLen,
    ) {
        let Ok(Checked { header, payload }) = check(&buf, written) else {
            pr_warn_once!("dropped a packet with a bad length\n");
            // The device does not say the truth about what it wrote.
            return give_back(queue, buf, RxPool::LEN);
        };
        if let Some(why) = refusal(&header, self.cid_for(queue, &header)) {
            say_refused(&header, why);
            return give_back(queue, buf, HEADER_LEN.saturating_add(payload));
        }

        let packet = if payload == 0 {
            give_back(queue, buf, HEADER_LEN);
            RxPacket::new(header, None)
        } else {
            match buf.received(payload) {
                Ok(skb) => RxPacket::new(header, Some(skb)),
                Err(buf) => return give_back(queue, buf, RxPool::LEN),
            }
        };
        let Ok(mut packet) = packet else {
            return;
        };
        packet.deliver_tap();
        // The device knows nothing of namespaces: it is that of the whole machine.
        receive::<Guest>(packet, None);
    }

    /// Our address, which is read again if it is not where a packet goes, but only once in a run of
    /// the work: a device may send any number of such packets.
    #[inline]
    fn cid_for(self: ArcBorrow<'_, Self>, queue: &mut LiveRx<'_>, header: &Header) -> Cid {
        let own = self.cid();
        if header.dst_cid_raw() == u64::from(own.get())
            || core::mem::replace(&mut queue.state().asked, true)
        {
            return own;
        }
        // The lock of the queue is held: nobody else does this.
        if self.address.take_early(queue.device()) {
            queue_work::<RESET_WORK>(self);
        }
        self.cid()
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

/// Says whether the device should get more buffers.
fn is_low(queue: &mut LiveRx<'_>) -> bool {
    queue.posted() <= queue.state().full / 2
}

/// Gives the device as many buffers as it can have, as long as there is memory.
fn fill(queue: &mut LiveRx<'_>) {
    while queue.num_free() > 0 {
        let Ok(buf) = queue.state().pool.get() else {
            break;
        };
        if queue.add_in(buf, Gfp::Kernel).is_err() {
            break;
        }
        queue.state().untold = true;
    }
    let posted = queue.posted();
    let state = queue.state();
    state.full = state.full.max(posted);
}

/// Gives the device a buffer back, to which it claims to have written `written` bytes.
fn give_back(queue: &mut LiveRx<'_>, buf: ReceiveBuffer, written: usize) {
    let buf = queue.state().pool.renew(buf, written);
    // If it cannot be, the queue is broken, or gets another buffer the next time that it is filled.
    if queue.add_in(buf, Gfp::Kernel).is_ok() {
        queue.state().untold = true;
    }
}

/// Tells the device of new buffers, if there are.
fn tell(queue: &mut LiveRx<'_>) {
    if core::mem::take(&mut queue.state().untold) {
        queue.kick();
    }
}
