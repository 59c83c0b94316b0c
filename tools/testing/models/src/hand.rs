// SPDX-License-Identifier: GPL-2.0

//! The guest driver's receive queue: a softirq and a thread that take packets in turn, and who
//! stops both.
//!
//! `hand.rs` of the driver is compiled as it is; what its `rx.rs` does with it is here by hand.

use loom::sync::{
    Arc,
    Mutex, //
};
use std::collections::VecDeque;

#[path = "../../../../net/vmw_vsock/virtio_vsock/hand.rs"]
mod real;

use real::{
    Hand,
    Turn, //
};

const PACKETS: u8 = 4;

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The softirq does not look whether the thread is at it.
    TakesAnyway,
    /// Who stops the queue does not wait for the thread.
    DoesNotWait,
    /// The thread is not told of what is held.
    TellsNobody,
}

struct Rx {
    ring: VecDeque<u8>,
    hand: Hand<u8>,
}

struct Device {
    rx: Mutex<Rx>,
    /// Held by the thread that has a packet.
    in_hand: Mutex<()>,
    /// The packets in the order in which they were received.
    received: Mutex<Vec<u8>>,
    /// A workqueue looks at this with a full barrier: a lock does the same.
    thread_queued: Mutex<bool>,
    mistake: Mistake,
}

/// Every other packet needs the thread.
fn needs_thread(packet: u8) -> bool {
    packet % 2 == 1
}

impl Device {
    fn new(mistake: Mistake) -> Self {
        let mut hand = Hand::new();
        assert!(hand.start().is_none());
        Self {
            rx: Mutex::new(Rx {
                ring: VecDeque::new(),
                hand,
            }),
            in_hand: Mutex::new(()),
            received: Mutex::new(Vec::new()),
            thread_queued: Mutex::new(false),
            mistake,
        }
    }

    fn receive(&self, packet: u8) {
        self.received.lock().unwrap().push(packet);
    }

    /// `run_rx()`: says whether a packet is held.
    fn run(&self, rx: &mut Rx) -> bool {
        while let Some(packet) = rx.ring.pop_front() {
            if needs_thread(packet) {
                rx.hand.hold(packet);
                return true;
            }
            self.receive(packet);
        }
        false
    }

    /// `receive_bh()`
    fn softirq(&self) {
        let mut rx = self.rx.lock().unwrap();
        let may_take = match self.mistake {
            Mistake::TakesAnyway => rx.hand.is_running() && !rx.hand.is_holding(),
            _ => rx.hand.may_take(),
        };
        if !may_take {
            return;
        }
        let held = self.run(&mut rx);
        drop(rx);
        if held && self.mistake != Mistake::TellsNobody {
            *self.thread_queued.lock().unwrap() = true;
        }
    }

    /// `take_in_hand()`
    fn thread(&self) {
        let _hand = self.in_hand.lock().unwrap();
        loop {
            let mut rx = self.rx.lock().unwrap();
            let mut held = None;
            match rx.hand.take(&mut held) {
                Turn::Stopped => return,
                Turn::Free => (),
                Turn::Held => {
                    drop(rx);
                    self.receive(held.unwrap());
                    rx = self.rx.lock().unwrap();
                    if !rx.hand.done() {
                        return;
                    }
                }
            }
            if !self.run(&mut rx) {
                return;
            }
        }
    }

    /// The works that are queued.
    fn work(&self) {
        loop {
            let queued = std::mem::take(&mut *self.thread_queued.lock().unwrap());
            if !queued {
                return;
            }
            self.thread();
        }
    }

    /// `stop_rx()`
    fn stop(&self) {
        let _held = self.rx.lock().unwrap().hand.stop();
        if self.mistake != Mistake::DoesNotWait {
            drop(self.in_hand.lock().unwrap());
        }
    }
}

fn model(mistake: Mistake, stops: bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let device = Arc::new(Device::new(mistake));
        let host = {
            let device = device.clone();
            loom::thread::spawn(move || {
                for packet in 0..PACKETS {
                    device.rx.lock().unwrap().ring.push_back(packet);
                    device.softirq();
                }
            })
        };
        let thread = {
            let device = device.clone();
            loom::thread::spawn(move || {
                device.work();
                loom::thread::yield_now();
                device.work();
            })
        };
        let mut at_stop = None;
        if stops {
            device.stop();
            at_stop = Some(device.received.lock().unwrap().clone());
        }
        host.join().unwrap();
        thread.join().unwrap();
        device.work();
        let received = device.received.lock().unwrap();
        assert!(
            received.iter().copied().eq(0..received.len() as u8),
            "out of order: {received:?}"
        );
        match at_stop {
            Some(at_stop) => assert_eq!(*received, at_stop, "received after the stop"),
            None => assert_eq!(received.len(), usize::from(PACKETS), "packets are left"),
        }
    });
}

#[test]
fn packets_come_in_order() {
    model(Mistake::None, false);
}

#[test]
fn none_comes_after_a_stop() {
    model(Mistake::None, true);
}

#[test]
#[should_panic(expected = "out of order")]
fn softirq_takes_anyway() {
    model(Mistake::TakesAnyway, false);
}

#[test]
#[should_panic(expected = "received after the stop")]
fn stop_does_not_wait() {
    model(Mistake::DoesNotWait, true);
}

#[test]
#[should_panic(expected = "packets are left")]
fn thread_is_not_told() {
    model(Mistake::TellsNobody, false);
}
