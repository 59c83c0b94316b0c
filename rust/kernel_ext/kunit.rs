// SPDX-License-Identifier: GPL-2.0

//! The KUnit suites of this crate, and what those of other crates share with them.
//!
//! Only in kernels with `CONFIG_KUNIT=y`; see `Documentation/testing.rst`. A failed assertion ends
//! the thread of a test as it is: nothing is dropped then.
//!
//! C header: [`include/kunit/test.h`](srctree/include/kunit/test.h).

use crate::{
    bindings,
    iov::{
        RecvMsg,
        SendMsg, //
    },
    owner_mm::OwnerAddr,
    sock::{
        SockType,
        VsockSock, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

#[path = "kunit/block.rs"]
mod block;
#[path = "kunit/deferred.rs"]
mod deferred;
#[path = "kunit/owner.rs"]
mod owner;
#[path = "kunit/skb.rs"]
mod skb;
#[path = "kunit/skb_list.rs"]
mod skb_list;
#[path = "kunit/sock_table.rs"]
mod sock_table;
#[path = "kunit/sync.rs"]
mod sync;
#[path = "kunit/window.rs"]
mod window;

/// Something that counts how often it was dropped.
pub struct Dropped(Arc<Atomic<u32>>);

/// The count of some [`Dropped`].
pub struct Drops(Arc<Atomic<u32>>);

impl Drops {
    /// A count of nothing so far.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Atomic::new(0), GFP_KERNEL)?))
    }

    /// Something that is counted here.
    pub fn item(&self) -> Dropped {
        Dropped(self.0.clone())
    }

    /// How many were dropped.
    pub fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// `len` bytes of which no two neighbourhoods look the same.
///
/// # Errors
///
/// `ENOMEM`.
pub fn pattern(len: usize) -> Result<KVVec<u8>> {
    let mut bytes = KVVec::with_capacity(len, GFP_KERNEL)?;
    for n in 0..len {
        let byte = n.wrapping_mul(7).wrapping_add(n >> 8) as u8;
        bytes.push_within_capacity(byte).map_err(|_| ENOMEM)?;
    }
    Ok(bytes)
}

/// A vsock socket that no user has, without a transport.
///
/// # Invariants
///
/// A socket that was created and not released.
pub struct KernelSock(NonNull<bindings::socket>);

impl KernelSock {
    /// Creates a socket.
    ///
    /// # Errors
    ///
    /// What the core says.
    pub fn new(ty: SockType) -> Result<Self> {
        let ty = match ty {
            SockType::Stream => bindings::sock_type_SOCK_STREAM,
            SockType::SeqPacket => bindings::sock_type_SOCK_SEQPACKET,
        };
        let mut sock = core::ptr::null_mut();
        // SAFETY: The initial namespace always exists, and `sock` is valid for writes.
        to_result(unsafe {
            bindings::sock_create_kern(
                &raw mut bindings::init_net,
                bindings::AF_VSOCK as c_int,
                ty as c_int,
                0,
                &mut sock,
            )
        })?;
        // INVARIANT: It was just created.
        NonNull::new(sock).map(Self).ok_or(EINVAL)
    }

    /// The socket.
    pub fn sock(&self) -> &VsockSock {
        // SAFETY: By the type invariants, the socket is valid.
        let sk = unsafe { (*self.0.as_ptr()).sk };
        // SAFETY: The socket has a reference to it; a `struct sock` is the first field.
        unsafe { VsockSock::from_raw(sk.cast()) }
    }

    /// Memory that the socket is charged for as a sender; 1 if there is none.
    pub fn sender_memory(&self) -> usize {
        let sk = self.sock().as_sock();
        // SAFETY: The socket is alive.
        let counter = unsafe { &raw mut (*sk).sk_wmem_alloc.refs.counter };
        // SAFETY: The field is valid, and changed atomically.
        unsafe { Atomic::from_ptr(counter) }.load(Relaxed) as usize
    }
}

impl Drop for KernelSock {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the socket was not released yet.
        unsafe { bindings::sock_release(self.0.as_ptr()) };
    }
}

fn iter_over(memory: *mut u8, len: usize, direction: u32, f: impl FnOnce(&mut bindings::msghdr)) {
    let vec = bindings::kvec {
        iov_base: memory.cast(),
        iov_len: len,
    };
    let mut msg = bindings::msghdr::default();
    // SAFETY: The iterator is valid for writes; `vec` lives until the end of this function.
    unsafe { bindings::iov_iter_kvec(&mut msg.msg_iter, direction, &vec, 1, len) };
    f(&mut msg);
}

/// Does something with a message that sends `bytes`.
pub fn sending<R>(bytes: &[u8], f: impl FnOnce(&mut SendMsg<'_>) -> R) -> Result<R> {
    let mut ret = Err(EINVAL);
    let memory = bytes.as_ptr().cast_mut();
    iter_over(memory, bytes.len(), bindings::ITER_SOURCE, |msg| {
        // SAFETY: The message is valid, and its iterator is a source.
        ret = Ok(f(&mut unsafe { SendMsg::from_raw(msg) }));
    });
    ret
}

/// Does something with a message of `len` bytes of a user that are not there.
///
/// # Errors
///
/// Those of [`map_user_memory`].
pub fn sending_nothing<R>(len: usize, f: impl FnOnce(&mut SendMsg<'_>) -> R) -> Result<R> {
    // The thread gets an address space by it.
    map_user_memory(PAGE_SIZE)?;
    let vec = bindings::iovec {
        iov_base: core::ptr::without_provenance_mut(8),
        iov_len: len,
    };
    let mut msg = bindings::msghdr::default();
    // SAFETY: The iterator is valid for writes; `vec` lives until the end of this function.
    unsafe { bindings::iov_iter_init(&mut msg.msg_iter, bindings::ITER_SOURCE, &vec, 1, len) };
    // SAFETY: The message is valid, and its iterator is a source.
    Ok(f(&mut unsafe { SendMsg::from_raw(&mut msg) }))
}

/// Does something with a message that is received into `room`, and returns with the result whether
/// it ended a record.
pub fn receiving<R>(room: &mut [u8], f: impl FnOnce(&mut RecvMsg<'_>) -> R) -> Result<(R, bool)> {
    let mut ret = Err(EINVAL);
    iter_over(room.as_mut_ptr(), room.len(), bindings::ITER_DEST, |msg| {
        // SAFETY: The message is valid, and its iterator is a destination.
        let result = f(&mut unsafe { RecvMsg::from_raw(msg) });
        ret = Ok((result, msg.msg_flags & bindings::MSG_EOR != 0));
    });
    ret
}

/// Gives the thread of a test an address space, and maps `len` bytes of memory in it. They go with
/// the test.
///
/// # Errors
///
/// `ENOMEM`, `EINVAL` if no test is running.
pub fn map_user_memory(len: usize) -> Result<OwnerAddr> {
    /// `PROT_READ | PROT_WRITE`
    const READ_WRITE: c_ulong = 1 | 2;
    /// `MAP_PRIVATE | MAP_ANONYMOUS`
    const PRIVATE: c_ulong = 0x02 | 0x20;

    // SAFETY: FFI call without preconditions.
    let test = unsafe { bindings::kunit_get_current_test() };
    if test.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: This is a thread of KUnit, which is a thread of the kernel.
    to_result(unsafe { bindings::kunit_attach_mm() })?;
    // SAFETY: The test is valid, and it is the one that is running.
    let addr = unsafe {
        bindings::kunit_vm_mmap(
            test,
            core::ptr::null_mut(),
            0,
            len as c_ulong,
            READ_WRITE,
            PRIVATE,
            0,
        )
    };
    if addr == 0 {
        return Err(ENOMEM);
    }
    Ok(OwnerAddr::new(addr as usize))
}
