// SPDX-License-Identifier: GPL-2.0

//! What monitoring devices (`vsockmon`) see of packets.
//!
//! C header: [`include/uapi/linux/vsockmon.h`](srctree/include/uapi/linux/vsockmon.h).

use core::cell::Cell;
use kernel::prelude::*;
use kernel_ext::{
    gfp::Gfp,
    skb::{
        Filled,
        SkBuff, //
    },
    vsock, //
};
use vsock_proto::header::{
    Header,
    Op,
    HEADER_LEN, //
};
use zerocopy::little_endian::{
    U16,
    U32,
    U64, //
};
use zerocopy_derive::{
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

/// `struct af_vsockmon_hdr`.
#[repr(C)]
#[derive(IntoBytes, Immutable, KnownLayout, Unaligned)]
struct MonitorHeader {
    src_cid: U64,
    dst_cid: U64,
    src_port: U32,
    dst_port: U32,
    op: U16,
    transport: U16,
    len: U16,
    reserved: [u8; 2],
}

const MONITOR_HEADER_LEN: usize = 32;
static_assert!(size_of::<MonitorHeader>() == MONITOR_HEADER_LEN);

/// `AF_VSOCK_TRANSPORT_VIRTIO`.
const TRANSPORT_VIRTIO: u16 = 2;

/// `AF_VSOCK_OP_*`.
fn monitor_op(op: Op) -> u16 {
    match op {
        Op::Request | Op::Response => 1,
        Op::Rst | Op::Shutdown => 2,
        Op::CreditUpdate | Op::CreditRequest => 3,
        Op::Rw => 4,
        Op::Invalid | Op::Unknown(_) => 0,
    }
}

/// Where the payload of a packet is.
pub(crate) enum Payload<'a, C> {
    /// In a buffer, from an offset on.
    Skb(&'a SkBuff<C>, usize),
    /// In a block that a device may write.
    Filled(&'a Filled),
    /// In private memory.
    Bytes(&'a [u8]),
}

fn build<C>(header: &Header, payload: &Payload<'_, C>) -> Result<SkBuff<()>> {
    let len = header.len() as usize;
    let total = (MONITOR_HEADER_LEN + HEADER_LEN)
        .checked_add(len)
        .ok_or(EINVAL)?;
    let mut skb = SkBuff::alloc_linear(0, total, Gfp::Atomic, ())?;
    let monitor = MonitorHeader {
        src_cid: U64::new(header.src_cid_raw()),
        dst_cid: U64::new(header.dst_cid_raw()),
        src_port: U32::new(header.src_port().get()),
        dst_port: U32::new(header.dst_port().get()),
        op: U16::new(monitor_op(header.op())),
        transport: U16::new(TRANSPORT_VIRTIO),
        len: U16::new(HEADER_LEN as u16),
        reserved: [0; 2],
    };
    skb.append(monitor.as_bytes())?;
    skb.append(header.as_bytes())?;
    match payload {
        Payload::Skb(payload, offset) => skb.append_from(payload, *offset, len)?,
        Payload::Filled(filled) => skb.append_filled(&[], filled, 0, len)?,
        Payload::Bytes(bytes) => skb.append(bytes)?,
    }
    Ok(skb)
}

/// Whether there is any monitoring device, at this moment.
#[inline]
pub(crate) fn is_watched() -> bool {
    let asked = Cell::new(false);
    vsock::deliver_tap(|| {
        asked.set(true);
        None
    });
    asked.get()
}

/// Shows a packet to the monitoring devices. Of the payload they see as much as the header says.
///
/// Context: any but interrupts.
#[inline]
pub(crate) fn deliver<C>(header: &Header, payload: Payload<'_, C>) {
    vsock::deliver_tap(|| build(header, &payload).ok());
}
