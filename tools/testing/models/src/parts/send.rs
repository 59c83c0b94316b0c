// SPDX-License-Identifier: GPL-2.0

//! The way out, which sends nothing here.

use crate::carrier::Carrier;
use kernel::prelude::*;
use kernel_ext::{
    iov::SendMsg,
    sock::LockedSock, //
};

pub(crate) fn has_memory<C: Carrier>(sock: &LockedSock) -> bool {
    crate::conn::has_memory(sock)
}

pub(crate) fn stream<C: Carrier>(
    _sock: &mut LockedSock,
    _msg: &mut SendMsg<'_>,
    _len: usize,
) -> Result<usize> {
    Err(EAGAIN)
}

pub(crate) fn message<C: Carrier>(
    _sock: &mut LockedSock,
    _msg: &mut SendMsg<'_>,
    _len: usize,
) -> Result<usize> {
    Err(EAGAIN)
}
