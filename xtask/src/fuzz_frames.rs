//! `cargo xtask fuzz-frames`: many frames from anyone at a whole server.

use anyhow::Result;
use clap::Args;
use kagero_images::command::command;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many frames
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,
}

pub(crate) fn fuzz_frames(options: &Options) -> Result<ExitCode> {
    let test = ["--release", "--package", "kagero-target", "--test", "fuzz_frames"];
    let only = ["--", "--ignored", "--nocapture", "as_many_frames_as_asked_for"];
    let mut cargo = command([env!("CARGO"), "test", "--quiet"]);
    let ran = cargo.args(test).args(only).env("KAGERO_FUZZ_FRAMES", options.count.to_string()).status()?;
    Ok(if ran.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
