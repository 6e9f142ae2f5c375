//! `cargo xtask demo`.

use crate::{image, setup};
use anyhow::{Context, Result, ensure};
use clap::Args;
use kagero_images::command::command;
use kagero_images::debian::Image;
use kagero_integration::machines::{TARGET, TwoMachines};
use kagero_integration::report::Report;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The guest's processors
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    cpus: u8,
    /// The MTU of the network between Kagero and the target
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u32,
    /// How long Debian may take to its login prompt, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

pub(crate) fn demo(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    let step = |what: &str| println!("[{:6.1} s] {what}", started.elapsed().as_secs_f64());
    step("set-up: Debian packages and the lab's kernel");
    setup::setup()?;
    step("building Kagero");
    let built = command([env!("CARGO"), "build", "--quiet", "--release", "--package", "kagero"]).status()?;
    ensure!(built.success(), "building Kagero failed");
    step("Debian's disk image");
    let guest = Image::default();
    image::debian(&guest, false)?;
    step("starting the lab: a machine in software, and the target outside it");
    let machines = TwoMachines::start(&guest.output, options.mtu)?;
    step(&format!(
        "Kagero boots Debian in that machine (ready after {:.1} s) from target {TARGET}, its only disk",
        machines.l1.ready_in().as_secs_f64()
    ));

    let kagero = format!(
        "kagero run --disk aoe:{TARGET} --interface eth0 --cpus {} --expect 'login:' --timeout {}s --report /share/run.json",
        options.cpus, options.timeout
    );
    println!("\n$ {kagero}");
    let mut run = machines.l1.spawn(&format!("exec {kagero}"))?;
    // Kagero has its own time-out; this one is for when it hangs.
    let code = run.stream(&mut io::stdout(), Duration::from_secs(options.timeout + 30))?;
    println!("\n");
    ensure!(code == 0, "kagero ended with {code}: {}", run.stderr().last_lines());
    let report = Report::read(&machines.l1.share().join("run.json")).context("Kagero's report")?;
    print!("{}", report.phase_table());
    step("Debian is at its login prompt");
    machines.l1.power_off()?;
    Ok(ExitCode::SUCCESS)
}
