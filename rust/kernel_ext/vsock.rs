// SPDX-License-Identifier: GPL-2.0

//! vsock transports and what the AF_VSOCK core does for them.
//!
//! C header: [`include/net/af_vsock.h`](srctree/include/net/af_vsock.h).

#[path = "vsock/holder.rs"]
mod holder;
#[path = "vsock/shim.rs"]
mod shim;
#[path = "vsock/transport.rs"]
mod transport;

pub use self::transport::{
    Kind,
    Transport,
    TransportSlot, //
};

use self::{
    holder::Holder,
    shim::Shim, //
};
use crate::{
    bindings,
    net::Net,
    skb::SkBuff,
    sock::{
        LockedSock,
        SockAddr,
        VsockSock, //
    },
    sock_table::{
        Found,
        Key,
        Membership,
        Scope,
        SockTable, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    module::this_module,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::Release,
        rcu,
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

impl Kind {
    /// Says who has the place of a transport, and how to free it.
    ///
    /// Context: process context, may sleep.
    fn explain_busy(self) {
        let (what, who, first) = match self {
            Kind::HostToGuest => ("to guests", "vhost_vsock", "end its VMs and sockets"),
            Kind::GuestToHost => (
                "to the host",
                "vmw_vsock_virtio_transport, vmw_vsock_vmci_transport or hv_sock",
                "close its sockets",
            ),
            Kind::Local => ("of loopback", "vsock_loopback", "close its sockets"),
        };
        let holder = Holder::of(self);
        match holder.as_ref().and_then(Holder::module) {
            Some(name) => pr_err!(
                "the vsock transport {what} is {name} already: {first}, then 'modprobe -r {name}'\n"
            ),
            None => pr_err!(
                "there is another vsock transport {what}, perhaps {who} ('lsmod | grep vsock'): \
                 {first}, then type 'modprobe -r' and its name\n"
            ),
        }
    }
}

/// The registration of a [`Transport`].
///
/// # Invariants
///
/// `inner` is registered with the vsock core, and is what `T::slot()` holds.
#[pin_data(PinnedDrop)]
pub struct Registration<T: Transport> {
    #[pin]
    inner: Opaque<bindings::vsock_transport>,
    _t: PhantomData<T>,
}

// SAFETY: Registration and unregistration may happen on different threads.
unsafe impl<T: Transport> Send for Registration<T> {}
// SAFETY: There are no methods on `&Registration`.
unsafe impl<T: Transport> Sync for Registration<T> {}

impl<T: Transport> Registration<T> {
    /// Registers the transport.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is a transport of the same kind already, `EINTR`.
    #[doc(alias = "vsock_core_register")]
    pub fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(|slot: *mut bindings::vsock_transport| {
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(Self::VTABLE) };
                // A second registration of the same type fails below, and must not disturb.
                let first = T::slot().transport.cmpxchg(core::ptr::null(), slot.cast_const(), Release);
                if first.is_err() {
                    return Err(EBUSY);
                }
                let table = SockTable::new().inspect_err(|_| T::slot().clear())?;
                T::slot().table.swap(Some(table));
                // INVARIANT: `inner` is registered if this succeeds.
                // SAFETY: `slot` is pinned and stays valid until `drop()`, which unregisters it.
                let ret = to_result(unsafe {
                    bindings::vsock_core_register(slot, T::KIND.as_raw())
                });
                if let Err(e) = ret {
                    T::slot().clear();
                    if e == EBUSY {
                        T::KIND.explain_busy();
                    }
                }
                ret
            }),
            _t: PhantomData,
        })
    }

    const VTABLE: bindings::vsock_transport = bindings::vsock_transport {
        module: this_module::<T::OwnerModule>().as_ptr(),
        init: Some(Shim::<T>::init),
        destruct: Some(Shim::<T>::destruct),
        release: Some(Shim::<T>::release),
        cancel_pkt: Some(Shim::<T>::cancel_pkt),
        connect: Some(Shim::<T>::connect),
        dgram_bind: Some(Shim::<T>::dgram_bind),
        dgram_dequeue: Some(Shim::<T>::dgram_dequeue),
        dgram_enqueue: Some(Shim::<T>::dgram_enqueue),
        dgram_allow: Some(Shim::<T>::dgram_allow),
        stream_dequeue: Some(Shim::<T>::stream_dequeue),
        stream_enqueue: Some(Shim::<T>::stream_enqueue),
        stream_has_data: Some(Shim::<T>::stream_has_data),
        stream_has_space: Some(Shim::<T>::stream_has_space),
        stream_rcvhiwat: Some(Shim::<T>::stream_rcvhiwat),
        stream_is_active: Some(Shim::<T>::stream_is_active),
        stream_allow: Some(Shim::<T>::stream_allow),
        seqpacket_dequeue: Some(Shim::<T>::seqpacket_dequeue),
        seqpacket_enqueue: Some(Shim::<T>::seqpacket_enqueue),
        seqpacket_allow: Some(Shim::<T>::seqpacket_allow),
        seqpacket_has_data: Some(Shim::<T>::seqpacket_has_data),
        notify_poll_in: Some(Shim::<T>::notify_poll_in),
        notify_poll_out: Some(Shim::<T>::notify_poll_out),
        notify_recv_init: Some(Shim::<T>::notify_recv),
        notify_recv_pre_block: Some(Shim::<T>::notify_recv),
        notify_recv_pre_dequeue: Some(Shim::<T>::notify_recv),
        notify_recv_post_dequeue: Some(Shim::<T>::notify_recv_post_dequeue),
        notify_send_init: Some(Shim::<T>::notify_send_init),
        notify_send_pre_block: Some(Shim::<T>::notify_send),
        notify_send_pre_enqueue: Some(Shim::<T>::notify_send),
        notify_send_post_enqueue: Some(Shim::<T>::notify_send_post_enqueue),
        notify_buffer_size: Some(Shim::<T>::notify_buffer_size),
        notify_set_rcvlowat: Some(Shim::<T>::notify_set_rcvlowat),
        unsent_bytes: Some(Shim::<T>::unsent_bytes),
        shutdown: Some(Shim::<T>::shutdown),
        read_skb: Some(Shim::<T>::read_skb),
        msgzerocopy_allow: Some(Shim::<T>::msgzerocopy_allow),
        get_local_cid: Some(Shim::<T>::get_local_cid),
        has_remote_cid: if T::HAS_HAS_REMOTE_CID {
            Some(Shim::<T>::has_remote_cid)
        } else {
            None
        },
    };
}

#[pinned_drop]
impl<T: Transport> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, the transport is registered.
        unsafe { bindings::vsock_core_unregister(self.inner.get()) };
        T::slot().clear();
    }
}

impl LockedSock {
    /// Says whether the socket is assigned to the transport `T`.
    #[inline]
    pub fn is_on<T: Transport>(&self) -> bool {
        // SAFETY: By the type invariants, the socket is valid; the lock protects the field.
        let transport = unsafe { (*self.vsk()).transport };
        !transport.is_null() && core::ptr::eq(transport, T::slot().get())
    }

    /// The state that the transport `T` has for the socket, or nothing if the socket is not
    /// assigned to it.
    #[inline]
    pub fn conn<T: Transport>(&self) -> Option<ArcBorrow<'_, T::Conn>> {
        if !self.is_on::<T>() {
            return None;
        }
        // SAFETY: `is_on` says that the state was put in place by `Shim::<T>::init`. It is taken
        // away by `destruct` only, which the core calls with the lock held, when it assigns another
        // transport, or when the socket is destroyed: not while this is borrowed.
        unsafe { Shim::<T>::state(self.vsk()) }
    }
}

/// Calls `f` with the connection on transport `T` that `key` stands for, of a socket that `net`
/// reaches; nothing if there is none.
///
/// Context: any but interrupts. `f` runs in an RCU read section.
#[inline]
pub fn with_connection<T: Transport, R>(
    key: Key,
    net: Option<&Net>,
    f: impl FnOnce(Found<'_, T::Conn>) -> R,
) -> Option<R> {
    let guard = rcu::read_lock();
    let table = T::slot().table.load(&guard)?;
    let found = table.find(key, net, &guard)?;
    Some(f(found))
}

/// Looks for a socket that is bound to `addr`: a listener, or one that connects.
///
/// Returns a counted reference. The socket may change until it is locked.
#[doc(alias = "vsock_find_bound_socket_net")]
#[inline]
pub fn find_bound(addr: SockAddr, net: Option<&Net>) -> Option<ARef<VsockSock>> {
    let mut addr = addr.to_c();
    let net = net.map_or(core::ptr::null_mut(), Net::as_raw);
    // SAFETY: The address is valid; a null pointer is the global mode.
    let sk = unsafe { bindings::vsock_find_bound_socket_net(&mut addr, net) };
    // SAFETY: The core took a reference for us, if it found a socket.
    NonNull::new(sk.cast()).map(|sk| unsafe { ARef::from_raw(sk) })
}

/// The connections on transport `T` with `peer`, or with anybody; also those that a user only tries
/// to make. Counted references, to what is there when this is called.
pub fn connections<T: Transport>(
    peer: Option<(u32, Scope)>,
) -> impl Iterator<Item = (ARef<VsockSock>, Arc<T::Conn>)> {
    let table = T::slot().table.get();
    table.into_iter().flat_map(move |table| table.members(peer))
}

/// Makes a connection found by [`with_connection`], until the membership is dropped.
///
/// Context: may sleep.
///
/// # Errors
///
/// `ENOMEM`, `ENODEV` if the transport is not registered, `EADDRINUSE` if there is a connection
/// with the same key for which `is_live` is true, `EDQUOT` if there are `most` connections with the
/// peer: see [`SockTable::insert`].
pub fn join<T: Transport>(
    sock: &VsockSock,
    conn: Arc<T::Conn>,
    key: Key,
    most: u32,
    is_live: impl FnMut(&T::Conn) -> bool,
) -> Result<Membership<T::Conn>> {
    let table = T::slot().table.get().ok_or(ENODEV)?;
    table.insert(sock.into(), conn, key, most, is_live)
}

/// Says whether a CID belongs to this machine.
///
/// Context: may sleep.
#[doc(alias = "vsock_find_cid")]
pub fn cid_in_use(cid: u32) -> bool {
    // SAFETY: FFI call without preconditions.
    unsafe { bindings::vsock_find_cid(cid) }
}

/// Shows a packet to the monitoring devices; `build` is called if there are any.
///
/// Context: any; `build` must not sleep.
#[doc(alias = "vsock_deliver_tap")]
#[inline]
pub fn deliver_tap<F: Fn() -> Option<SkBuff<()>>>(build: F) {
    /// # Safety
    ///
    /// `opaque` points to an `F`.
    unsafe extern "C" fn build_callback<F: Fn() -> Option<SkBuff<()>>>(
        opaque: *mut c_void,
    ) -> *mut bindings::sk_buff {
        // SAFETY: By the safety requirements.
        let build = unsafe { &*opaque.cast::<F>() };
        build().map_or(core::ptr::null_mut(), |skb| skb.into_raw().as_ptr())
    }
    // SAFETY: The callback matches the pointer, and is called before this returns only.
    unsafe {
        bindings::vsock_deliver_tap(
            Some(build_callback::<F>),
            (&raw const build).cast_mut().cast(),
        )
    };
}
