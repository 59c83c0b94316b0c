// SPDX-License-Identifier: GPL-2.0

//! The dirty log: which pages of the guest the device wrote, for live migration.
//!
//! User space gives a bitmap with a bit for each 4 KiB of guest memory ([`SET_LOG_BASE`]), and
//! copies the pages whose bits are set while the guest runs. What is not logged is lost, so
//! *everything* that the device writes is: the used ring with its flags and its event index, if the
//! ring was configured so, and all bytes of buffers with `VHOST_F_LOG_ALL`.
//!
//! Buffers are logged by where they are for the owner, under every guest address that this memory
//! has: it may be in the table more than once, and with an IOTLB there is no other way.
//!
//! A log that cannot be written, because user space unmapped it, stops nothing: it is counted, and
//! shown in `fdinfo`.
//!
//! # Ownership
//!
//! Each queue has a [`Log`] of its own, protected by its lock. Bits are set by those who write to
//! the memory, in the owner's address space, after they wrote and before they give up the lock of
//! the queue: a queue that is stopped has logged all that it wrote.
//!
//! [`SET_LOG_BASE`]: crate::uapi::SET_LOG_BASE

use crate::memory::MemTable;
use core::cell::Cell;
use kernel::{
    prelude::*,
    sync::{
        barrier::{
            smp_mb,
            Write, //
        },
        Arc, //
    },
};
use kernel_ext::{
    eventfd::EventFd,
    owner_mm::{
        InOwnerMm,
        OwnerAddr, //
    }, //
};
use vring::{
    dirty,
    Gpa,
    UserAddr, //
};

/// Where a queue logs what it writes.
pub(crate) struct Log {
    /// Where the bitmap is; it need not be there as long as nothing is to be logged.
    pub(crate) base: UserAddr,
    /// To be signalled after something was logged.
    pub(crate) fd: Option<Arc<EventFd>>,
    /// The guest address of the used ring, if writes to it are to be logged. It has no meaning with
    /// an IOTLB, which knows where the ring is.
    pub(crate) used: Option<Gpa>,
    /// How often something could not be logged.
    errors: Cell<u64>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            base: UserAddr(0),
            fd: None,
            used: None,
            errors: Cell::new(0),
        }
    }

    /// How often something could not be logged.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.get()
    }

    /// Logs an area that was written, by its guest address.
    #[doc(alias = "log_write")]
    pub(crate) fn guest_area(&self, mm: &InOwnerMm, at: Gpa, len: u64) {
        // What was written is seen by whoever sees the bit.
        smp_mb(Write);
        let logged = match dirty::words(self.base, at, len) {
            Some(mut words) => words.try_for_each(|(word, bits)| {
                let word = OwnerAddr::from_u64(word.0).ok_or(EFAULT)?;
                mm.or_u32(word, bits)
            }),
            None => Err(EFAULT),
        };
        if logged.is_err() {
            self.failed();
        }
    }

    /// Logs an area that was written, by its address for the owner.
    #[doc(alias = "log_write_hva")]
    pub(crate) fn owner_area(&self, mm: &InOwnerMm, memory: &MemTable, at: UserAddr, len: u64) {
        let mut logged = 0_u64;
        for (guest, part) in memory.regions().guest_areas(at, len) {
            self.guest_area(mm, guest, part);
            logged = logged.saturating_add(part);
        }
        // With an IOTLB there may be memory that the guest cannot see otherwise.
        if logged < len {
            self.failed();
        }
    }

    fn failed(&self) {
        self.errors.set(self.errors.get().saturating_add(1));
    }

    /// Tells user space that something was logged.
    #[inline]
    pub(crate) fn signal(&self) {
        if let Some(fd) = &self.fd {
            fd.signal();
        }
    }
}
