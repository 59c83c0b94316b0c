// SPDX-License-Identifier: GPL-2.0

//! Whom to ask for a CID that somebody else has.

use kernel::{
    fmt,
    prelude::*, //
};
use kernel_ext::process::Process;

/// The process that people should look for if they want the CID.
#[derive(Clone, Copy)]
pub(crate) enum Holder {
    Nobody,
    /// It gave the guest its CID.
    SetCid(Process),
    /// It owns the device.
    Owner(Process),
}

impl Holder {
    /// The current process gave the guest its CID; the owner, if there is one, matters more.
    pub(crate) fn set_by_current(&mut self) {
        if !matches!(self, Self::Owner(_)) {
            *self = Self::SetCid(Process::of_current());
        }
    }

    /// The current process is the owner.
    pub(crate) fn owned_by_current() -> Self {
        Self::Owner(Process::of_current())
    }
}

impl Holder {
    /// The number of the process, 0 if there is none.
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Self::Nobody => 0,
            Self::SetCid(process) | Self::Owner(process) => process.pid(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("a process that is just opening the device"),
            Self::SetCid(process) => f.write_fmt(fmt!("the device that process {process} opened")),
            Self::Owner(process) => f.write_fmt(fmt!("the guest of process {process}")),
        }
    }
}
