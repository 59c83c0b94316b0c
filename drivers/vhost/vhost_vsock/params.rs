// SPDX-License-Identifier: GPL-2.0

//! Parameters of the module.

/// The parameters themselves: what the user gave, or the default.
mod given {
    kernel_ext::module_parameters! {
        pub(super) static direct: bool = true,
            "Who sends to a guest fills its buffers, if that can be done at once. (default: Y)";
    }
}

/// Whether a sender fills the guest's buffers itself.
#[inline]
pub(crate) fn direct() -> bool {
    given::direct.get()
}
