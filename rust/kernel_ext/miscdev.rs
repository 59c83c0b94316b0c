// SPDX-License-Identifier: GPL-2.0

//! Misc devices with a fixed minor number, `poll`, and messages by `read` and `write`.
//!
//! [`kernel::miscdevice`] has not all of that; this takes the file operations that it builds, and
//! completes them.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h).

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    fs::File,
    iov::{
        IovIterDest,
        IovIterSource, //
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

/// A misc device with a number of its own, for messages without a position in the file.
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

    /// Reads a message. Returns how many bytes it has.
    fn read(
        device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        iov: &mut IovIterDest<'_>,
        nonblocking: bool,
    ) -> Result<usize>;

    /// Writes a message. Returns how many bytes were taken.
    fn write(
        device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        iov: &mut IovIterSource<'_>,
    ) -> Result<usize>;
}

/// The events of [`FixedMiscDevice::poll`] that say that there is something to read.
pub const READABLE: u32 = bindings::POLLIN | bindings::POLLRDNORM;

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
                // SAFETY: `slot` was initialized by the copy, and nobody else refers to it yet.
                let fops = unsafe { &mut *slot };
                fops.poll = Some(Self::poll_callback);
                fops.llseek = Some(bindings::noop_llseek);
                fops.read_iter = Some(Self::read_callback);
                fops.write_iter = Some(Self::write_callback);
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
        // SAFETY: By the safety requirements; the file is valid for the duration of the call.
        let device = unsafe { Self::device(file) };
        // SAFETY: The file is valid for the duration of the call, and `poll` is not called within
        // `fdget_pos()`.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: The VFS passes a null pointer or a valid one, for the duration of the call.
        let table = unsafe { PollTable::from_raw(table) };
        T::poll(device, file, table)
    }

    /// # Safety
    ///
    /// `file` is a valid file that was opened through the operations of this device, and stays open
    /// for `'a`.
    unsafe fn device<'a>(file: *mut bindings::file) -> <T::Ptr as ForeignOwnable>::Borrowed<'a> {
        // SAFETY: By the safety requirements; nobody writes the field while the file is open.
        let private = unsafe { (*file).private_data };
        // SAFETY: `open()` stored a `T::Ptr` there, which only `release()` takes out.
        unsafe { <T::Ptr as ForeignOwnable>::borrow(private) }
    }

    /// # Safety
    ///
    /// Only called by the VFS, for a file that was opened through the operations of this device.
    unsafe extern "C" fn read_callback(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The request is valid for the duration of the call.
        let file = unsafe { (*kiocb).ki_filp };
        // SAFETY: By the safety requirements; a request has a reference to its file.
        let device = unsafe { Self::device(file) };
        // CAST: `IovIterDest` is transparent over `struct iov_iter`. Its `from_raw()` does the
        // same, and asserts the direction with a panic.
        //
        // SAFETY: The VFS passes a valid destination, which nobody else uses meanwhile.
        let iov = unsafe { &mut *iter.cast::<IovIterDest<'_>>() };
        // SAFETY: The file is valid for the duration of the call.
        let nonblocking = unsafe { Self::is_nonblocking(file) };
        match T::read(device, iov, nonblocking) {
            // CAST: Not more than there is memory.
            Ok(len) => len as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Only called by the VFS, for a file that was opened through the operations of this device.
    unsafe extern "C" fn write_callback(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The request is valid for the duration of the call.
        let file = unsafe { (*kiocb).ki_filp };
        // SAFETY: By the safety requirements; a request has a reference to its file.
        let device = unsafe { Self::device(file) };
        // CAST: As in `read_callback()`.
        //
        // SAFETY: The VFS passes a valid source, which nobody else uses meanwhile.
        let iov = unsafe { &mut *iter.cast::<IovIterSource<'_>>() };
        match T::write(device, iov) {
            // CAST: Not more than there is memory.
            Ok(len) => len as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `file` is valid.
    unsafe fn is_nonblocking(file: *mut bindings::file) -> bool {
        // SAFETY: By the safety requirements. The read is volatile, as `READ_ONCE()`: `fcntl()` may
        // change the flags.
        let flags = unsafe { (&raw const (*file).f_flags).read_volatile() };
        flags & bindings::O_NONBLOCK != 0
    }
}

#[pinned_drop]
impl<T: FixedMiscDevice> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, the device is registered.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}
