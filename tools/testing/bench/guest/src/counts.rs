// SPDX-License-Identifier: GPL-2.0

//! What is counted around a row: by the guest's kernel, and by the peer.

use crate::socket::{Kind, Socket, CONTROL};
use measure::Counters;
use ring::Try;
use std::{collections::BTreeMap, fs, thread, time::Duration};

/// Reads all counters, after what was begun came to its end. The connection to the peer is made and
/// closed by this, and the peer does not count its packets.
pub fn read() -> Try<Counters> {
    thread::sleep(Duration::from_millis(30));
    let control = Socket::connect(Kind::Stream, CONTROL)?;
    control.send(b"?")?;
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        control.recv_all(&mut byte)?;
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
    }
    let peer = words(&String::from_utf8_lossy(&line));
    let of = |name: &str| peer.get(name).copied().unwrap_or(0);
    Ok(Counters {
        sent: of("from"),
        received: of("to"),
        kicks: of("rx_kicks") + of("tx_kicks"),
        interrupts: interrupts(&fs::read_to_string("/proc/interrupts")?),
    })
}

/// Words of the form `name=number`.
fn words(line: &str) -> BTreeMap<String, u64> {
    line.split_whitespace()
        .filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Interrupts of virtio devices, from the text of /proc/interrupts: the vsock device is the only
/// one.
fn interrupts(text: &str) -> u64 {
    text.lines()
        .filter(|line| line.contains("virtio"))
        .flat_map(|line| {
            line.split_whitespace()
                .skip(1)
                .map_while(|word| word.parse::<u64>().ok())
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_virtio_interrupts_count() {
        let text = "           CPU0\n  0:         44  IO-APIC   2-edge      timer\n \
                    24:          0  PCI-MSIX-0000:00:02.0   0-edge      virtio0-config\n \
                    25:       1202  PCI-MSIX-0000:00:02.0   1-edge      virtio0-virtqueues\nLOC: 7 x\n";
        assert_eq!(interrupts(text), 1202);
    }

    #[test]
    fn the_peer_answers_in_words() {
        let words = words("from=7 from_5=3 to=x");
        assert_eq!(words.get("from"), Some(&7));
        assert_eq!(words.get("from_5"), Some(&3));
        assert_eq!(words.get("to"), None);
    }
}
