//! Measures the AoE target beside vblade, and what the machine itself can do: `cargo xtask bench --help`.

mod contender;
mod done;
mod fio;
mod limits;
mod load;
mod null;
mod plot;
mod report;
mod sample;
mod server;
mod target;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", about = "Measures", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// vblade and `kagero serve` side by side
    Target(target::Options),
    /// What the machine itself can do: frames through sockets, reads of files
    Limits(limits::Options),
    /// The load generator, in a process of its own
    #[command(hide = true)]
    Load(load::Options),
    /// The null target, in a process of its own
    #[command(hide = true)]
    Null(null::Options),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().task {
        Task::Target(options) => target::run(&options),
        Task::Limits(options) => limits::run(&options),
        Task::Load(options) => load::run(&options),
        Task::Null(options) => null::run(&options),
    }
}

/// The kernel's version and how many processors there are: what a figure needs beside it.
fn machine() -> (String, usize) {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    // Only the numbers: what follows is a name that somebody gave.
    let version = kernel.split('-').next().unwrap_or_default().to_owned();
    (version, std::thread::available_parallelism().map_or(1, usize::from))
}

/// The load average of the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}
