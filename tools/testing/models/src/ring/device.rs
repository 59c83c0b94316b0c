// SPDX-License-Identifier: GPL-2.0

//! The device, and what is done with it.

use super::vhost::{
    InOwnerMm,
    Virtqueue, //
};
use crate::{
    kernel::{
        error::Result,
        sync::atomic::Atomic, //
    },
    ring::{
        kernel::sync::rcu,
        memory::GuestRing,
        packets::{
            Outgoing,
            SendQueue,
            TxPacket, //
        },
        Inline, //
    }, //
};
use loom::thread;
use std::rc::Rc;

pub(crate) mod params {
    pub(crate) fn direct() -> bool {
        true
    }
}

/// Nobody looks.
pub(crate) struct Counter;

impl Counter {
    pub(crate) fn add(&self, _n: usize) {}
    pub(crate) fn add_shared(&self, _n: usize) {}
}

pub(crate) struct Stats {
    pub(crate) to_guest: Counter,
    pub(crate) to_guest_bytes: Counter,
    pub(crate) bad_buffers: Counter,
    pub(crate) direct: Counter,
    pub(crate) busy: Counter,
    pub(crate) no_buffer: Counter,
    pub(crate) unmapped: Counter,
}

pub(crate) struct Throttle;

impl Throttle {
    pub(crate) fn resume(&self, _queue: &SendQueue) -> bool {
        false
    }
}

/// No rate is set: a rate only has what waits done later, by the work that is queued for it.
pub(crate) struct Pace;

impl Pace {
    pub(crate) fn holds(&self) -> bool {
        false
    }

    pub(crate) fn is_spent(&self) -> bool {
        false
    }

    pub(crate) fn spend(&self, _payload: usize) {}
}

/// The queue from the guest: nobody works on it.
pub(crate) struct Tx;

impl Tx {
    pub(crate) fn queue_work(&self) -> Result<(), ()> {
        Ok(())
    }
}

pub(crate) struct VhostVsock {
    pub(crate) rx: Virtqueue,
    pub(crate) tx: Tx,
    pub(crate) queue: SendQueue,
    pub(crate) throttle: Throttle,
    pub(crate) to_guest: Pace,
    pub(crate) stats: Stats,
    pub(crate) bad_buffers: Atomic<u32>,
    pub(crate) room: Atomic<usize>,
}

impl VhostVsock {
    pub(crate) fn is_reachable(&self, _guard: &rcu::Guard) -> bool {
        true
    }

    pub(crate) fn waits_for_start(&self, _packet: &TxPacket, _guard: &rcu::Guard) -> bool {
        false
    }

    pub(crate) fn cut_off(&self) {
        unreachable!("the ring is right");
    }
}

/// What is tried.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) preemptions: Option<usize>,
    /// What each sender sends: packets of so many pieces.
    pub(crate) sends: &'static [&'static [usize]],
    /// How many buffers there are before.
    pub(crate) before: u16,
    /// How many the guest offers meanwhile.
    pub(crate) meanwhile: u16,
    /// The device is stopped and started meanwhile.
    pub(crate) stops: bool,
    /// Senders copy to the guest's buffers what goes there, and make packets of the rest.
    pub(crate) copies: bool,
    /// What they copy is signalled by the worker.
    pub(crate) is_bulk: bool,
    /// The guest does the work itself when it kicks.
    pub(crate) inline: Option<Inline>,
}

/// What the lines above say, in all orders.
pub(crate) fn run(plan: Plan) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = plan.preemptions;
    builder.check(move || once(plan));
}

fn once(plan: Plan) {
    crate::ring::take_seen();
    let guest = Rc::new(GuestRing::new());
    for _ in 0..plan.before {
        guest.add();
    }
    let counter = || Counter;
    let device = Rc::new(VhostVsock {
        rx: Virtqueue::new(guest.clone(), plan.inline.map(|inline| inline.good)),
        tx: Tx,
        queue: SendQueue::default(),
        throttle: Throttle,
        to_guest: Pace,
        stats: Stats {
            to_guest: counter(),
            to_guest_bytes: counter(),
            bad_buffers: counter(),
            direct: counter(),
            busy: counter(),
            no_buffer: counter(),
            unmapped: counter(),
        },
        bad_buffers: Atomic::new(0),
        room: Atomic::new(usize::MAX),
    });
    device.rx.start();

    let worker = {
        let device = device.clone();
        thread::spawn(move || {
            while device.rx.wait() {
                device.send_packets(&InOwnerMm);
            }
        })
    };
    let mut others = Vec::new();
    for (of, packets) in plan.sends.iter().enumerate() {
        let device = device.clone();
        others.push(thread::spawn(move || {
            for (nth, len) in packets.iter().enumerate() {
                let (of, nth) = (of as u8, nth as u8);
                let mut packet = Some(TxPacket {
                    of,
                    nth,
                    before: 0,
                    len: *len,
                    done: 0,
                    begun: false,
                    joined: Default::default(),
                });
                if plan.copies {
                    let mut out = Outgoing::new(packet.take().unwrap(), plan.is_bulk);
                    device.send_from(&mut out);
                    packet = out.rest();
                }
                if let Some(packet) = packet {
                    device.send(packet).unwrap();
                }
            }
        }));
    }
    if plan.meanwhile > 0 {
        let (device, guest) = (device.clone(), guest.clone());
        others.push(thread::spawn(move || offer(&device, &guest, plan)));
    }
    if plan.stops {
        device.rx.stop();
        device.rx.start();
    }
    for other in others {
        other.join().unwrap();
    }
    device.rx.quit();
    worker.join().unwrap();
    assert!(guest.is_told(), "the guest is told of what it has back");

    // All is quiet. What waits gets its buffers one by one: each makes the guest kick.
    let pieces = plan
        .sends
        .iter()
        .flat_map(|lens| lens.iter())
        .sum::<usize>();
    let offered = usize::from(plan.before + plan.meanwhile);
    for _ in offered..pieces {
        assert!(!device.queue.is_empty(), "what has no buffer waits");
        assert!(guest.add(), "the guest is asked to kick");
        device.send_packets(&InOwnerMm);
    }
    assert!(device.queue.is_empty(), "no packet is left behind");
    assert!(guest.is_told(), "the guest is told of what it has back");
    crate::ring::check(&crate::ring::take_seen(), plan.sends, !plan.copies);
}

fn offer(device: &VhostVsock, guest: &GuestRing, plan: Plan) {
    for _ in 0..plan.meanwhile {
        let kicks = guest.add();
        let is_done = |run: Inline| device.send_inline(&InOwnerMm, run.budget).is_done();
        if kicks && !plan.inline.is_some_and(is_done) {
            let _ = device.rx.queue_work();
        }
    }
}
