// SPDX-License-Identifier: GPL-2.0

//! What goes wrong.

/// Told to a person: a sentence.
pub type Error = Box<dyn std::error::Error>;
