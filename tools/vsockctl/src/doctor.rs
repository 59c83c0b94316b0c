// SPDX-License-Identifier: GPL-2.0

//! Finds usual mistakes. Each check looks at [`Facts`] and says what is wrong in a sentence, and a
//! command that helps.

mod facts;

use facts::Facts;
use serde::Serialize;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, for programs.
    pub id: &'static str,
    pub sentence: String,
    /// What to type; empty if nothing on this machine helps.
    pub command: String,
}

fn finding(
    id: &'static str,
    sentence: impl Into<String>,
    command: impl Into<String>,
) -> Option<Finding> {
    Some(Finding {
        id,
        sentence: sentence.into(),
        command: command.into(),
    })
}

type Check = fn(&Facts) -> Vec<Finding>;

const CHECKS: [Check; 15] = [
    no_vsock,
    other_transport,
    not_installed,
    mixed_stacks,
    loaded_is_not_installed,
    lockdown,
    no_vhost_module,
    vhost_node,
    no_loopback,
    device_without_driver,
    no_cid,
    shared_vectors,
    broken_queue,
    no_worker,
    guest_takes_nothing,
];

/// Looks at this machine.
pub fn examine(cid: Option<u64>) -> Vec<Finding> {
    let facts = Facts::collect();
    let mut findings = check(&facts);
    if let Some(cid) = cid {
        findings.extend(cid_in_use(&facts, cid));
    }
    findings
}

fn check(facts: &Facts) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(facts)).collect()
}

/// Prints what was found for people.
pub fn print(findings: &[Finding]) {
    for finding in findings {
        println!("{}: {}", finding.id, finding.sentence);
        if !finding.command.is_empty() {
            println!("    {}", finding.command);
        }
    }
    if findings.is_empty() {
        println!("nothing is wrong, as far as can be seen");
    }
}

/// Whether this machine is a host of guests, as far as can be guessed: someone has the device open,
/// or its module is loaded.
fn is_host(facts: &Facts) -> bool {
    !facts.guests.is_empty() || facts.vhost_node.exists
}

fn no_vsock(facts: &Facts) -> Vec<Finding> {
    if facts.has_vsock {
        return Vec::new();
    }
    Vec::from_iter(finding(
        "no-vsock",
        "the kernel has no AF_VSOCK sockets now: the module vsock is not loaded",
        "modprobe vsock",
    ))
}

fn other_transport(facts: &Facts) -> Vec<Finding> {
    let others = facts.others.iter();
    let sentence = |name: &String| {
        format!("{name} is loaded: it takes the place of ours, which cannot be loaded then (Device or resource busy)")
    };
    others
        .filter_map(|name| {
            finding(
                "other-transport",
                sentence(name),
                format!("modprobe -r {name}"),
            )
        })
        .collect()
}

fn not_installed(facts: &Facts) -> Vec<Finding> {
    let missing = facts
        .module("vhost_core")
        .is_some_and(|module| module.installed.is_none() && module.loaded.is_none());
    if !missing {
        return Vec::new();
    }
    let release = &facts.release;
    let sentence = format!("the Rust modules are not installed for the kernel that runs, {release}: C modules are used");
    let command = format!("apt install vsock-rust-modules-{release}");
    Vec::from_iter(match &facts.why_not {
        // What is to be done first is in the reason.
        Some(why) => finding(
            "not-built",
            format!("{sentence}; {why}"),
            format!("dkms autoinstall -k {release}"),
        ),
        None => finding("not-installed", sentence, command),
    })
}

fn mixed_stacks(facts: &Facts) -> Vec<Finding> {
    let common = facts
        .module("vmw_vsock_virtio_transport_common")
        .and_then(|module| module.loaded.as_ref());
    let Some(common) = common else {
        return Vec::new();
    };
    let others = facts
        .modules
        .iter()
        .filter_map(|module| Some((module.name, module.installed.as_ref()?, &module.loaded)));
    let wrong =
        others.filter(|(_, installed, loaded)| loaded.is_none() && installed.stack != common.stack);
    // One that has no counterpart is of no interest.
    let wrong: Vec<_> = wrong
        .map(|(name, ..)| name)
        .filter(|&name| name != "vhost_core")
        .collect();
    if wrong.is_empty() {
        return Vec::new();
    }
    let wanted = if common.stack == "rust" { "rust" } else { "c" };
    Vec::from_iter(finding(
        "mixed-stacks",
        format!(
            "the {wanted} modules run, but modprobe would take others for {}, which cannot be loaded beside them",
            wrong.join(", ")
        ),
        format!("vsockctl use {wanted}"),
    ))
}

fn loaded_is_not_installed(facts: &Facts) -> Vec<Finding> {
    let both = facts.modules.iter().filter_map(|module| {
        Some((
            module.name,
            module.loaded.as_ref()?,
            module.installed.as_ref()?,
        ))
    });
    let differ = both.filter(|(_, loaded, installed)| loaded.version != installed.version);
    differ
        .filter_map(|(name, loaded, installed)| {
            let describe = |version: &Option<String>| {
                version.as_ref().map_or("the C module".into(), |version| {
                    format!("version {version} in Rust")
                })
            };
            finding(
                "old-module-runs",
                format!(
                    "{name}: {} runs, {} is installed",
                    describe(&loaded.version),
                    describe(&installed.version)
                ),
                format!("vsockctl use {}", installed.stack),
            )
        })
        .collect()
}

fn lockdown(facts: &Facts) -> Vec<Finding> {
    let locked = facts.lockdown.as_deref().is_some_and(|mode| mode != "none");
    let ours = facts.modules.iter().any(|module| {
        module
            .installed
            .as_ref()
            .is_some_and(|installed| installed.stack == "rust")
    });
    let runs = facts.modules.iter().any(|module| {
        module
            .loaded
            .as_ref()
            .is_some_and(|loaded| loaded.stack == "rust")
    });
    if !locked || !ours || runs {
        return Vec::new();
    }
    Vec::from_iter(finding(
        "lockdown",
        "secure boot is on, and the kernel loads only modules that are signed by a key it knows",
        "mokutil --import /var/lib/dkms/mok.pub",
    ))
}

fn no_vhost_module(facts: &Facts) -> Vec<Finding> {
    let module = facts.module("vhost_vsock");
    let missing =
        module.is_some_and(|module| module.loaded.is_none() && module.installed.is_some());
    if !missing || facts.vhost_node.exists || !facts.devices.is_empty() {
        return Vec::new();
    }
    Vec::from_iter(finding(
        "no-vhost-module",
        "there is no /dev/vhost-vsock: this machine cannot give guests a vsock device yet",
        "modprobe vhost_vsock",
    ))
}

fn vhost_node(facts: &Facts) -> Vec<Finding> {
    let node = facts.vhost_node;
    if !node.exists {
        return Vec::new();
    }
    if !node.right_device {
        return Vec::from_iter(finding(
            "wrong-node",
            "/dev/vhost-vsock is not the device 10:241",
            "rm /dev/vhost-vsock; mknod -m 0660 /dev/vhost-vsock c 10 241; chgrp kvm /dev/vhost-vsock",
        ));
    }
    if !node.accessible {
        return Vec::from_iter(finding(
            "node-mode",
            "this user may not open /dev/vhost-vsock: a VMM of it says 'Permission denied'",
            "chgrp kvm /dev/vhost-vsock; chmod 0660 /dev/vhost-vsock; adduser \"$USER\" kvm",
        ));
    }
    Vec::new()
}

fn no_loopback(facts: &Facts) -> Vec<Finding> {
    let missing = facts
        .module("vsock_loopback")
        .is_some_and(|module| module.loaded.is_none());
    // Without any transport, the first socket loads it.
    let any = facts
        .module("vmw_vsock_virtio_transport_common")
        .is_some_and(|module| module.loaded.is_some());
    if !missing || !any {
        return Vec::new();
    }
    Vec::from_iter(finding(
        "no-loopback",
        "vsock_loopback is not loaded: programs cannot connect to CID 1, this machine itself (EADDRNOTAVAIL, ENODEV)",
        "modprobe vsock_loopback",
    ))
}

fn device_without_driver(facts: &Facts) -> Vec<Finding> {
    let without = facts.devices.iter().filter(|(_, driver)| driver.is_none());
    without
        .filter_map(|(name, _)| {
            finding(
                "device-without-driver",
                format!("this guest has the vsock device {name}, but no driver for it"),
                "modprobe vmw_vsock_virtio_transport",
            )
        })
        .collect()
}

fn no_cid(facts: &Facts) -> Vec<Finding> {
    if !facts.virtual_machine
        || !facts.devices.is_empty()
        || facts
            .local_cid
            .is_some_and(|cid| cid > 2 && cid != u32::MAX)
        || is_host(facts)
    {
        return Vec::new();
    }
    Vec::from_iter(finding(
        "no-device",
        "this virtual machine has no vsock device: its host has to give it one (QEMU: -device vhost-vsock-pci,guest-cid=N)",
        "",
    ))
}

fn shared_vectors(facts: &Facts) -> Vec<Finding> {
    if !facts.shared_vectors {
        return Vec::new();
    }
    Vec::from_iter(finding(
        "shared-vectors",
        "the queues of the vsock device share one interrupt: the host gives it too few (QEMU: -device vhost-vsock-pci,...,vectors=4)",
        "",
    ))
}

fn name(guest: &crate::guests::Guest) -> String {
    let cid = guest.device.cid.map_or("?".into(), |cid| cid.to_string());
    format!("guest {cid} ({}, pid {})", guest.program, guest.pid)
}

fn broken_queue(facts: &Facts) -> Vec<Finding> {
    let queues = facts
        .guests
        .iter()
        .flat_map(|guest| guest.device.queues.iter().map(move |queue| (guest, queue)));
    let broken = queues.filter(|(_, queue)| queue.state == "broken");
    broken
        .filter_map(|(guest, queue)| {
            finding(
                "broken-queue",
                format!(
                    "ring {} of {} is not served any more: {}",
                    queue.number,
                    name(guest),
                    queue.detail
                ),
                "reboot the guest, or unload and load its driver",
            )
        })
        .collect()
}

fn no_worker(facts: &Facts) -> Vec<Finding> {
    let dead = |guest: &&crate::guests::Guest| {
        guest.device.state.as_deref() == Some("running")
            && guest
                .device
                .queues
                .iter()
                .any(|queue| queue.worker.as_deref() == Some("killed"))
    };
    let guests = facts.guests.iter().filter(dead);
    guests
        .filter_map(|guest| {
            finding(
                "no-worker",
                format!("the thread that works for {} was killed: its VMM was killed or executed another program, and its descriptor is still open", name(guest)),
                format!("kill {}", guest.pid),
            )
        })
        .collect()
}

fn guest_takes_nothing(facts: &Facts) -> Vec<Finding> {
    let stuck = facts.guests.iter().filter(|guest| {
        guest
            .device
            .queued_packets
            .is_some_and(|packets| packets > 0)
    });
    stuck
        .filter_map(|guest| {
            let packets = guest.device.queued_packets.unwrap_or(0);
            let state = guest.device.state.as_deref().unwrap_or("?");
            let sentence = if state == "running" {
                format!("{packets} packets wait for {}: it gives no buffers, so it is stopped, busy, or its driver hangs", name(guest))
            } else {
                format!("{packets} packets wait for {}, whose device is {state}", name(guest))
            };
            finding("guest-takes-nothing", sentence, format!("vsockctl who {}", guest.device.cid.unwrap_or(0)))
        })
        .collect()
}

fn cid_in_use(facts: &Facts, cid: u64) -> Vec<Finding> {
    if cid <= 2 || cid >= u64::from(u32::MAX) {
        return Vec::from_iter(finding(
            "cid-reserved",
            format!("no guest can have CID {cid}: 3 to 4294967294 are free to use"),
            "",
        ));
    }
    let holders = facts
        .guests
        .iter()
        .filter(|guest| guest.device.cid == Some(cid));
    let found: Vec<_> = holders
        .filter_map(|guest| {
            finding(
                "cid-in-use",
                format!("CID {cid} belongs to {}", name(guest)),
                format!("kill {}", guest.pid),
            )
        })
        .collect();
    let blind = facts.guests.iter().any(|guest| guest.device.cid.is_none()) || !facts.root;
    if found.is_empty() && blind {
        return Vec::from_iter(finding(
            "cid-unknown",
            format!("nobody who is seen has CID {cid}, but not all are: only root sees all guests, and the C module does not tell"),
            "sudo vsockctl list",
        ));
    }
    found
}

#[cfg(test)]
mod tests;
