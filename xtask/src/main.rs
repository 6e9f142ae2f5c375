//! The project's own commands: `cargo xtask --help`.

mod bench;
mod demo;
mod fuzz_frames;
mod image;
mod lab;
mod provenance;
mod scenarios;
mod setup;
mod steps;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs the Debian packages that are missing and fetches the lab's kernel
    Setup,
    /// Boots Debian under Kagero in the lab, from a target on another machine, and says how long each phase took
    Demo(demo::Options),
    /// Checks and tests everything, one step after the other
    Test(test::Options),
    /// A shell, or one command, in the lab's machine L1
    Lab(lab::Options),
    /// Measures: `bench target` vblade and ours side by side, `bench limits` the machine itself; `bench target --help`
    Bench(bench::Options),
    /// Sends many frames, most of them nearly right, to a whole server in memory, and sees what it keeps of them
    FuzzFrames(fuzz_frames::Options),
    /// Makes guest images
    #[command(subcommand)]
    Image(image::Kind),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Setup => setup::setup().map(|()| ExitCode::SUCCESS),
        Task::Demo(options) => demo::demo(&options),
        Task::Test(options) => test::test(&options),
        Task::Lab(options) => lab::lab(&options),
        Task::Bench(options) => bench::bench(&options),
        Task::FuzzFrames(options) => fuzz_frames::fuzz_frames(&options),
        Task::Image(kind) => image::image(&kind).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::FAILURE
    })
}
