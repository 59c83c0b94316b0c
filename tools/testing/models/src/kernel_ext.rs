// SPDX-License-Identifier: GPL-2.0

//! What the sources use of `kernel_ext`, and of the kernel's C code below it.

#[path = "kernel_ext/return_work.rs"]
pub mod return_work;
#[path = "kernel_ext/skb.rs"]
pub mod skb;
#[path = "kernel_ext/sock.rs"]
pub mod sock;
#[path = "kernel_ext/sock_table.rs"]
pub mod sock_table;
#[path = "kernel_ext/user.rs"]
pub mod user;
#[path = "kernel_ext/vsock.rs"]
pub mod vsock;

pub use crate::{
    new_spinlock_bh,
    world, //
};
pub use skb as skb_list;

pub mod clock {
    //! The time, which stands still.

    /// The tick counter.
    pub fn ticks() -> u32 {
        0
    }

    /// Milliseconds since then.
    pub fn ticks_since(_then: u32) -> u64 {
        0
    }

    /// Nanoseconds.
    pub fn local_nanos() -> u64 {
        1_000_000_000
    }
}

pub mod trace {
    //! Nobody traces.

    /// Why a packet was not taken.
    pub enum Dropped {
        Nobody,
    }

    pub fn vsock_credit_wait(_: u32, _: u32, _: u32, _: u32, _window: u32, _ms: u64) {}
}

pub mod deferred {
    //! Work for the owner of a socket, which is with the sockets here.

    pub use super::sock::Token;
}

pub mod lock {
    //! Spinlocks. Each time that one is taken is a place where another thread may come first.

    /// A spinlock.
    pub struct SpinLockBh<T>(loom::sync::Mutex<T>);

    /// A spinlock for each packet.
    pub struct SpinLockHot<T>(loom::sync::Mutex<T>);

    impl<T> SpinLockHot<T> {
        /// A lock around `value`.
        pub fn new(
            value: T,
            _name: &'static core::ffi::CStr,
            _key: core::pin::Pin<&'static crate::kernel::sync::LockClassKey>,
        ) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Takes it.
        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    /// Evidence that it is taken.
    pub type SpinLockBhGuard<'a, T> = loom::sync::MutexGuard<'a, T>;

    impl<T> SpinLockBh<T> {
        /// A lock around `value`.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Takes it.
        pub fn lock(&self) -> SpinLockBhGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

/// A spinlock with a name.
#[macro_export]
macro_rules! new_spinlock_bh {
    ($value:expr, $name:expr $(,)?) => {
        $crate::kernel_ext::lock::SpinLockBh::new($value)
    };
}

pub mod gfp {
    //! Allocation contexts.

    /// What an allocation may do.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Gfp {
        /// May sleep.
        Kernel,
        /// May not.
        Atomic,
    }
}

pub mod net {
    //! There is one namespace.

    /// The namespace.
    pub struct Net;

    pub(crate) static NET: Net = Net;
}

pub mod peek {
    //! Loads that order nothing.

    use crate::kernel::sync::atomic::{
        Atomic,
        Relaxed, //
    };

    /// See `kernel_ext::peek`.
    pub trait Peek {
        /// What is loaded.
        type Value;

        /// Loads it.
        fn peek(&self) -> Self::Value;

        /// Stores it.
        fn poke(&self, value: Self::Value);
    }

    impl<T: Copy> Peek for Atomic<T> {
        type Value = T;

        fn peek(&self) -> T {
            self.load(Relaxed)
        }

        fn poke(&self, value: T) {
            self.store(value, Relaxed);
        }
    }
}

pub mod kick {
    //! Eventfds.

    use super::return_work::{
        OnReturn,
        ReturnWork, //
    };
    use crate::kernel::sync::ArcBorrow;

    /// See `kernel_ext::kick`.
    pub trait Kick: OnReturn {
        /// The eventfd was signalled.
        fn kick(this: ArcBorrow<'_, ReturnWork<Self>>);
    }
}

pub mod owner_mm {
    //! Address spaces: there is one, and threads that have it no more.

    use super::return_work::Task;

    /// The address space.
    pub struct OwnerMm;

    /// Evidence that the current thread runs there.
    pub struct InOwnerMm(());

    impl InOwnerMm {
        pub(crate) fn new() -> Self {
            Self(())
        }
    }

    /// Which address space that is.
    pub struct MmId(());

    impl MmId {
        /// Of the one.
        pub fn of(_: &OwnerMm) -> Self {
            Self(())
        }

        /// Whether the thread is one of user space, and does not end.
        pub fn has_caller(&self) -> bool {
            Task::current().is_some_and(|task| !task.is_ending())
        }

        /// Runs `f` if the thread has the address space.
        pub fn without_faults<R>(&self, f: impl FnOnce(&InOwnerMm) -> R) -> Option<R> {
            let has_mm = Task::current().is_some_and(|task| !task.is_ending());
            has_mm.then(|| f(&InOwnerMm::new()))
        }
    }
}

pub mod iov {
    //! The memory of a user.

    use core::marker::PhantomData;

    /// Where a reader gets its bytes.
    pub struct RecvMsg<'a> {
        pub(crate) bytes: Vec<u8>,
        pub(crate) room: usize,
        pub(crate) end_of_record: bool,
        _p: PhantomData<&'a ()>,
    }

    impl RecvMsg<'_> {
        pub(crate) fn new(room: usize) -> Self {
            Self {
                bytes: Vec::new(),
                room,
                end_of_record: false,
                _p: PhantomData,
            }
        }

        /// Room that is left.
        pub fn left(&self) -> usize {
            self.room - self.bytes.len()
        }

        /// Where bytes go.
        pub fn dest(&mut self) -> &mut Vec<u8> {
            &mut self.bytes
        }

        /// `MSG_EOR`.
        pub fn set_end_of_record(&mut self) {
            self.end_of_record = true;
        }
    }

    /// What a writer sends: nothing here.
    pub struct SendMsg<'a>(PhantomData<&'a ()>);
}
