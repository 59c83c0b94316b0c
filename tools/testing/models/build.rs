// SPDX-License-Identifier: GPL-2.0

//! Puts together what is modelled: the sources of the common transport as they are, and with
//! mistakes.
//!
//! A variant is a module with all of the sources in it, in which paths lead to that module and to
//! what stands for the kernel, and in which something was replaced. What a mistake replaces must be
//! there, once.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::Path, //
};

/// Sources that are modelled together.
struct Subject {
    /// Where the sources are.
    sources: &'static str,
    /// Sources of the tree, as they are.
    real: &'static [&'static str],
    /// Where the parts are.
    place: &'static str,
    /// What is put in the place of other sources, and the models.
    parts: &'static [&'static str],
    /// What the root of the real crate has.
    root: &'static str,
}

/// Connections.
const CONNS: Subject = Subject {
    sources: "../../../net/vmw_vsock/virtio_transport_common",
    real: &[
        "accept", "carrier", "close", "conn", "control", "convert", "kinds", "ops", "recv",
        "rx_queue", "tables",
    ],
    place: "src/parts",
    parts: &[
        "connecting",
        "direct",
        "ends",
        "flow",
        "keepalive",
        "orphans",
        "outgoing",
        "packet",
        "reading",
        "scenarios",
        "send",
        "watch",
        "wire",
    ],
    root: "    pub use conn::Conn;\n",
};

/// Kicks of the guest.
const KICKS: Subject = Subject {
    sources: "../../../drivers/vhost/vhost_core",
    real: &["inline", "kick_work"],
    place: "src/kick",
    parts: &["guest", "worker"],
    root: "",
};

/// Where the sources of the direction to the guest are.
const RING_SOURCES: &str = "../../../drivers/vhost/vhost_vsock";

/// Those sources, and what is put in the place of others.
const RING: [(&str, &str); 5] = [
    (RING_SOURCES, "direct"),
    (RING_SOURCES, "to_guest"),
    ("../../../drivers/vhost/vhost_core", "chain"),
    ("src/ring", "device"),
    ("src/ring", "vhost"),
];

/// Of `chain.rs` it is what ends a run: from here to the next line that is as the last one.
const RUN_ENDS: [&str; 2] = ["    pub(crate) fn end(&mut self)", "\n    }\n"];

/// Where paths of these lead to.
const RING_PATHS: [(&str, &str); 7] = [
    ("crate::device::", "super::device::"),
    ("kernel::", "crate::ring::kernel::"),
    ("kernel_ext::owner_mm::", "super::vhost::"),
    ("kernel_ext::peek::", "crate::kernel_ext::peek::"),
    ("vhost_core::", "super::vhost::"),
    ("virtio_transport_common::", "crate::ring::packets::"),
    ("use crate::{\n", "use super::{\n"),
];

/// What attributes of the kernel's macros stand for, and its types.
const REWRITTEN: [(&str, &str); 6] = [
    ("#[pin_data]\n", ""),
    ("    #[pin]\n", ""),
    ("#[vtable]\n", ""),
    // A borrow cannot be copied here.
    ("(found.sock, found.conn)", "(found.sock, found.conn.clone())"),
    ("hand_to_current(this)", "hand_to_current(this.clone())"),
    (
        "pub trait Carrier: Send + Sync + Sized + 'static {\n",
        "pub trait Carrier: Send + Sync + Sized + 'static {\n    const HAS_HAS_REMOTE_CID: bool = false;\n    type OwnerModule;\n",
    ),
];

/// A mistake: its name, the file, what was there, and what is there instead.
type Mistake = (&'static str, &'static str, &'static str, &'static str);

include!("mistakes.rs");

/// Replaces paths that begin with `from`.
fn paths(text: &str, from: &str, to: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        out.push_str(if in_word { from } else { to });
        rest = &after[from.len()..];
    }
    out + rest
}

/// A source, with the mistakes that are to be in it.
fn source(from: &str, file: &str, name: &str, mistakes: &[Mistake]) -> String {
    let source = format!("{from}/{file}.rs");
    println!("cargo::rerun-if-changed={source}");
    let mut text = fs::read_to_string(&source).unwrap();
    for (_, _, old, new) in mistakes.iter().filter(|(_, place, ..)| *place == file) {
        let count = text.matches(old).count();
        assert_eq!(
            count, 1,
            "{source} has what mistake '{name}' replaces: {old}"
        );
        text = text.replace(old, new);
    }
    text
}

fn conns(name: &str, mistakes: &[Mistake], out: &Path) -> String {
    variant(&CONNS, name, mistakes, out)
}

fn kicks(name: &str, mistakes: &[Mistake], out: &Path) -> String {
    // It is beside those of connections.
    let name = if name == "real" { "kicks" } else { name };
    variant(&KICKS, name, mistakes, out)
}

fn variant(subject: &Subject, name: &str, mistakes: &[Mistake], out: &Path) -> String {
    let dir = out.join(name);
    fs::create_dir_all(&dir).unwrap();
    let mut module = format!("pub mod {name} {{\n");
    let tree = subject.real.iter().map(|file| (subject.sources, file));
    let parts = subject.parts.iter().map(|file| (subject.place, file));
    for (from, file) in tree.chain(parts) {
        let mut text = source(from, file, name, mistakes);
        for (old, new) in REWRITTEN {
            text = text.replace(old, new);
        }
        let text = paths(&text, "crate::", &format!("crate::variants::{name}::"));
        let text = paths(&text, "kernel::", "crate::kernel::");
        let text = paths(&text, "kernel_ext::", "crate::kernel_ext::");
        let path = dir.join(format!("{file}.rs"));
        fs::write(&path, text).unwrap();
        writeln!(module, "    #[path = {path:?}]\n    pub mod {file};").unwrap();
    }
    module + subject.root + "}\n"
}

/// Where the sources of windows are.
const WINDOWS: &str = "../../../rust/kernel_ext/window";

/// As [`variant()`], of windows.
fn windows(name: &str, mistakes: &[Mistake], out: &Path) -> String {
    let dir = out.join(format!("windows_{name}"));
    fs::create_dir_all(&dir).unwrap();
    let mut module = format!("pub mod {name} {{\n");
    let tree = ["pages", "shared", "table"].map(|file| (WINDOWS, file));
    let parts = ["current", "model", "notifier"].map(|file| ("src/windows", file));
    for (from, file) in tree.into_iter().chain(parts) {
        let mut text = source(from, file, name, mistakes);
        for (old, new) in REWRITTEN {
            text = text.replace(old, new);
        }
        let text = paths(&text, "crate::", "crate::kernel_ext::");
        let text = paths(&text, "kernel::", "crate::kernel::");
        let path = dir.join(format!("{file}.rs"));
        fs::write(&path, text).unwrap();
        writeln!(module, "    #[path = {path:?}]\n    pub mod {file};").unwrap();
    }
    module + "}\n"
}

/// What ends a run.
fn end_of_run(chain: &str) -> String {
    let [first, last] = RUN_ENDS;
    let from = chain.find(first).unwrap();
    let len = chain[from..].find(last).unwrap() + last.len();
    let end = &chain[from..from + len];
    format!("use super::vhost::*;\n\nimpl<M: Reach> Active<'_, M> {{\n{end}}}\n")
}

/// As [`variant()`], of who waits and the work that looks for them.
fn watches(name: &str, mistakes: &[Mistake], out: &Path) -> String {
    let dir = out.join("watches").join(name);
    fs::create_dir_all(&dir).unwrap();
    let mut module = format!("pub mod {name} {{\n");
    for (from, file) in [(CONNS.sources, "armed"), ("src/watches", "model")] {
        let text = source(from, file, name, mistakes);
        let text = paths(&text, "kernel::", "crate::watches::kernel::");
        let text = paths(&text, "kernel_ext::", "crate::watches::kernel::");
        let path = dir.join(format!("{file}.rs"));
        fs::write(&path, text).unwrap();
        writeln!(module, "    #[path = {path:?}]\n    pub mod {file};").unwrap();
    }
    module + "}\n"
}

/// As [`variant()`], of the sources of the direction to the guest.
fn ring_variant(name: &str, mistakes: &[Mistake], out: &Path) -> String {
    let dir = out.join("ring").join(name);
    fs::create_dir_all(&dir).unwrap();
    let mut module = format!("pub mod {name} {{\n");
    for (from, file) in RING {
        let text = source(from, file, name, mistakes);
        let text = if file == "chain" {
            end_of_run(&text)
        } else if from == RING_SOURCES {
            RING_PATHS
                .iter()
                .fold(text, |text, (old, new)| paths(&text, old, new))
        } else {
            text
        };
        let path = dir.join(format!("{file}.rs"));
        fs::write(&path, text).unwrap();
        writeln!(module, "    #[path = {path:?}]\n    pub mod {file};").unwrap();
    }
    module + "    pub(crate) use device::params;\n}\n"
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=mistakes.rs");
    let out = env::var("OUT_DIR").unwrap();
    let out = Path::new(&out);
    let real = variants(MISTAKES, conns, out) + &variants(KICK_MISTAKES, kicks, out);
    let all = [
        ("variants.rs", real),
        ("windows.rs", variants(WINDOW_MISTAKES, windows, out)),
        ("rings.rs", variants(RING_MISTAKES, ring_variant, out)),
        ("watches.rs", variants(WATCH_MISTAKES, watches, out)),
    ];
    for (file, modules) in all {
        fs::write(out.join(file), modules).unwrap();
    }
}

/// The sources as they are, and with each of the mistakes.
fn variants(
    mistakes: &[Mistake],
    make: fn(&str, &[Mistake], &Path) -> String,
    out: &Path,
) -> String {
    let mut names: Vec<_> = mistakes.iter().map(|(name, ..)| *name).collect();
    names.dedup();
    let mut modules = make("real", &[], out);
    for name in names {
        let of: Vec<_> = mistakes.iter().filter(|m| m.0 == name).copied().collect();
        modules += &make(name, &of, out);
    }
    modules
}
