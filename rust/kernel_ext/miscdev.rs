// SPDX-License-Identifier: GPL-2.0

//! Misc devices with a fixed minor number, `poll` and a position-less `llseek`.
//!
//! [`kernel::miscdevice`] has none of them; this takes the file operations that it builds, and
//! completes them.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h).

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    fs::{
        File,
        Kiocb, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions, //
    },
    prelude::*,
    sync::poll::PollTable,
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

/// A misc device with a number of its own, that can be polled.
///
/// An `ioctl` of a 32-bit program is passed to [`MiscDevice::ioctl`], with the pointer widened,
/// unless the device has a [`MiscDevice::compat_ioctl`].
pub trait FixedMiscDevice: MiscDevice {
    /// Name of the device node.
    const NAME: &'static CStr;

    /// Minor number.
    const MINOR: u8;

    /// Returns the events that are ready, after having registered with `table` for those to come.
    fn poll(
        device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        file: &File,
        table: PollTable<'_>,
    ) -> u32;
}

/// The minor number of `/dev/vhost-vsock`.
pub const VHOST_VSOCK_MINOR: u8 = bindings::VHOST_VSOCK_MINOR as u8;

/// The registration of a [`FixedMiscDevice`]; dropping it removes the device.
///
/// It belongs into the data of the module that implements the device: an open file holds a
/// reference to that module, so that no file is open when this is dropped.
///
/// # Invariants
///
/// `inner` is registered with `misc_register()`, and points to `fops`.
// `repr(C)`: `open()` of `kernel::miscdevice` receives a pointer to `inner` as one to a
// `MiscDeviceRegistration`, which is a transparent wrapper of `struct miscdevice`.
#[repr(C)]
#[pin_data(PinnedDrop)]
pub struct Registration<T: FixedMiscDevice> {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    #[pin]
    fops: Opaque<bindings::file_operations>,
    _t: PhantomData<T>,
}

// SAFETY: `misc_deregister()` may be called on another thread than `misc_register()`.
unsafe impl<T: FixedMiscDevice> Send for Registration<T> {}
// SAFETY: There are no methods on `&Registration`.
unsafe impl<T: FixedMiscDevice> Sync for Registration<T> {}

impl<T: FixedMiscDevice> Registration<T> {
    /// Registers the device: it can be opened from now on.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the number is taken.
    pub fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(&this in Self {
            fops <- Opaque::ffi_init(|slot: *mut bindings::file_operations| {
                let raw = MiscDeviceOptions { name: T::NAME }.into_raw::<T>();
                // SAFETY: `slot` is valid for writes, and `raw.fops` points to a `static`. A
                // `file_operations` has no identity: copying its bytes copies the table.
                unsafe { core::ptr::copy_nonoverlapping(raw.fops, slot, 1) };
                // SAFETY: `slot` was initialized by the copy.
                unsafe { (*slot).poll = Some(Self::poll_callback) };
                // SAFETY: As above.
                unsafe { (*slot).llseek = Some(bindings::noop_llseek) };
            }),
            inner <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                let mut raw = MiscDeviceOptions { name: T::NAME }.into_raw::<T>();
                raw.minor = c_int::from(T::MINOR);
                // SAFETY: `this` points to the object that is being initialized; only the address
                // of the field is taken, which is pinned.
                raw.fops = unsafe { Opaque::cast_into(&raw const (*this.as_ptr()).fops) };
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(raw) };
                // INVARIANT: `inner` is registered if this succeeds.
                // SAFETY: `slot` is pinned, points to operations that were initialized above, and
                // is removed before it is freed.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
            _t: PhantomData,
        })
    }

    /// # Safety
    ///
    /// Only called by the VFS, for a file that was opened through the operations of this device.
    unsafe extern "C" fn poll_callback(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The file is valid for the duration of the call.
        let private = unsafe { (*file).private_data };
        // SAFETY: `open()` stored a `T::Ptr` there, which only `release()` takes out.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        // SAFETY: As above; `poll` is not called within `fdget_pos()`.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: The VFS passes a null pointer or a valid one, for the duration of the call.
        let table = unsafe { PollTable::from_raw(table) };
        T::poll(device, file, table)
    }
}

#[pinned_drop]
impl<T: FixedMiscDevice> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, the device is registered.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}

/// Says whether the file of an I/O request is in non-blocking mode.
pub fn is_nonblocking<T: ForeignOwnable>(kiocb: &Kiocb<'_, T>) -> bool {
    // SAFETY: By its type invariants, the request is valid.
    let file = unsafe { (*kiocb.as_raw()).ki_filp };
    // SAFETY: The file of a request is alive for as long as the request. The read is volatile, as
    // `READ_ONCE()`: `fcntl()` may change the flags.
    let flags = unsafe { (&raw const (*file).f_flags).read_volatile() };
    flags & bindings::O_NONBLOCK != 0
}
