// SPDX-License-Identifier: GPL-2.0

//! The ioctls for a queue.
//!
//! The caller is the owner, and the lock of the device is held: [`Device::ioctl`] saw to both.

use crate::{
    device::Device,
    state::RingAddrs,
    uapi::{
        self,
        Arg,
        RingAddr,
        RingFile,
        RingState, //
    },
    virtqueue::Virtqueue,
};
use kernel::prelude::*;
use kernel_ext::{
    eventfd::{
        EventFd,
        EventFdFile, //
    },
    owner_mm::OwnerAddr, //
};
use vring::{
    layout,
    nospec,
    Gpa,
    RingAddr as Addr, //
};

impl Device {
    /// # Errors
    ///
    /// `ENOBUFS` if there is no such queue, `EFAULT` if the argument cannot be accessed,
    /// `ENOIOCTLCMD` if it is no such ioctl; what else is up to the ioctl.
    #[doc(alias = "vhost_vring_ioctl")]
    pub(crate) fn ring_ioctl(&self, cmd: u32, arg: Arg) -> Result {
        let (index, queue) = self.queue_of(arg)?;
        match cmd {
            uapi::SET_VRING_NUM => queue.set_size(|| Self::num(arg)),
            uapi::SET_VRING_BASE => queue.set_base(|| Self::num(arg)),
            uapi::SET_VRING_ADDR => set_addr(queue, arg),
            uapi::GET_VRING_BASE => {
                let num = u32::from(queue.base());
                arg.write(&RingState { index, num })
            }
            uapi::SET_VRING_KICK => {
                let file = optional(arg, EventFdFile::from_fd)?;
                let (had_one, result) = queue.set_kick(file);
                if had_one {
                    self.flush();
                }
                result
            }
            uapi::SET_VRING_CALL => {
                let mut new = optional(arg, EventFd::from_fd)?;
                core::mem::swap(&mut queue.lock_inner().call, &mut new);
                Ok(())
            }
            uapi::SET_VRING_ERR => {
                let mut new = optional(arg, EventFd::from_fd)?;
                core::mem::swap(&mut queue.lock_inner().err, &mut new);
                Ok(())
            }
            #[cfg(CONFIG_VHOST_CROSS_ENDIAN_LEGACY)]
            uapi::SET_VRING_ENDIAN => queue.set_legacy_endian(|| Self::num(arg)),
            #[cfg(CONFIG_VHOST_CROSS_ENDIAN_LEGACY)]
            uapi::GET_VRING_ENDIAN => {
                let num = queue.legacy_endian();
                arg.write(&RingState { index, num })
            }
            uapi::SET_VRING_BUSYLOOP_TIMEOUT => {
                queue.lock_inner().busyloop_timeout = Self::num(arg)?;
                Ok(())
            }
            uapi::GET_VRING_BUSYLOOP_TIMEOUT => {
                let num = queue.lock_inner().busyloop_timeout;
                arg.write(&RingState { index, num })
            }
            _ => Err(ENOIOCTLCMD),
        }
    }

    /// Finds the queue that an argument begins with.
    #[doc(alias = "vhost_get_vq_from_user")]
    pub(crate) fn queue_of(&self, arg: Arg) -> Result<(u32, &Virtqueue)> {
        let index: u32 = arg.read()?;
        let count = u32::try_from(self.queues.len()).map_err(|_| ENOBUFS)?;
        if index >= count {
            return Err(ENOBUFS);
        }
        // CAST: It gets no larger.
        let index = nospec::below(index.into(), count.into()) as u32;
        // CAST: Less than the number of queues.
        let queue = self.queues.get(index as usize).ok_or(ENOBUFS)?;
        Ok((index, queue))
    }

    fn num(arg: Arg) -> Result<u32> {
        Ok(arg.read::<RingState>()?.num)
    }
}

/// Takes the file of an argument, if there is one.
fn optional<F>(arg: Arg, from_fd: impl FnOnce(i32) -> Result<F>) -> Result<Option<F>> {
    match arg.read::<RingFile>()?.fd {
        uapi::UNBIND => Ok(None),
        fd => from_fd(fd).map(Some),
    }
}

/// # Errors
///
/// `EOPNOTSUPP` for unknown flags, `EFAULT` for what is wider than an address, `EINVAL` for what is
/// not aligned, or not in user space (the ring, or its log) while the queue is started.
#[doc(alias = "vhost_vring_set_addr")]
fn set_addr(queue: &Virtqueue, arg: Arg) -> Result {
    let addr: RingAddr = arg.read()?;
    if addr.flags & !uapi::RING_F_LOG != 0 {
        return Err(EOPNOTSUPP);
    }
    let parts = [addr.desc, addr.avail, addr.used];
    if parts
        .iter()
        .any(|part| OwnerAddr::from_u64(*part).is_none())
    {
        return Err(EFAULT);
    }
    let [desc, avail, used] = parts.map(Addr);
    // The descriptor table may be anywhere: it is copied as bytes.
    if !avail.is_aligned(layout::AVAIL_ALIGN)
        || !used.is_aligned(layout::USED_ALIGN)
        || !Addr(addr.log).is_aligned(layout::USED_ALIGN)
    {
        return Err(EINVAL);
    }
    let log = (addr.flags & uapi::RING_F_LOG != 0).then_some(Gpa(addr.log));
    queue.set_addrs(RingAddrs { desc, avail, used }, log)
}
