// SPDX-License-Identifier: GPL-2.0

//! A device that is reset under its driver, and goes on.
//!
//! Whoever resets the parent of the device, for example by `reset` in sysfs, causes it; a driver
//! causes it by [`Adapter::restart`] when its device makes no sense any more. For the driver it is
//! as if the machine had slept: [`Driver::freeze`], then [`Driver::restore`]. [`Adapter::halt`] is
//! the first half of that.
//!
//! # Lock order
//!
//! 1. The lock of the device's parent. The bus has it while it resets the parent, lets it sleep,
//!    wakes it up or removes it, and so has [`Adapter::restart`] or [`Adapter::halt`]: of all of
//!    these one goes on at a time.
//! 2. The lock of the device: its driver is neither bound nor unbound meanwhile. What the virtio
//!    core calls for a reset takes it, unless `restart`, which has it, is who resets: see
//!    [`RESTARTING`].
//! 3. What the driver takes in [`Driver::freeze`] and [`Driver::restore`], and where it is asked
//!    whether it still wants to be restarted.

use super::{
    Adapter,
    Binding,
    Device,
    Driver, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    device,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

// SAFETY: A device is counted by its `struct device`, which is released with the last reference.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants, the device is valid.
        let dev = unsafe { &raw mut (*self.as_raw()).dev };
        // SAFETY: As above; there is a reference, hence the count is not zero.
        unsafe { bindings::get_device(dev) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let vdev = obj.cast::<bindings::virtio_device>().as_ptr();
        // SAFETY: By the safety requirements, the device is valid.
        let dev = unsafe { &raw mut (*vdev).dev };
        // SAFETY: By the safety requirements, the caller gives up a reference.
        unsafe { bindings::put_device(dev) };
    }
}

// SAFETY: A device is counted, and can be released by any thread.
unsafe impl Send for Device {}
// SAFETY: All that can be done with a `Device<Normal>` can be done by several threads at once.
unsafe impl Sync for Device {}

impl<Ctx: device::DeviceContext> Device<Ctx> {
    /// A reference that outlives the driver's being bound to the device.
    pub fn counted(&self) -> ARef<Device> {
        // SAFETY: `Device` is the same type in all contexts, but for a marker without a size.
        let this = unsafe { &*core::ptr::from_ref(self).cast::<Device>() };
        this.into()
    }
}

/// The lock of a device, held.
///
/// # Invariants
///
/// `0` is valid, and locked by this value.
struct DeviceLock(*mut bindings::device);

impl DeviceLock {
    /// # Safety
    ///
    /// The device is valid for as long as the result exists.
    unsafe fn new(dev: *mut bindings::device) -> Self {
        // SAFETY: By the safety requirements.
        unsafe { bindings::device_lock(dev) };
        // INVARIANT: It was just locked.
        Self(dev)
    }
}

impl Drop for DeviceLock {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::device_unlock(self.0) };
    }
}

/// The device that [`Adapter::restart`] has locked while the virtio core calls its driver.
///
/// It must not be locked again then. As its parent is locked, all that the core calls for this
/// device comes from there.
static RESTARTING: Atomic<*mut bindings::virtio_device> = Atomic::new(core::ptr::null_mut());

/// The right to restart a device.
struct Restarting;

impl Restarting {
    /// # Errors
    ///
    /// `EBUSY` if another device is being restarted.
    fn new(vdev: *mut bindings::virtio_device) -> Result<Self> {
        RESTARTING
            .cmpxchg(core::ptr::null_mut(), vdev, Relaxed)
            .map(|_| Self)
            .map_err(|_| EBUSY)
    }

    fn is(vdev: *mut bindings::virtio_device) -> bool {
        // Relaxed: if it is this one, this task has written it.
        RESTARTING.load(Relaxed) == vdev
    }
}

impl Drop for Restarting {
    fn drop(&mut self) {
        RESTARTING.store(core::ptr::null_mut(), Relaxed);
    }
}

impl<T: Driver> Adapter<T> {
    /// Resets a device and starts it anew, if its driver is bound to it with `shared`, and `still`
    /// wants that. While `still` is called, the device is neither bound, unbound nor restored.
    ///
    /// Context: may sleep. None of the locks of the [order](self#lock-order) is held, nor one that
    /// others hold when they take the first of them.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the driver is not bound any more, `still` is false, the device sleeps, or the
    /// machine is being switched off, `EBUSY` if another device is being restarted right now:
    /// nothing was done. What [`Driver::restore`] says, in which case the device is bound, and has
    /// no queues.
    pub fn restart(
        dev: &Device,
        shared: &Arc<T::Shared>,
        still: impl FnOnce(&T::Shared) -> bool,
    ) -> Result {
        let vdev = dev.as_raw();
        Self::with_started(dev, shared, still, |_, _| {
            // Nobody unbinds the driver between the two calls: the device is locked.
            let _restarting = Restarting::new(vdev)?;
            // SAFETY: The device is valid, and nobody else resets it, as the parent is locked.
            to_result(unsafe { bindings::virtio_device_reset_prepare(vdev) })?;
            // SAFETY: As above.
            to_result(unsafe { bindings::virtio_device_reset_done(vdev) })
        })
    }

    /// Resets a device and takes its queues away, under the conditions of
    /// [`restart`](Self::restart): it has no access to memory any more, and all that it had is
    /// given back. The driver stays bound. It gets the device back, by [`Driver::restore`], when
    /// the machine has slept or the device's parent is reset.
    ///
    /// Context: as for [`restart`](Self::restart), but for [`Driver::restore`].
    ///
    /// # Errors
    ///
    /// `ENODEV`, as for [`restart`](Self::restart).
    pub fn halt(
        dev: &Device,
        shared: &Arc<T::Shared>,
        still: impl FnOnce(&T::Shared) -> bool,
    ) -> Result {
        Self::with_started(dev, shared, still, |dev, binding| {
            Self::suspend(dev, binding);
            Ok(())
        })
    }

    /// Locks the parent of a device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it has none, or the machine is being switched off.
    ///
    /// # Safety
    ///
    /// The device is valid for as long as the result exists.
    unsafe fn lock_parent(vdev: *mut bindings::virtio_device) -> Result<DeviceLock> {
        // SAFETY: By the safety requirements.
        let parent = unsafe { (*vdev).dev.parent };
        if parent.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: A device has a reference to its parent.
        let lock = unsafe { DeviceLock::new(parent) };
        // A device that was shut down must not be started again: the next kernel may be running.
        //
        // SAFETY: No preconditions.
        if !unsafe { bindings::system_is_running() } {
            return Err(ENODEV);
        }
        Ok(lock)
    }

    /// Locks the parent of a device, and calls `f` if the driver is bound to the device with
    /// `shared`, has queues, and `still` wants it.
    fn with_started(
        dev: &Device,
        shared: &Arc<T::Shared>,
        still: impl FnOnce(&T::Shared) -> bool,
        f: impl FnOnce(&Device<device::CoreInternal<'_>>, &Binding<T>) -> Result,
    ) -> Result {
        let vdev = dev.as_raw();
        // SAFETY: The device is valid, and outlives the lock.
        let _parent_lock = unsafe { Self::lock_parent(vdev) }?;
        // SAFETY: The device is valid.
        unsafe {
            Self::with_binding(vdev, |dev, binding| {
                if !Arc::ptr_eq(&binding.shared, shared)
                    || !binding.started.load(Relaxed)
                    || !still(shared)
                {
                    return Err(ENODEV);
                }
                f(dev, binding)
            })
        }
    }

    /// Calls `f` if a driver of this type is bound to the device, which stays so meanwhile.
    ///
    /// # Safety
    ///
    /// The device is valid.
    unsafe fn with_binding(
        vdev: *mut bindings::virtio_device,
        f: impl FnOnce(&Device<device::CoreInternal<'_>>, &Binding<T>) -> Result,
    ) -> Result {
        // SAFETY: By the safety requirements.
        let dev = unsafe { &raw mut (*vdev).dev };
        // SAFETY: By the safety requirements.
        let lock = || unsafe { DeviceLock::new(dev) };
        let _lock = (!Restarting::is(vdev)).then(lock);
        // SAFETY: The device is valid, and its driver does not change while it is locked.
        let driver = unsafe { (*dev).driver };
        if driver.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: All drivers of a virtio device are part of a `struct virtio_driver`.
        let driver = unsafe { kernel::container_of!(driver, bindings::virtio_driver, driver) };
        let ours: unsafe extern "C" fn(*mut bindings::virtio_device) -> c_int =
            Self::probe_callback;
        // SAFETY: A driver that is bound to a device is registered, and thus valid.
        let probe = unsafe { (*driver).probe };
        // SAFETY: The device is valid, and locked.
        let bound = unsafe { !(*vdev).priv_.is_null() };
        if !bound || !probe.is_some_and(|probe| core::ptr::fn_addr_eq(probe, ours)) {
            return Err(ENODEV);
        }

        // INVARIANT: The device is valid for the duration of the call.
        // SAFETY: By the safety requirements.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };
        // SAFETY: The device is bound to a driver of this type, and locked.
        f(dev, unsafe { Self::binding(dev) })
    }

    /// # Safety
    ///
    /// Only called by the virtio core, with a valid device that nobody else resets.
    pub(super) unsafe extern "C" fn reset_prepare_callback(
        vdev: *mut bindings::virtio_device,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the safety requirements.
            unsafe {
                Self::with_binding(vdev, |dev, binding| {
                    if binding.started.load(Relaxed) {
                        Self::suspend(dev, binding);
                    }
                    Ok(())
                })
            }?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`reset_prepare_callback`](Self::reset_prepare_callback), which was called before.
    pub(super) unsafe extern "C" fn reset_done_callback(
        vdev: *mut bindings::virtio_device,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the safety requirements.
            unsafe {
                Self::with_binding(vdev, |dev, binding| {
                    if binding.started.load(Relaxed) {
                        // Unbound and bound again meanwhile: it was reset under its new driver, or
                        // is in a state that nobody knows.
                        Self::suspend(dev, binding);
                        return Err(EBUSY);
                    }
                    Self::resume(dev, binding)
                })
            }?;
            Ok(0)
        })
    }
}
