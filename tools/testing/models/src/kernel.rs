// SPDX-License-Identifier: GPL-2.0

//! What the sources use of the kernel's crate.

pub mod error {
    //! Error numbers.

    /// An error number.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Error(&'static str);

    /// What fails with an error number.
    pub type Result<T = (), E = Error> = core::result::Result<T, E>;

    macro_rules! errors {
        ($($name:ident)*) => {
            $(
                #[doc = stringify!($name)]
                pub const $name: Error = Error(stringify!($name));
            )*
        };
    }

    errors!(EACCES EADDRINUSE EAGAIN ECONNRESET EDQUOT EINTR EIO EISCONN EMSGSIZE ENOBUFS ENODEV ENOMEM ENOTCONN EPROTO ESHUTDOWN ETIMEDOUT);

    /// For functions that are not called.
    pub const VTABLE_DEFAULT_ERROR: &str = "not implemented";
}

pub mod page {
    //! Pages.

    /// The bytes of one.
    pub const PAGE_SIZE: usize = 4096;
}

pub mod prelude {
    //! What every source uses.

    pub use super::error::*;
    pub use crate::{
        build_error,
        pin_init, //
    };
    pub use core::{
        ffi::{
            c_ulong,
            CStr, //
        },
        pin::Pin,
    };
    pub use std::vec::{
        Vec as KVec,
        Vec as KVVec, //
    };

    /// What makes a `T`: it does not stay where it is, here.
    pub trait PinInit<T> {
        /// Makes it.
        fn made(self) -> T;
    }

    impl<T> PinInit<T> for T {
        fn made(self) -> T {
            self
        }
    }

    /// Memory is not what is modelled.
    pub const GFP_KERNEL: () = ();
}

/// A struct whose first field is initialized in place.
#[macro_export]
macro_rules! pin_init {
    (Self { $first:ident <- $init:expr, $($rest:tt)* }) => {
        Self { $first: $init, $($rest)* }
    };
}

/// A function that is never called.
#[macro_export]
macro_rules! build_error {
    ($why:expr) => {
        unreachable!("{}", $why)
    };
}

pub mod sync {
    //! References. They are counted, and order nothing that is modelled.

    use core::{
        marker::PhantomData,
        ops::Deref, //
    };

    /// What lockdep knows a lock by.
    pub struct LockClassKey;

    /// A counted reference.
    pub struct Arc<T: ?Sized>(pub(crate) std::sync::Arc<T>);

    impl<T> Arc<T> {
        /// Allocates a value.
        pub fn pin_init(value: T, _gfp: ()) -> super::error::Result<Self> {
            Ok(Self(std::sync::Arc::new(value)))
        }
    }

    impl<T: ?Sized> Clone for Arc<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T: ?Sized> Deref for Arc<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    /// A reference that somebody else has.
    pub struct ArcBorrow<'a, T>(std::sync::Arc<T>, PhantomData<&'a T>);

    impl<T> ArcBorrow<'_, T> {
        pub(crate) fn new(of: std::sync::Arc<T>) -> Self {
            Self(of, PhantomData)
        }
    }

    impl<T> Clone for ArcBorrow<'_, T> {
        fn clone(&self) -> Self {
            Self(self.0.clone(), PhantomData)
        }
    }

    impl<T> Deref for ArcBorrow<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> From<ArcBorrow<'_, T>> for Arc<T> {
        fn from(borrow: ArcBorrow<'_, T>) -> Self {
            Self(borrow.0)
        }
    }

    pub mod rcu {
        //! Read sections, of which nothing is modelled: what was found is kept by a count.

        /// A read section.
        pub struct Guard;

        /// Begins one.
        pub fn read_lock() -> Guard {
            Guard
        }
    }

    /// A place for what comes once.
    pub struct SetOnce<T>(std::sync::OnceLock<T>);

    impl<T> SetOnce<T> {
        /// An empty one.
        pub const fn new() -> Self {
            Self(std::sync::OnceLock::new())
        }

        /// What came.
        pub fn as_ref(&self) -> Option<&T> {
            self.0.get()
        }

        /// It comes.
        pub fn populate(&self, value: T) -> bool {
            self.0.set(value).is_ok()
        }
    }

    pub mod aref {
        //! References to what counts itself.

        use core::ops::Deref;

        /// A counted reference; to clone the value is to count.
        #[derive(Clone)]
        pub struct ARef<T>(pub(crate) T);

        impl<T> Deref for ARef<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }

        impl<T: Clone> From<&T> for ARef<T> {
            fn from(of: &T) -> Self {
                Self(of.clone())
            }
        }
    }

    pub mod atomic {
        //! Atomics, of which no order is modelled.

        pub use core::sync::atomic::Ordering::Relaxed;

        /// An atomic value.
        pub struct Atomic<T>(std::sync::Mutex<T>);

        impl<T: Copy> Atomic<T> {
            /// A new one.
            pub const fn new(value: T) -> Self {
                Self(std::sync::Mutex::new(value))
            }

            /// Loads it.
            pub fn load(&self, _order: core::sync::atomic::Ordering) -> T {
                *self.0.lock().unwrap()
            }

            /// Stores it.
            pub fn store(&self, value: T, _order: core::sync::atomic::Ordering) {
                *self.0.lock().unwrap() = value;
            }
        }
    }
}
