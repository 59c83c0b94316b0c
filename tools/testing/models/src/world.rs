// SPDX-License-Identifier: GPL-2.0

//! What there is one of in an execution: all threads of an execution are one thread of the machine.

use std::{
    any::{
        Any,
        TypeId, //
    },
    cell::{
        Cell,
        RefCell, //
    },
    collections::HashMap,
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
#[derive(Default)]
struct World {
    /// One thing of a type.
    things: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
    /// What was found to be wrong.
    wrong: RefCell<Vec<String>>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
    static NO_ATOMIC_MEMORY: Cell<bool> = const { Cell::new(false) };
    static EXECUTIONS: Cell<usize> = const { Cell::new(0) };
    static TOKENS: Cell<usize> = const { Cell::new(0) };
}

/// What this execution has of a type.
pub(crate) fn the<T: Default + 'static>() -> Rc<T> {
    let world = get();
    let mut things = world.things.borrow_mut();
    let thing = things
        .entry(TypeId::of::<T>())
        .or_insert_with(|| Rc::new(T::default()));
    thing.clone().downcast().expect("it is of that type")
}

fn get() -> Rc<World> {
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

/// Notes that something is wrong. The execution goes on, so that nothing unwinds through the
/// scheduler.
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
        let world = Rc::new(World::default());
        WORLD.set(Some(world.clone()));
        f();
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
