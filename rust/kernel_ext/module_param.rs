// SPDX-License-Identifier: GPL-2.0

//! Parameters of modules that can be seen in sysfs.
//!
//! Those of [`module!`](kernel::prelude::module) cannot: the kernel gives no way to print them. The
//! ones declared with [`module_parameters!`](crate::module_parameters) are like those of a C module
//! with `module_param(..., 0444)`: `/sys/module/<module>/parameters/<name>` exists.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h).

use crate::bindings;
use core::cell::UnsafeCell;
use kernel::prelude::*;

/// A type that a parameter may have: one that C can parse and print.
///
/// # Safety
///
/// `OPS` reads and writes a value of this type where `arg` points to, and any value that it writes
/// is one of the type.
pub unsafe trait ParamType: Copy + Send + Sync {
    /// How C parses and prints it.
    #[doc(hidden)]
    const OPS: *const bindings::kernel_param_ops;
}

// SAFETY: `ushort` is `u16`.
unsafe impl ParamType for u16 {
    const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_ushort;
}

// SAFETY: `int` is `i32`.
unsafe impl ParamType for i32 {
    const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_int;
}

// SAFETY: C's `bool` is Rust's, and only `true` and `false` are written.
unsafe impl ParamType for bool {
    const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_bool;
}

/// A parameter: a `static` that the kernel writes when it loads the module, before the module runs.
#[repr(transparent)]
pub struct Param<T: ParamType>(UnsafeCell<T>);

// SAFETY: Nobody writes the value once the module runs: the file in sysfs is read-only.
unsafe impl<T: ParamType> Sync for Param<T> {}

impl<T: ParamType> Param<T> {
    /// Creates a parameter with the value that it has if the user does not give one.
    pub const fn new(default: T) -> Self {
        Self(UnsafeCell::new(default))
    }

    /// The value.
    #[inline]
    pub fn get(&self) -> T {
        // SAFETY: The cell is valid, and nobody writes to it now. The read is volatile, since the
        // compiler does not know of the write at load time.
        unsafe { self.0.get().read_volatile() }
    }

    #[doc(hidden)]
    pub const fn as_arg(&self) -> *mut c_void {
        self.0.get().cast()
    }
}

/// What the kernel looks for in the section `__param`.
#[doc(hidden)]
#[repr(transparent)]
pub struct Entry(bindings::kernel_param);

// SAFETY: The pointers are to statics. The kernel only reads the entry.
unsafe impl Sync for Entry {}

impl Entry {
    /// Describes `param` of the module `this`.
    pub const fn new<T: ParamType>(
        name: &'static CStr,
        param: &'static Param<T>,
        this: *const bindings::module,
    ) -> Self {
        Self(bindings::kernel_param {
            name: kernel::str::as_char_ptr_in_const_context(name),
            mod_: this.cast_mut(),
            ops: T::OPS,
            // To be read by all and written by nobody.
            perm: 0o444,
            level: -1,
            flags: 0,
            __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                arg: param.as_arg(),
            },
        })
    }
}

/// Makes the text of an entry in the section `.modinfo`.
#[doc(hidden)]
#[macro_export]
macro_rules! __modinfo {
    ($($text:expr),+) => {
        const _: () = {
            const TEXT: &[u8] = ::core::concat!($($text),+, "\0").as_bytes();
            #[allow(unsafe_code)]
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static INFO: [u8; TEXT.len()] = match TEXT.first_chunk() {
                ::core::option::Option::Some(text) => *text,
                ::core::option::Option::None => [0; TEXT.len()],
            };
        };
    };
}

/// The name that C and `modinfo` have for the type of a parameter.
#[doc(hidden)]
#[macro_export]
macro_rules! __param_type_name {
    (u16) => {
        "ushort"
    };
    (i32) => {
        "int"
    };
    (bool) => {
        "bool"
    };
}

/// Declares the parameters of a module, of the types `u16`, `i32` and `bool`.
///
/// Each is a `static` [`Param`](crate::module_param::Param) with the name of the parameter.
///
/// # Examples
///
/// ```ignore
/// kernel_ext::module_parameters! {
///     /// How many.
///     pub(crate) static how_many: u16 = 64, "How many (default: 64)";
/// }
///
/// let n = how_many.get();
/// ```
#[macro_export]
macro_rules! module_parameters {
    ($(
        $(#[$attr:meta])*
        $vis:vis static $name:ident: $type:tt = $default:expr, $description:literal;
    )+) => {$(
        $(#[$attr])*
        #[allow(non_upper_case_globals)]
        $vis static $name: $crate::module_param::Param<$type> =
            $crate::module_param::Param::new($default);

        const _: () = {
            #[allow(unsafe_code)]
            #[link_section = "__param"]
            #[used(compiler)]
            static ENTRY: $crate::module_param::Entry = $crate::module_param::Entry::new(
                ::kernel::c_str!(::core::stringify!($name)),
                &$name,
                &raw const ::kernel::bindings::__this_module,
            );
        };
        $crate::__modinfo!(
            "parmtype=", ::core::stringify!($name), ":", $crate::__param_type_name!($type)
        );
        $crate::__modinfo!("parm=", ::core::stringify!($name), ":", $description);
    )+};
}

/// The value of a parameter of another module, of type `ushort`; `None` if there is no such module,
/// it is no module but a part of the kernel, or it has no such parameter.
///
/// Context: sleeps.
pub fn of_other_module(module: &CStr, param: &CStr) -> Option<u16> {
    let mut value = 0;
    // SAFETY: The strings are terminated, and `value` is valid for writes.
    let found = unsafe {
        bindings::foreign_param_ushort(module.as_char_ptr(), param.as_char_ptr(), &mut value)
    };
    found.then_some(value)
}
