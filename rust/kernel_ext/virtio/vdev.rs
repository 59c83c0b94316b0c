// SPDX-License-Identifier: GPL-2.0

//! The device, as the bus knows it.

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    device,
    prelude::*,
    types::Opaque, //
};

/// How often a configuration field is read again because the device changed it meanwhile.
const CONFIG_ATTEMPTS: usize = 16;

/// A virtio device.
///
/// # Invariants
///
/// Wraps a valid `struct virtio_device` that the C side of the kernel created.
#[repr(transparent)]
pub struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// Says whether a feature was negotiated.
    #[doc(alias = "virtio_has_feature")]
    #[inline]
    pub fn has_feature(&self, bit: u32) -> bool {
        // SAFETY: By the type invariants, the pointer is valid. The features do not change while a
        // driver is bound.
        unsafe { bindings::virtio_test_feature(self.as_raw(), bit) }
    }
}

impl Device<device::Bound> {
    /// Reads a field of the configuration space, as the device wrote it: use little endian types.
    ///
    /// A field that the device changes meanwhile is read again, a few times.
    ///
    /// A configuration space that ends before the field does is not noticed: `struct
    /// virtio_config_ops` tells nobody how long it is. With the PCI transport this ends in its own
    /// `BUG_ON()`, as with every driver in C: who makes the device ends the guest, which he can at
    /// any time.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has no configuration space, `EAGAIN` if it changes all the time.
    #[doc(alias = "virtio_cread")]
    pub fn read_config<T>(&self, offset: u32) -> Result<T>
    where
        T: zerocopy::FromBytes + zerocopy::IntoBytes,
    {
        // The transports know accesses of these sizes only.
        const { assert!(matches!(size_of::<T>(), 1 | 2 | 4 | 8)) };

        let vdev = self.as_raw();
        // SAFETY: By the type invariants, the pointer is valid.
        if !unsafe { bindings::virtio_has_config(vdev) } {
            return Err(ENODEV);
        }

        let mut value = T::new_zeroed();
        for _ in 0..CONFIG_ATTEMPTS {
            // SAFETY: As above.
            let before = unsafe { bindings::virtio_config_generation(vdev) };
            // SAFETY: As above; the operation exists, and writes the bytes of `value`, any of which
            // make a valid `T`.
            unsafe {
                bindings::virtio_config_get(
                    vdev,
                    offset,
                    (&raw mut value).cast(),
                    // CAST: One of the four sizes above.
                    size_of::<T>() as u32,
                )
            };
            // SAFETY: As above.
            if unsafe { bindings::virtio_config_generation(vdev) } == before {
                return Ok(value);
            }
        }
        Err(EAGAIN)
    }
}

// SAFETY: `Device` is a transparent wrapper of a type that does not depend on its generic argument.
kernel::impl_device_context_deref!(unsafe { Device });

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariants, the pointer is valid.
        let dev = unsafe { &raw mut (*self.as_raw()).dev };
        // SAFETY: `dev` points to a valid `struct device`, which lives as long as `self`.
        unsafe { device::Device::from_raw(dev) }
    }
}
