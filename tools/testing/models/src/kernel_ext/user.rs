// SPDX-License-Identifier: GPL-2.0

//! There is one user.

use super::sock::VsockSock;

/// The user.
#[derive(Clone, Copy)]
pub struct User;

impl User {
    /// That of a socket.
    pub fn of(_sock: &VsockSock) -> Self {
        Self
    }
}
