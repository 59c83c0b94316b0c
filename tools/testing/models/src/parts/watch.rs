// SPDX-License-Identifier: GPL-2.0

//! What is done once in a second: nothing, as no time passes here. See [`watches`](crate::watches).

/// A watch.
pub struct WatchSlot;
