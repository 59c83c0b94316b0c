// SPDX-License-Identifier: GPL-2.0

//! Network namespaces, as far as vsock looks at them.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/net/af_vsock.h`](srctree/include/net/af_vsock.h).

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque, //
};

/// A network namespace (`struct net`).
///
/// # Invariants
///
/// Wraps a valid `struct net` whose reference count is not zero.
#[repr(transparent)]
pub struct Net(Opaque<bindings::net>);

// SAFETY: A `struct net` may be used and released from any thread.
unsafe impl Send for Net {}
// SAFETY: The methods only read what C reads without a lock.
unsafe impl Sync for Net {}

// SAFETY: The reference count of the namespace is the one of `struct net`.
unsafe impl AlwaysRefCounted for Net {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants, the namespace is alive.
        unsafe { bindings::get_net(self.as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference.
        unsafe { bindings::put_net(obj.cast().as_ptr()) };
    }
}

impl Net {
    /// The namespace of the current task.
    pub fn of_current() -> ARef<Net> {
        // SAFETY: FFI call without preconditions; a task that runs has an `nsproxy`.
        let net = unsafe { bindings::current_net() };
        // SAFETY: The task holds a reference to its namespace for the duration of the call.
        unsafe { Self::from_raw(net) }.into()
    }

    /// Makes a reference out of a pointer.
    ///
    /// # Safety
    ///
    /// `net` is valid and has a reference for all of `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(net: *mut bindings::net) -> &'a Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: By the safety requirements; the type is transparent.
        unsafe { &*net.cast() }
    }

    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// The number by which user space knows the namespace: that of `/proc/<pid>/ns/net`.
    pub fn inum(&self) -> u32 {
        // SAFETY: By the type invariants, the namespace is alive.
        unsafe { bindings::net_inum(self.as_raw()) }
    }

    /// A number that no other namespace has, nor has had since the machine started.
    #[inline]
    pub fn cookie(&self) -> u64 {
        // SAFETY: By the type invariants, the namespace is alive.
        unsafe { bindings::net_cookie(self.as_raw()) }
    }

    /// Says whether two namespaces reach each other; `None` stands for a peer that knows of no
    /// namespaces and counts as global.
    #[doc(alias = "vsock_net_check_mode")]
    #[inline]
    pub fn reachable(a: Option<&Net>, b: Option<&Net>) -> bool {
        let raw = |net: Option<&Net>| net.map_or(core::ptr::null_mut(), Net::as_raw);
        // SAFETY: The function takes null pointers and valid namespaces.
        unsafe { bindings::vsock_net_check_mode(raw(a), raw(b)) }
    }

    /// Says whether vsock of this namespace is in global mode.
    #[doc(alias = "vsock_net_mode_global")]
    #[inline]
    pub fn is_global(&self) -> bool {
        // SAFETY: By the type invariants, the namespace is alive.
        unsafe { bindings::vsock_net_is_global(self.as_raw()) }
    }
}
