// SPDX-License-Identifier: GPL-2.0

//! The virtio bus, for drivers of virtio devices.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h).
//!
//! # The life of a device
//!
//! A driver implements [`Driver`], and [`Adapter`] does in this order, which is what makes it
//! sound:
//!
//! 1. [`Driver::shared`] makes the object that interrupt callbacks see. It is stored in the device
//!    *before* the queues exist, so that no interrupt of a hasty or hostile device finds nothing.
//! 2. The queues of [`Driver::queues`] are found and put into their [`Virtqueue`]s, the device is
//!    told that its driver is ready, and [`Driver::probe`] fills them.
//! 3. When the driver goes, [`Driver::unbind`] makes it known no more. Then the adapter takes the
//!    queues out of their [`Virtqueue`]s, resets the device, drops the buffers that it still had,
//!    deletes the queues (no callback runs any more), has the driver wait for what its callbacks
//!    have begun ([`Driver::settle`]), and drops its reference to the shared object.
//!
//! A failure in step 2 and [`Driver::freeze`] take the way of step 3; [`Driver::restore`] that of
//! step 2: when the machine sleeps, and when the device is reset meanwhile ([`restart`]). No driver
//! can get at a queue outside of this: a [`Virtqueue`] hands out a [`LiveQueue`] only while the
//! device runs, and the adapter waits until it was given back.
//!
//! Reset, draining and deletion are not left to `Drop` of the driver's data, because the bus wants
//! a device that is reset when `remove()` returns, and drops the data later.

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    device,
    device_id::RawDeviceId,
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

#[path = "virtio/buffer.rs"]
mod buffer;
#[path = "virtio/queue.rs"]
mod queue;
#[path = "virtio/restart.rs"]
mod restart;
#[path = "virtio/vdev.rs"]
mod vdev;

pub use self::{
    buffer::{
        Buffer,
        InBox,
        InBuffer,
        OutBuffer,
        Plain,
        SgList, //
    },
    queue::{
        AnyQueue,
        DeviceLen,
        LiveQueue,
        Virtqueue, //
    },
    vdev::Device,
};

/// Most queues that a device may have.
const MAX_QUEUES: usize = 8;

/// A virtio device id.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Matches a device type of any vendor.
    #[doc(alias = "VIRTIO_DEV_ANY_ID")]
    pub const fn new(device: u32) -> Self {
        Self(bindings::virtio_device_id {
            device,
            vendor: u32::MAX,
        })
    }
}

// SAFETY: `DeviceId` is a transparent wrapper of `struct virtio_device_id`.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// A table of virtio device ids.
pub type IdTable = &'static dyn kernel::device_id::IdTable<DeviceId, ()>;

/// Creates a virtio id table, and its alias for modpost.
#[macro_export]
macro_rules! virtio_device_table {
    ($name:ident, [$($id:expr),* $(,)?]) => {
        ::kernel::module_device_table!("virtio", $crate::virtio::DeviceId, $name, @none, [$($id),*]);
    };
}

struct QueueEntry {
    name: &'static CStr,
    queue: Arc<dyn AnyQueue>,
}

/// The queues of a driver, in the order of their indexes.
pub struct QueueList([Option<QueueEntry>; MAX_QUEUES]);

impl QueueList {
    /// Appends a queue, whose name is seen in `/proc/interrupts`.
    ///
    /// # Errors
    ///
    /// `E2BIG` if there are more queues than an adapter can deal with.
    pub fn push(&mut self, name: &'static CStr, queue: Arc<dyn AnyQueue>) -> Result {
        let slot = self.0.iter_mut().find(|slot| slot.is_none()).ok_or(E2BIG)?;
        *slot = Some(QueueEntry { name, queue });
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &QueueEntry> {
        self.0.iter().flatten()
    }
}

/// The virtio driver trait; see the [module documentation](self) for the order of the calls.
///
/// Context: all methods but [`queue_used`](Self::queue_used) may sleep.
#[vtable]
pub trait Driver: Sized + 'static {
    /// What the callbacks of the queues see. The adapter owns a reference to it from before the
    /// queues exist until after they were deleted.
    type Shared: Send + Sync + 'static;

    /// The private data of a bound device. The driver core drops it after the device was reset and
    /// its queues were deleted.
    type Data<'bound>: Send + 'bound;

    /// The devices that the driver serves.
    const ID_TABLE: IdTable;

    /// The feature bits that the driver understands.
    const FEATURES: &'static [u32];

    /// Makes the object that the callbacks see.
    fn shared(dev: &Device<device::Core<'_>>) -> impl PinInit<Self::Shared, Error>;

    /// Lists the queues in the order of their indexes.
    fn queues(shared: &Self::Shared, list: &mut QueueList) -> Result;

    /// The device used buffers of the queue with this index.
    ///
    /// Context: hard interrupt. A device may cause this any number of times, with or without a
    /// reason, from before [`probe`](Self::probe) until after [`unbind`](Self::unbind).
    fn queue_used(shared: ArcBorrow<'_, Self::Shared>, index: u32);

    /// Binds the driver to a device whose queues are live. A failure resets the device.
    fn probe<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        shared: Arc<Self::Shared>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Unbinds the driver from a device, whose queues are live until this returns.
    fn unbind<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
        shared: ArcBorrow<'_, Self::Shared>,
    );

    /// The queues were deleted: no callback runs any more. Waits for works that callbacks have
    /// queued and that may not be the last to refer to `shared`, as they cannot sleep.
    fn settle(shared: &Self::Shared) {
        let _ = shared;
    }

    /// The machine is going to sleep, or the device will be reset: the queues will vanish after
    /// this.
    fn freeze(dev: &Device<device::Core<'_>>, shared: ArcBorrow<'_, Self::Shared>) {
        let _ = (dev, shared);
    }

    /// The machine woke up, or the device was reset: the queues are there again, and empty. A
    /// failure resets the device.
    ///
    /// # Errors
    ///
    /// Any; the device stays bound, without queues.
    fn restore(dev: &Device<device::Core<'_>>, shared: Arc<Self::Shared>) -> Result {
        let _ = (dev, shared);
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }
}

const NO_QUEUE_INFO: bindings::virtqueue_info = bindings::virtqueue_info {
    name: core::ptr::null(),
    callback: None,
    ctx: false,
};

/// What the adapter knows of a bound device: `priv` of the `struct virtio_device` points to it.
///
/// # Invariants
///
/// If `started` is false, there are no queues and none of `queues` is attached.
struct Binding<T: Driver> {
    shared: Arc<T::Shared>,
    queues: QueueList,
    /// Only changed by the bus callbacks, which the driver core serializes.
    started: Atomic<bool>,
}

impl<T: Driver> Binding<T> {
    /// Finds the queues, attaches them and tells the device to go.
    ///
    /// # Safety
    ///
    /// `priv` of `vdev` points to `self`.
    unsafe fn start(&self, vdev: &Device<device::CoreInternal<'_>>) -> Result {
        let mut infos = [const { NO_QUEUE_INFO }; MAX_QUEUES];
        let mut vqs = [core::ptr::null_mut(); MAX_QUEUES];
        let mut count: c_uint = 0;
        for (entry, info) in self.queues.iter().zip(&mut infos) {
            info.name = entry.name.as_char_ptr();
            info.callback = Some(Self::used_callback);
            count = count.saturating_add(1);
        }

        // SAFETY: `vdev` is valid. Both arrays have `count` elements or more; the names are static,
        // and the callback may be called from now on since `priv` points to `self`.
        to_result(unsafe {
            bindings::virtio_find_vqs(vdev.as_raw(), count, vqs.as_mut_ptr(), infos.as_mut_ptr())
        })?;
        self.started.store(true, Relaxed);

        for (entry, vq) in self.queues.iter().zip(&vqs) {
            let vq = NonNull::new(*vq).ok_or(ENOENT)?;
            // SAFETY: The queue was just found, is ours alone and has no buffers; `stop()` detaches
            // it before it deletes it.
            unsafe { entry.queue.attach(vq) }?;
        }

        // SAFETY: `vdev` is valid, and all that the callbacks use is in place.
        unsafe { bindings::virtio_device_ready(vdev.as_raw()) };
        Ok(())
    }

    /// Takes the queues away from the driver, resets the device, drops the buffers that it had and
    /// deletes the queues. Does no more than a reset if that was done before.
    fn stop(&self, vdev: &Device<device::CoreInternal<'_>>) {
        for entry in self.queues.iter() {
            entry.queue.detach();
        }

        // SAFETY: `vdev` is valid. No notification is in progress: there is no `LiveQueue` any
        // more.
        unsafe { bindings::virtio_reset_device(vdev.as_raw()) };

        // INVARIANT: The queues were detached above and are deleted below.
        if !self.started.xchg(false, Relaxed) {
            return;
        }
        for entry in self.queues.iter() {
            // SAFETY: The device was reset since the queue was detached, which is not deleted yet.
            unsafe { entry.queue.reclaim() };
        }
        // SAFETY: `vdev` is valid and has queues, to which nobody refers any more.
        unsafe { bindings::virtio_del_vqs(vdev.as_raw()) };
        T::settle(&self.shared);
    }

    /// # Safety
    ///
    /// Only called by the virtio core, with a valid queue of a device whose `priv` points to a
    /// `Binding<T>`.
    unsafe extern "C" fn used_callback(vq: *mut bindings::virtqueue) {
        // SAFETY: `vq` is valid by the safety requirements.
        let vdev = unsafe { (*vq).vdev };
        // SAFETY: As above; the index never changes.
        let index = unsafe { (*vq).index };
        // SAFETY: A queue is deleted before its device.
        let binding = unsafe { (*vdev).priv_ }.cast::<Self>();
        // SAFETY: `priv` points to a `Binding<T>` by the safety requirements. It was set before the
        // queue was found, and is freed after the queue was deleted, which waits for this function.
        let binding = unsafe { &*binding };
        T::queue_used(binding.shared.as_arc_borrow(), index);
    }
}

/// An adapter for the registration of virtio drivers.
///
/// # Invariants
///
/// `priv` of a device that is bound to a driver of this type owns a `KBox<Binding<T>>`.
pub struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `bindings::virtio_driver` is `repr(C)`.
// - `T::Data` is the type of the private data of the driver.
// - `DEVICE_DRIVER_OFFSET` is the offset of the embedded `struct device_driver`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = core::mem::offset_of!(Self::DriverType, driver);
}

// SAFETY: `unregister()` is valid for a `DriverType` that `register()` accepted.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        vdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let raw = vdrv.get();
        // SAFETY: It is safe to set the fields of `struct virtio_driver` on initialization.
        unsafe {
            (*raw).driver.name = name.as_char_ptr();
            (*raw).id_table = T::ID_TABLE.as_ptr();
            (*raw).feature_table = T::FEATURES.as_ptr();
            (*raw).feature_table_size = T::FEATURES.len().try_into()?;
            (*raw).probe = Some(Self::probe_callback);
            (*raw).remove = Some(Self::remove_callback);
        }
        if T::HAS_RESTORE {
            // SAFETY: As above.
            unsafe {
                (*raw).freeze = Some(Self::freeze_callback);
                (*raw).restore = Some(Self::restore_callback);
                (*raw).reset_prepare = Some(Self::reset_prepare_callback);
                (*raw).reset_done = Some(Self::reset_done_callback);
            }
        }

        // SAFETY: `vdrv` is a valid `DriverType`.
        to_result(unsafe { bindings::__register_virtio_driver(raw, module.as_ptr()) })
    }

    unsafe fn unregister(vdrv: &Opaque<Self::DriverType>) {
        // SAFETY: `vdrv` is a registered `DriverType`.
        unsafe { bindings::unregister_virtio_driver(vdrv.get()) };
    }
}

impl<T: Driver> Adapter<T> {
    /// # Safety
    ///
    /// Only called by the virtio core, with a valid device that is not bound yet.
    unsafe extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the safety requirements.
        //
        // INVARIANT: `vdev` is valid for the duration of the call.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let shared = Arc::pin_init(T::shared(dev), GFP_KERNEL)?;
            let mut queues = QueueList([const { None }; MAX_QUEUES]);
            T::queues(&shared, &mut queues)?;
            let binding = KBox::new(
                // INVARIANT: There are no queues yet.
                Binding::<T> {
                    shared,
                    queues,
                    started: Atomic::new(false),
                },
                GFP_KERNEL,
            )?;

            // INVARIANT: The device owns the binding.
            // SAFETY: `vdev` is valid; while a driver is bound, `priv` belongs to the driver.
            unsafe { (*vdev).priv_ = KBox::into_raw(binding).cast() };

            let ret = Self::bind(dev);
            if ret.is_err() {
                // SAFETY: `priv` was set above, and `bind()` left no queues behind.
                unsafe { Self::free_binding(dev) };
            }
            ret.map(|()| 0)
        })
    }

    /// Starts the device and the driver. After a failure, the device is reset and has no queues.
    fn bind(dev: &Device<device::CoreInternal<'_>>) -> Result {
        // SAFETY: The caller stored the binding.
        let binding = unsafe { Self::binding(dev) };
        let bus_dev: &device::Device<device::CoreInternal<'_>> = dev.as_ref();

        // SAFETY: `priv` points to `binding`.
        unsafe { binding.start(dev) }
            .and_then(|()| bus_dev.set_drvdata(T::probe(dev, binding.shared.clone())))
            .inspect_err(|_| binding.stop(dev))
    }

    /// # Safety
    ///
    /// Only called by the virtio core, with a valid device that `probe_callback()` accepted.
    unsafe extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the safety requirements.
        //
        // INVARIANT: `vdev` is valid for the duration of the call.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };
        let bus_dev: &device::Device<device::CoreInternal<'_>> = dev.as_ref();

        // SAFETY: The device is bound.
        let binding = unsafe { Self::binding(dev) };
        // SAFETY: `probe_callback()` succeeded, hence the private data was set.
        let data = unsafe { bus_dev.drvdata_borrow::<T::Data<'_>>() };
        T::unbind(dev, data, binding.shared.as_arc_borrow());
        binding.stop(dev);

        // SAFETY: The device is bound, and `stop()` left no queues behind. `binding` is not used
        // any more.
        unsafe { Self::free_binding(dev) };
    }

    /// # Safety
    ///
    /// Only called by the virtio core, with a valid device that `probe_callback()` accepted.
    unsafe extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the safety requirements.
        //
        // INVARIANT: `vdev` is valid for the duration of the call.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };
        // SAFETY: The device is bound.
        let binding = unsafe { Self::binding(dev) };

        Self::suspend(dev, binding);
        0
    }

    /// # Safety
    ///
    /// Only called by the virtio core, with a valid device for which `freeze_callback()` was the
    /// last callback.
    unsafe extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the safety requirements.
        //
        // INVARIANT: `vdev` is valid for the duration of the call.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };
        // SAFETY: The device is bound.
        let binding = unsafe { Self::binding(dev) };

        from_result(|| Self::resume(dev, binding).map(|()| 0))
    }

    /// Stops the driver, and takes the queues away from the device.
    fn suspend(dev: &Device<device::CoreInternal<'_>>, binding: &Binding<T>) {
        T::freeze(dev, binding.shared.as_arc_borrow());
        binding.stop(dev);
    }

    /// Starts the device and the driver again, after [`suspend`](Self::suspend).
    fn resume(dev: &Device<device::CoreInternal<'_>>, binding: &Binding<T>) -> Result {
        // SAFETY: `priv` points to `binding`, which only `binding()` makes.
        unsafe { binding.start(dev) }
            .and_then(|()| T::restore(dev, binding.shared.clone()))
            .inspect_err(|_| binding.stop(dev))
    }

    /// # Safety
    ///
    /// The device is bound to a driver of this type, and stays so for as long as the result is
    /// used.
    unsafe fn binding<'a>(dev: &'a Device<device::CoreInternal<'_>>) -> &'a Binding<T> {
        // SAFETY: `dev` is valid.
        let binding = unsafe { (*dev.as_raw()).priv_ };
        // SAFETY: By the safety requirements and the type invariants of `Adapter`.
        unsafe { &*binding.cast::<Binding<T>>() }
    }

    /// # Safety
    ///
    /// The device is bound to a driver of this type, has no queues, and nobody uses the binding.
    unsafe fn free_binding(dev: &Device<device::CoreInternal<'_>>) {
        // SAFETY: `dev` is valid.
        let slot = unsafe { &raw mut (*dev.as_raw()).priv_ };
        // SAFETY: `slot` is valid; without queues, no callback reads it.
        let binding = unsafe { slot.replace(core::ptr::null_mut()) };
        // SAFETY: By the safety requirements and the type invariants of `Adapter`, the device owned
        // this box.
        drop(unsafe { KBox::from_raw(binding.cast::<Binding<T>>()) });
    }
}
