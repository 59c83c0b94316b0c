// SPDX-License-Identifier: GPL-2.0

//! Which device has which CID.
//!
//! Readers, on the path of each packet, take no lock: the table is read under RCU. Several devices
//! may have the same CID, in namespaces that do not reach each other.
//!
//! # Lock order
//!
//! The lock of the table is a spinlock, and comes after that of a device's membership. Nobody waits
//! for a grace period with either.

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
        RcuSlot,
        RcuTable,
        Unlinked, //
    },
};
use vsock_proto::addr::{
    Cid,
    GuestCid, //
};

/// Number of lists, a power of two.
const LISTS: usize = 256;

/// What may have a CID.
pub(crate) trait InNet: Send + Sync + 'static {
    /// The namespace that it belongs to.
    fn net(&self) -> &Net;
}

/// A device that has a CID.
pub(crate) struct Node<D: InNet> {
    cid: GuestCid,
    device: Arc<D>,
}

impl<D: InNet> Node<D> {
    /// Says whether somebody in a namespace finds the device.
    fn is_for(&self, net: Option<&Net>) -> bool {
        Net::reachable(net, Some(self.device.net()))
    }
}

/// The devices by their CIDs, from the beginning to the end of the module.
pub(crate) struct CidTable<D: InNet>(RcuSlot<RcuTable<Node<D>, LISTS>>);

impl<D: InNet> CidTable<D> {
    pub(crate) const fn new() -> Self {
        Self(RcuSlot::new())
    }

    /// Puts the table in its place.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn publish(&'static self) -> Result<Published<D>> {
        drop(self.0.swap(Some(RcuTable::new()?)));
        Ok(Published(self))
    }

    /// Does something with the device that has a CID, as seen from a namespace.
    ///
    /// `None` as the namespace stands for somebody who knows of none, and counts as global.
    ///
    /// Context: any; `f` must not sleep.
    #[doc(alias = "vhost_vsock_get")]
    #[inline]
    pub(crate) fn with<R>(
        &self,
        cid: Cid,
        net: Option<&Net>,
        f: impl FnOnce(&D) -> R,
    ) -> Option<R> {
        let guard = rcu::read_lock();
        let table = self.0.load(&guard)?;
        let node = table.find(cid.get(), &guard, |node| node.is_for(net))?;
        Some(f(&node.device))
    }

    /// Does something with the devices of the list `index`, and says whether there is such a list:
    /// of all lists, from 0 on, these are all devices that have a CID.
    ///
    /// Context: any; `f` must not sleep.
    pub(crate) fn for_list(&self, index: usize, mut f: impl FnMut(&D)) -> bool {
        let guard = rcu::read_lock();
        let Some(table) = self.0.load(&guard) else {
            return false;
        };
        for node in table.list(index, &guard) {
            f(&node.device);
        }
        index < LISTS
    }

    /// Gives a device a CID.
    ///
    /// Context: may sleep, but not for a grace period.
    ///
    /// # Errors
    ///
    /// The other device if there is one that has the CID and can be reached from the same
    /// namespaces; `ENOMEM`.
    pub(crate) fn join(
        &self,
        device: &Arc<D>,
        cid: GuestCid,
    ) -> core::result::Result<Membership<D>, Refused<D>> {
        let table = self.0.get().ok_or(ENODEV)?;
        let node = Node {
            cid,
            device: device.clone(),
        };
        let other = |other: &Node<D>| {
            let is_found = other.is_for(Some(device.net()));
            is_found.then(|| other.device.clone())
        };
        match table.insert(cid.get().get(), node, other)? {
            Ok(entry) => Ok(Membership(entry)),
            Err(other) => Err(Refused::InUse(other)),
        }
    }
}

/// That the table is in its place; dropping it takes it away, when there are no more devices.
pub(crate) struct Published<D: InNet>(&'static CidTable<D>);

impl<D: InNet> Drop for Published<D> {
    fn drop(&mut self) {
        drop(self.0 .0.swap(None));
    }
}

/// Why a device did not get a CID.
pub(crate) enum Refused<D> {
    /// Another one has it.
    InUse(Arc<D>),
    Other(Error),
}

impl<D> From<Error> for Refused<D> {
    fn from(err: Error) -> Self {
        Self::Other(err)
    }
}

/// That a device has a CID; dropping it gives the CID up.
///
/// After that nobody finds the device by that CID, or is still using it because of that.
pub(crate) struct Membership<D: InNet>(Entry<Node<D>, LISTS>);

impl<D: InNet> Membership<D> {
    /// The CID.
    pub(crate) fn cid(&self) -> GuestCid {
        self.0.value().cid
    }

    /// Gives the CID up: nobody finds the device by it any more, but some may still be using it
    /// because of that, until what is returned is dropped.
    pub(crate) fn hide(self) -> Hidden<D> {
        self.0.hide()
    }
}

/// A CID that a device had.
pub(crate) type Hidden<D> = Unlinked<Node<D>>;
