// SPDX-License-Identifier: GPL-2.0

//! Whose a buffer is.

use super::SkBuff;
use crate::{
    bindings,
    net::Net,
    sock::VsockSock, //
};
use core::ptr::NonNull;
use kernel::sync::aref::ARef;

impl<C> SkBuff<C> {
    /// Charges the buffer to a socket, as something that it sends.
    #[doc(alias = "skb_set_owner_w")]
    pub fn set_owner(&mut self, sock: &VsockSock) {
        // INVARIANT: The owner is a vsock socket.
        // SAFETY: By the type invariants of both, the buffer and the socket are valid, and a caller
        // that has a `&VsockSock` has a reference to it.
        unsafe { bindings::skb_set_owner_w(self.as_raw(), sock.as_sock()) };
    }

    /// Makes a socket the owner of the buffer without charging it, as something that it received.
    #[doc(alias = "skb_set_owner_sk_safe")]
    pub fn set_receiver(&mut self, sock: &VsockSock) {
        // INVARIANT: The owner is a vsock socket, to which the buffer gets a reference.
        // SAFETY: By the type invariants of both, the buffer and the socket are valid.
        unsafe { bindings::skb_set_owner_sk(self.as_raw(), sock.as_sock()) };
    }

    /// Charges the buffer to the owner of another one, if that has one.
    pub fn set_owner_of<D>(&mut self, other: &SkBuff<D>) {
        // SAFETY: Both buffers are valid; the owner of `other` is alive for as long as `other` is.
        //
        // INVARIANT: An owner of `other` is a vsock socket.
        unsafe { bindings::skb_copy_owner_w(self.as_raw(), other.as_raw()) };
    }

    /// Takes the charge from the owner.
    #[doc(alias = "skb_orphan")]
    #[inline]
    pub fn orphan(&mut self) {
        // SAFETY: By the type invariants, the buffer is valid and ours.
        unsafe { bindings::skb_orphan(self.as_raw()) };
    }

    /// Says whether anybody is charged for the buffer.
    #[inline]
    pub fn has_owner(&self) -> bool {
        !self.owner_raw().is_null()
    }

    /// Says whether `sock` is charged for the buffer.
    #[inline]
    pub fn is_owned_by(&self, sock: &VsockSock) -> bool {
        core::ptr::eq(self.owner_raw(), sock.as_sock())
    }

    /// The owner, unless it is being freed.
    pub fn owner(&self) -> Option<ARef<VsockSock>> {
        let sk = NonNull::new(self.owner_raw())?;
        // SAFETY: The owner is allocated for as long as the buffer refers to it.
        if !unsafe { bindings::sk_get_unless_zero(sk.as_ptr()) } {
            return None;
        }
        // SAFETY: The reference is ours, and by the type invariants the owner is a vsock socket,
        // whose first field is a `struct sock`.
        Some(unsafe { ARef::from_raw(sk.cast()) })
    }

    /// The namespace of the owner.
    #[inline]
    pub fn owner_net(&self) -> Option<ARef<Net>> {
        let sk = NonNull::new(self.owner_raw())?;
        // SAFETY: The owner is allocated for as long as the buffer refers to it.
        let net = unsafe { crate::sock::net_of(sk.as_ptr()) };
        // SAFETY: A socket has a reference to its namespace until it is destroyed.
        Some(unsafe { Net::from_raw(net) }.into())
    }

    /// Says whether the owner is in a namespace; `None`: whether there is no owner.
    #[inline]
    pub fn is_owned_in(&self, net: Option<&Net>) -> bool {
        match (NonNull::new(self.owner_raw()), net) {
            // SAFETY: The owner is allocated for as long as the buffer refers to it.
            (Some(sk), Some(net)) => (unsafe { crate::sock::net_of(sk.as_ptr()) }) == net.as_raw(),
            (None, None) => true,
            _ => false,
        }
    }

    #[inline]
    fn owner_raw(&self) -> *mut bindings::sock {
        self.skb().sk.cast()
    }
}
