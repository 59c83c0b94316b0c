// SPDX-License-Identifier: GPL-2.0

//! Makes the man pages and the completions of the command line, below `$VSOCKCTL_OUT` if that is
//! set.

use clap::CommandFactory as _;
use std::{env, error::Error, fs, path::PathBuf};

#[allow(dead_code)]
#[path = "src/cli.rs"]
mod cli;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/cli.rs");
    println!("cargo::rerun-if-env-changed=VSOCKCTL_OUT");
    let Some(out) = env::var_os("VSOCKCTL_OUT").map(PathBuf::from) else {
        return Ok(());
    };
    // What is not there is made, also if nothing else changed.
    println!(
        "cargo::rerun-if-changed={}",
        out.join("man/vsockctl.1").display()
    );
    let mut command = cli::Arguments::command();
    fs::create_dir_all(out.join("man"))?;
    clap_mangen::generate_to(command.clone(), out.join("man"))?;
    fs::create_dir_all(out.join("completions"))?;
    for shell in [
        clap_complete::Shell::Bash,
        clap_complete::Shell::Zsh,
        clap_complete::Shell::Fish,
    ] {
        clap_complete::generate_to(shell, &mut command, "vsockctl", out.join("completions"))?;
    }
    Ok(())
}
