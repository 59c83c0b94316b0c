// SPDX-License-Identifier: GPL-2.0

//! The memory of a ring, and of its buffers, through windows only.

use crate::reach::Reach;
use core::cell::Cell;
use kernel::{
    iov::IovIterSource,
    prelude::*,
    sync::barrier::{
        smp_mb,
        Full,
        Read,
        Write, //
    }, //
};
use kernel_ext::{
    owner_mm::OwnerAddr,
    skb::SkBuff,
    user_iov::UserIov,
    window::{
        Reading,
        Windows, //
    }, //
};
use vring::{
    layout,
    memory::RawDesc,
    Config,
    RingAddr,
    RingMemory,
    UserAddr, //
};

/// A ring for a thread in any address space.
///
/// What has no window is `EAGAIN`: the worker knows what to do. All of the ring but descriptors has
/// one.
///
/// Context: there is a spinlock held, that of the windows.
pub struct MappedRing<'a> {
    reading: Reading<'a>,
    /// How many descriptors may yet be read for a chain.
    descriptors: Cell<usize>,
}

impl<'a> MappedRing<'a> {
    /// The most descriptors that are read for a chain: a driver that makes longer ones pays for it
    /// with its worker's time.
    pub const MAX_DESCRIPTORS: usize = 64;

    /// Begins a read section, in which nothing fails that is written to the ring, and no index that
    /// is read; `None` if some of that has no window.
    pub(crate) fn new(windows: &'a Windows, config: &Config) -> Option<Self> {
        let reading = windows.read();
        // CAST: Less than a megabyte.
        let avail = layout::avail_bytes(config.size, config.event_idx) as usize;
        // CAST: As above.
        let used = layout::used_bytes(config.size, config.event_idx) as usize;
        let covered = reading.covers(OwnerAddr::from_u64(config.avail.0)?, avail)
            && reading.covers(OwnerAddr::from_u64(config.used.0)?, used);
        covered.then_some(Self {
            reading,
            descriptors: Cell::new(0),
        })
    }

    /// Begins with the next chain.
    #[inline]
    pub(crate) fn begin_chain(&self) {
        self.descriptors.set(Self::MAX_DESCRIPTORS);
    }

    /// # Errors
    ///
    /// `EAGAIN` if the chain is too long.
    #[inline]
    fn spend(&self, descriptors: usize) -> Result {
        let left = self.descriptors.get().checked_sub(descriptors);
        self.descriptors.set(left.ok_or(EAGAIN)?);
        Ok(())
    }

    /// Does an access at an address of the owner.
    #[inline]
    fn access<R>(
        &self,
        at: u64,
        f: impl FnOnce(&Reading<'_>, OwnerAddr) -> Option<R>,
    ) -> Result<R> {
        OwnerAddr::from_u64(at)
            .and_then(|at| f(&self.reading, at))
            .ok_or(EAGAIN)
    }

    /// Copies `len` bytes of a user of this machine to `buffers`, behind the first `offset` bytes.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if they did not take all of it, or the user's memory is not there at this moment.
    pub(crate) fn write_from(
        &self,
        buffers: &UserIov,
        offset: usize,
        source: &mut IovIterSource<'_>,
        len: usize,
    ) -> Result {
        let reading = &self.reading;
        match reading.write_list_from_iter(buffers, offset, len, source) {
            Some(copied) if copied == len => Ok(()),
            _ => Err(EAGAIN),
        }
    }
}

impl RingMemory for MappedRing<'_> {
    type Error = Error;

    #[inline]
    fn read_u16(&self, at: RingAddr) -> Result<u16> {
        self.access(at.0, |mem, at| mem.get_u16(at))
    }

    #[inline]
    fn write_u16(&self, at: RingAddr, value: u16) -> Result {
        self.access(at.0, |mem, at| mem.put_u16(at, value))
    }

    #[inline]
    fn read_ring(&self, at: RingAddr, out: &mut [u8]) -> Result {
        self.access(at.0, |mem, at| mem.read(at, out))
    }

    #[inline]
    fn read_heads(&self, at: RingAddr, out: &mut [u16]) -> Result {
        self.read_ring(at, out.as_mut_bytes())
    }

    #[inline]
    fn read_bytes(&self, at: UserAddr, out: &mut [u8]) -> Result {
        self.spend(1)?;
        self.access(at.0, |mem, at| mem.read(at, out))
    }

    #[inline]
    fn read_ring_descs(&self, at: RingAddr, out: &mut [RawDesc]) -> Result {
        self.spend(out.len())?;
        self.read_ring(at, out.as_mut_bytes())
    }

    #[inline]
    fn read_descs(&self, at: UserAddr, out: &mut [RawDesc]) -> Result {
        self.spend(out.len())?;
        self.access(at.0, |mem, at| mem.read(at, out.as_mut_bytes()))
    }

    #[inline]
    fn put_used(&self, used: RingAddr, offset: u64, elem: [u32; 2], index: u16) -> Result {
        // CAST: An offset into a ring, which is less than a megabyte.
        let offset = offset as usize;
        self.access(used.0, |mem, used| {
            mem.put_pair(used.checked_add(offset)?, elem)?;
            smp_mb(Write);
            mem.put_u16(used.checked_add(layout::IDX_OFFSET as usize)?, index)
        })
    }

    #[inline]
    fn write_used(&self, at: RingAddr, elem: [u8; 8]) -> Result {
        self.access(at.0, |mem, at| mem.write(at, &elem))
    }

    #[inline]
    fn read_barrier(&self) {
        smp_mb(Read);
    }

    #[inline]
    fn write_barrier(&self) {
        smp_mb(Write);
    }

    #[inline]
    fn full_barrier(&self) {
        smp_mb(Full);
    }
}

impl Reach for MappedRing<'_> {
    const MAY_SLEEP: bool = false;

    #[inline]
    fn read_buffers(&self, buffers: &UserIov, offset: usize, out: &mut [u8]) -> Result {
        let read = self.reading.read_list(buffers, offset, out);
        read.ok_or(EAGAIN)
    }

    #[inline]
    fn write_buffers(&self, buffers: &UserIov, offset: usize, data: &[u8]) -> Result {
        let written = self.reading.write_list(buffers, offset, data);
        written.ok_or(EAGAIN)
    }

    #[inline]
    fn write_skb<C>(
        &self,
        buffers: &UserIov,
        offset: usize,
        skb: &SkBuff<C>,
        from: usize,
        len: usize,
    ) -> Result {
        let written = self
            .reading
            .write_list_from_skb(buffers, offset, skb, from, len);
        written.ok_or(EAGAIN)
    }

    /// Nothing is logged where there are windows.
    fn log_buffers(&self, _buffers: &UserIov, _len: usize) {}
}
