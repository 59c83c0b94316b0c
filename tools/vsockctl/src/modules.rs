// SPDX-License-Identifier: GPL-2.0

//! Which modules are loaded, and which the next `modprobe` would load: ours and those of the kernel
//! have the same names.

use crate::cli::Stack;
use serde::Serialize;
use std::{fs, path::Path, process::Command};

/// Names of our modules, in the order in which they can be unloaded.
pub const NAMES: [&str; 5] = [
    "vhost_vsock",
    "vhost_core",
    "vsock_loopback",
    "vmw_vsock_virtio_transport",
    "vmw_vsock_virtio_transport_common",
];

/// Where the C modules of these names are, below `/lib/modules/VERSION`; one of ours has no
/// counterpart.
pub const C_PLACES: [(&str, &str); 4] = [
    ("vhost_vsock", "kernel/drivers/vhost"),
    ("vsock_loopback", "kernel/net/vmw_vsock"),
    ("vmw_vsock_virtio_transport", "kernel/net/vmw_vsock"),
    ("vmw_vsock_virtio_transport_common", "kernel/net/vmw_vsock"),
];

#[derive(Clone, Debug, Serialize)]
pub struct Module {
    pub name: &'static str,
    /// What runs; `None` if it is not loaded.
    pub loaded: Option<Loaded>,
    /// What `modprobe` would load.
    pub installed: Option<Installed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    pub stack: &'static str,
    pub version: Option<String>,
    pub users: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    pub stack: &'static str,
    pub version: Option<String>,
    pub path: String,
}

fn stack(version: Option<&str>) -> &'static str {
    // The C modules of these names have no version; ours have one.
    if version.is_some() {
        "rust"
    } else {
        "c"
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Whether a module is loaded, whatever its name is.
pub fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module")
        .join(name)
        .join("initstate")
        .exists()
}

/// What runs under a name.
pub fn loaded(name: &str) -> Option<Loaded> {
    let directory = Path::new("/sys/module").join(name);
    // A module that is built in has no state.
    read(directory.join("initstate"))?;
    let version = read(directory.join("version"));
    Some(Loaded {
        stack: stack(version.as_deref()),
        version,
        users: read(directory.join("refcnt"))
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
    })
}

fn modinfo(field: &[&str], name: &str) -> Option<String> {
    let output = Command::new("modinfo")
        .args(field)
        .arg(name)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// What `modprobe` would load under a name.
pub fn installed(name: &str) -> Option<Installed> {
    let path = modinfo(&["-n"], name)?;
    let version = modinfo(&["-F", "version"], name);
    Some(Installed {
        stack: stack(version.as_deref()),
        version,
        path,
    })
}

/// All of them.
pub fn list() -> Vec<Module> {
    let all = NAMES.iter().rev();
    all.map(|&name| Module {
        name,
        loaded: loaded(name),
        installed: installed(name),
    })
    .collect()
}

/// The release of the kernel that runs.
pub fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Why there are none of ours for a kernel: what vsock-rust-dkms says of it, if it is installed.
pub fn why_not(release: &str) -> Option<String> {
    read(Path::new("/var/lib/vsock-rust").join(format!("why-not-{release}")))
}

/// Which stack runs; `None` if neither does.
pub fn running() -> Option<Stack> {
    let common = loaded("vmw_vsock_virtio_transport_common")?;
    Some(if common.stack == "rust" {
        Stack::Rust
    } else {
        Stack::C
    })
}
