// SPDX-License-Identifier: GPL-2.0

//! Who pays for what a socket takes.
//!
//! C header: [`include/linux/uidgid_types.h`](srctree/include/linux/uidgid_types.h).

use crate::{
    bindings,
    sock::VsockSock, //
};
use kernel::prelude::*;

/// Whether the current task is an administrator of this machine, or of its network: not only of a
/// container.
#[doc(alias = "capable")]
pub fn is_administrator() -> bool {
    [bindings::CAP_NET_ADMIN, bindings::CAP_SYS_ADMIN]
        .iter()
        // CAST: Small numbers.
        //
        // SAFETY: FFI call without preconditions, in a task.
        .any(|capability| unsafe { bindings::capable(*capability as c_int) })
}

/// A user of this machine, whatever the user namespace: a `kuid_t`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct User(u32);

impl User {
    /// The user who created a socket; of one that was made by a listener, who created that.
    ///
    /// (`sk_uid` of the latter says root until the socket is accepted.)
    pub fn of(sock: &VsockSock) -> Self {
        // SAFETY: By the type invariants, the socket is valid. The field does not change until it
        // is destroyed.
        let owner = unsafe { (*sock.as_raw()).owner };
        // SAFETY: The socket has a reference to the credentials, which do not change. The user is
        // the one whose files are made with them, as for `sk_uid`.
        Self(unsafe { (*owner).fsuid.val })
    }

    /// The number in the first user namespace.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// A user as a number, for tests.
    #[cfg(CONFIG_KUNIT = "y")]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}
