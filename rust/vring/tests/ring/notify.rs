// SPDX-License-Identifier: GPL-2.0

//! No notification is lost, whatever the order of memory accesses (PC-08).
//!
//! The device is the real code: each of its accesses asks a scheduler what happens first, a step of
//! the driver or the arrival of a store in memory. Stores wait in a buffer of their side; those
//! between two barriers arrive in any order. All schedules are tried, one run for each. That the
//! model finds faults is shown by taking a barrier away. For longer stories, stores arrive at once.

use std::cell::RefCell;
use vring::{
    event::need_event,
    layout,
    Config,
    Endian,
    Gpa,
    Region,
    Regions,
    RingAddr,
    RingMemory,
    RingSize,
    Segment,
    SliceSegments,
    SplitRing,
    UserAddr, //
};

const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const SIZE: u32 = 4;

/// Which barrier is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Missing {
    /// None.
    Nothing,
    /// None, and stores arrive at once.
    NothingInOrder,
    Full,
    Write,
}

/// The decisions of one run, and how to get to the next one.
#[derive(Default)]
struct Choices {
    taken: Vec<(u32, u32)>,
    next: usize,
}

impl Choices {
    fn choose(&mut self, bound: u32) -> u32 {
        if bound == 1 {
            return 0;
        }
        if self.next == self.taken.len() {
            self.taken.push((0, bound));
        }
        let (choice, of) = self.taken[self.next];
        assert_eq!(of, bound, "a run is not repeatable");
        self.next += 1;
        choice
    }

    /// Goes to the next schedule; false if there is none.
    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((choice, of)) = self.taken.pop() {
            if choice + 1 < of {
                self.taken.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

/// Stores that have not arrived in memory: (address, value, number of barriers before).
#[derive(Default)]
struct Stores {
    waiting: Vec<(u64, u64, u32)>,
    barriers: u32,
}

#[derive(Default)]
struct State {
    memory: Vec<(u64, u64)>,
    choices: Choices,
    device: Stores,
    driver: Stores,
    /// The program of the driver, and where it is.
    program: Vec<Step>,
    step: usize,
    /// The available index that the driver has written.
    sent: u16,
    /// The used index up to which the driver has seen everything.
    seen: u16,
    kicked: bool,
    interrupted: bool,
    violation: bool,
    /// Stores arrive at once.
    in_order: bool,
}

/// What the driver does, an access at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Stores a head in the available ring.
    StoreHead,
    /// Stores the available index.
    StoreIndex,
    /// Reads the flags or the event, and kicks if wanted.
    Kick,
    /// Reads the used index, and the entries.
    Look,
    /// Stores flags or the event: wants to be interrupted.
    WantInterrupt,
    /// Barriers.
    WriteBarrier,
    FullBarrier,
}

struct Model {
    event_idx: bool,
    missing: Missing,
    state: RefCell<State>,
}

impl State {
    fn load(&self, stores: &Stores, at: u64) -> u64 {
        let own = stores.waiting.iter().rev().find(|(a, ..)| *a == at);
        let own = own.map(|(_, value, _)| *value);
        let all = self.memory.iter().find(|(a, _)| *a == at);
        own.unwrap_or(all.map_or(0, |(_, value)| *value))
    }

    fn arrive(&mut self, at: u64, value: u64) {
        match self.memory.iter_mut().find(|(a, _)| *a == at) {
            Some((_, slot)) => *slot = value,
            None => self.memory.push((at, value)),
        }
    }

    /// The stores that may arrive next.
    fn ready(stores: &Stores) -> Vec<usize> {
        let all = &stores.waiting;
        let Some(epoch) = all.iter().map(|(.., epoch)| *epoch).min() else {
            return vec![];
        };
        let first = |i: &usize| !all[..*i].iter().any(|(at, ..)| *at == all[*i].0);
        (0..all.len())
            .filter(|i| all[*i].2 == epoch)
            .filter(first)
            .collect()
    }

    fn drain(&mut self, device: bool) {
        loop {
            let stores = if device { &self.device } else { &self.driver };
            let Some(index) = Self::ready(stores).first().copied() else {
                return;
            };
            self.arrive_one(device, index);
        }
    }

    fn arrive_one(&mut self, device: bool, index: usize) {
        let stores = if device {
            &mut self.device
        } else {
            &mut self.driver
        };
        let (at, value, _) = stores.waiting.remove(index);
        self.arrive(at, value);
    }

    fn driver_store(&mut self, at: u64, value: u16) {
        if self.in_order {
            return self.arrive(at, value.into());
        }
        let epoch = self.driver.barriers;
        self.driver.waiting.push((at, value.into(), epoch));
    }

    fn driver_load(&self, at: u64) -> u64 {
        self.load(&self.driver, at)
    }

    fn driver_step(&mut self, event_idx: bool) {
        let size = RingSize::new(SIZE).unwrap();
        let step = self.program[self.step];
        self.step += 1;
        match step {
            Step::StoreHead => {
                let slot = size.mask(self.sent);
                self.driver_store(AVAIL + layout::avail_offset(slot), slot);
            }
            Step::StoreIndex => {
                self.sent += 1;
                self.driver_store(AVAIL + layout::IDX_OFFSET, self.sent);
            }
            Step::WriteBarrier => self.driver.barriers += 1,
            Step::FullBarrier => self.drain(false),
            Step::Kick => {
                self.kicked |= if event_idx {
                    let event = self.driver_load(USED + layout::avail_event_offset(size));
                    need_event(event as u16, self.sent, self.sent - 1)
                } else {
                    self.driver_load(USED) as u16 & layout::USED_F_NO_NOTIFY == 0
                };
            }
            Step::Look => {
                let used = self.driver_load(USED + layout::IDX_OFFSET) as u16;
                while self.seen != used {
                    let slot = size.mask(self.seen);
                    let entry = self.driver_load(USED + layout::used_offset(slot));
                    // The low half is the head, the high half the length, which is never zero.
                    self.violation |= entry != (1 << 32) | u64::from(slot);
                    self.seen += 1;
                }
            }
            Step::WantInterrupt => {
                if event_idx {
                    let at = AVAIL + layout::used_event_offset(size);
                    self.driver_store(at, self.seen);
                } else {
                    self.driver_store(AVAIL, 0);
                }
            }
        }
    }
}

impl Model {
    /// Lets other things happen.
    fn schedule(&self) {
        let mut state = self.state.borrow_mut();
        while self.one_event(&mut state, true) {}
    }

    /// Lets one thing happen, or nothing if that `may` be.
    fn one_event(&self, state: &mut State, may: bool) -> bool {
        let device = State::ready(&state.device);
        let driver = State::ready(&state.driver);
        let step = u32::from(state.step < state.program.len());
        let events = step + device.len() as u32 + driver.len() as u32;
        if events == 0 {
            return false;
        }
        let mut choice = state.choices.choose(events + u32::from(may));
        if may {
            if choice == 0 {
                return false;
            }
            choice -= 1;
        }
        let mut choice = choice as usize;
        if step == 1 {
            if choice == 0 {
                state.driver_step(self.event_idx);
                return true;
            }
            choice -= 1;
        }
        match device.get(choice) {
            Some(index) => state.arrive_one(true, *index),
            None => state.arrive_one(false, driver[choice - device.len()]),
        }
        true
    }

    fn store(&self, at: u64, value: u64) {
        let mut state = self.state.borrow_mut();
        if state.in_order {
            return state.arrive(at, value);
        }
        let epoch = state.device.barriers;
        state.device.waiting.push((at, value, epoch));
    }
}

impl RingMemory for Model {
    type Error = ();

    fn read_u16(&self, at: RingAddr) -> Result<u16, ()> {
        self.schedule();
        let state = self.state.borrow();
        Ok(state.load(&state.device, at.0) as u16)
    }

    fn write_u16(&self, at: RingAddr, value: u16) -> Result<(), ()> {
        self.schedule();
        self.store(at.0, value.into());
        Ok(())
    }

    fn read_bytes(&self, _: UserAddr, _: &mut [u8]) -> Result<(), ()> {
        Err(())
    }

    fn read_ring(&self, _: RingAddr, out: &mut [u8]) -> Result<(), ()> {
        // All descriptors: one byte at address 0, writable.
        out.fill(0);
        out[8] = 1;
        out[12] = 2;
        Ok(())
    }

    fn write_used(&self, at: RingAddr, elem: [u8; 8]) -> Result<(), ()> {
        self.schedule();
        self.store(at.0, u64::from_le_bytes(elem));
        Ok(())
    }

    fn read_barrier(&self) {}

    fn write_barrier(&self) {
        if self.missing != Missing::Write {
            self.state.borrow_mut().device.barriers += 1;
        }
    }

    fn full_barrier(&self) {
        self.schedule();
        if self.missing != Missing::Full {
            self.state.borrow_mut().drain(true);
        }
    }
}

/// What the device does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Device {
    /// Waits for chains, starting at the moment when it found none.
    Wait,
    /// Returns the chains that it has, and signals.
    Return,
}

/// Tries all schedules; returns how many there are, and in how many of them something went wrong.
fn explore(
    device: Device,
    event_idx: bool,
    missing: Missing,
    chains: u16,
    program: &[Step],
) -> (u32, u32) {
    let region = [Region {
        gpa_start: Gpa(0),
        size: 16,
        user_addr: UserAddr(0x5000),
        writable: true,
    }];
    let table = Regions::from_prepared(&region);
    let size = RingSize::new(SIZE).unwrap();
    let mut choices = Choices::default();
    let (mut runs, mut bad) = (0, 0);
    loop {
        // What comes before the race happens without it.
        let model = Model {
            event_idx,
            missing: Missing::Nothing,
            state: RefCell::new(State::default()),
        };
        let config = Config {
            size,
            desc: RingAddr(0x3000),
            avail: RingAddr(AVAIL),
            used: RingAddr(USED),
            base: 0,
            event_idx,
            notify_on_empty: false,
            endian: Endian::Little,
        };
        let mut ring = SplitRing::new(config, &model).unwrap();
        model.state.borrow_mut().drain(true);
        ring.disable_notify(&model).unwrap();
        // If the driver wants no interrupts, it says so.
        model
            .state
            .borrow_mut()
            .arrive(AVAIL, layout::AVAIL_F_NO_INTERRUPT.into());
        let mut slots = [Segment {
            addr: UserAddr(0),
            len: 0,
        }; 4];
        let mut segments = SliceSegments::new(&mut slots);
        let mut held = vec![];
        if device == Device::Wait {
            // A chain was sent before: the event is that for which the driver kicked then.
            let mut state = model.state.borrow_mut();
            state.arrive(AVAIL + layout::avail_offset(0), 0);
            state.arrive(AVAIL + layout::IDX_OFFSET, 1);
            state.sent = 1;
            drop(state);
            held.push(ring.pop(&model, &table, &mut segments).unwrap().unwrap());
        }
        if device == Device::Return {
            // An event that is past, and a signal that was considered.
            if event_idx {
                let at = AVAIL + layout::used_event_offset(size);
                model.state.borrow_mut().arrive(at, 0xfff0);
                assert!(ring.should_signal(&model).unwrap());
            }
            for index in 0..chains {
                let mut state = model.state.borrow_mut();
                state.arrive(AVAIL + layout::avail_offset(index), index.into());
                state.arrive(AVAIL + layout::IDX_OFFSET, u64::from(index) + 1);
                state.sent = index + 1;
                drop(state);
                held.push(ring.pop(&model, &table, &mut segments).unwrap().unwrap());
            }
        }
        model.state.borrow_mut().drain(true);

        // The race.
        let model = Model { missing, ..model };
        {
            let mut state = model.state.borrow_mut();
            state.choices = choices;
            state.in_order = missing == Missing::NothingInOrder;
            state.program = program.to_vec();
        }
        match device {
            Device::Wait => loop {
                ring.disable_notify(&model).unwrap();
                while let Some(chain) = ring.pop(&model, &table, &mut segments).unwrap() {
                    held.push(chain);
                }
                if ring.enable_notify(&model).unwrap() {
                    continue;
                }
                // Asleep.
                loop {
                    let mut state = model.state.borrow_mut();
                    if state.kicked || !model.one_event(&mut state, false) {
                        break;
                    }
                }
                if !std::mem::take(&mut model.state.borrow_mut().kicked) {
                    break;
                }
            },
            Device::Return => {
                for chain in held.drain(..) {
                    ring.complete(&model, chain, 1).unwrap();
                }
                let signal = ring.should_signal(&model).unwrap();
                model.state.borrow_mut().interrupted = signal;
            }
        }

        // The end: everything arrives.
        let mut state = model.state.borrow_mut();
        while model.one_event(&mut state, false) {}
        let lost = match device {
            Device::Wait => held.len() != usize::from(chains) + 1,
            Device::Return => state.seen != chains && !state.interrupted,
        };
        runs += 1;
        bad += u32::from(lost || state.violation);
        choices = std::mem::take(&mut state.choices);
        drop(state);
        // Not completed: the run is over.
        for chain in held {
            drop(chain);
        }
        // Of a fault that is expected, one schedule is enough.
        let expected = matches!(missing, Missing::Full | Missing::Write);
        if !choices.advance() || (expected && bad > 0) {
            return (runs, bad);
        }
    }
}

const SEND: [Step; 5] = [
    Step::StoreHead,
    Step::WriteBarrier,
    Step::StoreIndex,
    Step::FullBarrier,
    Step::Kick,
];

const SLEEP: [Step; 4] = [
    Step::Look,
    Step::WantInterrupt,
    Step::FullBarrier,
    Step::Look,
];

#[test]
fn pc08_no_kick_is_lost() {
    for event_idx in [false, true] {
        let (runs, bad) = explore(Device::Wait, event_idx, Missing::Nothing, 1, &SEND);
        println!("{event_idx}: {runs} schedules");
        assert_eq!(bad, 0);
        assert!(runs > 50, "{runs}");
        // The model finds what the barrier is for.
        let (_, bad) = explore(Device::Wait, event_idx, Missing::Full, 1, &SEND);
        assert!(bad > 0);
    }
}

#[test]
fn pc08_no_kick_of_two_is_lost() {
    // Only with the event is the second kick another story than the first. Two million schedules
    // more, which take half a minute, say that the same is true of the flags.
    let send = [Step::StoreHead, Step::StoreIndex, Step::Kick];
    let twice = [send, send].concat();
    let (runs, bad) = explore(Device::Wait, true, Missing::NothingInOrder, 2, &twice);
    println!("{runs} schedules");
    assert_eq!(bad, 0);
}

#[test]
fn pc08_no_interrupt_is_lost() {
    for event_idx in [false, true] {
        for chains in [1, 2] {
            let (runs, bad) = explore(Device::Return, event_idx, Missing::Nothing, chains, &SLEEP);
            println!("{event_idx}, {chains}: {runs} schedules");
            assert_eq!(bad, 0);
            let (_, bad) = explore(Device::Return, event_idx, Missing::Full, chains, &SLEEP);
            assert!(bad > 0);
            let (_, bad) = explore(Device::Return, event_idx, Missing::Write, chains, &SLEEP);
            assert!(bad > 0);
        }
    }
}

/// A recorder of accesses: the order in the program, which the tests above take as given for loads.
#[derive(Default)]
struct Recorder(RefCell<Vec<String>>);

impl Recorder {
    fn note(&self, what: &str, at: u64) {
        let place = match at {
            AVAIL => "avail.flags",
            0x1002 => "avail.idx",
            0x1004..0x100c => "avail.ring",
            0x100c => "used_event",
            USED => "used.flags",
            0x2002 => "used.idx",
            0x2004..0x2024 => "used.ring",
            0x2024 => "avail_event",
            0x3000..0x3040 => "desc",
            _ => "",
        };
        self.0.borrow_mut().push(format!("{what}{place}"));
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.0.borrow_mut()).join(" ")
    }
}

impl RingMemory for Recorder {
    type Error = ();

    fn read_u16(&self, at: RingAddr) -> Result<u16, ()> {
        self.note("r:", at.0);
        Ok(u16::from(at.0 == AVAIL + 2))
    }

    fn write_u16(&self, at: RingAddr, _: u16) -> Result<(), ()> {
        self.note("w:", at.0);
        Ok(())
    }

    fn read_bytes(&self, _: UserAddr, _: &mut [u8]) -> Result<(), ()> {
        Err(())
    }

    fn read_ring(&self, at: RingAddr, out: &mut [u8]) -> Result<(), ()> {
        self.note("r:", at.0);
        out.fill(0);
        Ok(())
    }

    fn write_used(&self, at: RingAddr, _: [u8; 8]) -> Result<(), ()> {
        self.note("w:", at.0);
        Ok(())
    }

    fn read_barrier(&self) {
        self.note("rmb", 0);
    }

    fn write_barrier(&self) {
        self.note("wmb", 0);
    }

    fn full_barrier(&self) {
        self.note("mb", 0);
    }
}

#[test]
fn r16_every_barrier_is_where_the_table_says() {
    for event_idx in [false, true] {
        let mem = Recorder::default();
        let config = Config {
            size: RingSize::new(SIZE).unwrap(),
            desc: RingAddr(0x3000),
            avail: RingAddr(AVAIL),
            used: RingAddr(USED),
            base: 0,
            event_idx,
            notify_on_empty: false,
            endian: Endian::Little,
        };
        let pick = |flags: &'static str, event: &'static str| {
            if event_idx {
                event
            } else {
                flags
            }
        };
        let mut ring = SplitRing::new(config, &mem).unwrap();
        assert_eq!(
            mem.take(),
            pick(
                "w:used.flags r:used.idx",
                "w:used.flags w:avail_event r:used.idx"
            )
        );
        ring.disable_notify(&mem).unwrap();
        assert_eq!(mem.take(), pick("w:used.flags", ""));
        let mut segments = SliceSegments::new(&mut []);
        let table = Regions::from_prepared(&[]);
        let chain = ring.pop(&mem, &table, &mut segments).unwrap().unwrap();
        assert_eq!(mem.take(), "r:avail.idx rmb r:avail.ring r:desc");
        ring.complete(&mem, chain, 0).unwrap();
        assert_eq!(mem.take(), "w:used.ring wmb w:used.idx");
        ring.should_signal(&mem).unwrap();
        assert_eq!(mem.take(), pick("mb r:avail.flags", "mb"));
        ring.should_signal(&mem).unwrap();
        assert_eq!(mem.take(), pick("mb r:avail.flags", "mb r:used_event"));
        ring.enable_notify(&mem).unwrap();
        assert_eq!(
            mem.take(),
            pick(
                "w:used.flags mb r:avail.idx",
                "w:avail_event mb r:avail.idx"
            )
        );
    }
}
