// SPDX-License-Identifier: GPL-2.0

//! Processes: each case is one, and some make more.

use super::{check, owned, poll};
use std::{
    ffi::CStr,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A child process. If it is still there when this is dropped, it is killed.
pub struct Child {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    ended: Option<i32>,
}

/// Which process this is, and how many children it has had.
static FAMILY: AtomicU64 = AtomicU64::new(0);
static CHILDREN: AtomicU64 = AtomicU64::new(0);

/// A number for this process that no other one has at the same time, as far as can be, and that is
/// the same in each run, which its ID is not: it says which child it is of which process.
pub fn family() -> u64 {
    FAMILY.load(Ordering::Relaxed)
}

/// Begins a family that has nothing to do with what else its parent runs.
pub fn begin_family(number: u64) {
    FAMILY.store(number, Ordering::Relaxed);
}

/// What the next child's family is.
fn next_family() -> u64 {
    let number = CHILDREN.fetch_add(1, Ordering::Relaxed) + 1;
    family().wrapping_mul(1_000_003).wrapping_add(number)
}

/// This process is a child, of this family.
fn be_child(family: u64) {
    begin_family(family);
    CHILDREN.store(0, Ordering::Relaxed);
}

/// Runs `f` in a child process, which ends with the returned status, or with its parent.
///
/// To be called while this process has one thread.
pub fn fork(f: impl FnOnce() -> i32) -> io::Result<Child> {
    let family = next_family();
    // SAFETY: With one thread, no lock is held by somebody who does not exist in the child.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        be_child(family);
        // SAFETY: No memory is passed.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(101);
        exit(status);
    }
    // SAFETY: No memory is passed.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    Ok(Child {
        pid,
        pidfd: owned(pidfd as libc::c_int)?,
        ended: None,
    })
}

/// As [`fork`], and the child stays when its parent ends; nobody waits for it.
pub fn fork_detached(f: impl FnOnce() -> i32) -> io::Result<()> {
    let family = next_family();
    // SAFETY: With one thread, no lock is held by somebody who does not exist in the child.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        be_child(family);
        exit(std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(101));
    }
    Ok(())
}

/// Ends the process at once, without running what is registered for its end.
pub fn exit(status: i32) -> ! {
    // SAFETY: It does not return.
    unsafe { libc::_exit(status) }
}

impl Child {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end; `None` if that takes longer than `timeout`. The status is that of
    /// `exit()`, or the number of a signal, negative.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<i32>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match poll(&self.pidfd, libc::POLLIN, left) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
        }
        let mut status = 0;
        // SAFETY: An integer, writable.
        check(unsafe { libc::waitpid(self.pid, &mut status, 0) })?;
        let status = if libc::WIFSIGNALED(status) {
            -libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        };
        self.ended = Some(status);
        Ok(self.ended)
    }

    /// Sends a signal.
    pub fn kill(&self, signal: i32) {
        if self.ended.is_none() {
            // SAFETY: No memory is passed; the child was not waited for, so the number is its.
            unsafe { libc::kill(self.pid, signal) };
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill(libc::SIGKILL);
        let _ = self.wait(Duration::from_secs(10));
    }
}

/// Sends a signal to this process.
pub fn raise(signal: i32) -> io::Result<()> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::raise(signal) })?;
    Ok(())
}

/// Replaces this process by a program; returns only the error.
pub fn exec(program: &CStr, arguments: &[&CStr]) -> io::Error {
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    // SAFETY: C strings, and a null at the end.
    unsafe { libc::execv(program.as_ptr(), argv.as_ptr()) };
    io::Error::last_os_error()
}

/// Lets a descriptor be inherited by a program that is executed.
pub fn keep_on_exec(fd: &impl std::os::fd::AsRawFd) -> io::Result<()> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) })?;
    Ok(())
}

/// Takes on a namespace of its own (`libc::CLONE_NEWNET`...).
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::unshare(flags) })?;
    Ok(())
}

/// Ends with the parent, also when this process got another identity since it was made.
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    Ok(())
}

/// Lets the user of this process write to its files in `/proc`, after the user changed.
pub fn own_proc_files() -> io::Result<()> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) })?;
    Ok(())
}

/// Mounts a file system that needs no device.
pub fn mount(kind: &CStr, place: &CStr, options: &CStr) -> io::Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let (name, data) = (kind.as_ptr(), options.as_ptr().cast());
    // SAFETY: C strings, which are only read.
    check(unsafe { libc::mount(name, place.as_ptr(), name, flags, data) })?;
    Ok(())
}

/// Removes a module that nobody uses, without waiting for those who do.
pub fn remove_module(name: &CStr) -> io::Result<()> {
    // SAFETY: A C string.
    let ret = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    check(ret as libc::c_int)?;
    Ok(())
}

/// Stays on one CPU, with all threads that are made from now on.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = [0u64; 16];
    set[cpu / 64] |= 1 << (cpu % 64);
    // SAFETY: A set of CPUs is an array of words, of the given size.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), set.as_ptr().cast()) })?;
    Ok(())
}

/// Sets how this thread is scheduled (`libc::SCHED_FIFO`...).
pub fn set_scheduler(policy: i32, priority: i32) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: A structure is passed, which is only read.
    check(unsafe { libc::sched_setscheduler(0, policy, &param) })?;
    Ok(())
}

/// Becomes an ordinary user.
pub fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: No groups, thus no memory.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: No memory is passed.
    check(unsafe { libc::setgid(uid) })?;
    // SAFETY: No memory is passed.
    check(unsafe { libc::setuid(uid) })?;
    Ok(())
}

/// Sets a limit (`libc::RLIMIT_*`), the hard one too.
pub fn set_limit(what: libc::__rlimit_resource_t, limit: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: A structure that is read.
    check(unsafe { libc::setrlimit(what, &limit) })?;
    Ok(())
}

/// What this thread has had so far.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Time on a CPU, in the kernel too: other programs do not add to it.
    pub cpu: Duration,
    /// How often it gave its CPU away because it had to wait.
    pub waits: u64,
}

impl Usage {
    /// A reading.
    pub fn now() -> io::Result<Self> {
        let mut usage = MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: A structure of this type is written.
        check(unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) })?;
        // SAFETY: The call filled it in, else it had failed.
        let usage = unsafe { usage.assume_init() };
        // The structure has times too, but those are as old as the last tick.
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: A structure of this type is written.
        check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) })?;
        // SAFETY: The call filled it in, else it had failed.
        let time = unsafe { time.assume_init() };
        Ok(Self {
            cpu: Duration::from_secs(time.tv_sec.unsigned_abs())
                + Duration::from_nanos(time.tv_nsec.unsigned_abs()),
            waits: usage.ru_nvcsw.unsigned_abs(),
        })
    }

    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            waits: self.waits.saturating_sub(before.waits),
        }
    }
}
