// SPDX-License-Identifier: GPL-2.0

//! The counters of the guests in Prometheus' text format, version 0.0.4, as the textfile collector
//! of node_exporter takes them.

use crate::guests::Guest;
use std::fmt::Write as _;

/// Name, kind, help, and how to get the value.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Guest) -> Option<u64>,
);

const METRICS: [Metric; 12] = [
    ("connections", "gauge", "Connections with the guest.", |g| {
        g.device.connections
    }),
    (
        "to_guest_packets_total",
        "counter",
        "Packets that the guest was given.",
        |g| g.device.to_guest.map(|t| t.packets),
    ),
    (
        "to_guest_bytes_total",
        "counter",
        "Bytes of payload that the guest was given.",
        |g| g.device.to_guest.map(|t| t.bytes),
    ),
    (
        "from_guest_packets_total",
        "counter",
        "Packets that came from the guest.",
        |g| g.device.from_guest.map(|t| t.packets),
    ),
    (
        "from_guest_bytes_total",
        "counter",
        "Bytes of payload that came from the guest.",
        |g| g.device.from_guest.map(|t| t.bytes),
    ),
    (
        "malformed_packets_total",
        "counter",
        "Packets of the guest that are none.",
        |g| g.device.malformed,
    ),
    (
        "misaddressed_packets_total",
        "counter",
        "Packets of the guest with an address that is not its own, or not the host's.",
        |g| g.device.misaddressed,
    ),
    (
        "bad_buffers_total",
        "counter",
        "Buffers of the guest that no packet fits into.",
        |g| g.device.bad_buffers,
    ),
    (
        "queued_packets",
        "gauge",
        "Packets that wait for buffers of the guest.",
        |g| g.device.queued_packets,
    ),
    (
        "queued_memory_bytes",
        "gauge",
        "Memory of the packets that wait.",
        |g| g.device.queued_memory,
    ),
    (
        "replies",
        "gauge",
        "Replies among the packets that wait.",
        |g| g.device.replies,
    ),
    (
        "broken_queues",
        "gauge",
        "Rings that are not served any more, since they are wrong.",
        |g| {
            let broken = g
                .device
                .queues
                .iter()
                .filter(|queue| queue.state == "broken");
            g.device.cid.map(|_| broken.count() as u64)
        },
    ),
];

/// The value of a label: what the format does not allow is escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics of all guests; those that the module does not tell are left out.
pub fn render(guests: &[Guest]) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in METRICS {
        let mut samples = String::new();
        for guest in guests {
            let (Some(value), Some(cid)) = (value(guest), guest.device.cid) else {
                continue;
            };
            let program = escape(&guest.program);
            let netns = guest.device.netns.unwrap_or(0);
            // Writing to a string does not fail.
            let _ = writeln!(
                samples,
                "vhost_vsock_{name}{{cid=\"{cid}\",netns=\"{netns}\",pid=\"{}\",program=\"{program}\"}} {value}",
                guest.pid
            );
        }
        if !samples.is_empty() {
            let _ = write!(
                text,
                "# HELP vhost_vsock_{name} {help}\n# TYPE vhost_vsock_{name} {kind}\n{samples}"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fdinfo;

    #[test]
    fn one_guest() {
        let guest = Guest {
            pid: 7,
            fd: 3,
            program: "a\"b".into(),
            uid: Some(0),
            shared_with: Vec::new(),
            device: fdinfo::parse("cid:\t42\nnetns:\t1\nto-guest:\t2 packets, 3 bytes\n"),
        };
        let text = render(&[guest]);
        assert!(text.contains("# TYPE vhost_vsock_to_guest_bytes_total counter\n"));
        let line =
            r#"vhost_vsock_to_guest_bytes_total{cid="42",netns="1",pid="7",program="a\"b"} 3"#;
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("malformed"));
    }

    #[test]
    fn no_guest_is_no_metric() {
        assert_eq!(render(&[]), "");
    }
}
