// SPDX-License-Identifier: GPL-2.0

//! The workers of a device.
//!
//! All of a device's queues begin with the worker that comes with the owner. User space may create
//! more, and attach queues to them: the two directions of a device can run on two processors then.
//!
//! The lock of the device protects the list, and what the slots of the queues refer to.

use crate::worker::{
    Flavour,
    Worker,
    Works, //
};
use kernel::{
    prelude::*,
    rbtree::RBTree,
    sync::Arc, //
};
use kernel_ext::owner_mm::OwnerMm;

/// Returns the device, for a worker that is about to be created.
pub type NewWorker<'a> = &'a dyn Fn() -> Arc<dyn Works>;

/// The workers by their numbers.
pub(crate) struct Workers(RBTree<u32, Arc<Worker>>);

impl Workers {
    pub(crate) fn new() -> Self {
        Self(RBTree::new())
    }

    /// The lowest number that no worker has.
    fn free_id(&self) -> u32 {
        let mut free = 0_u32;
        for id in self.0.keys() {
            if *id != free {
                break;
            }
            // More threads than there are numbers do not exist.
            free = free.saturating_add(1);
        }
        free
    }

    /// Starts a worker.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn create(
        &mut self,
        flavour: Flavour,
        device: NewWorker<'_>,
        mm: &OwnerMm,
    ) -> Result<Arc<Worker>> {
        let id = self.free_id();
        let worker = Arc::new(Worker::new(id, flavour, device(), mm)?, GFP_KERNEL_ACCOUNT)?;
        drop(
            self.0
                .try_create_and_insert(id, worker.clone(), GFP_KERNEL_ACCOUNT)?,
        );
        Ok(worker)
    }

    pub(crate) fn get(&self, id: u32) -> Result<&Arc<Worker>> {
        self.0.get(&id).ok_or(ENODEV)
    }

    /// Stops a worker, which no slot refers to.
    pub(crate) fn remove(&mut self, id: u32) {
        drop(self.0.remove(&id));
    }
}
