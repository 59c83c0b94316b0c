// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::{
    fdinfo,
    guests::Guest,
    modules::{Installed, Loaded, Module},
};

fn module(name: &'static str, loaded: Option<&str>, installed: Option<&str>) -> Module {
    let version = |stack: &str| (stack == "rust").then(|| "0.9.0".to_owned());
    let stack = |stack: &str| if stack == "rust" { "rust" } else { "c" };
    Module {
        name,
        loaded: loaded.map(|what| Loaded {
            stack: stack(what),
            version: version(what),
            users: 0,
        }),
        installed: installed.map(|what| Installed {
            stack: stack(what),
            version: version(what),
            path: String::new(),
        }),
    }
}

fn modules(loaded: Option<&str>, installed: Option<&str>) -> Vec<Module> {
    let names = crate::modules::NAMES;
    names
        .into_iter()
        .map(|name| module(name, loaded, installed))
        .collect()
}

/// A host on which all is well.
fn good() -> Facts {
    let node = facts::Node {
        exists: true,
        right_device: true,
        accessible: true,
    };
    Facts {
        release: "7.3.4".into(),
        root: true,
        has_vsock: true,
        modules: modules(Some("rust"), Some("rust")),
        vhost_node: node,
        ..Facts::default()
    }
}

fn guest(text: &str) -> Guest {
    Guest {
        pid: 77,
        fd: 5,
        program: "qemu".into(),
        uid: Some(0),
        shared_with: Vec::new(),
        device: fdinfo::parse(text),
    }
}

fn ids(facts: &Facts) -> Vec<&'static str> {
    check(facts).into_iter().map(|finding| finding.id).collect()
}

#[test]
fn a_good_host_has_no_finding() {
    assert_eq!(check(&good()), []);
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    type Change = fn(&mut Facts);
    let faults: [(&str, Change); 14] = [
        ("no-vsock", |facts| facts.has_vsock = false),
        ("other-transport", |facts| {
            facts.others = vec!["hv_sock".into()]
        }),
        ("not-installed", |facts| {
            facts.modules = modules(Some("c"), Some("c"));
            facts.modules[1] = module("vhost_core", None, None);
        }),
        ("not-built", |facts| {
            facts.modules = modules(Some("c"), Some("c"));
            facts.modules[1] = module("vhost_core", None, None);
            facts.why_not = Some("rustc is not installed".into());
        }),
        ("mixed-stacks", |facts| {
            facts.modules = modules(Some("c"), Some("c"));
            facts.modules[0] = module("vhost_vsock", None, Some("rust"));
        }),
        ("old-module-runs", |facts| {
            facts.modules[2] = module("vsock_loopback", Some("c"), Some("rust"))
        }),
        ("lockdown", |facts| {
            facts.lockdown = Some("integrity".into());
            facts.modules = modules(None, Some("rust"));
        }),
        ("no-vhost-module", |facts| {
            facts.vhost_node = facts::Node::default();
            facts.modules[0] = module("vhost_vsock", None, Some("rust"));
        }),
        ("wrong-node", |facts| facts.vhost_node.right_device = false),
        ("node-mode", |facts| facts.vhost_node.accessible = false),
        ("no-loopback", |facts| {
            facts.modules[2] = module("vsock_loopback", None, Some("rust"))
        }),
        ("device-without-driver", |facts| {
            facts.devices = vec![("virtio3".into(), None)]
        }),
        ("broken-queue", |facts| {
            facts.guests = vec![guest("cid:\t3\nqueue1:\tbroken, size 8: a loop\n")]
        }),
        ("guest-takes-nothing", |facts| {
            facts.guests = vec![guest(
                "cid:\t3\nstate:\trunning\nqueued:\t4 packets, 1 bytes of memory\n",
            )];
        }),
    ];
    for (id, change) in faults {
        let mut facts = good();
        change(&mut facts);
        assert_eq!(ids(&facts), [id]);
    }
}

#[test]
fn a_killed_worker() {
    let mut facts = good();
    facts.guests = vec![guest(
        "cid:\t3\nstate:\trunning\nqueue0:\trunning, size 8\nworker0:\tkilled\n",
    )];
    assert_eq!(ids(&facts), ["no-worker"]);
}

#[test]
fn who_has_a_cid() {
    let mut facts = good();
    facts.guests = vec![guest("cid:\t42\n")];
    assert_eq!(cid_in_use(&facts, 42)[0].id, "cid-in-use");
    assert_eq!(cid_in_use(&facts, 43), []);
    assert_eq!(cid_in_use(&facts, 2)[0].id, "cid-reserved");
    // The C module does not tell.
    facts.guests = vec![guest("")];
    assert_eq!(cid_in_use(&facts, 42)[0].id, "cid-unknown");
}

#[test]
fn interrupts_that_are_shared() {
    let mut facts = good();
    facts.shared_vectors = true;
    assert_eq!(ids(&facts), ["shared-vectors"]);
}
