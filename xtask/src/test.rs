//! `cargo xtask test`.

use crate::steps::Steps;
use crate::{image, provenance, scenarios, setup};
use anyhow::{Result, ensure};
use clap::Args;
use kagero_images::command::command;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// More than any step takes on two slow processors from nothing.
const BUILD_PATIENCE: Duration = Duration::from_secs(20 * 60);
/// No scenario takes longer; what hangs is killed and tried again.
const SCENARIO_PATIENCE: Duration = Duration::from_secs(8 * 60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out what needs packages, images or the lab
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Only the lab's scenarios whose name contains this, and what they need
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// List the lab's scenarios
    #[arg(long)]
    list: bool,
    /// How often a scenario that fails is tried again; retries are counted and reported
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    retries: u64,
}

pub(crate) fn test(options: &Options) -> Result<ExitCode> {
    if options.list {
        for scenario in scenarios::find()? {
            println!("{}: {}", scenario.file, scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut steps = Steps::default();
    if options.only.is_none() {
        checks(&mut steps, options.quick);
    }
    if !options.quick {
        lab(&mut steps, options)?;
    }
    Ok(if steps.summary() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(words: &str) -> Command {
    command(std::iter::once(env!("CARGO")).chain(words.split_whitespace()))
}

fn checks(steps: &mut Steps, quick: bool) {
    if !quick {
        steps.call("set-up", setup::setup);
    }
    steps.call("licences", provenance::licences);
    steps.call("no paths of a machine", provenance::paths);
    steps.run("cargo fmt", cargo("fmt --all --check"), BUILD_PATIENCE);
    steps.run("cargo clippy", cargo("clippy --workspace --all-targets -- -D warnings"), BUILD_PATIENCE);
    let mut doc = cargo("doc --workspace --no-deps");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    steps.run("cargo doc", doc, BUILD_PATIENCE);
    steps.run("cargo test", cargo("test --workspace --no-fail-fast"), BUILD_PATIENCE);
}

fn lab(steps: &mut Steps, options: &Options) -> Result<()> {
    if options.only.is_some() {
        setup::setup()?;
    }
    steps.run("build kagero", cargo("build --release --package kagero"), BUILD_PATIENCE);
    steps.call("Debian image", || image::debian(&Default::default(), false));
    let mut scenarios = Vec::new();
    steps.call("build the scenarios", || {
        scenarios = scenarios::find()?;
        Ok(())
    });
    if let Some(part) = &options.only {
        scenarios.retain(|scenario| scenario.name.contains(part.as_str()));
        ensure!(!scenarios.is_empty(), "no scenario's name contains {part:?}; see `cargo xtask test --list`");
    }
    for scenario in &scenarios {
        let name = format!("{}: {}", scenario.file, scenario.name);
        steps.run_with_retries(&name, || scenario.command(), SCENARIO_PATIENCE, options.retries);
    }
    Ok(())
}
