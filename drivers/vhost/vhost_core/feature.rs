// SPDX-License-Identifier: GPL-2.0

//! Feature bits that concern the rings.

/// The device signals when it has used all available buffers, whatever the driver asked for.
#[doc(alias = "VIRTIO_F_NOTIFY_ON_EMPTY")]
pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
/// The device makes no assumptions about how a packet is split into descriptors.
#[doc(alias = "VIRTIO_F_ANY_LAYOUT")]
pub const ANY_LAYOUT: u64 = 1 << 27;
/// Descriptors may refer to tables of descriptors.
#[doc(alias = "VIRTIO_RING_F_INDIRECT_DESC")]
pub const INDIRECT_DESC: u64 = 1 << 28;
/// The rings carry the indexes at which to notify.
#[doc(alias = "VIRTIO_RING_F_EVENT_IDX")]
pub const EVENT_IDX: u64 = 1 << 29;
/// The rings are little endian.
#[doc(alias = "VIRTIO_F_VERSION_1")]
pub const VERSION_1: u64 = 1 << 32;

/// All writes to buffers are logged.
#[doc(alias = "VHOST_F_LOG_ALL")]
pub const LOG_ALL: u64 = 1 << 26;
/// Addresses are those of an IOMMU: there is an IOTLB. A device offers it if it can do with
/// queues that wait.
#[doc(alias = "VIRTIO_F_ACCESS_PLATFORM")]
pub const ACCESS_PLATFORM: u64 = 1 << 33;

/// What changes the ring.
pub(crate) const RING: u64 = NOTIFY_ON_EMPTY | ANY_LAYOUT | INDIRECT_DESC | EVENT_IDX | VERSION_1;
/// What any device of this core can offer.
#[doc(alias = "VHOST_FEATURES")]
pub const COMMON: u64 = RING | LOG_ALL;
