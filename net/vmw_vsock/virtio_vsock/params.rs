// SPDX-License-Identifier: GPL-2.0

//! Parameters of the module.

/// The parameters themselves: what the user gave, or the default.
mod given {
    kernel_ext::module_parameters! {
        pub(super) static siblings: bool = true,
            "Accept connections of machines other than the host. (default: Y)";
    }
}

/// Whether machines other than the host may open connections to this one.
///
/// A host may forward packets between its guests: AWS Nitro does, whose parent instance and enclave
/// are both guests, and so does vhost-user-vsock. A program that trusts a peer because its CID is not
/// the host's trusts what the host claims.
pub(crate) fn siblings() -> bool {
    given::siblings.get()
}
