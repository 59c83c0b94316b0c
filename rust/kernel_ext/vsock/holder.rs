// SPDX-License-Identifier: GPL-2.0

//! Which module has the place of a transport.

use super::transport::Kind;
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    str::BStr, //
};

/// A CID that belongs to a guest, if to anybody.
const SOME_GUEST: u32 = bindings::VMADDR_CID_ANY - 1;

/// A socket that has the transport in question, and thereby keeps its module.
///
/// The vsock core does not tell who is registered. It does choose a transport for a socket, so this
/// is a socket of the kernel that never connects, which nobody else knows.
///
/// # Invariants
///
/// `socket` is a vsock socket that [`Holder`] owns, and has a transport.
pub(super) struct Holder {
    socket: NonNull<bindings::socket>,
}

impl Holder {
    /// Who has the place now; `None` if that cannot be told, or nobody has it any more.
    ///
    /// Context: process context, may sleep. The caller is not within a call of a transport.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        let mut socket = core::ptr::null_mut();
        // SAFETY: The initial namespace exists for ever, and `socket` is valid for writes.
        let ret = to_result(unsafe {
            bindings::sock_create_kern(
                &raw mut bindings::init_net,
                bindings::AF_VSOCK as c_int,
                bindings::sock_type_SOCK_STREAM as c_int,
                0,
                &mut socket,
            )
        });
        ret.ok()?;
        // INVARIANT: The transport follows; without one the socket is released by `drop()`, and the
        // value is not returned.
        let holder = Self {
            socket: NonNull::new(socket)?,
        };
        let vsk = holder.vsk();
        let cid = match kind {
            Kind::HostToGuest => SOME_GUEST,
            Kind::GuestToHost => bindings::VMADDR_CID_HYPERVISOR,
            Kind::Local => bindings::VMADDR_CID_LOCAL,
        };
        // SAFETY: The socket is alive and known to nobody else.
        unsafe { (*vsk).remote_addr.svm_cid = cid };
        // SAFETY: As above; a socket that is not known needs no lock to get its first transport.
        to_result(unsafe { bindings::vsock_assign_transport(vsk, core::ptr::null_mut()) }).ok()?;
        let transport = holder.transport()?;
        if kind == Kind::HostToGuest {
            // A guest may reach others by way of its host, which is not what is asked for.
            let local = transport.get_local_cid?;
            // SAFETY: The transport is registered, and the socket keeps its module.
            let cid = unsafe { local() };
            if cid != bindings::VMADDR_CID_HOST {
                return None;
            }
        }
        Some(holder)
    }

    fn vsk(&self) -> *mut bindings::vsock_sock {
        // SAFETY: By the type invariants.
        let sk = unsafe { (*self.socket.as_ptr()).sk };
        // A `struct vsock_sock` begins with its `struct sock`.
        sk.cast()
    }

    fn transport(&self) -> Option<&bindings::vsock_transport> {
        // SAFETY: The socket is alive, and its transport changes no more.
        let transport = unsafe { (*self.vsk()).transport };
        // SAFETY: The transport does not go away while a socket has it.
        unsafe { transport.as_ref() }
    }

    /// The name of the module, which is not unloaded meanwhile. `None` if it is part of the kernel.
    pub(super) fn module(&self) -> Option<&BStr> {
        let module = self.transport()?.module;
        // SAFETY: A module has its name for as long as it is there; the socket keeps it.
        let module = unsafe { module.as_ref() }?;
        // Not by `CStr`, which has code to panic.
        let name = module.name.split(|byte| *byte == 0).next()?;
        Some(BStr::from_bytes(name))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is the owner's.
        unsafe { bindings::sock_release(self.socket.as_ptr()) };
    }
}
