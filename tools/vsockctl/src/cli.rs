// SPDX-License-Identifier: GPL-2.0

//! The commands and their options. `build.rs` makes the man pages and completions of this file, so it
//! uses nothing of the others.

use clap::{Parser, Subcommand, ValueEnum};

/// Shows and changes what the virtio-vsock stack of this machine does.
///
/// Works with the Rust modules, and with the C ones as far as these tell anything.
#[derive(Debug, Parser)]
#[command(name = "vsockctl", version, propagate_version = true)]
pub struct Arguments {
    /// How to print: for people, or as JSON for programs.
    ///
    /// By default JSON if the output is not a terminal.
    #[arg(long, value_enum, default_value_t = Format::Auto, global = true)]
    pub format: Format,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Auto,
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists the guests of this host: the open descriptors of /dev/vhost-vsock.
    ///
    /// As root, to see those of all users. The C module does not say which CID a descriptor has.
    List {
        /// List the vsock sockets of this network namespace instead.
        #[arg(long)]
        sockets: bool,
        /// List the connections of all network namespaces instead, and what each waits for.
        ///
        /// Only with the Rust modules, as root, and with debugfs.
        #[arg(long, conflicts_with = "sockets")]
        connections: bool,
    },
    /// Shows the busiest connections, again and again.
    ///
    /// On a terminal until it is interrupted; as JSON, a line for each look. Only with the Rust modules,
    /// as root, and with debugfs.
    Top {
        /// Seconds between two looks.
        #[arg(long, default_value_t = 1.0, value_parser = seconds)]
        interval: f64,
        /// How often to look; by default 1 if the output is not a terminal.
        #[arg(long)]
        samples: Option<u64>,
        /// How many connections to show.
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// Says which process has a CID.
    ///
    /// The status is 1 if none has it.
    Who {
        /// The context ID of a guest.
        cid: u64,
    },
    /// Prints the counters of all guests.
    Stats {
        /// Print them for the textfile collector of Prometheus' node_exporter.
        #[arg(long)]
        prometheus: bool,
    },
    /// Says which modules are loaded, and which would be.
    Modules,
    /// Looks for usual mistakes; each is told with a command that helps.
    ///
    /// The status is 1 if there is one.
    Doctor {
        /// The CID that a guest should get: says what has it.
        #[arg(long)]
        cid: Option<u64>,
    },
    /// Changes between the Rust and the C modules.
    ///
    /// At once if no socket and no guest uses them, at the next boot otherwise.
    Use {
        /// Which ones.
        #[arg(value_enum)]
        stack: Stack,
        /// Only from the next boot on, even if they could be changed now.
        #[arg(long)]
        next_boot: bool,
    },
    /// Carries out what `use` left for the next boot; for the system's shutdown.
    #[command(hide = true)]
    ApplyPending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stack {
    /// Those of this package.
    Rust,
    /// Those of the kernel's package.
    C,
}

/// An interval that is worth waiting for.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.01..=86_400.0).contains(&value) => Ok(value),
        _ => Err("a number from 0.01 to 86400 is needed".into()),
    }
}
