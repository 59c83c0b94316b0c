// SPDX-License-Identifier: GPL-2.0

//! A queue as the documentation says, with the decisions of [`Rounds`].

use super::*;
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    vec::Vec, //
};

/// A packet: its number in its flow, and its cost.
type Packet = (u64, Cost);

#[derive(Default)]
struct Flow {
    packets: VecDeque<Packet>,
    turn: Turn,
    /// How many packets it had until now.
    number: u64,
    /// What was sent of it.
    sent: u64,
    /// The number of the next packet that is sent.
    next: u64,
}

struct Queue {
    rounds: Rounds,
    now: VecDeque<usize>,
    later: VecDeque<usize>,
    next: VecDeque<usize>,
    flows: Vec<Flow>,
}

impl Queue {
    fn new(flows: usize) -> Self {
        Self {
            rounds: Rounds::new(),
            now: VecDeque::new(),
            later: VecDeque::new(),
            next: VecDeque::new(),
            flows: (0..flows).map(|_| Flow::default()).collect(),
        }
    }

    fn push(&mut self, flow: usize, cost: Cost) {
        let of = &mut self.flows[flow];
        of.packets.push_back((of.number, cost));
        of.number += 1;
        if of.packets.len() == 1 {
            let place = self.rounds.enter(&mut of.turn);
            self.list(place).push_back(flow);
        }
    }

    fn list(&mut self, place: Place) -> &mut VecDeque<usize> {
        match place {
            Place::Now => &mut self.now,
            Place::Later => &mut self.later,
            Place::Next => &mut self.next,
        }
    }

    /// Sends a packet, and checks that it is the next one of its flow.
    fn pop(&mut self) -> Option<(usize, Packet)> {
        let place = if !self.now.is_empty() {
            Place::Now
        } else if !self.later.is_empty() {
            Place::Later
        } else {
            core::mem::swap(&mut self.later, &mut self.next);
            Place::Next
        };
        let list = match place {
            Place::Now => &mut self.now,
            _ => &mut self.later,
        };
        let flow = *list.front()?;
        let of = &mut self.flows[flow];
        let packet = of.packets.pop_front().expect("a flow without packets");
        let has_more = !of.packets.is_empty();
        let to = self.rounds.sent(&mut of.turn, packet.1, place, has_more);
        if to.is_some() || !has_more {
            list.pop_front();
        }
        if let (Some(to), true) = (to, has_more) {
            self.list(to).push_back(flow);
        }
        let of = &mut self.flows[flow];
        of.sent += u64::from(packet.1.get());
        assert_eq!(packet.0, of.next);
        of.next += 1;
        Some((flow, packet))
    }

    /// Puts packets back, the last one first.
    fn put_back(&mut self, packets: Vec<(usize, Packet)>) {
        for (flow, packet) in packets.into_iter().rev() {
            let of = &mut self.flows[flow];
            let again = self.rounds.take_back(&mut of.turn, packet.1);
            if of.packets.is_empty() {
                match self.rounds.enter(&mut of.turn) {
                    Place::Now => self.now.push_front(flow),
                    other => self.list(other).push_back(flow),
                }
            } else if again {
                self.leave(flow);
                self.now.push_front(flow);
            }
            let of = &mut self.flows[flow];
            of.packets.push_front(packet);
            of.sent -= u64::from(packet.1.get());
            of.next -= 1;
        }
    }

    fn purge(&mut self, flow: usize) -> usize {
        let of = &mut self.flows[flow];
        let count = of.packets.len();
        of.packets.clear();
        of.next = of.number;
        self.leave(flow);
        count
    }

    fn leave(&mut self, flow: usize) {
        for place in [Place::Now, Place::Later, Place::Next] {
            self.list(place).retain(|other| *other != flow);
        }
    }

    /// Each flow that has packets is in one list, once; the others are in none.
    fn check(&self) {
        for (n, flow) in self.flows.iter().enumerate() {
            let lists = self.now.iter().chain(&self.later).chain(&self.next);
            let count = lists.filter(|other| **other == n).count();
            assert_eq!(count, usize::from(!flow.packets.is_empty()));
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Push(usize, usize),
    Pop,
    /// So many are popped, or a share, and all but some are put back.
    PopAndPutBack(usize, usize),
    Purge(usize),
}

const FLOWS: usize = 6;

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0..100_usize,
        2 => 0..5000_usize,
        1 => 0..=65536_usize,
        1 => Just(65536),
    ]
}

/// Flows from `first` on have something happen to them.
fn event(first: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (first..FLOWS, len()).prop_map(|(flow, len)| Event::Push(flow, len)),
        6 => Just(Event::Pop),
        2 => (1..17_usize, 0..17_usize).prop_map(|(n, keep)| Event::PopAndPutBack(n, keep)),
        1 => (first..FLOWS).prop_map(Event::Purge),
    ]
}

fn play(queue: &mut Queue, event: &Event) {
    match *event {
        Event::Push(flow, len) => queue.push(flow, Cost::of(len)),
        Event::Pop => drop(queue.pop()),
        Event::PopAndPutBack(count, sent) => {
            let mut cost = 0;
            let mut packets = Vec::new();
            while packets.len() < count && cost < SHARE.get() {
                let Some(packet) = queue.pop() else {
                    break;
                };
                cost += packet.1 .1.get();
                packets.push(packet);
            }
            let back = packets.split_off(sent.min(packets.len()));
            queue.put_back(back);
        }
        Event::Purge(flow) => drop(queue.purge(flow)),
    }
}

fn lens() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(len(), 1..20)
}

/// By how much the first `busy` flows, which always have packets, are behind any of all at most.
fn most_behind(events: impl IntoIterator<Item = Event>, lens: &[usize], busy: usize) -> u64 {
    let mut queue = Queue::new(FLOWS);
    let mut lens = lens.iter().cycle();
    let mut most = 0;
    for event in events {
        for flow in 0..busy {
            while queue.flows[flow].packets.len() < 20 {
                queue.push(flow, Cost::of(lens.next().copied().unwrap_or(0)));
            }
        }
        play(&mut queue, &event);
        let sent = queue.flows.iter().map(|flow| flow.sent);
        let first = sent.clone().max().unwrap_or(0);
        let last = sent.take(busy).min().unwrap_or(0);
        most = most.max(first - last);
    }
    most
}

proptest! {
    /// Packets of a flow come out in their order, each once, and a queue gets empty.
    #[test]
    fn order(events in prop::collection::vec(event(0), 0..300)) {
        let mut queue = Queue::new(FLOWS);
        for event in &events {
            play(&mut queue, event);
            queue.check();
        }
        while queue.pop().is_some() {
            queue.check();
        }
        for flow in &queue.flows {
            prop_assert_eq!((flow.packets.len(), flow.next), (0, flow.number));
        }
    }

    /// Whatever others do, a flow that always has packets is never behind any of them by more than
    /// a quantum and a packet, nor behind its share.
    #[test]
    fn share(events in prop::collection::vec(event(2), 0..600), lens in lens(), busy in 1..3_usize) {
        let events = events.into_iter().map(|event| match event {
            Event::PopAndPutBack(..) => Event::Pop,
            other => other,
        });
        prop_assert!(most_behind(events, &lens, busy) < 2 * u64::from(SHARE.get()));
    }

    /// As [`share`]; it is a quantum more if packets are put back.
    #[test]
    fn share_of_many_tries(
        events in prop::collection::vec(event(2), 0..600),
        lens in lens(),
        busy in 1..3_usize,
    ) {
        prop_assert!(most_behind(events, &lens, busy) < 3 * u64::from(SHARE.get()));
    }

    /// It is the same whether each packet is told, or as many as may be.
    #[test]
    fn some_at_once(credit in 1..3000_i16, lens in lens(), place in 0..3_usize, more in any::<bool>()) {
        let place = [Place::Now, Place::Later, Place::Next][place];
        let mut rounds = Rounds::new();
        let mut turn = Turn { credit, round: u16::from(place != Place::Now) };
        let (mut rounds_of_one, mut turn_of_one) = (rounds, turn);
        let may = rounds.may_send(&turn, place);
        let mut sum = Cost::NONE;
        let mut to = None;
        for (n, len) in lens.iter().enumerate() {
            let has_more = more || n + 1 < lens.len();
            sum = sum.plus(Cost::of(*len));
            let at = match place {
                Place::Next if n > 0 => Place::Later,
                other => other,
            };
            to = rounds_of_one.sent(&mut turn_of_one, Cost::of(*len), at, has_more);
            if has_more {
                prop_assert_eq!(to.is_some(), sum >= may);
            }
            if to.is_some() || !has_more {
                prop_assert_eq!(rounds.sent(&mut turn, sum, place, has_more), to);
                break;
            }
        }
        if to.is_none() && more {
            prop_assert_eq!(rounds.sent(&mut turn, sum, place, true), None);
        }
        prop_assert_eq!((rounds_of_one, turn_of_one), (rounds, turn));
    }

    /// A packet of a flow that had none goes before those of flows that have had their turn, and
    /// those that have not are not ahead by more than a burst and a packet.
    #[test]
    fn rare_packets_go_first(busy in 1..FLOWS, lens in lens(), before in 0..500_usize) {
        let mut queue = Queue::new(FLOWS + 1);
        for flow in 0..busy {
            for len in &lens {
                for _ in 0..100 {
                    queue.push(flow, Cost::of(*len));
                }
            }
        }
        for _ in 0..before {
            queue.pop();
        }
        let bursts = queue.now.len();
        queue.push(FLOWS, Cost::of(1));
        let mut cost = 0;
        while let Some((flow, packet)) = queue.pop() {
            if flow == FLOWS {
                break;
            }
            cost += usize::from(packet.1.get());
        }
        let largest = lens.iter().map(|len| Cost::of(*len).get()).max().unwrap_or(0);
        prop_assert!(cost <= bursts * usize::from(largest + BURST.unsigned_abs()));
    }
}

/// A flow that has nothing after each of its packets gets no more than one that always has some.
#[test]
fn nobody_gains_from_having_nothing() {
    let mut queue = Queue::new(2);
    for _ in 0..5000 {
        queue.push(0, Cost::of(1000));
    }
    for _ in 0..5000 {
        if queue.flows[1].packets.is_empty() {
            queue.push(1, Cost::of(1000));
        }
        queue.pop();
    }
    let (always, rarely) = (queue.flows[0].sent, queue.flows[1].sent);
    assert!(rarely <= always + 2 * u64::from(SHARE.get()));
    assert!(always <= rarely + 2 * u64::from(SHARE.get()));
}

#[test]
fn costs() {
    assert_eq!(Cost::of(0).get(), 4);
    assert_eq!(Cost::of(1).get(), 5);
    assert_eq!(Cost::of(64).get(), 5);
    assert_eq!(Cost::of(65536), SHARE);
    assert_eq!(Cost::of(usize::MAX), SHARE);
}

/// Flows that come and go, of which there are many, do not keep one from having its turn that was
/// there before.
#[test]
fn many_new_flows() {
    const MANY: usize = 2000;
    let mut queue = Queue::new(MANY + 1);
    for _ in 0..3 {
        queue.push(MANY, SHARE);
    }
    assert_eq!(queue.pop().map(|(flow, _)| flow), Some(MANY));
    let mut after = 0;
    for flow in 0..MANY {
        queue.push(flow, Cost::of(1));
        if queue.pop().is_some_and(|(flow, _)| flow == MANY) {
            break;
        }
        after += 1;
    }
    assert_eq!(after, u64::from(OVERTAKE) - 1);
}

/// The numbers of the rounds begin again.
#[test]
fn many_rounds() {
    let mut queue = Queue::new(3);
    for n in 0..300_000_u64 {
        for flow in 0..2 {
            while queue.flows[flow].packets.len() < 2 {
                queue.push(flow, SHARE);
            }
        }
        if n % 70_000 == 0 {
            queue.push(2, Cost::of(1));
        }
        queue.pop();
    }
    let sent: Vec<_> = queue.flows.iter().map(|flow| flow.sent).collect();
    assert!(sent[0].abs_diff(sent[1]) <= u64::from(SHARE.get()));
    assert!(queue.flows[2].packets.is_empty());
}
