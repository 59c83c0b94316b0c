// SPDX-License-Identifier: GPL-2.0

//! Packets, on their way out and in.

#[path = "packet/control.rs"]
mod control;
#[path = "packet/header.rs"]
mod header;
#[path = "packet/rx.rs"]
mod rx;
#[path = "packet/tx.rs"]
mod tx;

pub use self::{
    control::TxControl,
    rx::RxPacket,
    tx::{
        Fragment,
        TxPacket, //
    }, //
};

pub(crate) use self::{
    control::MOST_JOINED,
    header::{
        header_to,
        trace_dropped,
        trace_made,
        trace_received, //
    },
    tx::Payload, //
};
