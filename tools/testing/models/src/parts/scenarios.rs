// SPDX-License-Identifier: GPL-2.0

//! The models by name.

pub(crate) use crate::{
    connecting::{connect, connect_again, connect_and_close, connect_and_signal, late_answer},
    direct::{direct, direct_close, direct_connect},
    ends::{
        close_and_unplug, connect_and_unplug, deliver_and_unplug, listen, listen_and_close,
        listen_stuck, read_and_unplug,
    },
    reading::{close, end_while_owned, moves, news_of_two, peek, stream, writer},
    wire::How,
};
