// SPDX-License-Identifier: GPL-2.0

//! Parameters of the modules: what sysfs shows, and what they change.

use super::{case, skip, Case, Ctx};
use crate::{
    abi::{self, Region},
    device::{Device, Setup},
    host::verdict,
    sys::memory::Mapping,
    Try,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

pub const CASES: &[Case] = &[
    case(
        "ABI-17/parameters-in-sysfs",
        "fork_from_owner_default=Y max_iotlb_entries=2048 max_mem_regions=64 windows, all 444",
        in_sysfs,
    ),
    case(
        "ABI-17/switches-of-vhost-vsock",
        "direct inline, all 444",
        |_| sysfs("vhost_vsock"),
    )
    .not_on_c("C has none"),
    case(
        "ABI-17/regions-as-the-other-vhost-promises",
        "509: ok, 510: E2BIG; without it 65: E2BIG",
        |_| as_promised(),
    )
    .not_on_c("C has one vhost"),
    case(
        "ABI-17/parameters-at-load",
        "fork_from_owner 0; 101: E2BIG, 100: EINVAL",
        |_| at_load(),
    )
    .by_name(),
];

/// Parameters that are switches of ours, whose value is what the run was given.
const SWITCHES: [&str; 3] = ["windows", "direct", "inline"];

fn in_sysfs(ctx: &mut Ctx) -> Try<String> {
    sysfs(if ctx.ours() { "vhost_core" } else { "vhost" })
}

/// Names, values and rights of the parameters of a module.
fn sysfs(module: &str) -> Try<String> {
    let (mut values, mut modes) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(format!("/sys/module/{module}/parameters"))? {
        let entry = entry?;
        let value = fs::read_to_string(entry.path())?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        values.push(if SWITCHES.contains(&&*name) {
            name.into_owned()
        } else {
            format!("{name}={}", value.trim_end())
        });
        modes.push(format!(
            "{:o}",
            entry.metadata()?.permissions().mode() & 0o777
        ));
    }
    values.sort_unstable();
    modes.dedup();
    Ok(format!("{}, all {}", values.join(" "), modes.join(" ")))
}

fn owned() -> Try<Device> {
    let dev = Device::bare(Arc::new(Mapping::shared(4096)?), Setup::num(1))?;
    dev.io(abi::SET_OWNER, &mut abi::arg(&[]))?;
    Ok(dev)
}

/// What is said of so many regions, each of a page.
fn regions(dev: &Device, count: u64) -> String {
    let table: Vec<_> = (0..count)
        .map(|n| Region {
            guest: n << 20,
            size: 4096,
            user: dev.mem.addr(),
        })
        .collect();
    format!("{count}: {}", verdict(dev.set_memory(&table)))
}

fn run(program: &str, arguments: &[&str]) -> Try<()> {
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} {arguments:?}: {status}").into()),
        Err(e) => Err(format!("{program}: {e}").into()),
    }
}

/// Where the kernel's own modules of vhost are.
fn vhost_modules() -> Try<PathBuf> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let release = release.trim_end();
    Ok(format!("/lib/modules/{release}/kernel/drivers/vhost").into())
}

/// The C vhost, for as long as this is there.
struct OtherVhost;

impl OtherVhost {
    fn load(modules: &Path) -> Try<Self> {
        let file = |name| modules.join(name).to_string_lossy().into_owned();
        run("insmod", &[&file("vhost_iotlb.ko")])?;
        let this = Self;
        run("insmod", &[&file("vhost.ko"), "max_mem_regions=509"])?;
        Ok(this)
    }
}

impl Drop for OtherVhost {
    fn drop(&mut self) {
        for name in ["vhost", "vhost_iotlb"] {
            let _ = run("rmmod", &[name]);
        }
    }
}

/// What `/sys/module/vhost/parameters/max_mem_regions` says, where QEMU looks, is accepted.
fn as_promised() -> Try<String> {
    if Path::new("/sys/module/vhost").exists() {
        return skip("the C vhost is loaded already");
    }
    let modules = vhost_modules()?;
    if !modules.join("vhost.ko").exists() {
        return skip("there is no C vhost");
    }
    let other = OtherVhost::load(&modules)?;
    let dev = owned()?;
    let promised = [regions(&dev, 509), regions(&dev, 510)].join(", ");
    drop(other);
    if Path::new("/sys/module/vhost").exists() {
        return Err("the C vhost cannot be unloaded".into());
    }
    Ok(format!("{promised}; without it {}", regions(&owned()?, 65)))
}

/// With `vhost_core` loaded as `max_mem_regions=100 max_iotlb_entries=0 fork_from_owner_default=0`.
fn at_load() -> Try<String> {
    let dev = owned()?;
    let mut fork = abi::arg(&[]);
    dev.io(abi::GET_FORK_FROM_OWNER, &mut fork)?;
    // C has no table either if it may have no entries of an IOTLB.
    let tables = [regions(&dev, 101), regions(&dev, 100)].join(", ");
    Ok(format!("fork_from_owner {}; {tables}", fork[0]))
}
