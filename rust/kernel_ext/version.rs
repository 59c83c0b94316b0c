// SPDX-License-Identifier: GPL-2.0

//! Which version of this tree a module is of.
//!
//! `modinfo -F version`, `/sys/module/<module>/version` and a line in the kernel's log say it: the
//! modules have the names of the C ones, so their names do not tell which of them runs.

/// The version of this tree, of the packages made of it too: `tools/packaging` reads this line.
#[doc(hidden)]
#[macro_export]
macro_rules! __version {
    () => {
        "0.9.0"
    };
}

/// The version, as a text.
pub const VERSION: &str = crate::__version!();

/// Gives the module of this crate its version, as `MODULE_VERSION` does for one in C.
///
/// # Examples
///
/// ```ignore
/// kernel_ext::module_version!();
/// ```
#[macro_export]
macro_rules! module_version {
    () => {
        $crate::__modinfo!("version=", $crate::__version!());
    };
}
