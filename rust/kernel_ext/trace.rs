// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of vsock transports: those of C, so that tools go on working.
//!
//! `kernel::tracepoint::declare_trace!` only finds tracepoints in `kernel::bindings`; this is the
//! same for tracepoints that a module of this tree defines.
//!
//! C header: `include/trace/events/vsock_virtio_transport_common.h`.

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
