// SPDX-License-Identifier: GPL-2.0

//! Carries out the commands and prints what comes of them.

use crate::{
    cli::{Arguments, Command, Format},
    connections::{self, Connection},
    doctor,
    error::Error,
    fdinfo::Traffic,
    guests::{self, Guest},
    limit, modules, prometheus,
    sockets::{self, SocketInfo},
    switch::{self, Done},
    table, top,
};
use serde::Serialize;
use std::{
    io::{stdout, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

/// Whether to print JSON.
fn json(format: Format) -> bool {
    match format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !stdout().is_terminal(),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Error> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn traffic(value: Option<Traffic>) -> [String; 2] {
    [
        or_dash(value.map(|traffic| traffic.packets)),
        or_dash(value.map(|traffic| table::bytes(traffic.bytes))),
    ]
}

fn print_guests(guests: &[Guest]) {
    let titles = [
        "CID", "PID", "PROGRAM", "STATE", "TO", "BYTES", "FROM", "BYTES", "QUEUED", "NETNS",
    ];
    let rows: Vec<Vec<String>> = guests
        .iter()
        .map(|guest| {
            let device = &guest.device;
            let cid = match device.cid {
                Some(0) => "none".into(),
                cid => or_dash(cid),
            };
            let mut row = vec![
                cid,
                guest.pid.to_string(),
                guest.program.clone(),
                or_dash(device.state.clone()),
            ];
            row.extend(traffic(device.to_guest));
            row.extend(traffic(device.from_guest));
            row.push(or_dash(device.queued_packets));
            row.push(or_dash(device.netns));
            row
        })
        .collect();
    table::print(&titles, &rows);
}

fn print_connections(connections: &[Connection]) {
    let rows: Vec<Vec<String>> = connections
        .iter()
        .map(|connection| {
            let bytes = [connection.received, connection.sent].map(table::bytes);
            top::columns(connection, bytes)
        })
        .collect();
    let titles = [
        "TRANSPORT",
        "TYPE",
        "STATE",
        "LOCAL",
        "PEER",
        "RECEIVED",
        "SENT",
        "UNREAD",
        "IN FLIGHT",
        "UNSENT",
        "BLOCKED",
        "IDLE",
    ];
    table::print(&titles, &rows);
}

fn print_sockets(sockets: &[SocketInfo]) {
    let rows: Vec<Vec<String>> = sockets
        .iter()
        .map(|socket| {
            vec![
                socket.kind.into(),
                socket.state.into(),
                table::address(socket.local),
                table::address(socket.peer),
                or_dash(socket.pid),
                or_dash(socket.program.clone()),
            ]
        })
        .collect();
    table::print(&["TYPE", "STATE", "LOCAL", "PEER", "PID", "PROGRAM"], &rows);
}

/// What is missing, told once.
fn hint(guests: &[Guest]) {
    if guests.iter().any(|guest| guest.device.state.is_none()) {
        eprintln!(
            "vsockctl: the C module does not say which CID a descriptor has, nor what it did"
        );
    }
    if !crate::processes::is_root() {
        eprintln!("vsockctl: only root sees the guests of all users");
    }
}

/// Carries out what the command line says; the result is the exit status.
///
/// # Errors
///
/// A sentence for the user.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let json = json(arguments.format);
    let status = |ok: bool| {
        if ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    };
    match &arguments.command {
        Command::List {
            connections: true, ..
        } => {
            let found = connections::list()?;
            if json {
                print_json(&found)?;
            } else {
                print_connections(&found);
            }
        }
        Command::Top {
            interval,
            samples,
            count,
        } => {
            let samples = samples.or(json.then_some(1));
            top::run(Duration::from_secs_f64(*interval), samples, *count, json)?;
        }
        Command::List { sockets: true, .. } => {
            let found = sockets::list()?;
            if json {
                print_json(&found)?;
            } else {
                print_sockets(&found);
            }
        }
        Command::List { sockets: false, .. } => {
            let found = guests::list();
            hint(&found);
            if json {
                print_json(&found)?;
            } else {
                print_guests(&found);
            }
        }
        Command::Who { cid } => {
            let found: Vec<Guest> = guests::list()
                .into_iter()
                .filter(|guest| guest.device.cid == Some(*cid))
                .collect();
            if json {
                print_json(&found)?;
            } else if found.is_empty() {
                hint(&guests::list());
                eprintln!("vsockctl: no process that is seen here has CID {cid}");
            } else {
                print_guests(&found);
            }
            return Ok(status(!found.is_empty()));
        }
        Command::Stats { prometheus: true } => print!("{}", prometheus::render(&guests::list())),
        Command::Stats { prometheus: false } => {
            let found = guests::list();
            if json {
                print_json(&found)?;
            } else {
                print_guests(&found);
            }
        }
        Command::Modules => {
            let found = modules::list();
            if json {
                print_json(&found)?;
            } else {
                print_modules(&found);
            }
        }
        Command::Doctor { cid } => {
            let findings = doctor::examine(*cid);
            if json {
                print_json(&findings)?;
            } else {
                doctor::print(&findings);
            }
            return Ok(status(findings.is_empty()));
        }
        Command::Limit { cid, limits } => {
            let found = limit::limit(*cid, limits)?;
            if json {
                print_json(&found)?;
            } else {
                limit::print(&found);
            }
        }
        Command::Use { stack, next_boot } => match switch::change(*stack, *next_boot)? {
            Done::Nothing => println!("the {} modules are used already", stack.name()),
            Done::Now => println!("the {} modules are used from now on", stack.name()),
            Done::AtNextBoot { why } => {
                println!(
                    "the {} modules are used from the next boot on, not now: {why}",
                    stack.name()
                );
            }
        },
        Command::ApplyPending => switch::apply_pending()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_modules(found: &[modules::Module]) {
    let describe = |stack: &str, version: &Option<String>| match version {
        Some(version) => format!("{stack} {version}"),
        None => stack.to_owned(),
    };
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|module| {
            let loaded = module.loaded.as_ref();
            let installed = module.installed.as_ref();
            vec![
                module.name.into(),
                or_dash(loaded.map(|loaded| describe(loaded.stack, &loaded.version))),
                or_dash(loaded.map(|loaded| loaded.users)),
                or_dash(installed.map(|installed| describe(installed.stack, &installed.version))),
                or_dash(installed.map(|installed| installed.path.clone())),
            ]
        })
        .collect();
    table::print(&["MODULE", "LOADED", "USERS", "INSTALLED", "PATH"], &rows);
    if let Some(stack) = switch::pending() {
        println!("from the next boot on: {}", stack.name());
    }
}
