//! `cargo xtask bench`: builds Kagero and the program that measures, and hands over to it.

use anyhow::{Result, ensure};
use clap::Args;
use kagero_images::command::command;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// `target` or `limits`, and their options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub(crate) fn bench(options: &Options) -> Result<ExitCode> {
    let cargo = env!("CARGO");
    let packages = ["--package", "kagero", "--package", "kagero-bench"];
    let built = command([cargo, "build", "--quiet", "--release"]).args(packages).status()?;
    ensure!(built.success(), "building Kagero failed");
    let ran = command(["target/release/kagero-bench"]).args(&options.arguments).status()?;
    Ok(if ran.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
