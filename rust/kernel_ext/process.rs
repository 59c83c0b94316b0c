// SPDX-License-Identifier: GPL-2.0

//! Who a process is, for messages to people.

use crate::bindings;
use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    task::{
        Pid,
        Task, //
    }, //
};

/// The number and the name of a process, as they were when they were looked at.
#[derive(Clone, Copy)]
pub struct Process {
    pid: Pid,
    comm: [u8; bindings::TASK_COMM_LEN as usize],
}

impl Process {
    /// The process of the current task.
    pub fn of_current() -> Self {
        let mut comm = [0; bindings::TASK_COMM_LEN as usize];
        // SAFETY: The array is as long as the function expects.
        unsafe { bindings::current_process_comm(comm.as_mut_ptr().cast()) };
        Self {
            pid: current!().tgid(),
            comm,
        }
    }

    /// The number, as the first namespace of processes has it.
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

/// The number of a task in the namespace of processes of the current one; 0 if it has none there,
/// or has ended.
///
/// Context: any; in a process, for there to be a current one.
#[doc(alias = "task_pid_vnr")]
pub fn pid_for_current(task: &Task) -> Pid {
    let none = core::ptr::null_mut();
    // SAFETY: The task is valid, and without a namespace it is the current one's.
    unsafe { bindings::__task_pid_nr_ns(task.as_ptr(), bindings::pid_type_PIDTYPE_PID, none) }
}

/// Prints the number, as the first namespace of processes has it, and the name, which the process
/// chooses itself: what could be taken for something else in a log is escaped.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.comm.split(|byte| *byte == 0).next();
        let name = BStr::from_bytes(name.unwrap_or_default());
        f.write_fmt(fmt!("{} ({name})", self.pid))
    }
}
