// SPDX-License-Identifier: GPL-2.0

//! The C callbacks of a transport, which find the socket locked and call a [`Transport`].

use super::transport::Transport;
use crate::{
    bindings,
    iov::{
        MsgHdr,
        RecvMsg,
        SendMsg, //
    },
    sock::{
        LockedSock,
        Shutdown,
        SockAddr,
        VsockSock, //
    }, //
};
use core::marker::PhantomData;
use kernel::{
    error::from_result,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The C callbacks of a transport.
///
/// All of them share their safety requirements: the vsock core calls them for a socket that is
/// assigned to the transport (but `init`, and those that say so), with the socket lock held.
pub(super) struct Shim<T: Transport>(PhantomData<T>);

pub(super) type Vsk = *mut bindings::vsock_sock;

fn from_ssize(ret: Result<usize>) -> isize {
    match ret {
        Ok(n) => isize::try_from(n).unwrap_or(isize::MAX),
        Err(e) => e.to_errno() as isize,
    }
}

fn from_unit(ret: Result) -> c_int {
    from_result(|| ret.map(|()| 0))
}

impl<T: Transport> Shim<T> {
    /// # Safety
    ///
    /// `vsk` was initialized by [`init`](Self::init), and is not destructed for all of `'a`.
    #[inline]
    pub(super) unsafe fn state<'a>(vsk: Vsk) -> Option<ArcBorrow<'a, T::Conn>> {
        // SAFETY: By the safety requirements, the socket is valid.
        let state = unsafe { (*vsk).trans }.cast::<T::Conn>();
        if state.is_null() {
            return None;
        }
        // SAFETY: `init` put an `Arc` there.
        Some(unsafe { ArcBorrow::from_raw(state) })
    }

    /// # Safety
    ///
    /// See [`Shim`].
    #[inline]
    unsafe fn locked<'a>(vsk: Vsk) -> &'a mut LockedSock {
        // SAFETY: The core holds the lock and a reference during a callback.
        unsafe { LockedSock::assume_locked(vsk) }
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn init(vsk: Vsk, _listener: Vsk) -> c_int {
        // SAFETY: See `Shim`.
        let sock = unsafe { Self::locked(vsk) };
        from_result(|| {
            let state = Arc::into_raw(T::init(sock)?);
            sock.note_data_ready();
            // SAFETY: The socket is locked, and the field belongs to its transport, which is us.
            unsafe { (*vsk).trans = state.cast_mut().cast() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shim`]. Also called without the lock, when the last reference to the socket is gone.
    pub(super) unsafe extern "C" fn destruct(vsk: Vsk) {
        // SAFETY: The socket is valid.
        if unsafe { bindings::sk_has_refs(vsk.cast()) } {
            // SAFETY: See `Shim`: the socket changes to another transport.
            let sock = unsafe { Self::locked(vsk) };
            if let Some(timer) = sock.cancel_close() {
                sock.remove_from_tables();
                // Not the last one: the caller has a reference as well.
                drop(timer);
            }
            // SAFETY: `init` made the state, which nobody else takes away.
            if let Some(conn) = unsafe { Self::state(vsk) } {
                T::detach(sock, conn);
            }
        }
        // SAFETY: As above.
        let state = unsafe { (*vsk).trans }.cast::<T::Conn>();
        // SAFETY: As above.
        unsafe { (*vsk).trans = core::ptr::null_mut() };
        if !state.is_null() {
            // SAFETY: `init` put an `Arc` there, which belongs to us now.
            drop(unsafe { Arc::from_raw(state) });
        }
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn release(vsk: Vsk) {
        // SAFETY: See `Shim`.
        T::release(unsafe { Self::locked(vsk) });
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn cancel_pkt(vsk: Vsk) -> c_int {
        // SAFETY: See `Shim`.
        from_unit(T::cancel(unsafe { Self::locked(vsk) }))
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn connect(vsk: Vsk) -> c_int {
        // SAFETY: See `Shim`.
        from_unit(T::connect(unsafe { Self::locked(vsk) }))
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn dgram_bind(
        _vsk: Vsk,
        _addr: *mut bindings::sockaddr_vm,
    ) -> c_int {
        EOPNOTSUPP.to_errno()
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn dgram_dequeue(
        _vsk: Vsk,
        _msg: *mut bindings::msghdr,
        _len: usize,
        _flags: c_int,
    ) -> c_int {
        EOPNOTSUPP.to_errno()
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn dgram_enqueue(
        _vsk: Vsk,
        _addr: *mut bindings::sockaddr_vm,
        _msg: *mut bindings::msghdr,
        _len: usize,
    ) -> c_int {
        EOPNOTSUPP.to_errno()
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn dgram_allow(_vsk: Vsk, _cid: u32, _port: u32) -> bool {
        false
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn stream_dequeue(
        vsk: Vsk,
        msg: *mut bindings::msghdr,
        len: usize,
        flags: c_int,
    ) -> isize {
        // SAFETY: The message is valid during the call, and a destination.
        let mut msg: RecvMsg<'_> = unsafe { MsgHdr::from_raw(msg) };
        let peek = flags as u32 & bindings::MSG_PEEK != 0;
        // SAFETY: See `Shim`.
        let sock = unsafe { Self::locked(vsk) };
        from_ssize(T::stream_dequeue(sock, &mut msg, len, peek))
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn stream_enqueue(
        vsk: Vsk,
        msg: *mut bindings::msghdr,
        len: usize,
    ) -> isize {
        // SAFETY: The message is valid during the call, and a source.
        let mut msg: SendMsg<'_> = unsafe { MsgHdr::from_raw(msg) };
        // SAFETY: See `Shim`.
        let sock = unsafe { Self::locked(vsk) };
        from_ssize(T::stream_enqueue(sock, &mut msg, len))
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn stream_has_data(vsk: Vsk) -> i64 {
        // SAFETY: See `Shim`.
        let data = T::stream_has_data(unsafe { Self::locked(vsk) });
        i64::try_from(data).unwrap_or(i64::MAX)
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn stream_has_space(vsk: Vsk) -> i64 {
        // SAFETY: See `Shim`.
        let space = T::stream_has_space(unsafe { Self::locked(vsk) });
        i64::try_from(space).unwrap_or(i64::MAX)
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn stream_rcvhiwat(vsk: Vsk) -> u64 {
        // SAFETY: See `Shim`.
        unsafe { Self::locked(vsk) }.buffer_size()
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn stream_is_active(_vsk: Vsk) -> bool {
        true
    }

    /// # Safety
    ///
    /// See [`Shim`]. The socket may be without a transport.
    pub(super) unsafe extern "C" fn stream_allow(vsk: Vsk, cid: u32, port: u32) -> bool {
        // SAFETY: The core has a reference to the socket.
        T::stream_allow(unsafe { VsockSock::from_raw(vsk) }, SockAddr { cid, port })
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn seqpacket_dequeue(
        vsk: Vsk,
        msg: *mut bindings::msghdr,
        flags: c_int,
    ) -> isize {
        // SAFETY: The message is valid during the call, and a destination.
        let mut msg: RecvMsg<'_> = unsafe { MsgHdr::from_raw(msg) };
        let peek = flags as u32 & bindings::MSG_PEEK != 0;
        // SAFETY: See `Shim`.
        let sock = unsafe { Self::locked(vsk) };
        from_ssize(T::seqpacket_dequeue(sock, &mut msg, peek))
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn seqpacket_enqueue(
        vsk: Vsk,
        msg: *mut bindings::msghdr,
        len: usize,
    ) -> c_int {
        // SAFETY: The message is valid during the call, and a source.
        let mut msg: SendMsg<'_> = unsafe { MsgHdr::from_raw(msg) };
        // SAFETY: See `Shim`.
        let sock = unsafe { Self::locked(vsk) };
        let sent = from_ssize(T::seqpacket_enqueue(sock, &mut msg, len));
        c_int::try_from(sent).unwrap_or(c_int::MAX)
    }

    /// # Safety
    ///
    /// See [`Shim`]. The socket may be without a transport.
    pub(super) unsafe extern "C" fn seqpacket_allow(vsk: Vsk, cid: u32) -> bool {
        // SAFETY: The core has a reference to the socket.
        T::seqpacket_allow(unsafe { VsockSock::from_raw(vsk) }, cid)
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn seqpacket_has_data(vsk: Vsk) -> u32 {
        // SAFETY: See `Shim`.
        T::seqpacket_has_data(unsafe { Self::locked(vsk) })
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_poll_in(
        vsk: Vsk,
        target: usize,
        ready: *mut bool,
    ) -> c_int {
        // SAFETY: See `Shim`.
        let data = T::stream_has_data(unsafe { Self::locked(vsk) });
        // SAFETY: The core passes a place for the answer.
        unsafe { ready.write(data >= target) };
        0
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_poll_out(
        vsk: Vsk,
        _target: usize,
        ready: *mut bool,
    ) -> c_int {
        // SAFETY: See `Shim`.
        let space = T::stream_has_space(unsafe { Self::locked(vsk) });
        // SAFETY: The core passes a place for the answer.
        unsafe { ready.write(space > 0) };
        0
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_recv(
        _vsk: Vsk,
        _target: usize,
        _data: *mut bindings::vsock_transport_recv_notify_data,
    ) -> c_int {
        0
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_recv_post_dequeue(
        _vsk: Vsk,
        _target: usize,
        _copied: isize,
        _data_read: bool,
        _data: *mut bindings::vsock_transport_recv_notify_data,
    ) -> c_int {
        0
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_send_init(
        vsk: Vsk,
        _data: *mut bindings::vsock_transport_send_notify_data,
    ) -> c_int {
        // SAFETY: See `Shim`.
        T::send_begins(unsafe { Self::locked(vsk) });
        0
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_send(
        _vsk: Vsk,
        _data: *mut bindings::vsock_transport_send_notify_data,
    ) -> c_int {
        0
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_send_post_enqueue(
        _vsk: Vsk,
        _written: isize,
        _data: *mut bindings::vsock_transport_send_notify_data,
    ) -> c_int {
        0
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_buffer_size(vsk: Vsk, size: *mut u64) {
        // SAFETY: The core passes the size, which may be changed.
        let size = unsafe { &mut *size };
        // SAFETY: See `Shim`.
        T::buffer_size_changed(unsafe { Self::locked(vsk) }, size);
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn notify_set_rcvlowat(vsk: Vsk, val: c_int) -> c_int {
        // SAFETY: See `Shim`.
        let sock = unsafe { Self::locked(vsk) };
        let lowat = usize::try_from(val).unwrap_or(0);
        from_unit(T::rcvlowat_changed(sock, lowat))
    }

    /// # Safety
    ///
    /// See [`Shim`]. `vsock_linger()` calls this without the lock too, for a socket that is being
    /// closed.
    pub(super) unsafe extern "C" fn unsent_bytes(vsk: Vsk) -> isize {
        // SAFETY: Without the lock the socket is in `release()`, and is not destructed before that
        // returns.
        let state = unsafe { Self::state(vsk) };
        from_ssize(Ok(state.map_or(0, T::unsent_bytes)))
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn shutdown(vsk: Vsk, mode: c_int) -> c_int {
        let how = Shutdown::from_bits(mode as u32);
        // SAFETY: See `Shim`.
        from_unit(T::shutdown(unsafe { Self::locked(vsk) }, how))
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn read_skb(vsk: Vsk, actor: bindings::skb_read_actor_t) -> c_int {
        let Some(actor) = actor else {
            return EINVAL.to_errno();
        };
        // SAFETY: See `Shim`: packets are delivered with the socket locked, and this is what the
        // delivery calls.
        let sock = unsafe { Self::locked(vsk) };
        match T::read_skb(sock) {
            Ok(mut skb) => {
                // A BPF program reads the fields of the owner without asking if there is one.
                skb.set_receiver(sock);
                // SAFETY: The actor takes over the buffer, of which nobody else knows; the socket
                // is valid.
                unsafe { actor(vsk.cast(), skb.into_raw_clean().as_ptr()) }
            }
            Err(e) => e.to_errno(),
        }
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn msgzerocopy_allow() -> bool {
        true
    }

    /// # Safety
    ///
    /// See [`Shim`].
    pub(super) unsafe extern "C" fn get_local_cid() -> u32 {
        T::local_cid()
    }

    /// # Safety
    ///
    /// See [`Shim`]. The socket may be without a transport.
    pub(super) unsafe extern "C" fn has_remote_cid(vsk: Vsk, cid: u32) -> bool {
        // SAFETY: The core has a reference to the socket.
        T::has_remote_cid(unsafe { VsockSock::from_raw(vsk) }, cid)
    }
}
