// SPDX-License-Identifier: GPL-2.0

//! Headers of packets, and how tracing sees them.

use kernel_ext::trace;
use vsock_proto::{
    addr::Addr,
    header::{
        Header,
        Op,
        SocketType, //
    }, //
};

/// Calls a tracepoint with what it has of the header, and the rest.
macro_rules! trace_header {
    ($event:ident, $header:ident, $($rest:expr),+) => {
        trace::$event(
            $header.src_cid_raw() as u32, // The tracepoint has room for 32 bits.
            $header.src_port().get(),
            $header.dst_cid_raw() as u32,
            $header.dst_port().get(),
            $header.len(),
            $header.ty_raw(),
            $header.op().raw(),
            $header.flags(),
            $($rest),+
        )
    };
}

/// Shows a packet that is going to be sent to who traces that.
#[inline(always)]
pub(crate) fn trace_made(header: &Header, zerocopy: bool) {
    trace_header!(virtio_transport_alloc_pkt, header, zerocopy);
}

/// Shows a packet that came to who traces that.
#[inline(always)]
pub(crate) fn trace_received(header: &Header) {
    trace_header!(
        virtio_transport_recv_pkt,
        header,
        header.buf_alloc(),
        header.fwd_cnt()
    );
}

/// Shows a packet that nobody took to who traces that.
#[inline]
pub(crate) fn trace_dropped(header: &Header, why: trace::Dropped) {
    trace::vsock_drop(
        why as u32,
        header.src_cid_raw() as u32, // The tracepoint has room for 32 bits.
        header.src_port().get(),
        header.dst_cid_raw() as u32,
        header.dst_port().get(),
    );
}

/// The header of a packet of `sock` to its peer.
pub(crate) fn header_to(op: Op, ty: SocketType, src: Addr, dst: Addr, len: u32) -> Header {
    Header::new(op, ty, src, dst, len, 0)
}
