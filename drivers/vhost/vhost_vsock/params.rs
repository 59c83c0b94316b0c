// SPDX-License-Identifier: GPL-2.0

//! Parameters of the module.

/// The parameters themselves: what the user gave, or the default.
mod given {
    kernel_ext::module_parameters! {
        pub(super) static direct: bool = true,
            "Who sends to a guest fills its buffers, if that can be done at once. (default: Y)";
        pub(super) static inline: bool = true,
            "Let the thread that kicks do the work of the queue (default: Y)";
    }
}

/// Whether a sender fills the guest's buffers itself.
#[inline]
pub(crate) fn direct() -> bool {
    given::direct.get()
}

/// Whether threads of the owner that kick do the work of a queue themselves: see
/// [`Kicks`](vhost_core::virtqueue::Kicks).
pub(crate) fn are_kicks_inline() -> bool {
    given::inline.get()
}
