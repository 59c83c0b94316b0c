// SPDX-License-Identifier: GPL-2.0

//! Sockets: `struct sock` with its lock and its backlog, as `net/core/sock.c` and
//! `rust/helpers/sock.c` have them, and what `kernel_ext::sock` makes of that.

#[path = "sock/locked.rs"]
mod locked;
#[path = "sock/types.rs"]
mod types;

pub use self::{
    locked::OnCloseTimeout,
    types::{
        Shutdown,
        SockAddr,
        SockState,
        SockType, //
    }, //
};

use super::net::{
    Net,
    NET, //
};
use crate::{
    kernel::{
        error::{
            Error,
            Result,
            ENOBUFS,
            ENOMEM, //
        },
        sync::aref::ARef, //
    },
    world::{
        self,
        Fault, //
    }, //
};
use core::{
    any::{
        Any,
        TypeId, //
    },
    marker::PhantomData,
    ops::{
        Deref,
        DerefMut, //
    }, //
};
use loom::{
    sync::{
        atomic::{
            AtomicBool,
            Ordering::Relaxed, //
        },
        Condvar,
        Mutex,
        MutexGuard, //
    },
    thread::{
        self,
        ThreadId, //
    }, //
};
use std::{
    cell::{
        Cell,
        RefCell, //
    },
    collections::VecDeque,
    sync::Arc as StdArc, //
};

/// What the socket lock protects. Some of it is read without; see the [crate](crate) for why that
/// is no place of its own where another thread may come first.
pub(crate) struct Fields {
    pub(crate) state: SockState,
    pub(crate) shutdown: Shutdown,
    pub(crate) peer_shutdown: Shutdown,
    pub(crate) done: bool,
    pub(crate) err: Option<Error>,
    pub(crate) local: SockAddr,
    pub(crate) remote: SockAddr,
    /// The transport, and its state.
    pub(crate) trans: Option<(TypeId, StdArc<dyn Any + Send + Sync>)>,
    pub(crate) in_tables: bool,
    pub(crate) accept_queue: VecDeque<VsockSock>,
    pub(crate) max_accept_queue: usize,
    pub(crate) close_scheduled: bool,
    /// How often the socket was told that it is connected, and of the end.
    pub(crate) connected: usize,
    pub(crate) ended: usize,
}

/// A token in the backlog.
struct Skb {
    token: Token,
    mark: bool,
}

/// What the `slock` protects.
struct Slock {
    owned: bool,
    backlog: VecDeque<Skb>,
    len: usize,
}

/// `sk_sleep()`, where at most one task waits.
struct Sleep {
    task: Option<ThreadId>,
    running: bool,
    /// What it waits for.
    poll: Poll,
}

/// The key of a wake-up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Poll {
    In,
    Out,
    All,
}

/// What is done when the timer of a close fires, and its reference to the socket.
type Timer = (fn(&mut LockedSock), VsockSock);

struct Inner {
    ty: SockType,
    slock: Mutex<Slock>,
    /// `sk_lock.wq`.
    released: Condvar,
    /// Whether `sk_backlog_rcv` is ours. Written under the `slock`, read by the owner without.
    ours: AtomicBool,
    sleep: Mutex<Sleep>,
    woken: Condvar,
    timer: Mutex<Option<Timer>>,
    fields: std::sync::Mutex<Fields>,
    /// Nobody ever sleeps: who wakes has nothing to do.
    sleeps: bool,
    /// Held for what is looked at of a listener without its lock.
    glance: Mutex<()>,
}

/// All sockets of an execution.
#[derive(Default)]
pub(crate) struct Sockets {
    /// How many are not freed.
    count: Cell<usize>,
    /// How many were made for listeners.
    pub(crate) children: Cell<usize>,
    /// Those that may have the timer of a close.
    timers: RefCell<Vec<WeakSock>>,
    /// Those that are bound: listeners.
    bound: Mutex<Vec<VsockSock>>,
    /// How `vsock_assign_transport()` gives a socket its transport.
    pub(crate) assign: Cell<Option<fn(&mut LockedSock)>>,
}

impl Sockets {
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

    /// How many are not freed.
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let sockets = world::the::<Sockets>();
            sockets.count.set(sockets.count.get() - 1);
        }
    }
}

/// A socket, by a counted reference.
#[derive(Clone)]
pub struct VsockSock(StdArc<Inner>);

/// A socket that may be freed.
pub(crate) struct WeakSock(std::sync::Weak<Inner>);

impl WeakSock {
    pub(crate) fn upgrade(&self) -> Option<VsockSock> {
        self.0.upgrade().map(VsockSock)
    }
}

impl VsockSock {
    /// Makes a socket; `sleeps` says whether somebody may wait for it.
    pub(crate) fn create(ty: SockType, sleeps: bool) -> Self {
        let any = SockAddr {
            cid: u32::MAX,
            port: u32::MAX,
        };
        let sockets = world::the::<Sockets>();
        sockets.count.set(sockets.count.get() + 1);
        Self(StdArc::new(Inner {
            ty,
            slock: Mutex::new(Slock {
                owned: false,
                backlog: VecDeque::new(),
                len: 0,
            }),
            released: Condvar::new(),
            ours: AtomicBool::new(false),
            sleep: Mutex::new(Sleep {
                task: None,
                running: true,
                poll: Poll::All,
            }),
            woken: Condvar::new(),
            timer: Mutex::new(None),
            fields: std::sync::Mutex::new(Fields {
                state: SockState::Close,
                shutdown: Shutdown::NONE,
                peer_shutdown: Shutdown::NONE,
                done: false,
                err: None,
                local: any,
                remote: any,
                trans: None,
                in_tables: false,
                accept_queue: VecDeque::new(),
                max_accept_queue: 1,
                close_scheduled: false,
                connected: 0,
                ended: 0,
            }),
            sleeps,
            glance: Mutex::new(()),
        }))
    }

    pub(crate) fn fields(&self) -> std::sync::MutexGuard<'_, Fields> {
        self.0.fields.lock().unwrap()
    }

    /// Whether it is that one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        StdArc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn references(&self) -> usize {
        StdArc::strong_count(&self.0)
    }

    /// `lock_sock()`.
    pub fn lock(&self) -> SockGuard<'_> {
        self.acquire();
        SockGuard::new(self)
    }

    fn acquire(&self) {
        let mut slock = self.0.slock.lock().unwrap();
        while slock.owned {
            slock = self.0.released.wait(slock).unwrap();
        }
        slock.owned = true;
    }

    /// `release_sock()`.
    fn unlock(&self) {
        let mut slock = self.run_backlog(self.0.slock.lock().unwrap());
        slock.owned = false;
        self.0.released.notify_one();
    }

    /// `__release_sock()`.
    fn run_backlog<'a>(&'a self, mut slock: MutexGuard<'a, Slock>) -> MutexGuard<'a, Slock> {
        while !slock.backlog.is_empty() {
            let batch = core::mem::take(&mut slock.backlog);
            drop(slock);
            for skb in batch {
                world::check(
                    self.0.ours.load(Relaxed),
                    "a token comes to our function, not to the socket layer's",
                );
                self.take_deferred(skb);
            }
            slock = self.0.slock.lock().unwrap();
        }
        slock.len = 0;
        slock
    }

    /// `take_deferred()`, with `sock_backlog_taken()`.
    fn take_deferred(&self, Skb { token, mark }: Skb) {
        let slock = self.0.slock.lock().unwrap();
        let is_last = !mark && slock.backlog.is_empty();
        if (is_last || world::has(Fault::RestoresEarly)) && !world::has(Fault::NeverRestores) {
            self.0.ours.store(false, Relaxed);
        }
        drop(slock);
        self.set_running();
        let is_telling = token.child.is_none();
        let has_transport = self.fields().trans.is_some();
        world::check(
            has_transport || !is_telling,
            "nothing of ours runs for a socket that is on our transport no more",
        );
        (token.run)(&mut LockedSock(self.clone()), token.child);
    }

    /// `sock_lock_or_backlog()`.
    pub fn lock_or_defer(
        &self,
        token: &mut Option<Token>,
        limit: usize,
    ) -> Result<Option<SockGuard<'_>>> {
        let mut slock = self.0.slock.lock().unwrap();
        if !slock.owned {
            slock.owned = true;
            return Ok(Some(SockGuard::new(self)));
        }
        if slock.len + Token::SIZE > limit {
            return Err(ENOBUFS);
        }
        let token = token.take().ok_or(ENOBUFS)?;
        self.0.ours.store(true, Relaxed);
        if let Some(last) = slock.backlog.back_mut() {
            last.mark = true;
        }
        let is_telling = |skb: &Skb| skb.token.child.is_none();
        world::check(
            token.child.is_some() || !slock.backlog.iter().any(is_telling),
            "a connection has one token in a backlog",
        );
        slock.backlog.push_back(Skb { token, mark: false });
        let children = slock.backlog.iter().filter(|skb| !is_telling(skb)).count();
        world::check(
            children <= self.fields().max_accept_queue + 1,
            "no more children are in a backlog than may be in the queue, and one",
        );
        world::count_token();
        slock.len += Token::SIZE;
        Ok(None)
    }

    /// `sock_backlog_is_full()`.
    pub fn backlog_is_full(&self, limit: usize) -> bool {
        let slock = self.0.slock.lock().unwrap();
        slock.len != 0 && slock.len + Token::SIZE > limit
    }

    /// What is true of a socket that nobody has.
    pub(crate) fn check_idle(&self) {
        let slock = self.0.slock.lock().unwrap();
        world::check(!slock.owned, "nobody has the socket");
        world::check(slock.backlog.is_empty(), "the backlog is empty");
        world::check(
            !self.0.ours.load(Relaxed),
            "the socket layer has its own function back",
        );
    }

    /// `prepare_to_wait()`.
    pub(crate) fn prepare_to_wait(&self) {
        self.prepare(Poll::All);
    }

    /// `poll_wait()`.
    pub(crate) fn prepare_to_poll_out(&self) {
        self.prepare(Poll::Out);
    }

    fn prepare(&self, poll: Poll) {
        *self.0.sleep.lock().unwrap() = Sleep {
            task: Some(thread::current().id()),
            running: false,
            poll,
        };
    }

    /// `schedule()`, until somebody says that the task is to run.
    pub(crate) fn schedule(&self) {
        let mut sleep = self.0.sleep.lock().unwrap();
        while !sleep.running {
            sleep = self.0.woken.wait(sleep).unwrap();
        }
    }

    /// `finish_wait()`. Who wakes the task from here on does no harm, and it says anew what it
    /// waits for.
    pub(crate) fn finish_wait(&self) {}

    /// `__set_current_state(TASK_RUNNING)`.
    fn set_running(&self) {
        if self.0.sleeps {
            let mut sleep = self.0.sleep.lock().unwrap();
            if sleep.task == Some(thread::current().id()) {
                sleep.running = true;
            }
        }
    }

    fn wake(&self, what: Poll) {
        if self.0.sleeps {
            let mut sleep = self.0.sleep.lock().unwrap();
            let is_meant = sleep.poll == Poll::All || what == Poll::All || what == sleep.poll;
            if sleep.task.is_some() && !sleep.running && is_meant {
                sleep.running = true;
                self.0.woken.notify_all();
            }
        }
    }

    /// See `kernel_ext::sock`, as for all that follows.
    pub fn net(&self) -> &Net {
        &NET
    }

    /// The type.
    pub fn ty(&self) -> SockType {
        self.0.ty
    }

    /// The state.
    pub fn state(&self) -> SockState {
        self.fields().state
    }

    /// What the user shut down.
    pub fn shutdown(&self) -> Shutdown {
        self.fields().shutdown
    }

    /// `SO_RCVLOWAT`.
    pub fn rcvlowat(&self) -> usize {
        1
    }

    /// Memory of what was sent.
    pub fn send_memory(&self) -> usize {
        0
    }

    /// Wakes writers.
    pub fn write_space(&self) {
        self.wake(Poll::Out);
    }

    /// Wakes readers.
    pub fn wake_readers(&self) -> bool {
        self.wake(Poll::In);
        true
    }

    /// Whether another part of the kernel has it: there is none.
    pub fn has_user_data(&self) -> bool {
        false
    }

    /// See `kernel_ext::sock`.
    pub fn stay_awake(&self) {
        self.set_running();
    }

    /// Whether a listener has enough.
    pub fn accept_queue_is_full(&self) -> bool {
        let _glance = self.0.glance.lock().unwrap();
        let fields = self.fields();
        fields.accept_queue.len() > fields.max_accept_queue
    }

    /// How many it may have.
    pub fn max_accept_queue(&self) -> usize {
        self.fields().max_accept_queue
    }

    /// The timer of a close fires, if it runs.
    pub(crate) fn fire_close_timer(&self) {
        let Some((run, sock)) = self.0.timer.lock().unwrap().take() else {
            return;
        };
        let mut locked = sock.lock();
        locked.fields().close_scheduled = false;
        run(&mut locked);
    }
}

/// A locked socket.
pub struct LockedSock(VsockSock);

/// Evidence that it is locked.
pub struct SockGuard<'a> {
    locked: LockedSock,
    _p: PhantomData<&'a VsockSock>,
}

impl SockGuard<'_> {
    fn new(sock: &VsockSock) -> Self {
        Self {
            locked: LockedSock(sock.clone()),
            _p: PhantomData,
        }
    }
}

impl Deref for SockGuard<'_> {
    type Target = LockedSock;

    fn deref(&self) -> &LockedSock {
        &self.locked
    }
}

impl DerefMut for SockGuard<'_> {
    fn deref_mut(&mut self) -> &mut LockedSock {
        &mut self.locked
    }
}

impl Drop for SockGuard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.locked.unlock();
        }
    }
}

impl Deref for LockedSock {
    type Target = VsockSock;

    fn deref(&self) -> &VsockSock {
        &self.0
    }
}

/// What is done with the locked socket.
pub type Run = fn(&mut LockedSock, Option<NewChild>);

/// A work for a backlog.
pub struct Token {
    run: Run,
    child: Option<NewChild>,
}

impl Token {
    /// Memory that it counts.
    pub const SIZE: usize = 1;

    /// A work with a child.
    pub fn with_child(run: Run, child: NewChild) -> Result<Self, (Error, NewChild)> {
        let child = Some(child);
        Ok(Self { run, child })
    }

    /// A work on the socket alone.
    pub fn new_no_fail(run: Run) -> Self {
        Self { run, child: None }
    }

    /// The child.
    pub fn into_child(self) -> Option<NewChild> {
        self.child
    }
}

/// A socket that nobody has yet.
pub struct NewChild(ARef<VsockSock>);

impl NewChild {
    /// Makes it.
    pub fn new(listener: &VsockSock) -> Result<Self> {
        if listener.ty() != SockType::Stream {
            return Err(ENOMEM);
        }
        let made = &world::the::<Sockets>().children;
        made.set(made.get() + 1);
        Ok(Self(ARef(VsockSock::create(listener.ty(), false))))
    }

    /// The socket.
    pub fn sock(&self) -> &VsockSock {
        &self.0
    }

    /// Locks it.
    pub fn lock(&self) -> SockGuard<'_> {
        self.0.lock()
    }

    /// Queues it.
    pub fn enqueue(self, listener: &mut LockedSock) -> ARef<VsockSock> {
        let sock: &VsockSock = listener;
        let _glance = sock.0.glance.lock().unwrap();
        listener.fields().accept_queue.push_back(self.0 .0.clone());
        self.0
    }
}
