// SPDX-License-Identifier: GPL-2.0

//! The split virtqueue as the device sees it, and the translation of guest addresses.
//!
//! Nothing in here knows a kernel type, allocates or panics. The crate is compiled twice: by Kbuild
//! into `vhost_core.ko`, and by Cargo on the developer's machine, where its tests run.
//!
//! The driver at the other end is a guest, which may be malicious, or a program that plays one. It
//! can change the ring at any time, so each field is copied once into private memory and then
//! checked; no reference to shared memory ever exists. What the crate promises of *any* contents of
//! the ring:
//!
//! - the work of one [`SplitRing::pop`] is bounded by the size of the ring: at most one descriptor
//!   more than the ring has is looked at, wherever the chain leads, and at most eight are read for
//!   each of these;
//! - every [`Segment`] that it delivers lies inside of a region of the translation table, has at
//!   least one byte, and may be accessed in the way that was asked for;
//! - the sum of the lengths is exact and fits into 32 bits;
//! - what it does not accept is a [`RingError`], after which the owner of the ring marks the queue
//!   broken and does not parse it again. The position in the ring is that of before.
//!
//! The memory itself is reached through the [`RingMemory`] that the caller passes to each method:
//! this is the one place that knows how ring memory is accessed, and in which order accesses become
//! visible. See there for the pairs of barriers. Indexes and offsets that the driver chose are kept
//! from being speculated upon by [`nospec`].
//!
//! - [`addr`]: guest addresses, addresses of the owner and of rings, ring sizes.
//! - [`layout`]: how many bytes the three parts of a ring have and where the fields are.
//! - [`memory`]: the trait [`RingMemory`].
//! - [`translate`]: the trait [`Translate`], and the memory table [`Regions`].
//! - `ahead`: what was read of the ring before it was needed.
//! - [`iotlb`]: the [`Iotlb`], whose translations come on demand.
//! - [`dirty`]: which bits of a dirty log stand for which memory.
//! - [`chain`]: one chain of descriptors: limits, errors, sinks for its segments.
//! - [`split`]: the ring, [`SplitRing`].
//! - [`nospec`]: masks against speculation.
//! - [`event`]: the arithmetic of notification suppression.
//!
//! C header: [`include/uapi/linux/virtio_ring.h`](srctree/include/uapi/linux/virtio_ring.h)
//!
//! Specification: virtio 1.3, section 2.7 "Split Virtqueues".

// Kbuild says so on the command line, and twice would be a warning.
#![cfg_attr(not(any(test, MODULE)), no_std)]
#![deny(unsafe_code)]

#[path = "vring/addr.rs"]
pub mod addr;
#[path = "vring/ahead.rs"]
mod ahead;
#[path = "vring/chain.rs"]
pub mod chain;
#[path = "vring/config.rs"]
pub mod config;
#[path = "vring/dirty.rs"]
pub mod dirty;
#[path = "vring/event.rs"]
pub mod event;
#[path = "vring/iotlb.rs"]
pub mod iotlb;
#[path = "vring/layout.rs"]
pub mod layout;
#[path = "vring/memory.rs"]
pub mod memory;
#[path = "vring/nospec.rs"]
pub mod nospec;
#[path = "vring/split.rs"]
pub mod split;
#[path = "vring/translate.rs"]
pub mod translate;

pub use self::{
    addr::{
        Gpa,
        RingAddr,
        RingSize,
        UserAddr, //
    },
    chain::{
        Chain,
        Full,
        Malformed,
        RingError,
        Segments,
        SliceSegments, //
    },
    config::Config,
    iotlb::{
        Iotlb,
        IotlbError, //
    },
    memory::{
        Endian,
        RingMemory, //
    },
    split::SplitRing,
    translate::{
        Access,
        LastRegion,
        Region,
        RegionError,
        Regions,
        Segment,
        Translate,
        TranslateError, //
    },
};
