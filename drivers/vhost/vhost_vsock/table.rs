// SPDX-License-Identifier: GPL-2.0

//! Which device has which CID.
//!
//! Readers, on the path of each packet, take no lock: a bucket is a list that is walked under RCU.
//! Several devices may have the same CID, in namespaces that do not reach each other.
//!
//! # Lock order
//!
//! The lock of a device's membership < the lock of a bucket, of which no two are held together.

use crate::device::VhostVsock;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        rcu,
        Arc,
        ArcBorrow,
        Mutex, //
    },
};
use kernel_ext::{
    net::Net,
    rcu::RcuSlot, //
};
use vsock_proto::addr::{
    Cid,
    GuestCid, //
};

/// The table, from the beginning to the end of the module.
static TABLE: RcuSlot<Table> = RcuSlot::new();

/// Number of buckets, a power of two.
const BUCKETS: u32 = 256;

/// An entry of the table: a device that has a CID.
struct Node {
    cid: GuestCid,
    device: Arc<VhostVsock>,
    /// The next one of the bucket. It stays as it is after the node left the bucket, for readers
    /// that are still there.
    next: RcuSlot<Node>,
}

impl Node {
    fn is_for(&self, cid: Cid, net: Option<&Net>) -> bool {
        self.cid.get() == cid && Net::reachable(net, Some(self.device.net()))
    }

    fn is(&self, cid: GuestCid, device: *const VhostVsock) -> bool {
        self.cid == cid && core::ptr::eq(Arc::as_ptr(&self.device), device)
    }
}

#[pin_data]
struct Bucket {
    /// Held by whoever changes the list.
    #[pin]
    writers: Mutex<()>,
    first: RcuSlot<Node>,
}

/// The table of all devices.
struct Table {
    buckets: KVec<Arc<Bucket>>,
}

impl Table {
    fn new() -> Result<Self> {
        let mut buckets = KVec::with_capacity(BUCKETS as usize, GFP_KERNEL)?;
        for _ in 0..BUCKETS {
            let bucket = Arc::pin_init(
                pin_init!(Bucket {
                    writers <- new_mutex!((), "vhost_vsock::Bucket::writers"),
                    first: RcuSlot::new(),
                }),
                GFP_KERNEL,
            )?;
            buckets.push_within_capacity(bucket).map_err(|_| ENOMEM)?;
        }
        Ok(Self { buckets })
    }

    #[inline]
    fn bucket(&self, cid: Cid) -> Option<&Arc<Bucket>> {
        // CIDs are mostly given out one after the other.
        let index = cid.get() & BUCKETS.wrapping_sub(1);
        // CAST: Less than the number of buckets.
        self.buckets.get(index as usize)
    }

    #[inline]
    fn find<'g>(
        &self,
        cid: Cid,
        net: Option<&Net>,
        guard: &'g rcu::Guard,
    ) -> Option<ArcBorrow<'g, Node>> {
        let mut next = self.bucket(cid)?.first.load(guard);
        while let Some(node) = next {
            if node.is_for(cid, net) {
                return Some(node);
            }
            next = node.next.load(guard);
        }
        None
    }
}

/// Puts the table in its place; dropping it takes it away, when there are no more devices.
pub(crate) struct Published;

impl Published {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        drop(TABLE.swap(Some(Arc::new(Table::new()?, GFP_KERNEL)?)));
        Ok(Self)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        drop(TABLE.swap(None));
    }
}

/// Does something with the device that has a CID, as seen from a namespace.
///
/// `None` as the namespace stands for somebody who knows of none, and counts as global.
///
/// Context: any; `f` must not sleep.
#[doc(alias = "vhost_vsock_get")]
#[inline]
pub(crate) fn with_device<R>(
    cid: Cid,
    net: Option<&Net>,
    f: impl FnOnce(&VhostVsock) -> R,
) -> Option<R> {
    let guard = rcu::read_lock();
    let node = TABLE.load(&guard)?.find(cid, net, &guard)?;
    Some(f(&node.device))
}

/// That a device has a CID; dropping it gives the CID up.
///
/// After the drop nobody finds the device by that CID, or is still using it because of that.
pub(crate) struct Membership {
    bucket: Arc<Bucket>,
    cid: GuestCid,
    /// Only compared.
    device: DeviceId,
}

/// Why a device did not get a CID.
pub(crate) enum Refused {
    /// Another one has it.
    InUse(Arc<VhostVsock>),
    Other(Error),
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(err: E) -> Self {
        Self::Other(err.into())
    }
}

/// The address of a device, as a name.
#[derive(Clone, Copy)]
struct DeviceId(usize);

impl DeviceId {
    fn ptr(self) -> *const VhostVsock {
        core::ptr::without_provenance(self.0)
    }
}

impl Membership {
    /// Gives a device a CID.
    ///
    /// Context: sleeps.
    ///
    /// # Errors
    ///
    /// The other device if there is one that has the CID and can be reached from the same
    /// namespaces; `ENOMEM`.
    pub(crate) fn new(
        device: &Arc<VhostVsock>,
        cid: GuestCid,
    ) -> core::result::Result<Self, Refused> {
        let table = TABLE.get().ok_or(ENODEV)?;
        let bucket = table.bucket(cid.get()).ok_or(EINVAL)?.clone();
        let node = Arc::new(
            Node {
                cid,
                device: device.clone(),
                next: RcuSlot::new(),
            },
            GFP_KERNEL_ACCOUNT,
        )?;

        {
            let _writer = bucket.writers.lock();
            let taken = {
                let guard = rcu::read_lock();
                let node = table.find(cid.get(), Some(device.net()), &guard);
                node.map(|node| node.device.clone())
            };
            if let Some(other) = taken {
                return Err(Refused::InUse(other));
            }
            if let Some(first) = bucket.first.get() {
                drop(node.next.swap(Some(first)));
            }
            drop(bucket.first.swap(Some(node)));
        }
        Ok(Self {
            bucket,
            cid,
            device: DeviceId(Arc::as_ptr(device).addr()),
        })
    }

    /// The CID.
    pub(crate) fn cid(&self) -> GuestCid {
        self.cid
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let _writer = self.bucket.writers.lock();
        let mut prev: Option<Arc<Node>> = None;
        loop {
            let slot = prev.as_ref().map_or(&self.bucket.first, |node| &node.next);
            let Some(node) = slot.get() else {
                return;
            };
            if node.is(self.cid, self.device.ptr()) {
                // Readers are gone from `node` when this returns.
                drop(slot.swap(node.next.get()));
                return;
            }
            prev = Some(node);
        }
    }
}
