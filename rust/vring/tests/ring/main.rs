// SPDX-License-Identifier: GPL-2.0

//! Tests of the ring against drivers of all kinds.

mod ahead;
mod corners;
mod dirty;
mod driver;
mod hostile;
mod indirect;
mod notify;
mod props;
mod receive;
mod regions;
mod traffic;
