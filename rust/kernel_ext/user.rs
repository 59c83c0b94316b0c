// SPDX-License-Identifier: GPL-2.0

//! Who pays for what a socket takes.
//!
//! C header: [`include/linux/uidgid_types.h`](srctree/include/linux/uidgid_types.h).

use crate::sock::VsockSock;

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

    /// A user as a number, for tests.
    #[cfg(CONFIG_KUNIT = "y")]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}
