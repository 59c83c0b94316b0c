// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of vsock transports: those of C, so that tools go on working, and ours.
//!
//! `kernel::tracepoint::declare_trace!` only finds tracepoints in `kernel::bindings`; this is the
//! same for tracepoints that a module of this tree defines.
//!
//! C headers: `include/trace/events/vsock_virtio_transport_common.h`, and `vsock_rust.h` of this
//! tree.

#[cfg(CONFIG_TRACEPOINTS)]
use crate::bindings;

macro_rules! declare_trace {
    ($(#[$attr:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?);) => {
        $(#[$attr])*
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) {
            #[cfg(CONFIG_TRACEPOINTS)]
            {
                // SAFETY: It is always okay to query the static key of a tracepoint.
                let enabled = unsafe {
                    kernel::macros::paste! {
                        kernel::jump_label::static_branch_unlikely!(
                            bindings::[< __tracepoint_ $name >],
                            kernel::bindings::tracepoint,
                            key
                        )
                    }
                };
                if enabled {
                    kernel::macros::paste! {
                        // SAFETY: The arguments are plain integers.
                        unsafe { bindings::[< rust_do_trace_ $name >]($($arg),*) };
                    }
                }
            }
            #[cfg(not(CONFIG_TRACEPOINTS))]
            let _ = ($($arg),*);
        }
    };
}

declare_trace! {
    /// A packet was made.
    pub fn virtio_transport_alloc_pkt(
        src_cid: u32,
        src_port: u32,
        dst_cid: u32,
        dst_port: u32,
        len: u32,
        ty: u16,
        op: u16,
        flags: u32,
        zcopy: bool,
    );
}

declare_trace! {
    /// A packet arrived.
    pub fn virtio_transport_recv_pkt(
        src_cid: u32,
        src_port: u32,
        dst_cid: u32,
        dst_port: u32,
        len: u32,
        ty: u16,
        op: u16,
        flags: u32,
        buf_alloc: u32,
        fwd_cnt: u32,
    );
}

/// Why a packet, or a connection, was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Dropped {
    /// It is for nobody: there is no such connection, or not any more, and no listener.
    Nobody = 1,
    /// It is no packet.
    Malformed = 2,
    /// It is not from where it says, or not for this side.
    Misaddressed = 3,
    /// The peer may not connect to that port.
    PortDenied = 4,
    /// There are as many connections as there may be.
    TooMany = 5,
    /// The user may not connect to that peer.
    UserDenied = 6,
}

declare_trace! {
    /// A packet, or a connection, was not taken; `reason` is a [`Dropped`].
    pub fn vsock_drop(
        reason: u32,
        src_cid: u32,
        src_port: u32,
        dst_cid: u32,
        dst_port: u32,
    );
}

declare_trace! {
    /// A writer that waited for credit may go on, after so many milliseconds.
    pub fn vsock_credit_wait(
        src_cid: u32,
        src_port: u32,
        dst_cid: u32,
        dst_port: u32,
        window: u32,
        ms: u64,
    );
}

declare_trace! {
    /// A socket has another state, a number of C (`TCP_ESTABLISHED`).
    pub fn vsock_conn(
        local_cid: u32,
        local_port: u32,
        peer_cid: u32,
        peer_port: u32,
        old: u32,
        new: u32,
    );
}

declare_trace! {
    /// A ring of a guest was worked on.
    pub fn vhost_vsock_run(
        cid: u32,
        to_guest: bool,
        inlined: bool,
        packets: u64,
        bytes: u64,
    );
}
