// SPDX-License-Identifier: GPL-2.0

//! The ring of a running queue.

use crate::{
    ahead::Ahead,
    chain,
    event::need_event,
    layout,
    memory::used_bytes,
    Chain,
    Config,
    Malformed,
    RingAddr,
    RingError,
    RingMemory,
    RingSize,
    Segments,
    Translate, //
};

/// How many entries of the used ring are written at once by [`SplitRing::complete_many`].
const BATCH: usize = 16;

/// The split ring of a running queue.
///
/// It exists only while the queue runs: [`new`](Self::new) starts it, and dropping it stops it.
/// What survives is [`vring_base`](Self::vring_base).
///
/// # Context
///
/// The caller serialises all methods (`&mut`), i.e. holds the lock of the queue. They may sleep if
/// the [`RingMemory`] does.
///
/// # Errors
///
/// If a method fails, the ring has not moved: what it was about to do may or may not be visible to
/// the driver, and the caller is expected to mark the queue broken.
///
/// # Examples
///
/// ```
/// # use vring::*;
/// fn run<M: RingMemory, T: Translate, S: Segments>(
///     ring: &mut SplitRing,
///     mem: &M,
///     table: &T,
///     segments: &mut S,
/// ) -> Result<bool, RingError<M::Error, T::Error>> {
///     ring.disable_notify(mem).map_err(RingError::widen)?;
///     loop {
///         while let Some(chain) = ring.pop(mem, table, segments)? {
///             let written = 0; // Read or write the segments.
///             ring.complete(mem, chain, written).map_err(RingError::widen)?;
///         }
///         if !ring.enable_notify(mem).map_err(RingError::widen)? {
///             break;
///         }
///         ring.disable_notify(mem).map_err(RingError::widen)?;
///     }
///     ring.should_signal(mem).map_err(RingError::widen)
/// }
/// ```
///
/// # Invariants
///
/// - All parts of the ring end below the end of the address space.
/// - `avail_idx - last_avail_idx` and `staged` are at most the number of entries.
#[doc(alias = "vhost_virtqueue")]
#[derive(Debug)]
pub struct SplitRing {
    config: Config,
    /// The available index when it was last read.
    avail_idx: u16,
    /// The available index of the next chain to take.
    last_avail_idx: u16,
    /// The used index that the driver sees.
    last_used_idx: u16,
    /// How many entries behind `last_used_idx` are written but not yet visible.
    staged: u16,
    /// The used index when the driver was last considered for a signal; [`None`] if there was no
    /// such time, or it is too long ago for a comparison.
    signalled_used: Option<u16>,
    /// Whether the driver is asked to notify us.
    notify: bool,
    /// What was read of chains that were not taken yet. The position of the ring does not tell of
    /// it.
    ahead: Ahead,
}

impl SplitRing {
    /// Starts the ring: tells the driver to notify us, and continues where the used ring stands.
    ///
    /// The driver may have made buffers available before; nobody notifies us of these. The caller
    /// looks at the ring once after this.
    ///
    /// # Errors
    ///
    /// - [`Malformed::RingAddress`] if a part of the ring goes beyond the last address;
    /// - [`RingError::Memory`] if the used ring is not accessible.
    #[doc(alias = "vhost_vq_init_access")]
    pub fn new<M: RingMemory>(config: Config, mem: &M) -> Result<Self, RingError<M::Error>> {
        if !config.fits() {
            return Err(Malformed::RingAddress.into());
        }
        // INVARIANT: The addresses were just checked, and the differences are zero.
        let mut ring = Self {
            config,
            avail_idx: config.base,
            last_avail_idx: config.base,
            last_used_idx: 0,
            staged: 0,
            signalled_used: None,
            notify: true,
            ahead: Ahead::new(),
        };
        ring.write_used_flags(mem)?;
        if config.event_idx {
            ring.write_avail_event(mem)?;
        }
        ring.last_used_idx = ring.read_u16(mem, ring.used_at(layout::IDX_OFFSET))?;
        Ok(ring)
    }

    /// The configuration that the ring was started with.
    #[inline]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The number of entries.
    #[inline]
    pub const fn size(&self) -> RingSize {
        self.config.size
    }

    /// The available index of the next chain: where another device can continue after this one has
    /// completed all chains that it took.
    #[doc(alias = "VHOST_GET_VRING_BASE")]
    #[inline]
    pub const fn vring_base(&self) -> u16 {
        self.last_avail_idx
    }

    /// Continues at another available index. No chain may be outstanding.
    #[doc(alias = "VHOST_SET_VRING_BASE")]
    pub fn set_vring_base(&mut self, base: u16) {
        self.last_avail_idx = base;
        self.avail_idx = base;
        self.ahead.forget();
    }

    /// The used index that the driver sees.
    #[inline]
    pub const fn last_used_idx(&self) -> u16 {
        self.last_used_idx
    }

    /// Whether the driver was asked to notify us.
    #[inline]
    pub const fn is_notify_enabled(&self) -> bool {
        self.notify
    }

    /// How many chains are known to wait, without a look at the ring.
    #[inline]
    pub const fn known_pending(&self) -> u16 {
        self.avail_idx.wrapping_sub(self.last_avail_idx)
    }

    /// Takes the next chain, if there is one, and puts its segments into `out`.
    ///
    /// Several chains may be outstanding, and be completed in any order.
    ///
    /// Zero-length descriptors are counted as descriptors but have no segments: a chain may have
    /// none at all.
    ///
    /// # Errors
    ///
    /// The chain is not acceptable, or it could not be read. It was not taken: the next call would
    /// find it again. `out` contains what was found so far.
    #[doc(alias = "vhost_get_vq_desc")]
    pub fn pop<M: RingMemory, T: Translate, S: Segments>(
        &mut self,
        mem: &M,
        table: &T,
        out: &mut S,
    ) -> Result<Option<Chain>, RingError<M::Error, T::Error>> {
        out.clear();
        // As `has()` does it, which costs more here.
        if self.known_pending() == 0 {
            self.read_avail_idx(mem).map_err(RingError::widen)?;
            if self.known_pending() == 0 {
                return Ok(None);
            }
        }

        let position = self.last_avail_idx;
        match self.read_chain(mem, table, position, out) {
            Ok(mut chain) => {
                chain.position = position;
                // INVARIANT: `avail_idx` was different.
                self.last_avail_idx = position.wrapping_add(1);
                Ok(Some(chain))
            }
            Err(error) => {
                // Next time it is read as it then is.
                self.ahead.forget();
                Err(error)
            }
        }
    }

    /// Reads the chain at an available index, of which there is at least one.
    #[inline(always)]
    fn read_chain<M: RingMemory, T: Translate, S: Segments>(
        &mut self,
        mem: &M,
        table: &T,
        position: u16,
        out: &mut S,
    ) -> Result<Chain, RingError<M::Error, T::Error>> {
        let pending = self.known_pending();
        let head = self.ahead.head(mem, &self.config, position, pending);
        let head = self.config.endian.u16(head.map_err(RingError::Memory)?);
        if head >= self.size().get() {
            return Err(Malformed::Head.into());
        }
        chain::walk(mem, table, &self.config, &mut self.ahead, head, out)
    }

    /// Gives back the chain that was taken last: the next [`pop`](Self::pop) finds it again, with
    /// the contents that it then has.
    ///
    /// # Errors
    ///
    /// Returns the chain if it is not the one that was taken last, or if the driver has made more
    /// available in the meantime than the ring has room for.
    #[doc(alias = "vhost_discard_vq_desc")]
    pub fn unpop(&mut self, chain: Chain) -> Result<(), Chain> {
        if self.untake(chain.position) {
            Ok(())
        } else {
            Err(chain)
        }
    }

    /// Makes the chain available again that was taken from `position`, if it was the last one and
    /// there is room for it; says whether it is.
    #[cold]
    fn untake(&mut self, position: u16) -> bool {
        let is_last = position == self.last_avail_idx.wrapping_sub(1);
        if !is_last || self.known_pending() >= self.size().get() {
            return false;
        }
        // INVARIANT: The difference was less than the number of entries.
        self.last_avail_idx = position;
        self.ahead.forget();
        true
    }

    /// Returns a chain to the driver, of which the first `written` writable bytes were written.
    ///
    /// A larger value than [`Chain::writable_len`] is cut to that.
    ///
    /// The driver sees it at once, and everything that was written to the buffers before; it is
    /// not signalled: see [`should_signal`](Self::should_signal).
    ///
    /// # Errors
    ///
    /// The used ring is not accessible; the chain is available again if it was the last one that
    /// was taken, and lost otherwise.
    #[doc(alias = "vhost_add_used")]
    pub fn complete<M: RingMemory>(
        &mut self,
        mem: &M,
        chain: Chain,
        written: u32,
    ) -> Result<(), RingError<M::Error>> {
        if self.staged != 0 {
            self.stage(mem, chain, written)?;
            return self.publish(mem);
        }
        let old = self.last_used_idx;
        let new = old.wrapping_add(1);
        let offset = layout::used_offset(self.size().mask(old));
        let position = chain.position;
        let elem = self.used_elem(chain, written);
        let index = self.config.endian.u16(new);
        if let Err(error) = mem.put_used(self.config.used, offset, elem, index) {
            self.untake(position);
            return Err(RingError::Memory(error));
        }
        self.used_moved(new);
        Ok(())
    }

    /// Like [`complete`](Self::complete), but the driver does not see it before
    /// [`publish`](Self::publish): one store of the index serves several chains.
    ///
    /// The caller publishes before it asks [`should_signal`](Self::should_signal), before it sleeps
    /// and before the ring is stopped.
    ///
    /// # Errors
    ///
    /// The used ring is not accessible; the chain is lost.
    pub fn stage<M: RingMemory>(
        &mut self,
        mem: &M,
        chain: Chain,
        written: u32,
    ) -> Result<(), RingError<M::Error>> {
        if self.staged >= self.size().get() {
            self.publish(mem)?;
        }
        let at = self.used_at(layout::used_offset(self.next_used_slot()));
        mem.write_used(at, used_bytes(self.used_elem(chain, written)))
            .map_err(RingError::Memory)?;
        mem.note_write(at, 8);
        // INVARIANT: It was less than the number of entries.
        self.staged = self.staged.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver all chains that were [staged](Self::stage).
    ///
    /// # Errors
    ///
    /// The used ring is not accessible.
    pub fn publish<M: RingMemory>(&mut self, mem: &M) -> Result<(), RingError<M::Error>> {
        if self.staged == 0 {
            return Ok(());
        }
        let old = self.last_used_idx;
        let new = old.wrapping_add(self.staged);
        // The entries, and what the caller wrote to the buffers, come before the index.
        mem.write_barrier();
        self.write_u16(mem, self.used_at(layout::IDX_OFFSET), new)?;
        self.staged = 0;
        self.used_moved(new);
        Ok(())
    }

    /// The driver sees another used index.
    #[inline]
    fn used_moved(&mut self, new: u16) {
        let old = core::mem::replace(&mut self.last_used_idx, new);
        // If the index overtakes the one of the last signal, it went around: the two cannot be
        // compared any more, and the next question must be answered with "yes".
        self.signalled_used = self
            .signalled_used
            .filter(|signalled| new.wrapping_sub(*signalled) >= new.wrapping_sub(old));
    }

    /// Returns several chains to the driver, each with the number of bytes that were written.
    ///
    /// The driver sees them all at the same time, unless they are more than the ring has entries.
    ///
    /// # Errors
    ///
    /// The used ring is not accessible; all chains that were not seen by the driver yet are lost.
    #[doc(alias = "vhost_add_used_n")]
    pub fn complete_many<M: RingMemory>(
        &mut self,
        mem: &M,
        chains: impl IntoIterator<Item = (Chain, u32)>,
    ) -> Result<(), RingError<M::Error>> {
        let mut elems = [[0; 8]; BATCH];
        let mut chains = chains.into_iter();
        loop {
            if self.staged >= self.size().get() {
                self.publish(mem)?;
            }
            // Entries up to the end of the ring can be written at once.
            let slot = self.next_used_slot();
            let room = self
                .size()
                .get()
                .wrapping_sub(slot)
                .min(self.size().get().wrapping_sub(self.staged));
            let mut filled = 0_u16;
            for (elem, (chain, written)) in elems.iter_mut().take(room.into()).zip(chains.by_ref())
            {
                *elem = used_bytes(self.used_elem(chain, written));
                filled = filled.wrapping_add(1);
            }
            let Some(batch) = elems.get(..filled.into()).filter(|batch| !batch.is_empty()) else {
                return self.publish(mem);
            };
            let at = self.used_at(layout::used_offset(slot));
            mem.write_used_many(at, batch).map_err(RingError::Memory)?;
            mem.note_write(at, u32::from(filled).wrapping_mul(8));
            // INVARIANT: `filled` was limited to what is left of the ring.
            self.staged = self.staged.wrapping_add(filled);
        }
    }

    /// Asks the driver not to notify us.
    ///
    /// It may do so all the same. With `VIRTIO_F_EVENT_IDX` nothing is written: the driver notifies
    /// at most once, when the index passes the one that it was told before.
    ///
    /// # Errors
    ///
    /// The used ring is not accessible; nothing has changed.
    #[doc(alias = "vhost_disable_notify")]
    pub fn disable_notify<M: RingMemory>(&mut self, mem: &M) -> Result<(), RingError<M::Error>> {
        if !self.notify {
            return Ok(());
        }
        self.notify = false;
        if self.config.event_idx {
            return Ok(());
        }
        self.write_used_flags(mem)
            .inspect_err(|_| self.notify = true)
    }

    /// Asks the driver to notify us of the next chain that it makes available.
    ///
    /// Returns `true` if there is a chain already, of which the driver may not notify us any more:
    /// the caller has to [`pop`](Self::pop) again, now or at a later time that does not depend on
    /// the driver.
    ///
    /// Can be called again at any time; after [`pop`](Self::pop) with notifications enabled it has
    /// to be.
    ///
    /// # Errors
    ///
    /// The ring is not accessible, or [`Malformed::AvailIndex`]. It can be called again.
    #[doc(alias = "vhost_enable_notify")]
    pub fn enable_notify<M: RingMemory>(&mut self, mem: &M) -> Result<bool, RingError<M::Error>> {
        let was = core::mem::replace(&mut self.notify, true);
        if self.config.event_idx {
            self.write_avail_event(mem)?;
        } else if !was {
            self.write_used_flags(mem)
                .inspect_err(|_| self.notify = false)?;
        }
        // The driver stores the index, then looks whether to notify; we do it the other way around.
        // One of us sees what the other one wrote.
        mem.full_barrier();
        self.read_avail_idx(mem)?;
        Ok(self.known_pending() != 0)
    }

    /// Whether the driver wants to be signalled now, about all that was completed since the last
    /// call.
    ///
    /// Staged chains are published first.
    ///
    /// # Errors
    ///
    /// The ring is not accessible. C signals in this case.
    #[doc(alias = "vhost_notify")]
    pub fn should_signal<M: RingMemory>(&mut self, mem: &M) -> Result<bool, RingError<M::Error>> {
        self.publish(mem)?;
        // The driver stores what it wants, then looks at the used index; we do it the other way
        // around. One of us sees what the other one wrote.
        mem.full_barrier();
        if self.config.notify_on_empty && self.known_pending() == 0 {
            return Ok(true);
        }
        if !self.config.event_idx {
            let flags = self.read_u16(mem, self.avail_at(layout::FLAGS_OFFSET))?;
            return Ok(flags & layout::AVAIL_F_NO_INTERRUPT == 0);
        }

        let new = self.last_used_idx;
        let Some(old) = self.signalled_used.replace(new) else {
            return Ok(true);
        };
        let at = self.avail_at(layout::used_event_offset(self.size()));
        let event = self.read_u16(mem, at)?;
        Ok(need_event(event, new, old))
    }

    /// Whether there is no chain to take.
    ///
    /// # Errors
    ///
    /// The ring is not accessible, or [`Malformed::AvailIndex`]. C answers "not empty" in this
    /// case.
    #[doc(alias = "vhost_vq_avail_empty")]
    pub fn is_empty<M: RingMemory>(&mut self, mem: &M) -> Result<bool, RingError<M::Error>> {
        Ok(!self.has(mem, 1)?)
    }

    /// Whether there are `count` chains to take, at least.
    ///
    /// # Errors
    ///
    /// As for [`is_empty`](Self::is_empty).
    #[inline]
    pub fn has<M: RingMemory>(&mut self, mem: &M, count: u16) -> Result<bool, RingError<M::Error>> {
        if self.known_pending() < count {
            self.read_avail_idx(mem)?;
        }
        Ok(self.known_pending() >= count)
    }

    /// Reads the available index, and orders the read against those of what it makes available.
    #[doc(alias = "vhost_get_avail_idx")]
    #[inline]
    fn read_avail_idx<M: RingMemory>(&mut self, mem: &M) -> Result<(), RingError<M::Error>> {
        let index = self.read_u16(mem, self.avail_at(layout::IDX_OFFSET))?;
        let pending = index.wrapping_sub(self.last_avail_idx);
        // What is available cannot be withdrawn, either.
        if pending > self.size().get() || pending < self.known_pending() {
            return Err(Malformed::AvailIndex.into());
        }
        if index != self.avail_idx {
            // INVARIANT: `pending` was just checked.
            self.avail_idx = index;
            mem.read_barrier();
            self.ahead.index_moved();
        }
        Ok(())
    }

    #[inline]
    fn write_used_flags<M: RingMemory>(&self, mem: &M) -> Result<(), RingError<M::Error>> {
        let flags = if self.notify {
            0
        } else {
            layout::USED_F_NO_NOTIFY
        };
        self.write_u16(mem, self.used_at(layout::FLAGS_OFFSET), flags)
    }

    #[inline]
    fn write_avail_event<M: RingMemory>(&self, mem: &M) -> Result<(), RingError<M::Error>> {
        let at = self.used_at(layout::avail_event_offset(self.size()));
        self.write_u16(mem, at, self.avail_idx)
    }

    /// The place of the next entry of the used ring.
    #[inline]
    fn next_used_slot(&self) -> u16 {
        self.size()
            .mask(self.last_used_idx.wrapping_add(self.staged))
    }

    /// The halves of the entry of the used ring for a chain, in memory order.
    #[inline]
    fn used_elem(&self, chain: Chain, written: u32) -> [u32; 2] {
        let endian = self.config.endian;
        [
            endian.u32(chain.head.into()),
            endian.u32(written.min(chain.writable_len)),
        ]
    }

    // By the type invariant, the following addresses do not wrap as long as the offset is one of
    // `layout`.

    #[inline]
    fn avail_at(&self, offset: u64) -> RingAddr {
        self.config.avail.offset(offset)
    }

    #[inline]
    fn used_at(&self, offset: u64) -> RingAddr {
        self.config.used.offset(offset)
    }

    #[inline]
    fn read_u16<M: RingMemory>(&self, mem: &M, at: RingAddr) -> Result<u16, RingError<M::Error>> {
        let raw = mem.read_u16(at).map_err(RingError::Memory)?;
        Ok(self.config.endian.u16(raw))
    }

    #[inline]
    fn write_u16<M: RingMemory>(
        &self,
        mem: &M,
        at: RingAddr,
        value: u16,
    ) -> Result<(), RingError<M::Error>> {
        mem.write_u16(at, self.config.endian.u16(value))
            .map_err(RingError::Memory)?;
        mem.note_write(at, 2);
        Ok(())
    }
}
