// SPDX-License-Identifier: GPL-2.0

//! Parameters of the module.

/// The parameters themselves: what the user gave, or the default.
mod given {
    kernel_ext::module_parameters! {
        pub(super) static bh: bool = true,
            "Deliver packets in the softirq of the device's interrupt. (default: Y)";
        pub(super) static siblings: bool = true,
            "Accept connections of machines other than the host. (default: Y)";
        pub(super) static rx_max_kib: u16 = 0,
            "Most memory of empty receive buffers, in KiB. (default: 0, by the machine's memory)";
        pub(super) static split_header: bool = false,
            "Give the device each header in a descriptor of its own, for old devices. (default: N)";
    }
}

/// Whether packets are delivered in softirqs, as far as that is possible, and not by a thread.
pub(crate) fn bh() -> bool {
    given::bh.get()
}

/// How much memory empty receive buffers may take, in KiB; 0 if that depends on the machine's.
pub(crate) fn rx_max_kib() -> u16 {
    given::rx_max_kib.get()
}

/// Whether machines other than the host may open connections to this one.
///
/// A host may forward packets between its guests: AWS Nitro does, whose parent instance and enclave
/// are both guests, and so does vhost-user-vsock. A program that trusts a peer because its CID is
/// not the host's trusts what the host claims.
pub(crate) fn siblings() -> bool {
    given::siblings.get()
}

/// Whether a header always has a descriptor of its own.
///
/// A device has to take a packet however it is split, and a header that is contiguous with its
/// payload needs no other descriptor. Some devices did not, until drivers did that: those of Linux
/// 6.3 to 6.6 were the first. The parameter is read when the device starts.
pub(crate) fn split_header() -> bool {
    given::split_header.get()
}
