//! The command line: flags and configuration files become what `config` describes, and what comes of it becomes an exit code.

mod devices;
mod discover;
mod image;
mod run;
mod serve;
mod target;
mod usage;

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use serde::de::DeserializeOwned;

pub use devices::DevicesOptions;
pub use discover::DiscoverOptions;
pub use image::ImageOptions;
pub use run::RunOptions;
pub use serve::ServeOptions;
pub use target::{TargetCommand, TargetOptions};

use crate::error::Error;

/// Boots an unmodified operating system on a machine whose disk is elsewhere.
#[derive(Debug, Parser)]
#[command(name = "kagero", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// Say more; twice for every detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a guest
    #[command(after_help = run::EXAMPLES)]
    Run(Box<RunOptions>),
    /// Serve disk images as AoE targets
    #[command(after_help = serve::EXAMPLES)]
    Serve(ServeOptions),
    /// Look at a server that runs, and change what it serves
    #[command(after_help = target::EXAMPLES)]
    Target(TargetOptions),
    /// List the AoE targets on a network
    #[command(after_help = discover::EXAMPLES)]
    Discover(DiscoverOptions),
    /// List this host's PCI functions, and which of them a guest could get
    #[command(after_help = devices::EXAMPLES)]
    Devices(DevicesOptions),
    /// Look at disk images; move what overlays hold
    #[command(after_help = image::EXAMPLES)]
    Image(ImageOptions),
}

const EXAMPLES: &str = "\
Examples:
  kagero run --disk debian.img                     boot an image that lies on this host
  kagero serve --interface eth1 7.1=debian.img     offer it to the machines on a network
  kagero run --disk aoe:7.1 --interface eth1       boot it from one of them
  kagero target list                               what does the server here offer, and to whom?
  kagero discover --interface eth1                 what is offered here?

The environment variable KAGERO_LOG filters the log, as KAGERO_LOG=debug or KAGERO_LOG=kagero::storage=trace,info.";

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run_with(std::env::args_os()))
}

/// The whole program, with `arguments` (the first is the program's name); gives the exit code.
pub fn run_with(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error, &arguments),
    };
    let result = match cli.command {
        Command::Run(options) => options.execute(cli.verbose, cli.quiet),
        Command::Serve(options) => options.execute(cli.verbose, cli.quiet),
        Command::Target(options) => options.execute(cli.verbose, cli.quiet),
        Command::Discover(options) => options.execute(cli.verbose, cli.quiet),
        Command::Devices(options) => options.execute(cli.verbose, cli.quiet),
        Command::Image(options) => options.execute(cli.verbose, cli.quiet),
    };
    result.unwrap_or_else(|error| complain(&error))
}

/// Says what went wrong, in one line.
fn complain(error: &Error) -> u8 {
    crate::log::say(format_args!("kagero: {error}\n"));
    error.exit_code()
}

/// Prints what a command was asked to find out.
fn print(text: &str) -> Result<(), Error> {
    match stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("standard output")?),
    }
}

/// Reads the configuration file of a subcommand. Its keys are the long names of the flags, by construction: both fill the same struct.
fn load<T: DeserializeOwned>(path: &Path, command: &str) -> Result<T, crate::error::UserError> {
    crate::config::file::load(path, &known_keys(command))
}

fn known_keys(command: &str) -> Vec<String> {
    let cli = Cli::command();
    let arguments = cli.find_subcommand(command).into_iter().flat_map(clap::Command::get_arguments);
    let flags = arguments.filter_map(|argument| match argument.get_id().as_str() {
        // The one positional argument, by the name it has as a flag elsewhere.
        "exports" => Some("export"),
        _ => argument.get_long(),
    });
    flags.filter(|flag| *flag != "config").chain(["verbose", "quiet"]).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
