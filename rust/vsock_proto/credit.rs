// SPDX-License-Identifier: GPL-2.0

//! Credit: how much one side may send without the other side losing any of it.
//!
//! Each side has a receive buffer for a connection and says in every packet how large it is
//! (`buf_alloc`) and how many bytes have left it so far (`fwd_cnt`). The sender counts what it
//! sends, and so knows how much is free. `fwd_cnt` wraps around at 2^32: only differences have a
//! meaning.
//!
//! Each connection has one [`TxCredit`], fed with what the peer says, and one [`RxCredit`], from
//! which comes what the peer is told. They are the only place with arithmetic on these numbers,
//! which may be lies. What a lie can bring:
//!
//! - The peer gets back only credit for bytes that were put into its hands
//!   ([`TxCredit::hand_over`]), each of them once. A count beyond that is an error, for which the
//!   connection is to be reset.
//! - A `buf_alloc` can be anything, and change at any time. At most our own buffer size is ever in
//!   flight, and a buffer that shrinks below what is in flight just means: no space.
//! - A packet whose `fwd_cnt` is older than the last one changes nothing. It need not be a lie: two
//!   threads of an honest peer may send in another order than they stamped.
//!
//! Neither type has a lock. What the C code keeps under `tx_lock` is [`TxCredit`], and under
//! `rx_lock` [`RxCredit`].
//!
//! Specification: virtio 1.3, section 5.10.6.3 "Buffer Space Management".

#[path = "credit/rx.rs"]
mod rx;
#[path = "credit/tx.rs"]
mod tx;

pub use self::{
    rx::{
        Overflow,
        RxCredit, //
    },
    tx::{
        CreditChange,
        CreditError,
        Room,
        Silence,
        TxCredit, //
    }, //
};

#[cfg(test)]
#[path = "credit/model.rs"]
mod model;
#[cfg(test)]
#[path = "credit/properties.rs"]
mod properties;
#[cfg(test)]
#[path = "credit/tests.rs"]
mod tests;
