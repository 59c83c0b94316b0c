// SPDX-License-Identifier: GPL-2.0

//! Payload that goes to the peer without a packet: not modelled here, see [`crate::ring`].

use core::marker::PhantomData;

/// Payload of a user.
pub struct Outgoing<'o, 'c, 'm>(PhantomData<(&'o (), &'c (), &'m ())>);
