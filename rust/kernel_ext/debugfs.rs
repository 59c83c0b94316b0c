// SPDX-License-Identifier: GPL-2.0

//! Lists in debugfs that may be long.
//!
//! A file of `kernel::debugfs` is printed at once, into one buffer, and anew with a larger one
//! until all of it fits. Here a file has a record for each line, as `seq_file` wants it: what is
//! read is a page at a time, and nothing is locked between two lines.
//!
//! # Ownership
//!
//! A [`List`] has a reference to its [`Dir`], which is removed after all that is in it. An open
//! file has a reference to the module of its lines.
//!
//! C headers: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h).

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    module::this_module,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc, //
};

/// Only root reads these files.
const MODE: bindings::umode_t = 0o400;

/// The function `show` of a `seq_file` printed nothing.
const SEQ_SKIP: c_int = 1;

/// A directory of debugfs; dropping it removes it.
///
/// # Invariants
///
/// The pointer is what `debugfs_create_dir()` returned: an entry, or an error.
pub struct Dir(*mut bindings::dentry);

// SAFETY: An entry may be used and removed by any thread.
unsafe impl Send for Dir {}
// SAFETY: As above.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes a directory at the top. If that fails, or there is no debugfs, so do the files in it,
    /// in silence.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(name: &'static CStr) -> Result<Arc<Self>> {
        // SAFETY: The name is a string; a null pointer is the top.
        let dir =
            unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), core::ptr::null_mut()) };
        // INVARIANT: Just made.
        Ok(Arc::new(Self(dir), GFP_KERNEL)?)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; errors are ignored.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}

/// The lines of a [`List`].
#[vtable]
pub trait Lines: 'static {
    /// Where to go on; the default is the beginning.
    type Place: Copy + Default + 'static;

    /// What is printed above the lines.
    const TITLE: &'static str;

    /// Prints the first line at `place`, or behind it, and says where the next one begins; nothing
    /// if there is none.
    ///
    /// It may be called twice for a place: what was printed did not fit, and is forgotten.
    ///
    /// Context: may sleep.
    fn show(place: Self::Place, out: &SeqFile) -> Option<Self::Place>;
}

/// Which line an open file is at.
#[derive(Clone, Copy)]
enum At<P> {
    Title,
    /// The first one at that place, or behind it.
    Line(P),
    End,
}

/// What an open file has.
struct Reader<P> {
    at: At<P>,
    /// Behind the line that was shown last, if that is the one that the file is at.
    behind: At<P>,
}

/// A file in a [`Dir`]; dropping it removes the file, and waits for who is reading it.
///
/// It belongs into the data of the module that has the lines.
///
/// # Invariants
///
/// `entry` is what `debugfs_create_file_full()` returned, in `dir`.
#[pin_data(PinnedDrop)]
pub struct List<L: Lines> {
    entry: *mut bindings::dentry,
    dir: Arc<Dir>,
    _l: PhantomData<fn() -> L>,
}

// SAFETY: An entry may be used and removed by any thread.
unsafe impl<L: Lines> Send for List<L> {}
// SAFETY: There are no methods on `&List`.
unsafe impl<L: Lines> Sync for List<L> {}

impl<L: Lines> List<L> {
    /// Makes the file.
    ///
    /// Context: may sleep.
    pub fn new(dir: Arc<Dir>, name: &'static CStr) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Just made.
            entry: Self::create(&dir, name),
            dir,
            _l: PhantomData,
        })
    }

    fn create(dir: &Dir, name: &CStr) -> *mut bindings::dentry {
        let null = core::ptr::null_mut();
        // SAFETY: By its type invariants, `dir` is a directory, or an error, which gives another
        // one. The operations are for any file, and name the module that has to stay as long as one
        // is open.
        unsafe {
            bindings::debugfs_create_file_full(
                name.as_char_ptr(),
                MODE,
                dir.0,
                null,
                null,
                &Self::FILE_OPS,
            )
        }
    }

    const FILE_OPS: bindings::file_operations = bindings::file_operations {
        owner: this_module::<L::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(bindings::seq_read),
        llseek: Some(bindings::seq_lseek),
        release: Some(bindings::seq_release_private),
        ..pin_init::zeroed()
    };

    const SEQ_OPS: bindings::seq_operations = bindings::seq_operations {
        start: Some(Self::start),
        stop: Some(Self::stop),
        next: Some(Self::next),
        show: Some(Self::show),
    };

    /// # Safety
    ///
    /// Only called by the VFS, for a file that is being opened.
    unsafe extern "C" fn open(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // CAST: Some words.
        let size = size_of::<Reader<L::Place>>() as c_int;
        // SAFETY: The file is valid, and nobody else has it yet.
        let reader = unsafe { bindings::__seq_open_private(file, &Self::SEQ_OPS, size) };
        let Some(reader) = NonNull::new(reader.cast::<Reader<L::Place>>()) else {
            return ENOMEM.to_errno();
        };
        let new = Reader {
            at: At::Title,
            behind: At::End,
        };
        // SAFETY: It is memory of that size, and aligned as allocations are; nobody else has it.
        unsafe { reader.write(new) };
        0
    }

    /// # Safety
    ///
    /// `seq` is that of a file that [`open`](Self::open) opened, and whose lock the caller has for
    /// all of `'a`.
    unsafe fn reader<'a>(seq: *mut bindings::seq_file) -> &'a mut Reader<L::Place> {
        // SAFETY: `open()` put it there; by the safety requirements, nobody else looks at it.
        unsafe { &mut *(*seq).private.cast() }
    }

    /// What a `seq_file` goes on with, and looks at for being null only.
    fn token(reader: &mut Reader<L::Place>) -> *mut c_void {
        match reader.at {
            At::End => core::ptr::null_mut(),
            _ => core::ptr::from_mut(reader).cast(),
        }
    }

    /// # Safety
    ///
    /// Only called by `seq_file`, with its lock held.
    unsafe extern "C" fn start(
        seq: *mut bindings::seq_file,
        index: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: By the safety requirements.
        let reader = unsafe { Self::reader(seq) };
        // SAFETY: By the safety requirements, it is valid.
        if unsafe { *index } == 0 {
            reader.at = At::Title;
        }
        Self::token(reader)
    }

    /// # Safety
    ///
    /// As for [`start`](Self::start).
    unsafe extern "C" fn next(
        seq: *mut bindings::seq_file,
        _token: *mut c_void,
        index: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: By the safety requirements, it is valid.
        let index = unsafe { &mut *index };
        *index = index.wrapping_add(1);
        // SAFETY: By the safety requirements.
        let reader = unsafe { Self::reader(seq) };
        reader.at = core::mem::replace(&mut reader.behind, At::End);
        Self::token(reader)
    }

    /// # Safety
    ///
    /// As for [`start`](Self::start).
    unsafe extern "C" fn show(seq: *mut bindings::seq_file, _token: *mut c_void) -> c_int {
        // SAFETY: By the safety requirements.
        let reader = unsafe { Self::reader(seq) };
        // SAFETY: By the safety requirements.
        let out = unsafe { SeqFile::from_raw(seq) };
        let behind = match reader.at {
            At::Title => {
                seq_print!(out, "{}\n", L::TITLE);
                Some(L::Place::default())
            }
            At::Line(place) => L::show(place, out),
            At::End => None,
        };
        reader.behind = behind.map_or(At::End, At::Line);
        if behind.is_some() {
            0
        } else {
            SEQ_SKIP
        }
    }

    /// # Safety
    ///
    /// As for [`start`](Self::start).
    unsafe extern "C" fn stop(_seq: *mut bindings::seq_file, _token: *mut c_void) {}
}

#[pinned_drop]
impl<L: Lines> PinnedDrop for List<L> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, and `dir` is still there; errors are ignored.
        unsafe { bindings::debugfs_remove(self.entry) };
    }
}
