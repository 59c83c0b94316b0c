// SPDX-License-Identifier: GPL-2.0

//! Parameters of the module, with the names and the defaults of the C module `vhost`, and one
//! of our own.

/// The parameters themselves: what the user gave, or the default.
mod given {
    kernel_ext::module_parameters! {
        pub(super) static max_mem_regions: u16 = 64,
            "Maximum number of memory regions in memory map. (default: 64)";
        pub(super) static max_iotlb_entries: i32 = 2048,
            "Maximum number of iotlb entries. (default: 2048)";
        pub(super) static fork_from_owner_default: bool = true,
            "Set task mode as the default(default: Y)";
        pub(super) static windows: bool = true,
            "Reach the memory of guests through the kernel's own mapping (default: Y)";
    }
}

/// The most regions that a memory table may have.
///
/// QEMU asks `/sys/module/vhost/parameters/max_mem_regions`, a file of the C module `vhost`, which
/// may be loaded for other devices, before it talks to any vhost device; it assumes 64 if there is
/// no such file. What that file says right now is accepted in any case.
///
/// Context: sleeps.
pub(crate) fn max_mem_regions() -> u16 {
    let promised = kernel_ext::module_param::of_other_module(c"vhost", c"max_mem_regions");
    given::max_mem_regions.get().max(promised.unwrap_or(0))
}

/// The most entries of an IOTLB. `None`, if whoever loaded the module wants none at all: then there
/// is no IOTLB, and no memory table either, as in C.
pub(crate) fn max_iotlb_entries() -> Option<usize> {
    usize::try_from(given::max_iotlb_entries.get())
        .ok()
        .filter(|max| *max != 0)
}

/// Whether the worker of a device is a thread of its owner, if user space does not say.
pub(crate) fn fork_from_owner_default() -> bool {
    given::fork_from_owner_default.get()
}

/// Whether there are windows of the memory of guests.
pub(crate) fn windows() -> bool {
    given::windows.get()
}
