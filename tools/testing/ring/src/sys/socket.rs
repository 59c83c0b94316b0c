// SPDX-License-Identifier: GPL-2.0

//! Sockets of AF_VSOCK, and passing descriptors on.

use super::{check, memory::Mapping, owned};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// An address of AF_VSOCK.
pub const CID_ANY: u32 = u32::MAX;

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    libc::sockaddr_vm {
        svm_family: libc::AF_VSOCK as libc::sa_family_t,
        svm_reserved1: 0,
        svm_port: port,
        svm_cid: cid,
        svm_zero: [0; 4],
    }
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

/// A socket of AF_VSOCK that does not block (`libc::SOCK_STREAM`, `libc::SOCK_SEQPACKET`).
pub fn vsock(kind: i32) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: No memory is passed.
    owned(unsafe { libc::socket(libc::AF_VSOCK, kind | flags, 0) })
}

pub fn connect(fd: BorrowedFd<'_>, cid: u32, port: u32) -> io::Result<()> {
    let addr = address(cid, port);
    // SAFETY: An address of the given length.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const addr).cast(), ADDRESS_LEN) })?;
    Ok(())
}

pub fn bind(fd: BorrowedFd<'_>, cid: u32, port: u32) -> io::Result<()> {
    let addr = address(cid, port);
    // SAFETY: An address of the given length.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), ADDRESS_LEN) })?;
    Ok(())
}

pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

pub fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let none = std::ptr::null_mut();
    // SAFETY: No address is asked for.
    owned(unsafe { libc::accept4(fd.as_raw_fd(), none, std::ptr::null_mut(), flags) })
}

/// CID and port of our end.
pub fn local(fd: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut addr = address(0, 0);
    let mut len = ADDRESS_LEN;
    // SAFETY: An address of the given length, writable.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut addr).cast(), &mut len) })?;
    Ok((addr.svm_cid, addr.svm_port))
}

pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], flags: i32) -> io::Result<usize> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: Bytes of the given length.
    let n = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

pub fn recv(fd: BorrowedFd<'_>, bytes: &mut [u8], flags: i32) -> io::Result<usize> {
    let (to, len) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: Bytes of the given length, writable.
    let n = unsafe { libc::recv(fd.as_raw_fd(), to, len, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// As [`send`], from memory that may not be there yet: the kernel waits for it.
pub fn send_mapped(fd: BorrowedFd<'_>, memory: &Mapping, len: usize) -> io::Result<usize> {
    let (from, flags) = (memory.at(0, len), libc::MSG_NOSIGNAL);
    // SAFETY: Bytes of the given length, in a mapping; only the kernel reads them meanwhile.
    let n = unsafe { libc::send(fd.as_raw_fd(), from.cast(), len, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// As [`recv`], to memory that may not be there yet: the kernel waits for it.
pub fn recv_mapped(fd: BorrowedFd<'_>, memory: &Mapping, len: usize) -> io::Result<usize> {
    let to = memory.at(0, len);
    // SAFETY: Bytes of the given length, in a mapping of pages that are only accessed as atomics.
    let n = unsafe { libc::recv(fd.as_raw_fd(), to.cast(), len, 0) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// As [`set_vsock_option`], one word from memory that may not be there yet: the kernel waits for
/// it.
pub fn set_vsock_option_mapped(fd: BorrowedFd<'_>, name: i32, memory: &Mapping) -> io::Result<()> {
    let len = size_of::<u64>();
    let (from, level) = (memory.at(0, len), libc::AF_VSOCK);
    let size = len as libc::socklen_t;
    // SAFETY: A word in a mapping; only the kernel reads it meanwhile.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, from.cast(), size) })?;
    Ok(())
}

/// Says that nothing more is sent.
pub fn shut_down_sending(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) })?;
    Ok(())
}

/// Takes the pending error of a socket, 0 if there is none.
pub fn error(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ERROR);
    let to = (&raw mut value).cast();
    // SAFETY: An integer of the given length, writable.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, to, &mut len) })?;
    Ok(value)
}

/// Sets `SO_KEEPALIVE`.
pub fn keep_alive(fd: BorrowedFd<'_>) -> io::Result<()> {
    switch_on(fd, libc::SO_KEEPALIVE)
}

/// Sets `SO_ZEROCOPY`.
pub fn allow_zerocopy(fd: BorrowedFd<'_>) -> io::Result<()> {
    switch_on(fd, libc::SO_ZEROCOPY)
}

/// Switches an option of all sockets on.
fn switch_on(fd: BorrowedFd<'_>, name: i32) -> io::Result<()> {
    let value: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let level = libc::SOL_SOCKET;
    let from = (&raw const value).cast();
    // SAFETY: An integer of the given length.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, from, len) })?;
    Ok(())
}

/// Sets an option of AF_VSOCK, which is made of words of 64 bits.
pub fn set_vsock_option(fd: BorrowedFd<'_>, name: i32, value: &[u64]) -> io::Result<()> {
    let len = size_of_val(value) as libc::socklen_t;
    let from = value.as_ptr().cast();
    // SAFETY: Words of the given length.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::AF_VSOCK, name, from, len) })?;
    Ok(())
}

/// Bytes that were sent and are not with the peer yet.
pub fn outq(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut value: libc::c_int = 0;
    // SAFETY: An integer, writable.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut value) })?;
    Ok(value as usize)
}

/// A pair of connected sockets of AF_UNIX.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: Room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// A control message with one descriptor, aligned as the kernel wants it.
#[repr(C)]
struct WithFd {
    header: libc::cmsghdr,
    fd: libc::c_int,
    padding: libc::c_int,
}

const WITH_FD_LEN: usize = size_of::<libc::cmsghdr>() + size_of::<libc::c_int>();

fn message(iov: &mut libc::iovec, control: &mut WithFd) -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: iov,
        msg_iovlen: 1,
        msg_control: (&raw mut *control).cast(),
        msg_controllen: size_of::<WithFd>(),
        msg_flags: 0,
    }
}

/// Passes a descriptor to whoever has the other end of `socket` (`SCM_RIGHTS`).
pub fn send_fd(socket: &OwnedFd, fd: &impl AsFd) -> io::Result<()> {
    let mut control = WithFd {
        header: libc::cmsghdr {
            cmsg_len: WITH_FD_LEN,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        fd: fd.as_fd().as_raw_fd(),
        padding: 0,
    };
    let mut byte = 0u8;
    let mut iov = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let msg = message(&mut iov, &mut control);
    // SAFETY: All that the message refers to lives until the call returns.
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &msg, 0) };
    check(n as libc::c_int)?;
    Ok(())
}

/// Receives a descriptor.
pub fn recv_fd(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut control = WithFd {
        header: libc::cmsghdr {
            cmsg_len: 0,
            cmsg_level: 0,
            cmsg_type: 0,
        },
        fd: -1,
        padding: 0,
    };
    let mut byte = 0u8;
    let mut iov = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut msg = message(&mut iov, &mut control);
    // SAFETY: All that the message refers to lives until the call returns, and is writable.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut msg, libc::MSG_CMSG_CLOEXEC) };
    check(n as libc::c_int)?;
    if control.header.cmsg_type != libc::SCM_RIGHTS || control.header.cmsg_len != WITH_FD_LEN {
        return Err(io::Error::from_raw_os_error(libc::EBADMSG));
    }
    // SAFETY: The kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(control.fd) })
}
