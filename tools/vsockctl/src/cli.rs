// SPDX-License-Identifier: GPL-2.0

//! The commands and their options. `build.rs` makes the man pages and completions of this file, so
//! it uses nothing of the others.

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// On a terminal until it is interrupted; as JSON, a line for each look. Only with the Rust
    /// modules, as root, and with debugfs.
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
    /// Shows what a guest may do, or limits it.
    ///
    /// The VMM need not know, and who is connected stays so. What is not named stays as it is. As
    /// root; others may limit their own guests, and not take that back. Only with the Rust modules.
    Limit {
        /// The context ID of the guest.
        cid: u64,
        #[command(flatten)]
        limits: Limits,
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

/// What `limit` can change.
#[derive(Clone, Debug, Default, Args)]
pub struct Limits {
    /// Most connections with the guest; 0 for any number.
    #[arg(long, value_name = "NUMBER")]
    pub connections: Option<u32>,
    /// Ports of the host that the guest may connect to, as 22,1024-2000; or all, or none.
    #[arg(long, value_parser = ranges)]
    pub ports: Option<Ranges>,
    /// Users, by number, who may connect to the guest, as 0,1000; or all, or none.
    #[arg(long, value_parser = ranges)]
    pub users: Option<Ranges>,
    /// Bytes in a second to the guest, those of headers included, as 10M or 512k; 0 for any number.
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    pub rate_to_guest: Option<u64>,
    /// Bytes in a second from the guest.
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    pub rate_from_guest: Option<u64>,
    /// Packets in a second to the guest; 0 for any number.
    #[arg(long, value_name = "NUMBER", value_parser = amount)]
    pub packets_to_guest: Option<u64>,
    /// Packets in a second from the guest.
    #[arg(long, value_name = "NUMBER", value_parser = amount)]
    pub packets_from_guest: Option<u64>,
    /// How much may come at once after a pause: what the rates allow in so many milliseconds, 100
    /// if nothing else was said.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub burst: Option<u32>,
    /// Nobody, root included, allows the guest anything more as long as it runs.
    #[arg(long)]
    pub lock: bool,
    /// The process that has the guest, if guests of several network namespaces have the context ID.
    #[arg(long)]
    pub pid: Option<u32>,
}

/// Numbers from the first to the last one of each, or all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    All,
    Only(Vec<[u32; 2]>),
}

fn ranges(text: &str) -> Result<Ranges, String> {
    match text {
        "all" => return Ok(Ranges::All),
        "none" => return Ok(Ranges::Only(Vec::new())),
        _ => (),
    }
    let number = |text: &str| {
        let number = text.parse::<u32>();
        number.map_err(|_| format!("'{text}' is no number of 32 bits"))
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = [number(first)?, number(last)?];
        if range[0] > range[1] {
            return Err(format!("{text} ends before it begins"));
        }
        Ok(range)
    };
    let ranges = text.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
    if ranges.len() > 64 {
        return Err("there may be 64 of them".into());
    }
    Ok(Ranges::Only(ranges))
}

/// A number, with k, M or G for powers of 1000, or Ki, Mi, Gi for those of 1024.
fn amount(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => return Err(format!("'{other}' is none of k, M, G, Ki, Mi, Gi")),
    };
    let number: u64 = digits.parse().map_err(|_| "a number is needed")?;
    number.checked_mul(factor).ok_or("that is too much".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(amount("0"), Ok(0));
        assert_eq!(amount("10M"), Ok(10_000_000));
        assert_eq!(amount("64Ki"), Ok(65536));
        for wrong in ["", "M", "1T", "-1", "1.5M", "99999999999G"] {
            assert!(amount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_ranges() {
        assert_eq!(ranges("all"), Ok(Ranges::All));
        assert_eq!(ranges("none"), Ok(Ranges::Only(Vec::new())));
        let some = Ranges::Only(vec![[22, 22], [1024, 2000]]);
        assert_eq!(ranges("22,1024-2000"), Ok(some));
        for wrong in ["", "2-1", "a", "1,,2", "-1", "4294967296"] {
            assert!(ranges(wrong).is_err(), "{wrong}");
        }
    }
}
