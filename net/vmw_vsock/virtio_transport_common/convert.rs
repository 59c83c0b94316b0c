// SPDX-License-Identifier: GPL-2.0

//! The same things as the socket layer and as the protocol calls them.

use kernel_ext::sock::{
    Shutdown,
    SockAddr,
    SockType, //
};
use vsock_proto::{
    addr::{
        Addr,
        Cid,
        Port, //
    },
    header::{
        ShutdownFlags,
        SocketType, //
    }, //
};

pub(crate) fn wire_type(ty: SockType) -> SocketType {
    match ty {
        SockType::Stream => SocketType::Stream,
        SockType::SeqPacket => SocketType::SeqPacket,
    }
}

pub(crate) fn wire_addr(addr: SockAddr) -> Addr {
    Addr::new(Cid::new(addr.cid), Port::new(addr.port))
}

pub(crate) fn sock_addr(addr: Addr) -> SockAddr {
    SockAddr {
        cid: addr.cid.get(),
        port: addr.port.get(),
    }
}

pub(crate) fn wire_shutdown(how: Shutdown) -> ShutdownFlags {
    // The bits are the same: RCV_SHUTDOWN is VIRTIO_VSOCK_SHUTDOWN_RCV, and so on.
    ShutdownFlags::from_wire(how.bits())
}

pub(crate) fn sock_shutdown(flags: ShutdownFlags) -> Shutdown {
    Shutdown::from_bits(flags.raw())
}
