// SPDX-License-Identifier: GPL-2.0

//! What the checks look at, collected once: so they can be tried with facts that were made up.

use crate::{
    guests::{self, Guest},
    modules::{self, Module},
    processes,
};
use rustix::fs::{access, major, minor, Access};
use std::{fs, os::unix::fs::MetadataExt as _};

/// Transports of other hypervisors, which take the place of ours.
const OTHERS: [&str; 2] = ["vmw_vsock_vmci_transport", "hv_sock"];

/// A device node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Node {
    pub exists: bool,
    /// It has the numbers that it should.
    pub right_device: bool,
    /// This user may open it.
    pub accessible: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub release: String,
    pub root: bool,
    pub has_vsock: bool,
    pub modules: Vec<Module>,
    /// Why they were not built for this kernel.
    pub why_not: Option<String>,
    /// Transports that are loaded and are not ours.
    pub others: Vec<String>,
    pub vhost_node: Node,
    /// What the kernel says of lockdown: `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    pub guests: Vec<Guest>,
    /// Virtio devices of the vsock kind, and the driver of each.
    pub devices: Vec<(String, Option<String>)>,
    /// Lines of /proc/interrupts about them that several queues share.
    pub shared_vectors: bool,
    pub local_cid: Option<u32>,
    pub virtual_machine: bool,
}

fn node(path: &str, number: (u32, u32)) -> Node {
    let Ok(meta) = fs::metadata(path) else {
        return Node::default();
    };
    Node {
        exists: true,
        right_device: (major(meta.rdev()), minor(meta.rdev())) == number,
        accessible: access(path, Access::READ_OK | Access::WRITE_OK).is_ok(),
    }
}

/// Virtio devices with the ID of vsock, 19.
fn devices() -> Vec<(String, Option<String>)> {
    let entries = fs::read_dir("/sys/bus/virtio/devices")
        .into_iter()
        .flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            fs::read_to_string(path.join("device")).is_ok_and(|id| id.trim() == "0x0013")
        })
        .map(|path| {
            let name = |path: &std::path::Path| Some(path.file_name()?.to_str()?.to_owned());
            let driver = fs::read_link(path.join("driver"))
                .ok()
                .and_then(|link| name(&link));
            (name(&path).unwrap_or_default(), driver)
        })
        .collect()
}

/// Whether all queues of a device have one interrupt, as PCI devices with too few vectors do.
fn shares_vectors(interrupts: &str, device: &str) -> bool {
    interrupts.contains(&format!("{device}-virtqueues"))
}

/// The word in brackets.
pub fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

impl Facts {
    /// Looks at this machine.
    pub fn collect() -> Self {
        let interrupts = fs::read_to_string("/proc/interrupts").unwrap_or_default();
        let devices = devices();
        Self {
            release: modules::release(),
            root: processes::is_root(),
            has_vsock: fs::metadata("/dev/vsock").is_ok() || modules::is_loaded("vsock"),
            modules: modules::list(),
            why_not: modules::why_not(&modules::release()),
            others: OTHERS
                .iter()
                .filter(|name| modules::is_loaded(name))
                .map(|&name| name.to_owned())
                .collect(),
            vhost_node: node("/dev/vhost-vsock", (10, 241)),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown")
                .ok()
                .and_then(|text| lockdown(&text)),
            guests: guests::list(),
            shared_vectors: devices
                .iter()
                .any(|(name, _)| shares_vectors(&interrupts, name)),
            devices,
            local_cid: vsock::get_local_cid().ok(),
            virtual_machine: fs::read_to_string("/proc/cpuinfo")
                .is_ok_and(|text| text.contains(" hypervisor")),
        }
    }

    /// What is known of one of our modules.
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_in_brackets() {
        assert_eq!(
            lockdown("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        assert_eq!(lockdown(""), None);
    }

    #[test]
    fn one_vector_for_all_queues() {
        let text = " 26: 0 9 PCI-MSIX-0000:00:04.0 1-edge virtio2-virtqueues\n";
        assert!(shares_vectors(text, "virtio2"));
        assert!(!shares_vectors(text, "virtio1"));
    }
}
