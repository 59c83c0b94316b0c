// SPDX-License-Identifier: GPL-2.0

//! What there is one of in an execution: all threads of an execution are one thread of the machine.

use crate::kernel_ext::{
    sock::{
        LockedSock,
        VsockSock,
        WeakSock, //
    },
    sock_table::Table, //
};
use std::{
    any::Any,
    cell::{
        Cell,
        RefCell, //
    },
    rc::Rc, //
};

/// Mistakes in what stands for C code, for models that are to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// None.
    None,
    /// `sock_backlog_taken()` puts the socket layer's function back after each token.
    RestoresEarly,
    /// It never does.
    NeverRestores,
}

/// What an execution has.
pub struct World {
    pub(crate) table: Table,
    /// Sockets that are bound: listeners.
    bound: loom::sync::Mutex<Vec<VsockSock>>,
    /// How `vsock_assign_transport()` gives a socket its transport.
    pub(crate) assign: fn(&mut LockedSock),
    /// Sockets that are not freed.
    pub(crate) sockets: Cell<usize>,
    /// Sockets that may have the timer of a close.
    pub(crate) timers: RefCell<Vec<WeakSock>>,
    /// What the carrier has.
    pub(crate) carrier: RefCell<Option<Rc<dyn Any>>>,
    /// What was found to be wrong.
    wrong: RefCell<Vec<String>>,
}

impl World {
    /// Lets a listener be found.
    pub(crate) fn bind(&self, sock: VsockSock) {
        self.bound.lock().unwrap().push(sock);
    }

    /// Lets it not be found any more.
    pub(crate) fn unbind(&self, sock: &VsockSock) {
        let mut bound = self.bound.lock().unwrap();
        let at = bound.iter().position(|bound| bound.is(sock));
        let sock = at.map(|at| bound.remove(at));
        drop(bound);
        drop(sock);
    }

    /// Who is bound to a port.
    pub(crate) fn find_bound(&self, port: u32) -> Option<VsockSock> {
        let bound = self.bound.lock().unwrap();
        bound
            .iter()
            .find(|sock| sock.fields().local.port == port)
            .cloned()
    }

    /// All timers fire.
    pub(crate) fn fire_close_timers(&self) {
        for sock in self.timers.take() {
            if let Some(sock) = sock.upgrade() {
                sock.fire_close_timer();
            }
        }
    }
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
    static NO_ATOMIC_MEMORY: Cell<bool> = const { Cell::new(false) };
    static EXECUTIONS: Cell<usize> = const { Cell::new(0) };
    static TOKENS: Cell<usize> = const { Cell::new(0) };
}

/// The world of this execution.
pub(crate) fn get() -> Rc<World> {
    WORLD.with_borrow(|world| world.clone().expect("there is a world"))
}

/// Whether a mistake is to be made.
pub(crate) fn has(fault: Fault) -> bool {
    FAULT.get() == fault
}

pub(crate) fn no_atomic_memory() -> bool {
    NO_ATOMIC_MEMORY.get()
}

/// Says for the rest of the execution whether allocations that must not wait fail.
pub fn set_no_atomic_memory(yes: bool) {
    NO_ATOMIC_MEMORY.set(yes);
}

pub(crate) fn count_token() {
    TOKENS.set(TOKENS.get() + 1);
}

/// Notes that something is wrong. The execution goes on, so that nothing unwinds through the scheduler.
pub fn check(ok: bool, what: &str) {
    if !ok {
        get().wrong.borrow_mut().push(what.to_string());
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// Orders of the threads.
    pub orders: usize,
    /// Tokens that went to a backlog, in all of these.
    pub tokens: usize,
}

/// Tries `f` in all orders of its threads, or in those with at most `preemptions`.
///
/// # Panics
///
/// In the first order in which [`check`] found something wrong, or in which all threads wait.
pub fn explore(
    preemptions: Option<usize>,
    fault: Fault,
    assign: fn(&mut LockedSock),
    f: impl Fn() + Send + Sync + 'static,
) -> Tried {
    FAULT.set(fault);
    EXECUTIONS.set(0);
    TOKENS.set(0);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.max_branches = 10_000;
    let run = move || {
        EXECUTIONS.set(EXECUTIONS.get() + 1);
        NO_ATOMIC_MEMORY.set(false);
        let world = Rc::new(World {
            table: Table::new(),
            bound: loom::sync::Mutex::new(Vec::new()),
            assign,
            sockets: Cell::new(0),
            timers: RefCell::default(),
            carrier: RefCell::new(None),
            wrong: RefCell::new(Vec::new()),
        });
        WORLD.set(Some(world.clone()));
        f();
        check(world.table.len() == 0, "nobody is left in the table");
        check(world.sockets.get() == 0, "all sockets are freed");
        let wrong = world.wrong.take();
        if !wrong.is_empty() {
            core::mem::forget(world);
            panic!("{wrong:?}");
        }
        WORLD.set(None);
    };
    let ret = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.check(run)));
    if let Err(why) = ret {
        // What is of an execution cannot be dropped outside of one.
        core::mem::forget(WORLD.take());
        std::panic::resume_unwind(why);
    }
    Tried {
        orders: EXECUTIONS.get(),
        tokens: TOKENS.get(),
    }
}
