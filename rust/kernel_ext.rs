// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate does not have yet: the virtio bus, socket buffers, vsock transports,
//! what a vhost device needs of its owner, and the small locks and queues these want.
//!
//! This is the only place of the tree where `unsafe` lives. It knows nothing of the vsock protocol:
//! that is in `vsock_proto` (wire format and decisions) and `virtio_transport_common` (sockets).

#[path = "kernel_ext/clock.rs"]
pub mod clock;
#[path = "kernel_ext/debugfs.rs"]
pub mod debugfs;
#[path = "kernel_ext/deferred.rs"]
pub mod deferred;
#[path = "kernel_ext/eventfd.rs"]
pub mod eventfd;
#[path = "kernel_ext/flow_queue.rs"]
pub mod flow_queue;
#[path = "kernel_ext/gfp.rs"]
pub mod gfp;
#[path = "kernel_ext/iov.rs"]
pub mod iov;
#[path = "kernel_ext/kick.rs"]
pub mod kick;
#[cfg(CONFIG_KUNIT = "y")]
#[path = "kernel_ext/kunit.rs"]
pub mod kunit;
#[path = "kernel_ext/lock.rs"]
pub mod lock;
#[path = "kernel_ext/miscdev.rs"]
pub mod miscdev;
#[path = "kernel_ext/mm_kthread.rs"]
pub mod mm_kthread;
#[path = "kernel_ext/module_param.rs"]
pub mod module_param;
#[path = "kernel_ext/net.rs"]
pub mod net;
#[path = "kernel_ext/owner_mm.rs"]
pub mod owner_mm;
#[path = "kernel_ext/peek.rs"]
pub mod peek;
#[path = "kernel_ext/process.rs"]
pub mod process;
#[path = "kernel_ext/ratelimit.rs"]
pub mod ratelimit;
#[path = "kernel_ext/rcu.rs"]
pub mod rcu;
#[path = "kernel_ext/return_work.rs"]
pub mod return_work;
#[path = "kernel_ext/skb.rs"]
pub mod skb;
#[path = "kernel_ext/skb_list.rs"]
pub mod skb_list;
#[path = "kernel_ext/sock.rs"]
pub mod sock;
#[path = "kernel_ext/sock_table.rs"]
pub mod sock_table;
#[path = "kernel_ext/trace.rs"]
pub mod trace;
#[path = "kernel_ext/user.rs"]
pub mod user;
#[path = "kernel_ext/user_iov.rs"]
pub mod user_iov;
#[path = "kernel_ext/version.rs"]
pub mod version;
#[path = "kernel_ext/vhost_task.rs"]
pub mod vhost_task;
#[path = "kernel_ext/virtio.rs"]
pub mod virtio;
#[path = "kernel_ext/vsock.rs"]
pub mod vsock;
#[path = "kernel_ext/window.rs"]
pub mod window;
#[path = "kernel_ext/work.rs"]
pub mod work;
#[path = "kernel_ext/zerocopy.rs"]
pub mod zerocopy;

/// The raw bindings, for the macros and abstractions of this tree only.
#[doc(hidden)]
pub use vsock_bindings as bindings;

// `#[vtable]` implementations and `pr_*!` want these of every crate; `module!` makes them for a
// crate that is a module, which this one is not: see `rust/kernel/lib.rs` of the kernel.
#[doc(hidden)]
pub(crate) const __LOG_PREFIX: &[u8] = b"vsock\0";
