// SPDX-License-Identifier: GPL-2.0

//! Who begins to wait, and a work that looks for those who do and ends when there are none:
//! `armed.rs` of the common transport, by all orders of memory that its barriers leave.
//!
//! **Nobody is missed.** When all is quiet, the work saw everybody who waits.

/// What the source uses of the kernel.
pub(crate) mod kernel {
    pub(crate) mod sync {
        pub(crate) mod atomic {
            pub(crate) use core::sync::atomic::Ordering::Relaxed;

            /// An atomic of which a load may be late.
            pub(crate) struct Atomic<T>(
                loom::sync::atomic::AtomicBool,
                core::marker::PhantomData<T>,
            );

            impl Atomic<bool> {
                pub(crate) fn new(value: bool) -> Self {
                    Self(
                        loom::sync::atomic::AtomicBool::new(value),
                        core::marker::PhantomData,
                    )
                }

                pub(crate) fn load(&self, order: core::sync::atomic::Ordering) -> bool {
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: bool, order: core::sync::atomic::Ordering) {
                    self.0.store(value, order);
                }
            }
        }

        pub(crate) mod barrier {
            pub(crate) struct Full;

            pub(crate) fn smp_mb(_: Full) {
                loom::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
            }
        }
    }

    pub(crate) mod peek {
        use super::sync::atomic::{
            Atomic,
            Relaxed, //
        };

        /// See `kernel_ext::peek`.
        pub(crate) trait Peek {
            fn peek(&self) -> bool;
        }

        impl Peek for Atomic<bool> {
            fn peek(&self) -> bool {
                self.load(Relaxed)
            }
        }
    }
}

/// The source: as it is, and with mistakes.
#[allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::all,
    reason = "they are looked at where they are"
)]
pub(crate) mod variants {
    include!(concat!(env!("OUT_DIR"), "/watches.rs"));
}

#[cfg(test)]
mod tests {
    use super::variants;

    #[test]
    fn two_wait() {
        variants::real::model::waits(2);
    }

    #[test]
    fn one_waits() {
        variants::real::model::waits(1);
    }

    macro_rules! finds {
        ($($mistake:ident)*) => {
            $(
                #[test]
                #[should_panic(expected = "nobody is missed")]
                fn $mistake() {
                    variants::$mistake::model::waits(1);
                }
            )*
        };
    }

    finds!(no_last_look ends_armed waits_unordered clears_unordered);
}
