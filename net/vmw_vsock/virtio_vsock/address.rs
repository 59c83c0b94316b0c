// SPDX-License-Identifier: GPL-2.0

//! Our address, which the device gives us and may change.
//!
//! A device that was restored with another CID says so by an event, after which all connections are
//! void. But its packets come by another queue: one for the new CID may be here before the event
//! is. Then the CID is read again ([`Address::take_early`]), since nobody would answer the packet,
//! and who sent it would wait for his time-out. Connections that are made with it are not void: the
//! event that says the same later has to spare them ([`Address::take`]).

use kernel::{
    device::Bound,
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    }, //
};
use kernel_ext::{
    peek::Peek,
    virtio, //
};
use vsock_proto::{
    addr::{
        Cid,
        GuestCid, //
    },
    header::Config, //
};

/// Reads our address from the configuration space.
///
/// # Errors
///
/// `EINVAL` if it is none that a guest may have; see also [`virtio::Device::read_config`].
fn read(dev: &virtio::Device<Bound>) -> Result<u32> {
    let config: Config = dev.read_config(0)?;
    let cid: GuestCid = config.guest_cid().map_err(|_| EINVAL)?;
    Ok(cid.get().get())
}

/// No address: that of nobody.
const NONE: u32 = Cid::ANY.get();

/// What an event that says "the transport was reset" makes void.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Void {
    /// All connections.
    All,
    /// Those that are not of our address: we have had it since before the event.
    Former,
}

/// Our address.
///
/// No lock: packets and events are received at the same time.
pub(crate) struct Address {
    /// The number of a [`GuestCid`].
    cid: Atomic<u32>,
    /// What a packet made us take, and no event has told yet; else [`NONE`].
    early: Atomic<u32>,
}

impl Address {
    /// Takes the address of a device.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// If the device gives us no valid one.
    pub(crate) fn new(dev: &virtio::Device<Bound>) -> Result<Self> {
        Ok(Self {
            cid: Atomic::new(read(dev)?),
            early: Atomic::new(NONE),
        })
    }

    /// The address.
    #[inline]
    pub(crate) fn cid(&self) -> Cid {
        Cid::new(self.cid.peek())
    }

    /// Takes the address again, because an event says that it may be another or the device was
    /// started again, and returns what that makes void. A bad one is not taken.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// If the device gives us no valid one. All connections are void.
    pub(crate) fn take(&self, dev: &virtio::Device<Bound>) -> Result<Void> {
        let new = read(dev);
        if let Ok(new) = new {
            // In this order: `take_early()` goes the other way, and either fails to put its address
            // in, or is seen here.
            self.cid.xchg(new, Full);
        }
        let early = self.early.xchg(NONE, Full);
        Ok(if new? == early {
            Void::Former
        } else {
            Void::All
        })
    }

    /// Takes the address again, because of a packet, and returns whether it is another. A bad one
    /// is not taken.
    ///
    /// Context: may sleep. Not called twice at the same time.
    pub(crate) fn take_early(&self, dev: &virtio::Device<Bound>) -> bool {
        let old = self.cid.load(Relaxed);
        let Ok(new) = read(dev) else {
            return false;
        };
        if new == old {
            return false;
        }
        self.early.store(new, Relaxed);
        if self.cid.cmpxchg(old, new, Full).is_err() {
            // The event was faster: it made void what there was.
            self.early.store(NONE, Relaxed);
            return false;
        }
        true
    }
}
