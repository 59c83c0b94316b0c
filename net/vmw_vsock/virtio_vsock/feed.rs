// SPDX-License-Identifier: GPL-2.0

//! What the device gets for its receive queue: buffers of the [pool](crate::pool).

use crate::{
    device::Device,
    pool::RxPool,
    queues::LiveRx, //
};
use kernel_ext::{
    gfp::Gfp,
    skb::Block, //
};

impl Device {
    /// Gives the device as many buffers as it should have, as long as there is memory.
    ///
    /// Context: may sleep.
    pub(crate) fn feed(&self) {
        let mut made = None;
        loop {
            let Some(mut queue) = self.rx.lock() else {
                return;
            };
            // Nobody needs a block that was made for a queue that is not used any more.
            if !queue.state().hand.is_running() || queue.is_broken() {
                return;
            }
            if let Some(block) = made.take() {
                queue.state().pool.made(&block);
                post(&mut queue, block);
            } else if !is_low(&mut queue) {
                return;
            }
            fill(&mut queue);
            let posted = queue.posted();
            let wants = queue.num_free() > 0 && queue.state().pool.wants(posted);
            let class = queue.state().pool.class();
            if !wants {
                return tell(&mut queue);
            }
            drop(queue);
            match RxPool::make(class) {
                Ok(block) => made = Some(block),
                Err(_) => {
                    if let Some(mut queue) = self.rx.lock() {
                        tell(&mut queue);
                    }
                    return;
                }
            }
        }
    }
}

/// Says whether the device should get more buffers.
#[inline]
pub(crate) fn is_low(queue: &mut LiveRx<'_>) -> bool {
    let posted = queue.posted();
    queue.state().pool.is_low(posted)
}

/// Gives the device as many buffers as it should have, of those that are there.
fn fill(queue: &mut LiveRx<'_>) {
    while queue.num_free() > 0 {
        let posted = queue.posted();
        let pool = &mut queue.state().pool;
        if !pool.wants(posted) {
            break;
        }
        let Some(block) = pool.get() else {
            break;
        };
        if !post(queue, block) {
            break;
        }
    }
}

/// Gives the device another block for one that is not its any more, if one is there; and more, if
/// it has few.
pub(crate) fn replace(queue: &mut LiveRx<'_>) {
    if is_low(queue) {
        fill(queue);
        tell(queue);
        return;
    }
    let posted = queue.posted();
    let pool = &mut queue.state().pool;
    if pool.wants(posted) {
        if let Some(block) = pool.get() {
            post(queue, block);
        }
    }
}

/// Gives the device a block, and says whether it took it.
fn post(queue: &mut LiveRx<'_>, block: Block) -> bool {
    queue.state().pool.add(block.size());
    add(queue, block)
}

/// Gives the device a block that counts as one that it has.
#[inline]
fn add(queue: &mut LiveRx<'_>, block: Block) -> bool {
    match queue.add_in(block, Gfp::Atomic) {
        Ok(()) => {
            queue.state().untold = true;
            true
        }
        // The queue is broken, or gets another block the next time that it is filled.
        Err((_, block)) => {
            queue.state().pool.sub(block.size());
            queue.state().pool.keep(block);
            false
        }
    }
}

/// Gives the device a block back, if it should have it.
#[inline]
pub(crate) fn give_back(queue: &mut LiveRx<'_>, block: Block) {
    let posted = queue.posted();
    let pool = &mut queue.state().pool;
    if pool.is_current(&block, posted) {
        add(queue, block);
    } else {
        pool.sub(block.size());
        pool.keep(block);
        replace(queue);
    }
}

/// Tells the device of new buffers, if there are.
pub(crate) fn tell(queue: &mut LiveRx<'_>) {
    if core::mem::take(&mut queue.state().untold) {
        queue.kick();
    }
}
