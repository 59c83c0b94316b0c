// SPDX-License-Identifier: GPL-2.0

//! How the memory of a ring, and of the buffers in it, is reached.
//!
//! There is more than one way: a thread in the address space of the owner uses user accesses, which
//! may fault and hence sleep; any other thread what is mapped for the kernel. The work on the
//! chains is the same.

use kernel::prelude::*;
use kernel_ext::{
    skb::SkBuff,
    user_iov::UserIov, //
};
use vring::RingMemory;

/// The ring, and lists of buffers.
///
/// As for the ring, the driver reads and writes the buffers at any time: an implementation copies,
/// and hands out no reference.
pub trait Reach: RingMemory<Error = Error> {
    /// Whether the thread may sleep.
    const MAY_SLEEP: bool;

    /// Copies bytes of `buffers`, without the first `offset`, until `out` is full.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all there.
    fn read_buffers(&self, buffers: &UserIov, offset: usize, out: &mut [u8]) -> Result;

    /// Copies `data` to `buffers`, behind the first `offset` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they did not take all of it; a part may have been written.
    fn write_buffers(&self, buffers: &UserIov, offset: usize, data: &[u8]) -> Result;

    /// Copies `len` bytes of the payload of `skb`, from `from` on, to `buffers`, behind the first
    /// `offset` bytes.
    ///
    /// # Errors
    ///
    /// As [`write_buffers`](Self::write_buffers), and if there is not as much.
    fn write_skb<C>(
        &self,
        buffers: &UserIov,
        offset: usize,
        skb: &SkBuff<C>,
        from: usize,
        len: usize,
    ) -> Result;

    /// Logs the first `len` bytes of `buffers`, as what was written.
    fn log_buffers(&self, buffers: &UserIov, len: usize);
}
