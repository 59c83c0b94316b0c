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
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use kernel_ext::{
    net::Net,
    rcu::{
        Entry,
        RcuList,
        RcuSlot,
        Retire, //
    },
};
use vsock_proto::addr::{
    Cid,
    GuestCid, //
};

/// The table, from the beginning to the end of the module.
static TABLE: RcuSlot<Table> = RcuSlot::new();

/// Number of buckets, a power of two.
const BUCKETS: u32 = 256;

/// A device that has a CID.
struct Node {
    cid: GuestCid,
    device: Arc<VhostVsock>,
}

impl Node {
    fn is_for(&self, cid: Cid, net: Option<&Net>) -> bool {
        self.cid.get() == cid && Net::reachable(net, Some(self.device.net()))
    }
}

/// The table of all devices.
struct Table {
    buckets: KVec<Arc<RcuList<Node>>>,
}

impl Table {
    fn new() -> Result<Self> {
        let mut buckets = KVec::with_capacity(BUCKETS as usize, GFP_KERNEL)?;
        for _ in 0..BUCKETS {
            let bucket = RcuList::new()?;
            buckets.push_within_capacity(bucket).map_err(|_| ENOMEM)?;
        }
        Ok(Self { buckets })
    }

    #[inline]
    fn bucket(&self, cid: Cid) -> Option<&Arc<RcuList<Node>>> {
        // CIDs are mostly given out one after the other.
        let index = cid.get() & BUCKETS.wrapping_sub(1);
        // CAST: Less than the number of buckets.
        self.buckets.get(index as usize)
    }

    #[inline]
    fn find<'g>(&self, cid: Cid, net: Option<&Net>, guard: &'g rcu::Guard) -> Option<&'g Node> {
        self.bucket(cid)?.find(guard, |node| node.is_for(cid, net))
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
pub(crate) struct Membership(Entry<Node>);

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
        let bucket = table.bucket(cid.get()).ok_or(EINVAL)?;
        let mut list = bucket.lock();
        if let Some(other) = list.find(|node| node.is_for(cid.get(), Some(device.net()))) {
            return Err(Refused::InUse(other.device.clone()));
        }
        let device = device.clone();
        Ok(Self(list.push_front(Node { cid, device })?))
    }

    /// The CID.
    pub(crate) fn cid(&self) -> GuestCid {
        self.0.value().cid
    }

    /// Gives the CID up: nobody finds the device by it any more, but some may still be using it because
    /// of that, until what is returned is dropped.
    pub(crate) fn hide(self) -> impl Retire {
        self.0.hide()
    }
}
