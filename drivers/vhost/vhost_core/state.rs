// SPDX-License-Identifier: GPL-2.0

//! What the lock of a queue protects: configuration, state, and the ring in use.

use crate::{
    feature,
    kick_work::KickWork,
    log::Log,
    mapped::MappedRing,
    memory::{
        area_ok,
        log_area_ok,
        slots,
        MemTable,
        OwnerIotlb,
        Space,
        Untranslated, //
    },
    ring_memory::OwnerRing, //
};
use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    eventfd::EventFd,
    kick::KickPoll,
    owner_mm::{
        InOwnerMm,
        OwnerMm, //
    },
    user_iov::UserIov,
    window::Windows, //
};
use vring::{
    iotlb::{
        Mapping,
        Miss, //
    },
    layout,
    translate::PieceError,
    Config,
    Endian,
    Gpa,
    IotlbError,
    LastRegion,
    Malformed,
    RingAddr,
    RingError,
    RingSize,
    SplitRing,
    UserAddr, //
};

/// Where the parts of a ring are: for the owner, or for the IOTLB if there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingAddrs {
    pub(crate) desc: RingAddr,
    pub(crate) avail: RingAddr,
    pub(crate) used: RingAddr,
}

/// Why a queue is Broken.
#[derive(Clone, Copy)]
pub(crate) enum Why {
    /// The driver broke the rules of the ring.
    Malformed(Malformed),
    /// A buffer is not in the guest's memory.
    Translation,
    /// The memory of the ring cannot be accessed.
    Memory,
    /// The device does not get anything done with the buffers that it is given.
    Device,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => core::fmt::Display::fmt(what, f),
            Self::Translation => f.write_str("a buffer is outside of the guest's memory"),
            Self::Memory => f.write_str("the ring cannot be accessed"),
            Self::Device => f.write_str("the buffers are of no use"),
        }
    }
}

impl<T> From<RingError<Error, T>> for Why {
    fn from(err: RingError<Error, T>) -> Self {
        match err {
            RingError::Malformed(what) => Self::Malformed(what),
            RingError::Translate(_) => Self::Translation,
            RingError::Memory(_) => Self::Memory,
        }
    }
}

/// Why a queue cannot be worked on now.
pub(crate) enum Unready {
    /// It was not started.
    Stopped,
    /// It was found to be wrong before.
    Broken,
    /// Nobody said where the ring is, since it was started.
    NoRing,
    /// User space has to be asked where a part of the ring is.
    Miss(Miss),
    /// The ring is wrong.
    Wrong(Why),
}

impl From<PieceError<IotlbError>> for Unready {
    fn from(err: PieceError<IotlbError>) -> Self {
        match err {
            PieceError::Address => Self::Wrong(Why::Malformed(Malformed::RingAddress)),
            PieceError::Lookup(err) => match err.into() {
                Untranslated::Miss(miss) => Self::Miss(miss),
                Untranslated::Refused => Self::Wrong(Why::Memory),
            },
        }
    }
}

/// A queue in use.
pub(crate) struct Running {
    /// The memory that buffers are in, and whose pages are logged.
    memory: Arc<MemTable>,
    /// For those who reach that memory, and the ring if it is there, without faults. There may be
    /// none.
    windows: Option<Windows>,
    /// Where the ring is to be. Unknown after an IOTLB came or went, until user space says it: an
    /// address of one kind is never taken for one of the other.
    pub(crate) addrs: Option<RingAddrs>,
    /// The ring, made from `addrs` and the features by the next one who works on the queue after
    /// either was set, and gone with the next change.
    ring: Option<SplitRing>,
}

pub(crate) enum State {
    /// Nobody said where the ring is.
    Unset,
    /// Ready to be started.
    Configured(RingAddrs),
    /// In use.
    Running(Running),
    /// The ring was found to be wrong. Still counts as started for user space.
    Broken(Option<RingAddrs>, Why),
}

/// What the lock of a queue protects.
pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) size: RingSize,
    /// The available index to begin with; not used while there is a ring.
    pub(crate) base: u16,
    features: u64,
    /// What translates all addresses, if the driver negotiated `VIRTIO_F_ACCESS_PLATFORM`.
    ///
    /// Each queue has its own: it is used with the lock of the queue held, like everything that was
    /// translated by it, so that nothing is in use any more when whoever takes a translation back
    /// has had that lock.
    iotlb: Option<OwnerIotlb>,
    pub(crate) log: Log,
    /// The segments of the chain that is being worked on.
    pub(crate) readable: UserIov,
    pub(crate) writable: UserIov,
    pub(crate) call: Option<EventFd>,
    /// Chains were completed that the driver was not signalled for; the work of the queue is going
    /// to do that.
    unsignalled: bool,
    pub(crate) err: Option<EventFd>,
    pub(crate) kick: Option<Pin<KBox<KickPoll<KickWork>>>>,
    pub(crate) busyloop_timeout: u32,
    /// For drivers without `VIRTIO_F_VERSION_1`.
    pub(crate) legacy_endian: Endian,
}

/// What work on a ring needs: put together once for a run.
pub(crate) struct Parts<'a, M> {
    pub(crate) ring: &'a mut SplitRing,
    /// How the memory of the ring and of the buffers is reached.
    pub(crate) mem: M,
    /// Where buffers are.
    pub(crate) space: Space<'a>,
    pub(crate) readable: &'a mut UserIov,
    pub(crate) writable: &'a mut UserIov,
    /// Whether there is anybody to be signalled.
    pub(crate) has_call: bool,
    /// See [`Inner::unsignalled`].
    pub(crate) unsignalled: &'a mut bool,
    /// Whether all writes to buffers are to be logged.
    pub(crate) logs_all: bool,
}

impl Inner {
    /// # Errors
    ///
    /// Never, since 1 is the size of a ring.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            state: State::Unset,
            // What user space has to change before a ring of any use can be started.
            size: RingSize::new(1).ok_or(EINVAL)?,
            base: 0,
            features: 0,
            iotlb: None,
            log: Log::new(),
            readable: UserIov::new(),
            writable: UserIov::new(),
            call: None,
            unsignalled: false,
            err: None,
            kick: None,
            busyloop_timeout: 0,
            legacy_endian: Endian::Native,
        })
    }

    /// Says whether the queue was started and not stopped.
    pub(crate) fn is_started(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Broken(..))
    }

    /// How many translations are known, if there is an IOTLB.
    pub(crate) fn translations(&self) -> Option<usize> {
        self.iotlb.as_ref().map(|iotlb| iotlb.len())
    }

    /// How many windows of the memory were made, and thrown away, if there may be any.
    pub(crate) fn windows(&self) -> Option<(u64, u64)> {
        match &self.state {
            State::Running(running) => running.windows.as_ref().map(Windows::counts),
            _ => None,
        }
    }

    /// Makes windows for what somebody looked for in vain.
    #[inline]
    pub(crate) fn fill_windows(&self, mm: &InOwnerMm) {
        if let State::Running(Running {
            windows: Some(windows),
            ..
        }) = &self.state
        {
            if windows.is_wanting() {
                windows.fill(mm);
            }
        }
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// The available index of the next chain.
    pub(crate) fn next_avail(&self) -> u16 {
        match &self.state {
            State::Running(Running {
                ring: Some(ring), ..
            }) => ring.vring_base(),
            _ => self.base,
        }
    }

    /// The used index that the driver sees, if there is a ring.
    pub(crate) fn last_used(&self) -> Option<u16> {
        match &self.state {
            State::Running(running) => running.ring.as_ref().map(SplitRing::last_used_idx),
            _ => None,
        }
    }

    // --- checks of what user space says ---------------------------------------------------------

    /// Says whether all of a ring is in the user half of the address space. With an IOTLB that is
    /// seen when it is translated.
    #[doc(alias = "vq_access_ok")]
    pub(crate) fn ring_ok(&self, addrs: RingAddrs) -> bool {
        if self.iotlb.is_some() {
            return true;
        }
        let event_idx = self.has(feature::EVENT_IDX);
        area_ok(addrs.desc.0, layout::desc_bytes(self.size))
            && area_ok(addrs.avail.0, layout::avail_bytes(self.size, event_idx))
            && area_ok(addrs.used.0, layout::used_bytes(self.size, event_idx))
    }

    /// Says whether writes to the used ring could be logged, in a log at `base`.
    #[doc(alias = "vq_log_used_access_ok")]
    pub(crate) fn used_log_ok(&self, base: UserAddr, used: Option<Gpa>) -> bool {
        let bytes = layout::used_bytes(self.size, self.has(feature::EVENT_IDX));
        self.iotlb.is_some() || used.is_none_or(|used| log_area_ok(base, used, bytes))
    }

    /// Says whether the queue can work with a memory table, and log its writes.
    pub(crate) fn memory_ok(&self, memory: &MemTable) -> bool {
        memory.access_ok(self.logs_all().then_some(self.log.base))
    }

    /// Says whether the queue, if it runs, could log its writes to buffers.
    pub(crate) fn could_log_all(&self) -> bool {
        match &self.state {
            State::Running(running) => running.memory.access_ok(Some(self.log.base)),
            _ => true,
        }
    }

    /// Says whether the queue, if it runs, could log what it is told to log in a log at `base`.
    #[doc(alias = "vq_log_access_ok")]
    pub(crate) fn log_ok(&self, base: UserAddr) -> bool {
        match &self.state {
            State::Running(running) => {
                running.memory.access_ok(self.logs_all().then_some(base))
                    && self.used_log_ok(base, self.log.used)
            }
            _ => true,
        }
    }

    /// Says whether all writes to buffers are to be logged.
    #[inline]
    pub(crate) fn logs_all(&self) -> bool {
        self.has(feature::LOG_ALL)
    }

    // --- changes
    // ----------------------------------------------------------------------------------

    /// Something changed that the ring was made from: it is made again when it is needed.
    fn drop_ring(&mut self) {
        if let State::Running(running) = &mut self.state {
            if let Some(ring) = running.ring.take() {
                self.base = ring.vring_base();
            }
        }
    }

    /// An IOTLB came or went: where the ring is has to be said again.
    #[doc(alias = "vhost_vq_invalidate_access")]
    fn forget_addrs(&mut self) {
        self.drop_ring();
        self.log.used = None;
        match &mut self.state {
            State::Running(running) => running.addrs = None,
            State::Broken(addrs, _) => *addrs = None,
            State::Unset | State::Configured(_) => self.state = State::Unset,
        }
    }

    /// Changes the features; `iotlb` is an empty one if they need that.
    pub(crate) fn set_features(&mut self, features: u64, iotlb: Option<OwnerIotlb>) {
        if self.iotlb.is_some() != iotlb.is_some() {
            self.forget_addrs();
        }
        if (self.features ^ features) & feature::RING != 0 {
            self.drop_ring();
        }
        self.iotlb = iotlb;
        self.features = features;
    }

    /// Says where the ring is.
    pub(crate) fn set_addrs(&mut self, new: RingAddrs) {
        match &mut self.state {
            State::Running(running) => {
                if running.addrs != Some(new) {
                    running.addrs = Some(new);
                    self.drop_ring();
                }
            }
            State::Broken(addrs, _) => *addrs = Some(new),
            State::Unset | State::Configured(_) => self.state = State::Configured(new),
        }
    }

    /// Replaces the memory table of `owner`, if the queue has one.
    pub(crate) fn set_memory(&mut self, memory: &Arc<MemTable>, owner: &OwnerMm) {
        if let State::Running(running) = &mut self.state {
            // The old table is dropped here at the latest by its last user; it is plain memory.
            running.memory = memory.clone();
            running.windows = memory.windows(owner);
        }
    }

    /// Makes room for another translation, so that adding it does not fail.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no IOTLB, `ENOMEM`.
    pub(crate) fn reserve_translation(&mut self) -> Result {
        let iotlb = self.iotlb.as_mut().ok_or(EFAULT)?;
        if let Some(count) = iotlb.wants() {
            iotlb.grow(slots(count)?);
        }
        Ok(())
    }

    /// Adds a translation.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no IOTLB, or the range of addresses is none.
    pub(crate) fn add_translation(&mut self, map: Mapping) -> Result {
        let iotlb = self.iotlb.as_mut().ok_or(EFAULT)?;
        iotlb.insert(map).map_err(|_| EFAULT)
    }

    /// Removes all translations that have an address in a range.
    ///
    /// # Errors
    ///
    /// As [`add_translation`](Self::add_translation).
    pub(crate) fn remove_translations(&mut self, start: Gpa, last: Gpa) -> Result {
        let iotlb = self.iotlb.as_mut().ok_or(EFAULT)?;
        iotlb.remove(start, last).map_err(|_| EFAULT)
    }

    /// Starts a queue that is stopped, on memory of `owner`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if nobody said where the ring is.
    pub(crate) fn start(&mut self, memory: &Arc<MemTable>, owner: &OwnerMm) -> Result {
        let State::Configured(addrs) = self.state else {
            return Err(EFAULT);
        };
        self.state = State::Running(Running {
            memory: memory.clone(),
            windows: memory.windows(owner),
            addrs: Some(addrs),
            ring: None,
        });
        Ok(())
    }

    /// Signals what was left to a run that does not come any more.
    fn signal_rest(&mut self) {
        if core::mem::take(&mut self.unsignalled) {
            if let Some(call) = &self.call {
                call.signal();
            }
        }
    }

    /// Stops the queue, if it was started.
    pub(crate) fn stop(&mut self) {
        self.signal_rest();
        self.drop_ring();
        if let State::Running(Running { addrs, .. }) | State::Broken(addrs, _) = self.state {
            self.state = addrs.map_or(State::Unset, State::Configured);
        }
    }

    /// Breaks a queue that runs; the result says whether it did.
    pub(crate) fn set_broken(&mut self, why: Why) -> bool {
        self.signal_rest();
        self.drop_ring();
        let State::Running(running) = &self.state else {
            return false;
        };
        self.state = State::Broken(running.addrs, why);
        true
    }

    // --- work
    // ---------------------------------------------------------------------------------------

    fn config(&self, addrs: RingAddrs) -> Config {
        Config {
            size: self.size,
            desc: addrs.desc,
            avail: addrs.avail,
            used: addrs.used,
            base: self.base,
            event_idx: self.has(feature::EVENT_IDX),
            notify_on_empty: self.has(feature::NOTIFY_ON_EMPTY),
            endian: if self.has(feature::VERSION_1) {
                Endian::Little
            } else {
                self.legacy_endian
            },
        }
    }

    /// Makes sure that there is a ring, and that all of it can be accessed.
    ///
    /// With an IOTLB that holds until the lock of the queue is given up.
    ///
    /// # Errors
    ///
    /// See [`Unready`].
    pub(crate) fn prepare(&mut self, mm: &InOwnerMm) -> core::result::Result<(), Unready> {
        let running = match &self.state {
            State::Unset | State::Configured(_) => return Err(Unready::Stopped),
            State::Broken(..) => return Err(Unready::Broken),
            State::Running(running) => running,
        };
        if running.ring.is_some() && self.iotlb.is_none() {
            return Ok(());
        }
        let addrs = running.addrs.ok_or(Unready::NoRing)?;
        let config = self.config(addrs);
        if let Some(iotlb) = &mut self.iotlb {
            iotlb.prefetch(&config.parts())?;
        }
        let State::Running(running) = &mut self.state else {
            return Err(Unready::Stopped);
        };
        if running.ring.is_some() {
            return Ok(());
        }
        let mem = OwnerRing {
            mm,
            iotlb: self.iotlb.as_ref(),
            used: addrs.used,
            log: &self.log,
            memory: &running.memory,
        };
        let ring = SplitRing::new(config, &mem).map_err(|err| Unready::Wrong(err.into()))?;
        running.ring = Some(ring);
        Ok(())
    }

    /// Returns what work on the ring needs that has no access to the owner's memory but what is
    /// mapped, if there is one, and there are windows of what has to be there: see [`MappedRing`].
    ///
    /// Context: does not sleep, and neither may anybody until the result is dropped.
    #[inline]
    pub(crate) fn mapped_parts(&mut self) -> Option<Parts<'_, MappedRing<'_>>> {
        // What goes through a window is not logged, and has no translation.
        if !self.is_plain() {
            return None;
        }
        let State::Running(running) = &mut self.state else {
            return None;
        };
        let ring = running.ring.as_mut()?;
        Some(Parts {
            mem: MappedRing::new(running.windows.as_ref()?, ring.config())?,
            ring,
            space: Space::Table(LastRegion::new(running.memory.regions())),
            readable: &mut self.readable,
            writable: &mut self.writable,
            has_call: self.call.is_some(),
            unsignalled: &mut self.unsignalled,
            logs_all: false,
        })
    }

    /// Says whether the ring can be worked on by somebody who cannot wait for its memory: nothing
    /// has to be translated, and nothing that is written has to be logged.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.iotlb.is_none() && self.log.used.is_none() && !self.logs_all()
    }

    /// Returns what work on the ring needs, if there is one.
    #[inline]
    pub(crate) fn parts<'a>(&'a mut self, mm: &'a InOwnerMm) -> Option<Parts<'a, OwnerRing<'a>>> {
        let logs_all = self.logs_all();
        let State::Running(running) = &mut self.state else {
            return None;
        };
        let ring = running.ring.as_mut()?;
        let mem = OwnerRing {
            mm,
            iotlb: self.iotlb.as_ref(),
            used: ring.config().used,
            log: &self.log,
            memory: &running.memory,
        };
        let space = match &self.iotlb {
            Some(iotlb) => Space::Iotlb(iotlb),
            None => Space::Table(LastRegion::new(running.memory.regions())),
        };
        Some(Parts {
            ring,
            mem,
            space,
            readable: &mut self.readable,
            writable: &mut self.writable,
            has_call: self.call.is_some(),
            unsignalled: &mut self.unsignalled,
            logs_all,
        })
    }
}
