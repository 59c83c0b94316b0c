// SPDX-License-Identifier: GPL-2.0

//! The file `/dev/vhost-vsock`.

use crate::{
    attr,
    device::VhostVsock, //
};
use kernel::{
    fs::File,
    ioctl::_IOW,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::{
        atomic::Relaxed,
        poll::PollTable,
        Arc,
        ArcBorrow, //
    },
};
use kernel_ext::miscdev::{
    FixedMiscDevice,
    VHOST_VSOCK_MINOR, //
};
use vhost_core::uapi::{
    self,
    Arg, //
};

/// Gives the guest its CID. Anybody who has the file may do so, and before it has an owner.
#[doc(alias = "VHOST_VSOCK_SET_GUEST_CID")]
const SET_GUEST_CID: u32 = _IOW::<u64>(uapi::TYPE, 0x60);
/// Starts or stops the queues.
#[doc(alias = "VHOST_VSOCK_SET_RUNNING")]
const SET_RUNNING: u32 = _IOW::<i32>(uapi::TYPE, 0x61);

#[vtable]
impl MiscDevice for VhostVsock {
    type Ptr = Arc<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        VhostVsock::new()
    }

    fn release(device: Arc<Self>, _file: &File) {
        VhostVsock::release(&device);
    }

    fn ioctl(me: ArcBorrow<'_, Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let arg = Arg::new(arg);
        match cmd {
            attr::SET_ATTR => me.set_attr(arg)?,
            attr::GET_ATTR => me.get_attr(arg)?,
            SET_GUEST_CID => Arc::from(me).set_cid(arg.read()?)?,
            SET_RUNNING => match arg.read::<i32>()? {
                0 => {
                    me.core.stop()?;
                    me.rooms.clear();
                }
                _ => {
                    me.core.start()?;
                    me.bad_buffers.store(0, Relaxed);
                }
            },
            _ => {
                me.core.ioctl(cmd, arg, &|| Arc::<Self>::from(me))?;
                if cmd == uapi::SET_OWNER {
                    me.note_owner();
                }
            }
        }
        Ok(0)
    }

    fn show_fdinfo(me: ArcBorrow<'_, Self>, m: &SeqFile, _file: &File) {
        me.show(m);
    }
}

impl FixedMiscDevice for VhostVsock {
    const NAME: &'static CStr = c"vhost-vsock";
    const MINOR: u8 = VHOST_VSOCK_MINOR;

    fn poll(me: ArcBorrow<'_, Self>, file: &File, table: PollTable<'_>) -> u32 {
        me.core.messages().poll(file, &table)
    }

    fn read(
        me: ArcBorrow<'_, Self>,
        iov: &mut IovIterDest<'_>,
        nonblocking: bool,
    ) -> Result<usize> {
        me.core.messages().read(iov, nonblocking)
    }

    fn write(me: ArcBorrow<'_, Self>, iov: &mut IovIterSource<'_>) -> Result<usize> {
        me.core.write_message(iov)
    }
}
