// SPDX-License-Identifier: GPL-2.0

//! What `/proc/PID/fdinfo/FD` says of a descriptor of `/dev/vhost-vsock`: lines of a name, a colon
//! and a text. Its source is `vhost_vsock/info.rs` of the kernel modules; what is not known here is
//! left alone, and what is not there is `None`.

use serde::Serialize;
use std::collections::BTreeMap;

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

/// The state of one ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    pub number: u32,
    /// `running`, `stopped`, `broken`...
    pub state: String,
    /// The rest of the line, as it is.
    pub detail: String,
    /// The worker's line, as it is.
    pub worker: Option<String>,
}

/// What the device says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    pub cid: Option<u64>,
    pub netns: Option<u64>,
    pub state: Option<String>,
    pub connections: Option<u64>,
    pub features: Option<String>,
    pub to_guest: Option<Traffic>,
    pub from_guest: Option<Traffic>,
    pub malformed: Option<u64>,
    pub misaddressed: Option<u64>,
    pub bad_buffers: Option<u64>,
    pub queued_packets: Option<u64>,
    pub queued_memory: Option<u64>,
    pub replies: Option<u64>,
    /// The guest sends packets that need answers faster than it takes the answers.
    pub held_back: bool,
    pub queues: Vec<Queue>,
    /// Lines that this version does not know.
    pub more: BTreeMap<String, String>,
}

/// The number before the word `unit` in "3 packets, 5 bytes".
fn number(text: &str, unit: &str) -> Option<u64> {
    let mut before = None;
    for word in text.split_whitespace() {
        if word.trim_end_matches(',') == unit {
            return before;
        }
        before = word.parse().ok();
    }
    None
}

fn traffic(text: &str) -> Option<Traffic> {
    Some(Traffic {
        packets: number(text, "packets")?,
        bytes: number(text, "bytes")?,
    })
}

/// Reads the text of the file.
pub fn parse(text: &str) -> Device {
    let mut device = Device::default();
    let mut workers = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        let indexed = |prefix: &str| -> Option<u32> { name.strip_prefix(prefix)?.parse().ok() };
        match name {
            "pos" | "flags" | "mnt_id" | "ino" => (),
            "cid" => device.cid = value.parse().ok(),
            "netns" => device.netns = value.parse().ok(),
            "state" => device.state = Some(value.to_owned()),
            "connections" => device.connections = value.parse().ok(),
            "features" => device.features = Some(value.to_owned()),
            "to-guest" => device.to_guest = traffic(value),
            "from-guest" => device.from_guest = traffic(value),
            "refused" => {
                device.malformed = number(value, "malformed");
                device.misaddressed = number(value, "misaddressed");
                device.bad_buffers = number(value, "buffers");
            }
            "queued" => {
                device.queued_packets = number(value, "packets");
                device.queued_memory = number(value, "bytes");
            }
            "replies" => {
                let first = value.split(',').next().unwrap_or_default();
                device.replies = first.trim().parse().ok();
                device.held_back = value.contains("held back");
            }
            _ => {
                if let Some(number) = indexed("queue") {
                    let (state, detail) = value.split_once(',').unwrap_or((value, ""));
                    device.queues.push(Queue {
                        number,
                        state: state.trim().to_owned(),
                        detail: detail.trim().to_owned(),
                        worker: None,
                    });
                } else if let Some(number) = indexed("worker") {
                    workers.insert(number, value.to_owned());
                } else {
                    device.more.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }
    for queue in &mut device.queues {
        queue.worker = workers.remove(&queue.number);
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "pos:\t0\nflags:\t0104002\nmnt_id:\t32\nino:\t109\ncid:\t3\n\
        netns:\t4026531833\nconnections:\t2\nstate:\trunning\nfeatures:\t0x130000002\nworker0:\t0, thread 193\n\
        queue0:\trunning, size 1024, available 5, used 4\nworker1:\t0, thread 193\n\
        queue1:\tbroken, size 1024: head 2000 is not in the ring\nto-guest:\t7 packets, 300 bytes\n\
        from-guest:\t1 packets, 44 bytes\nrefused:\t1 malformed, 2 misaddressed, 3 buffers\n\
        queued:\t9 packets, 4096 bytes of memory\nreplies:\t12, guest held back\n\
        direct:\t1 sent\n";

    #[test]
    fn all_fields() {
        let device = parse(RUNNING);
        assert_eq!(device.cid, Some(3));
        assert_eq!(device.netns, Some(4026531833));
        assert_eq!(device.connections, Some(2));
        assert_eq!(device.state.as_deref(), Some("running"));
        let expected = Traffic {
            packets: 7,
            bytes: 300,
        };
        assert_eq!(device.to_guest, Some(expected));
        assert_eq!(device.malformed, Some(1));
        assert_eq!(device.misaddressed, Some(2));
        assert_eq!(device.bad_buffers, Some(3));
        assert_eq!(device.queued_packets, Some(9));
        assert_eq!(device.queued_memory, Some(4096));
        assert_eq!(device.replies, Some(12));
        assert!(device.held_back);
        assert_eq!(device.queues.len(), 2);
        assert_eq!(device.queues[0].worker.as_deref(), Some("0, thread 193"));
        assert_eq!(device.queues[1].state, "broken");
        assert_eq!(device.more["direct"], "1 sent");
    }

    #[test]
    fn of_the_c_module() {
        let device = parse("pos:\t0\nflags:\t0104002\nmnt_id:\t32\nino:\t109\n");
        assert_eq!(device, Device::default());
    }

    #[test]
    fn nonsense_is_no_number() {
        let device = parse("cid:\tmany\nto-guest:\tpackets, bytes\nqueuex:\t1\n:\n\n");
        assert_eq!(device.cid, None);
        assert_eq!(device.to_guest, None);
        assert!(device.queues.is_empty());
    }
}
