// SPDX-License-Identifier: GPL-2.0

//! What the queues of a device with an IOTLB ask user space, by `read()` and `poll()`; what it
//! answers, by `write()`, is in [`answer`](crate::answer).
//!
//! There is an IOTLB while the features include `VIRTIO_F_ACCESS_PLATFORM`. A queue that needs a
//! translation which is not there asks for it, and rests; user space reads the question, and writes
//! translations, at any time and asked or not. Each queue has one question at most: it does not go
//! on before it is answered, so that nobody has to keep more.
//!
//! # Ownership
//!
//! A question belongs to its queue, in an array that is as large as there are queues: asking needs
//! no memory. User space gets a copy that is built field by field from zeroes.
//!
//! # Lock order
//!
//! Whoever asks holds the lock of its queue, whoever answers that of the device, and takes those of
//! the queues one after the other. The lock in here comes after both, and nothing comes after it. A
//! reader takes no other.

use kernel::{
    fs::File,
    iov::IovIterDest,
    new_mutex,
    prelude::*,
    static_lock_class,
    sync::{
        poll::{
            PollCondVarBox,
            PollTable, //
        },
        Arc,
        Mutex, //
    },
};
use vring::{
    iotlb::{
        Miss,
        Perm, //
    },
    Gpa, //
};
use zerocopy::FromZeros as _;
use zerocopy_derive::{
    Immutable,
    KnownLayout, //
};

/// The first and the second version of messages, which differ in their head.
#[doc(alias = "VHOST_IOTLB_MSG")]
pub(crate) const MSG_V1: u32 = 1;
#[doc(alias = "VHOST_IOTLB_MSG_V2")]
pub(crate) const MSG_V2: u32 = 2;

/// A translation is missing.
#[doc(alias = "VHOST_IOTLB_MISS")]
const MISS: u8 = 1;
/// The common part of the messages.
#[doc(alias = "vhost_iotlb_msg")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct IotlbMsg {
    pub(crate) iova: u64,
    pub(crate) size: u64,
    pub(crate) uaddr: u64,
    pub(crate) perm: u8,
    pub(crate) ty: u8,
    padding: [u8; 6],
}
static_assert!(size_of::<IotlbMsg>() == 32);

/// A message of either version.
#[doc(alias = "vhost_msg")]
#[doc(alias = "vhost_msg_v2")]
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Msg {
    version: u32,
    /// A hole in the first version, reserved in the second one.
    reserved: u32,
    iotlb: IotlbMsg,
    /// The structure has room for messages of other kinds.
    rest: [u8; 32],
}
static_assert!(size_of::<Msg>() == 72);

impl Msg {
    /// A question for user space.
    fn miss(miss: Miss, version: u32) -> Self {
        let mut msg = Self::new_zeroed();
        msg.version = version;
        msg.iotlb.iova = miss.at.0;
        msg.iotlb.perm = Perm::for_access(miss.access).bits();
        msg.iotlb.ty = MISS;
        msg
    }
}

/// What a queue wants to know.
#[derive(Clone, Copy)]
struct Question {
    /// Questions are read in the order in which they were asked.
    number: u64,
    miss: Miss,
    version: u32,
    /// Whether user space has read it.
    read: bool,
    /// Nobody waits for the answer any more. It stays to be read only because a reader may have
    /// been told of it by `poll()`, as in C.
    void: bool,
}

/// What the lock protects.
struct State {
    /// Whether there is an IOTLB.
    open: bool,
    /// The version of messages that user space chose.
    version: u32,
    /// How many questions there were.
    asked: u64,
    questions: KVec<Option<Question>>,
}

impl State {
    /// The question that was not read for longest, and its queue.
    fn next_unread(&mut self) -> Option<&mut Option<Question>> {
        let unread = |slot: &&mut Option<Question>| slot.is_some_and(|question| !question.read);
        self.questions
            .iter_mut()
            .filter(unread)
            .min_by_key(|slot| slot.map(|question| question.number))
    }

    /// The queue does not wait for the answer to its question, if it has one: it can ask another.
    fn withdraw(slot: &mut Option<Question>) {
        match slot {
            Some(question) if !question.read => question.void = true,
            _ => *slot = None,
        }
    }
}

/// The questions of the queues of a device.
#[pin_data]
pub struct Messages {
    #[pin]
    state: Mutex<State>,
    /// There is something to read, or there will never be. In a box, whose memory is given back
    /// after a grace period: dropping one that is not waits for that.
    changed: PollCondVarBox,
}

impl Messages {
    /// Creates what a device with `queues` queues needs, which are to be created next.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(queues: usize) -> Result<Arc<Self>> {
        let state = State {
            open: false,
            version: MSG_V1,
            asked: 0,
            questions: KVec::with_capacity(queues, GFP_KERNEL_ACCOUNT)?,
        };
        let changed = PollCondVarBox::new(c"vhost_core::Messages::changed", static_lock_class!())?;
        Arc::pin_init(
            pin_init!(Self {
                state <- new_mutex!(state, "vhost_core::Messages::state"),
                changed,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// There is an IOTLB from now on, or there is none: then all questions are void.
    pub(crate) fn set_open(&self, open: bool) {
        let mut state = self.state.lock();
        state.open = open;
        for slot in state.questions.iter_mut() {
            if open {
                State::withdraw(slot);
            } else {
                *slot = None;
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Chooses the version of messages.
    pub(crate) fn set_version(&self, second: bool) {
        self.state.lock().version = if second { MSG_V2 } else { MSG_V1 };
    }

    /// Somebody answered a question, or will not: lets the queues go on that asked for something in
    /// a range.
    #[doc(alias = "vhost_iotlb_notify_vq")]
    pub(crate) fn answer(&self, start: Gpa, last: Gpa, mut resume: impl FnMut(usize)) {
        let mut state = self.state.lock();
        for (queue, slot) in state.questions.iter_mut().enumerate() {
            let Some(question) = slot else {
                continue;
            };
            if (start..=last).contains(&question.miss.at) {
                State::withdraw(slot);
                resume(queue);
            }
        }
    }

    /// Reads a question.
    ///
    /// # Errors
    ///
    /// - `EAGAIN` if there is none, for a non-blocking reader;
    /// - `ERESTARTSYS` for a signal;
    /// - `EBADFD` if there is no IOTLB, thus will be no question;
    /// - `EFAULT` if the memory of the reader is not accessible; the question stays.
    #[doc(alias = "vhost_chr_read_iter")]
    pub fn read(&self, iov: &mut IovIterDest<'_>, nonblocking: bool) -> Result<usize> {
        if iov.len() < size_of::<Msg>() {
            return Ok(0);
        }
        let mut state = self.state.lock();
        let question = loop {
            if let Some(slot) = state.next_unread() {
                // One that nobody waits for is over when it was read, whatever the answer.
                break match slot {
                    Some(question) if !question.void => {
                        question.read = true;
                        Some(*question)
                    }
                    _ => slot.take(),
                };
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            if current!().signal_pending() {
                return Err(ERESTARTSYS);
            }
            if !state.open {
                return Err(EBADFD);
            }
            // A signal is looked for above, after the questions.
            let _: bool = self.changed.wait_interruptible(&mut state);
        };
        drop(state);
        let question = question.ok_or(EAGAIN)?;

        let msg = Msg::miss(question.miss, question.version);
        if iov.copy_to_iter(msg.as_bytes()) == size_of::<Msg>() {
            return Ok(size_of::<Msg>());
        }
        let mut state = self.state.lock();
        let mut questions = state.questions.iter_mut().flatten();
        // It may have been answered, or another one may have been asked.
        if let Some(same) = questions.find(|other| other.number == question.number) {
            same.read = false;
        }
        drop(state);
        self.changed.notify_all();
        Err(EFAULT)
    }

    /// The events that are ready, after the poller was registered for those to come.
    #[doc(alias = "vhost_chr_poll")]
    pub fn poll(&self, file: &File, table: &PollTable<'_>) -> u32 {
        table.register_wait(file, &self.changed);
        if self.state.lock().next_unread().is_some() {
            kernel_ext::miscdev::READABLE
        } else {
            0
        }
    }
}

/// The place where a queue asks.
pub(crate) struct Asker {
    messages: Arc<Messages>,
    /// The number of the queue.
    queue: usize,
}

impl Asker {
    /// Makes a place for the next queue of a device.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there are more queues than it was said.
    pub(crate) fn new(messages: &Arc<Messages>) -> Result<Self> {
        let mut state = messages.state.lock();
        let queue = state.questions.len();
        state
            .questions
            .push_within_capacity(None)
            .map_err(|_| ENOMEM)?;
        Ok(Self {
            messages: messages.clone(),
            queue,
        })
    }

    /// Asks for a translation, unless user space is about to answer another question.
    ///
    /// One that was not read is replaced: the queue may have been stopped and started since.
    #[doc(alias = "vhost_iotlb_miss")]
    pub(crate) fn ask(&self, miss: Miss) {
        let mut state = self.messages.state.lock();
        let (open, version, asked) = (state.open, state.version, state.asked);
        let Some(slot) = state.questions.get_mut(self.queue) else {
            return;
        };
        match slot {
            Some(question) if !question.read => {
                (question.miss, question.version) = (miss, version);
                question.void = false;
                return;
            }
            Some(_) => return,
            None if !open => return,
            None => {
                *slot = Some(Question {
                    number: asked,
                    miss,
                    version,
                    read: false,
                    void: false,
                });
            }
        }
        state.asked = asked.wrapping_add(1);
        drop(state);
        self.messages.changed.notify_all();
    }

    /// The queue was stopped: it does not wait for an answer any more.
    pub(crate) fn forget(&self) {
        let mut state = self.messages.state.lock();
        if let Some(slot) = state.questions.get_mut(self.queue) {
            State::withdraw(slot);
        }
    }
}
