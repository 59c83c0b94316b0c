// SPDX-License-Identifier: GPL-2.0

//! Sending the pages of a user instead of a copy (`MSG_ZEROCOPY`).
//!
//! C headers: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h),
//! [`Documentation/networking/msg_zerocopy.rst`](srctree/Documentation/networking/msg_zerocopy.rst).

use crate::{
    bindings,
    iov::SendMsg,
    skb::SkBuff,
    sock::LockedSock, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// The most pages that one buffer may refer to.
pub const MAX_PAGES: usize = bindings::MAX_SKB_FRAGS as usize;

/// How the user of a message learns that its pages are not used any more.
///
/// Every buffer that has pages of the message, or stands for a copy of a part of it, is bound to
/// the completion, which is reported when the last of them is gone. [`finish`](Self::finish) says
/// whether there is anything to report; dropping the object without it counts as nothing sent.
///
/// # Invariants
///
/// `uarg` is valid for all of `'a`; if `is_ours`, it has a reference that belongs to this object.
pub struct Completion<'a> {
    uarg: NonNull<bindings::ubuf_info>,
    is_ours: bool,
    _p: PhantomData<&'a ()>,
}

impl<'a> Completion<'a> {
    /// The completion that the user of `msg` asks for, if that is so: one of io_uring, or one of
    /// the error queue of a socket with `SO_ZEROCOPY`.
    ///
    /// `len` is how many bytes are going to be sent.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also if the limit of the user is reached.
    pub fn new(sock: &LockedSock, msg: &SendMsg<'a>, len: usize) -> Result<Option<Self>> {
        if !msg.wants_zerocopy() {
            return Ok(None);
        }
        if let Some(uarg) = NonNull::new(msg.ubuf()) {
            // INVARIANT: The caller of `sendmsg()` keeps it for the time of the call.
            return Ok(Some(Self {
                uarg,
                is_ours: false,
                _p: PhantomData,
            }));
        }
        if !sock.wants_zerocopy() {
            return Ok(None);
        }
        // SAFETY: The socket is valid and locked; there is no earlier completion to extend.
        let uarg = unsafe {
            bindings::msg_zerocopy_realloc(sock.as_sock().cast(), len, core::ptr::null_mut(), false)
        };
        // INVARIANT: A new completion has one reference, which is ours.
        Ok(Some(Self {
            uarg: NonNull::new(uarg).ok_or(ENOMEM)?,
            is_ours: true,
            _p: PhantomData,
        }))
    }

    /// Notes that the data was copied after all; the user is told.
    pub fn set_copied(&mut self) {
        if self.is_ours {
            // SAFETY: By the type invariants it is valid; ours are those of the error queue.
            unsafe { bindings::zerocopy_set_copied(self.uarg.as_ptr()) };
        }
    }

    /// Ends the use of the completion for a message; `sent` says whether any buffer that is bound
    /// to it was sent.
    pub fn finish(self, sent: bool) {
        let this = core::mem::ManuallyDrop::new(self);
        this.put(sent);
    }

    fn put(&self, sent: bool) {
        if !self.is_ours {
            return;
        }
        if sent {
            // SAFETY: By the type invariants, the reference is ours.
            unsafe { bindings::net_zcopy_put(self.uarg.as_ptr()) };
        } else {
            // SAFETY: As above.
            unsafe { bindings::net_zcopy_put_abort(self.uarg.as_ptr(), true) };
        }
    }
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        self.put(false);
    }
}

impl<C> SkBuff<C> {
    /// Binds the buffer to a completion.
    ///
    /// To be called before the buffer gets pages of the user, so that a failure on the way gives
    /// them back in the right way.
    #[doc(alias = "skb_zcopy_set")]
    pub fn bind_completion(&mut self, completion: &Completion<'_>) {
        // SAFETY: Both are valid by their type invariants; the buffer gets a reference.
        unsafe { bindings::skb_zcopy_set(self.as_raw(), completion.uarg.as_ptr()) };
    }

    /// Makes the payload, which must be empty, of the next `len` bytes of the user's pages.
    ///
    /// The buffer must have an owner, who is charged for the pages. Nobody but C code looks at
    /// them: the user may change them at any time.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EMSGSIZE` if one buffer cannot refer to so many pages, `EINVAL` without an owner.
    #[doc(alias = "__zerocopy_sg_from_iter")]
    pub fn fill_from_pages(&mut self, msg: &mut SendMsg<'_>, len: usize) -> Result {
        if !self.is_empty() || !self.has_owner() {
            return Err(EINVAL);
        }
        let (hdr, iter) = msg.as_raw();
        // SAFETY: The buffer is valid, empty, and has an owner; the message and its iterator are
        // valid.
        //
        // INVARIANT: The payload is in fragments, which count as initialized: no reference to them
        // is ever made.
        kernel::error::to_result(unsafe {
            bindings::__zerocopy_sg_from_iter(
                hdr,
                core::ptr::null_mut(),
                self.as_raw(),
                iter,
                len,
                core::ptr::null_mut(),
            )
        })
    }
}
