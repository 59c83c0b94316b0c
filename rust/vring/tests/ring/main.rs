// SPDX-License-Identifier: GPL-2.0

//! Tests of the ring against drivers of all kinds.

mod ahead;
mod dirty;
mod driver;
mod hostile;
mod notify;
mod props;
mod regions;
mod traffic;
