// SPDX-License-Identifier: GPL-2.0

//! The state of a device, as `/proc/<pid>/fdinfo/<fd>` shows it.

use crate::{
    device::Device,
    inline::Count,
    state::{
        Inner,
        State, //
    },
    virtqueue::Virtqueue, //
};
use kernel::{
    seq_file::SeqFile,
    seq_print,
    sync::lock::{
        mutex::MutexBackend,
        Guard, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often, and how long, to wait for a queue that is being worked on.
const TRIES: u32 = 50;
const WAIT: Delta = Delta::from_millis(1);

/// Takes the lock of a queue, unless that takes long.
///
/// Whoever works on the queue may wait for the guest's memory for as long as the owner likes, which
/// is no reason for others to wait.
fn lock(queue: &Virtqueue) -> Option<Guard<'_, Inner, MutexBackend>> {
    for _ in 0..TRIES {
        if let Some(inner) = queue.try_lock_inner() {
            return Some(inner);
        }
        fsleep(WAIT);
    }
    None
}

impl Device {
    /// Prints the state of the device and its queues.
    ///
    /// Context: sleeps.
    pub fn show(&self, m: &SeqFile) {
        seq_print!(m, "state:\t{}\n", self.state_name());
        seq_print!(m, "features:\t{:#x}\n", self.features());
        for (index, queue) in self.queues.iter().enumerate() {
            match queue.slot().get() {
                Some(worker) if worker.is_alive() => {
                    let (id, pid) = (worker.id(), worker.pid());
                    seq_print!(m, "worker{index}:\t{id}, thread {pid}\n");
                }
                Some(_) => seq_print!(m, "worker{index}:\tkilled\n"),
                None => seq_print!(m, "worker{index}:\tnone\n"),
            }
            show_queue(queue, index, m);
            show_kicks(queue, index, m);
        }
    }

    /// One word for all queues: the worst that is true of one of them.
    fn state_name(&self) -> &'static str {
        let (mut running, mut broken) = (true, false);
        for queue in &self.queues {
            let Some(inner) = lock(queue) else {
                running &= queue.is_running();
                continue;
            };
            running &= inner.is_started();
            broken |= matches!(inner.state, State::Broken(..));
        }
        match (running, broken) {
            (_, true) => "broken",
            (true, false) => "running",
            (false, false) => "stopped",
        }
    }
}

/// What became of kicks, if they may be served inline.
fn show_kicks(queue: &Virtqueue, index: usize, m: &SeqFile) {
    let kicks = queue.kick_work();
    if !kicks.may_be_inline() {
        return;
    }
    let counts = &kicks.counts;
    let [busy, unready, fault, no_memory, broken] = counts.left.each_ref().map(Count::get);
    seq_print!(
        m,
        "inline{index}:\t{} drained, {} spent, {busy} busy, {unready} unready, {fault} faults, \
         {no_memory} without memory, {broken} broken, {} passed\n",
        counts.drained.get(),
        counts.spent.get(),
        counts.passed.get()
    );
    let [short, budget, over, long] = counts.took.each_ref().map(Count::get);
    seq_print!(
        m,
        "inline-time{index}:\t{short} below 10 us, {budget} below 50 us, {over} below 100 us, \
         {long} longer\n"
    );
}

fn show_queue(queue: &Virtqueue, index: usize, m: &SeqFile) {
    let Some(inner) = lock(queue) else {
        seq_print!(m, "queue{index}:\tbusy\n");
        return;
    };
    let size = inner.size.get();
    match &inner.state {
        State::Unset => seq_print!(m, "queue{index}:\tunset\n"),
        State::Configured(_) => seq_print!(m, "queue{index}:\tstopped, size {size}\n"),
        State::Running(_) => match inner.last_used() {
            Some(used) => {
                let base = inner.next_avail();
                seq_print!(
                    m,
                    "queue{index}:\trunning, size {size}, available {base}, used {used}\n"
                );
            }
            None => seq_print!(m, "queue{index}:\twaiting, size {size}\n"),
        },
        State::Broken(_, why) => seq_print!(m, "queue{index}:\tbroken, size {size}: {why}\n"),
    }
    if let Some((filled, dropped)) = inner.windows() {
        seq_print!(m, "windows{index}:\t{filled} filled, {dropped} dropped\n");
    }
    if let Some(count) = inner.translations() {
        seq_print!(m, "iotlb{index}:\t{count} translations\n");
    }
    if inner.log.errors() != 0 {
        let errors = inner.log.errors();
        seq_print!(m, "log{index}:\t{errors} errors\n");
    }
}
