// SPDX-License-Identifier: GPL-2.0

//! The change between our modules and those of the kernel's package.
//!
//! Both are installed side by side, under the same names; `depmod` decides which of them `modprobe`
//! loads. Those in `updates/` win, which ours are in, unless [`OVERRIDE`] says that those of the
//! kernel do. No file of either is moved or removed.
//!
//! A change of what `modprobe` takes while the others are loaded would be worse than none: what is
//! loaded later of the one does not fit what is loaded already of the other, and a guest that is
//! plugged in finds no driver. So first all are unloaded, which the kernel refuses while anybody
//! uses them; if it does, they are loaded again, and the change waits in [`PENDING`] for the end of
//! this boot, when [`apply_pending`] carries it out.

use crate::{
    cli::Stack,
    error::Error,
    modules::{self, C_PLACES, NAMES},
};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

const OVERRIDE: &str = "/etc/depmod.d/vsock-rust.conf";
const PENDING: &str = "/var/lib/vsock-rust/next-boot";

/// What became of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// It was so before.
    Nothing,
    /// From now on.
    Now,
    /// When this system is shut down.
    AtNextBoot { why: String },
}

impl Stack {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        match name.trim() {
            "rust" => Some(Self::Rust),
            "c" => Some(Self::C),
            _ => None,
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Error> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim()).into())
}

/// The text that makes `depmod` prefer the modules of the kernel.
fn override_text() -> String {
    let mut text = String::from(
        "# Written by `vsockctl use c`: the C modules are taken, not those in updates/.\n",
    );
    for (name, place) in C_PLACES {
        text += &format!("override {name} * {place}\n");
    }
    text
}

/// Kernels that our modules are installed for.
fn kernels() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/lib/modules") else {
        return Vec::new();
    };
    let directories = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = directories.filter(|path| has_ours(path));
    ours.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect()
}

fn has_ours(kernel: &Path) -> bool {
    ["updates/vsock-rust", "updates/dkms", "updates"]
        .iter()
        .any(|place| {
            let directory: PathBuf = kernel.join(place);
            ["", ".xz", ".zst", ".gz"]
                .iter()
                .any(|end| directory.join(format!("vhost_core.ko{end}")).exists())
        })
}

fn remove(path: &str) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("cannot remove {path}: {error}").into())
        }
        _ => Ok(()),
    }
}

fn write(path: &str, text: &str) -> Result<(), Error> {
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("cannot write {path}: {error}").into())
}

/// Makes `modprobe` take the modules of `stack`, for all kernels.
fn choose(stack: Stack) -> Result<(), Error> {
    match stack {
        Stack::Rust => remove(OVERRIDE)?,
        Stack::C => write(OVERRIDE, &override_text())?,
    }
    remove(PENDING)?;
    for kernel in kernels() {
        run("depmod", &[&kernel])?;
        update_initramfs(&kernel)?;
    }
    Ok(())
}

/// The initial RAM disk loads modules of its own.
fn update_initramfs(kernel: &str) -> Result<(), Error> {
    let image = format!("/boot/initrd.img-{kernel}");
    if !Path::new(&image).exists() {
        return Ok(());
    }
    let Ok(output) = Command::new("lsinitramfs").arg(&image).output() else {
        return Ok(());
    };
    if String::from_utf8_lossy(&output.stdout).contains("vmw_vsock_virtio_transport") {
        eprintln!("vsockctl: {image} has a vsock module: it is made anew, which takes a minute");
        run("update-initramfs", &["-u", "-k", kernel])?;
    }
    Ok(())
}

/// What `modprobe` would take now.
fn chosen() -> Stack {
    if Path::new(OVERRIDE).exists() {
        Stack::C
    } else {
        Stack::Rust
    }
}

/// Unloads what is loaded; if something is in use, loads what was unloaded again.
fn unload() -> Result<Vec<&'static str>, Error> {
    let mut unloaded: Vec<&'static str> = Vec::new();
    for name in NAMES.into_iter().filter(|name| modules::is_loaded(name)) {
        // Not `modprobe -r`, which unloads what others may need.
        if let Err(error) = run("rmmod", &[name]) {
            load(&unloaded)?;
            return Err(error);
        }
        unloaded.push(name);
    }
    Ok(unloaded)
}

/// Loads what was unloaded, of the stack that is chosen now.
fn load(names: &[&'static str]) -> Result<(), Error> {
    for &name in names.iter().rev() {
        // What only one of the stacks has comes along with what needs it.
        if C_PLACES.iter().any(|&(shared, _)| shared == name) {
            run("modprobe", &[name])?;
        }
    }
    Ok(())
}

/// Changes to a stack.
///
/// # Errors
///
/// Not root, no such modules, or what a program said; then all is as it was.
pub fn change(stack: Stack, next_boot: bool) -> Result<Done, Error> {
    if !crate::processes::is_root() {
        return Err("only root can change modules".into());
    }
    let release = modules::release();
    if stack == Stack::Rust && !kernels().contains(&release) {
        let why = modules::why_not(&release)
            .unwrap_or_else(|| format!("install vsock-rust-modules-{release}, or vsock-rust-dkms"));
        return Err(
            format!("there are no modules for the kernel that runs, {release}: {why}").into(),
        );
    }
    if chosen() == stack
        && modules::running().is_none_or(|running| running == stack)
        && !is_outdated()
    {
        remove(PENDING)?;
        return Ok(Done::Nothing);
    }
    let refused = if next_boot {
        "as was asked for".to_owned()
    } else {
        match unload() {
            Ok(unloaded) => {
                let before = chosen();
                let changed = choose(stack).and_then(|()| load(&unloaded));
                if let Err(error) = changed {
                    // Back to what worked.
                    let _ = unload();
                    choose(before).and_then(|()| load(&unloaded))?;
                    return Err(error);
                }
                return Ok(Done::Now);
            }
            Err(error) => error.to_string(),
        }
    };
    if modules::running().is_some_and(|running| running != chosen()) {
        // A package was just unpacked, whose modules do not fit what runs: as long as it runs, the
        // others are taken.
        choose(modules::running().unwrap_or(stack))?;
    }
    write(PENDING, &format!("{}\n", stack.name()))?;
    Ok(Done::AtNextBoot { why: refused })
}

/// Whether what runs is of another version than what is installed, as after an upgrade.
fn is_outdated() -> bool {
    let modules = modules::list().into_iter();
    let mut both =
        modules.filter_map(|module| Some((module.loaded?.version, module.installed?.version)));
    both.any(|(loaded, installed)| loaded != installed)
}

/// Carries out what waits; nothing is loaded or unloaded.
///
/// # Errors
///
/// What a program said.
pub fn apply_pending() -> Result<(), Error> {
    match pending() {
        Some(stack) => choose(stack),
        None => Ok(()),
    }
}

/// What waits for the next boot.
pub fn pending() -> Option<Stack> {
    Stack::of_name(&fs::read_to_string(PENDING).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn override_names_the_place_of_each_c_module() {
        let text = override_text();
        assert!(text.contains("override vhost_vsock * kernel/drivers/vhost\n"));
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("override "))
                .count(),
            4
        );
    }

    #[test]
    fn names_of_stacks() {
        for stack in [Stack::Rust, Stack::C] {
            assert_eq!(Stack::of_name(&format!("{}\n", stack.name())), Some(stack));
        }
        assert_eq!(Stack::of_name(""), None);
    }
}
