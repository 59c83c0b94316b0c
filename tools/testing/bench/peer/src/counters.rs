// SPDX-License-Identifier: GPL-2.0

//! What happened between guest and host, without the control connection's packets.

/// Operations of packets are numbered from 0 to 7; what is beyond counts as 0.
const OPS: usize = 8;

/// Counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    from: u64,
    from_by_op: [u64; OPS],
    to: u64,
    /// Kicks of the receive and of the transmit queue.
    kicks: [u64; 2],
    /// Interrupts of the receive and of the transmit queue.
    interrupts: [u64; 2],
}

impl Counters {
    /// The guest sent a packet.
    pub fn sent(&mut self, op: u16) {
        self.from += 1;
        let op = if usize::from(op) < OPS { op } else { 0 };
        if let Some(count) = self.from_by_op.get_mut(usize::from(op)) {
            *count += 1;
        }
    }

    /// The guest was given a packet, or a piece of one.
    pub fn given(&mut self) {
        self.to += 1;
    }

    pub fn kick(&mut self, queue: usize) {
        if let Some(count) = self.kicks.get_mut(queue) {
            *count += 1;
        }
    }

    pub fn interrupt(&mut self, queue: usize) {
        if let Some(count) = self.interrupts.get_mut(queue) {
            *count += 1;
        }
    }

    /// What the control port answers.
    pub fn line(&self) -> String {
        let ops: Vec<String> = self
            .from_by_op
            .iter()
            .enumerate()
            .map(|(op, count)| format!("from_{op}={count}"))
            .collect();
        let [rx_kicks, tx_kicks] = self.kicks;
        let [rx_interrupts, tx_interrupts] = self.interrupts;
        format!(
            "from={} {} to={} rx_kicks={rx_kicks} tx_kicks={tx_kicks} \
             rx_interrupts={rx_interrupts} tx_interrupts={tx_interrupts}",
            self.from,
            ops.join(" "),
            self.to
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_counted_in_its_place() {
        let mut counters = Counters::default();
        counters.sent(5);
        counters.sent(5);
        counters.sent(900);
        counters.given();
        counters.kick(1);
        counters.interrupt(0);
        counters.kick(7);
        assert_eq!(
            counters.line(),
            "from=3 from_0=1 from_1=0 from_2=0 from_3=0 from_4=0 from_5=2 from_6=0 from_7=0 to=1 \
             rx_kicks=0 tx_kicks=1 rx_interrupts=1 tx_interrupts=0"
        );
    }
}
