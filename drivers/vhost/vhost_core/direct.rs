// SPDX-License-Identifier: GPL-2.0

//! Work on a queue by whoever has something for it, in any process.
//!
//! The worker has the owner's memory by its address space, and may wait. Others need neither, as
//! long as what they touch is [mapped](crate::mapped) for the kernel. Where that does not do, the
//! worker is there: nothing is decided here that it would not decide.

use crate::{
    chain::{
        Active,
        Broken,
        Chain, //
    },
    mapped::MappedRing,
    virtqueue::Virtqueue, //
};
use kernel::{
    iov::IovIterSource,
    prelude::*, //
};

/// A queue that runs, locked by a thread that has what is mapped only.
pub type MappedActive<'a> = Active<'a, MappedRing<'a>>;

/// Why a queue cannot be worked on by others than its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// Somebody else does.
    Busy,
    /// It is not running, or not all of the ring is mapped.
    Unmapped,
}

/// What there is in a ring.
pub enum Next<'g, 'a> {
    /// A chain.
    Chain(Chain<'g, 'a, MappedRing<'a>>),
    /// None. The driver was asked to kick, and the work of the queue will be queued when there is
    /// one: what waits for that is to be where the work finds it before the queue is unlocked.
    None,
    /// Only the worker can tell, which has to be asked: see [`Virtqueue::queue_work`].
    Worker,
}

impl Virtqueue {
    /// Works on the chains of the queue as [`run`](Self::run) does, if that needs no waiting for
    /// anybody: calls `work` with the queue locked.
    ///
    /// Context: process context, of any process. Does not sleep, and neither may `work`, which runs
    /// with a spinlock held. Locks may be held, that of this queue excepted.
    ///
    /// # Errors
    ///
    /// `work` was not called.
    pub fn try_run<R>(
        &self,
        work: impl FnOnce(&mut MappedActive<'_>) -> R,
    ) -> core::result::Result<R, NotNow> {
        let mut inner = self.try_lock_inner().ok_or(NotNow::Busy)?;
        let parts = inner.mapped_parts().ok_or(NotNow::Unmapped)?;
        let (ret, signal) = {
            let mut active = Active::new(self, parts, false);
            let ret = work(&mut active);
            // All of the ring that is written was mapped, and stays so for the time of the run: no
            // chain was lost. Whether the queue is Broken is for the worker, which finds the ring
            // as it is: what belongs to a queue that runs cannot be dropped here, as that sleeps.
            let (signal, _) = active.end();
            (ret, signal)
        };
        if let Some(call) = inner.call.as_ref().filter(|_| signal) {
            call.signal();
        }
        Ok(ret)
    }
}

impl<'a> MappedActive<'a> {
    /// Takes the next chain, if that can be done with what is mapped, and the chain is not longer
    /// than [`MappedRing::MAX_DESCRIPTORS`].
    ///
    /// Context: does not sleep.
    ///
    /// # Errors
    ///
    /// The ring is not acceptable: the worker has to be asked, as for [`Next::Worker`].
    #[inline]
    pub fn pop(&mut self) -> core::result::Result<Next<'_, 'a>, Broken> {
        loop {
            self.memory().begin_chain();
            // The ring has not moved in case of an error: the worker finds the same.
            match self.take_next() {
                Ok(Some(())) => return Ok(Next::Chain(Chain::of(self))),
                Ok(None) => {
                    if !self.enable_notify()? {
                        return Ok(Next::None);
                    }
                    // There is one now, of which we may not be told. It is taken, as it is known
                    // to be there whatever the driver says next: this goes around once.
                    self.disable_notify()?;
                }
                Err(_) => return Ok(Next::Worker),
            }
        }
    }
}

impl<'a> Chain<'_, 'a, MappedRing<'a>> {
    /// Copies `len` bytes of a user of this machine to what the device may write, behind the first
    /// `offset` bytes.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it did not take all of it, or the user's memory is not there at this moment. The
    /// position of `source` is anywhere then.
    pub fn write_from(
        &mut self,
        offset: usize,
        source: &mut IovIterSource<'_>,
        len: usize,
    ) -> Result {
        let (mem, buffers) = self.writable();
        mem.write_from(buffers, offset, source, len)
    }
}
