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
        wait_for_readers,
        Entry,
        RcuSlot,
        RcuTable,
        Retire,
        Retired, //
    },
};
use vsock_proto::addr::{
    Cid,
    GuestCid, //
};

/// Number of lists, a power of two.
const LISTS: usize = 256;

/// The devices by their CIDs.
type Table = RcuTable<Node, LISTS>;

/// The table, from the beginning to the end of the module.
static TABLE: RcuSlot<Table> = RcuSlot::new();

/// A device that has a CID.
struct Node {
    cid: GuestCid,
    device: Arc<VhostVsock>,
}

impl Node {
    /// Says whether somebody in a namespace finds the device.
    fn is_for(&self, net: Option<&Net>) -> bool {
        Net::reachable(net, Some(self.device.net()))
    }
}

/// Puts the table in its place; dropping it takes it away, when there are no more devices.
pub(crate) struct Published;

impl Published {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        drop(TABLE.swap(Some(Table::new()?)));
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
    let table = TABLE.load(&guard)?;
    let node = table.find(cid.get(), &guard, |node| node.is_for(net))?;
    Some(f(&node.device))
}

/// That a device has a CID; dropping it gives the CID up, as [`end`](Self::end) does in less time.
///
/// After that nobody finds the device by that CID, or is still using it because of that.
pub(crate) struct Membership(Entry<Node, LISTS>);

/// Why a device did not get a CID.
pub(crate) enum Refused {
    /// Another one has it.
    InUse(Arc<VhostVsock>),
    Other(Error),
}

impl From<Error> for Refused {
    fn from(err: Error) -> Self {
        Self::Other(err)
    }
}

impl Membership {
    /// Gives a device a CID.
    ///
    /// Context: may sleep, but not for a grace period.
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
        let node = Node {
            cid,
            device: device.clone(),
        };
        let other = |other: &Node| {
            let is_found = other.is_for(Some(device.net()));
            is_found.then(|| other.device.clone())
        };
        match table.insert(cid.get().get(), node, other)? {
            Ok(entry) => Ok(Self(entry)),
            Err(other) => Err(Refused::InUse(other)),
        }
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

    /// Gives the CID up, and waits for those who use the device because of it.
    ///
    /// Context: sleeps.
    pub(crate) fn end(self) {
        let mut hidden = self.hide();
        wait_for_readers::<Retired<()>>(&mut [], &mut hidden);
    }
}
