// SPDX-License-Identifier: GPL-2.0

//! What user space says about translations: messages by `write()`.
//!
//! See [`message`](crate::message) for what it was asked, and for the order of locks.

use crate::{
    device::Device,
    memory::area_ok,
    message::{
        IotlbMsg,
        Msg,
        MSG_V1,
        MSG_V2, //
    },
};
use kernel::{
    iov::IovIterSource,
    prelude::*, //
};
use vring::{
    iotlb::{
        Mapping,
        Perm, //
    },
    Gpa,
    UserAddr, //
};

/// There is a new mapping.
#[doc(alias = "VHOST_IOTLB_UPDATE")]
const UPDATE: u8 = 2;
/// Mappings are taken back.
#[doc(alias = "VHOST_IOTLB_INVALIDATE")]
const INVALIDATE: u8 = 3;

fn take<T: FromBytes + IntoBytes>(iov: &mut IovIterSource<'_>) -> Result<T> {
    let mut value = T::new_zeroed();
    let bytes = value.as_mut_bytes();
    if iov.copy_from_iter(bytes) != bytes.len() {
        return Err(EINVAL);
    }
    Ok(value)
}

impl Device {
    /// A message from user space. Returns how many bytes of it were taken: those that a message can
    /// have, also if the end, which has no meaning, is missing.
    ///
    /// Anybody who has the file may write, as in C: what the message refers to is checked.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if it is too short or of an unknown version, or a mapping without any bytes;
    /// - `EFAULT` if there is no IOTLB, or the message has no meaning; `ENOMEM` is reported so,
    ///   too.
    #[doc(alias = "vhost_chr_write_iter")]
    pub fn write_message(&self, iov: &mut IovIterSource<'_>) -> Result<usize> {
        let taken = iov.len().min(size_of::<Msg>());
        let version: u32 = take(iov)?;
        if version != MSG_V1 && version != MSG_V2 {
            return Err(EINVAL);
        }
        let _reserved: u32 = take(iov)?;
        let msg: IotlbMsg = take(iov)?;
        if msg.ty == UPDATE && msg.size == 0 {
            return Err(EINVAL);
        }
        self.process(&msg).map_err(|_| EFAULT)?;
        Ok(taken)
    }

    #[doc(alias = "vhost_process_iotlb_msg")]
    fn process(&self, msg: &IotlbMsg) -> Result {
        let start = Gpa(msg.iova);
        match msg.ty {
            UPDATE => {
                let more = msg.size.checked_sub(1).ok_or(EINVAL)?;
                let map = Mapping {
                    start,
                    last: start.checked_add(more).ok_or(EFAULT)?,
                    user: UserAddr(msg.uaddr),
                    perm: Perm::from_bits(msg.perm),
                };
                // What may not be accessed need not exist; but it must be a range.
                map.user.checked_add(more).ok_or(EFAULT)?;
                if !map.perm.is_none() && !area_ok(msg.uaddr, msg.size) {
                    return Err(EFAULT);
                }
                self.update_iotlb(map)?;
                self.answer(map.start, map.last);
            }
            INVALIDATE => {
                let last = match msg.size.checked_sub(1) {
                    // To take back more than there is does no harm.
                    Some(more) => Gpa(start.0.saturating_add(more)),
                    // 2^64 bytes: everything. C refuses that since it would be 0 bytes elsewhere.
                    None if start.0 == 0 => Gpa(u64::MAX),
                    None => return Err(EINVAL),
                };
                self.invalidate_iotlb(start, last)?;
                // An answer that is on its way may have been given before: ask again.
                self.answer(start, last);
            }
            _ => return Err(EINVAL),
        }
        Ok(())
    }

    /// Lets the queues go on that asked for something in a range.
    fn answer(&self, start: Gpa, last: Gpa) {
        self.messages.answer(start, last, |queue| {
            if let Some(queue) = self.queues.get(queue) {
                // Without a worker nobody waits.
                let _ = queue.queue_work();
            }
        });
    }
}
