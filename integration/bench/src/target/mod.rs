//! `cargo xtask bench target`: vblade and `kagero serve` side by side.

mod group;
mod measure;

use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

use crate::done;
use crate::load::Pattern;
use crate::plot::plot;
use crate::report::{Case, Report};
use crate::{load_average, machine};
use group::{Group, cases, groups};
use measure::measure;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Fewer groups and windows, shorter slices, three rounds: about five minutes
    #[arg(long)]
    quick: bool,
    /// Only the cases whose name contains this; a name is like mtu9000/tmpfs/1/random/16
    #[arg(long, value_name = "PATTERN", default_value = "")]
    only: String,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot of each group into this folder
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    plots: PathBuf,
    /// Disks in the groups with many
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u8).range(2..=200))]
    exports: u8,
    /// How often each case is measured on each server (an odd number has a true median)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// How often the servers take turns in a round
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    slices: Option<u16>,
    /// How long one turn takes, in milliseconds
    #[arg(long, value_name = "TIME", value_parser = clap::value_parser!(u64).range(10..))]
    milliseconds: Option<u64>,
    /// Fail unless every demand was measured and met
    #[arg(long)]
    require: bool,
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/kagero")]
    kagero: PathBuf,
    /// A folder on a disk for images, not on tmpfs
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    disk: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let groups: Vec<(Group, Vec<(Pattern, Case)>)> = groups(options)
        .into_iter()
        .map(|group| (group, cases(group, options)))
        .filter(|(_, cases)| !cases.is_empty())
        .collect();
    ensure!(!groups.is_empty(), "no case's name contains {:?}; see --list", options.only);
    if options.list {
        groups.iter().flat_map(|(_, cases)| cases).for_each(|(_, case)| println!("{}", case.name()));
        return Ok(());
    }
    std::fs::create_dir_all(&options.plots).with_context(|| format!("{}", options.plots.display()))?;
    std::fs::create_dir_all(&options.disk).with_context(|| format!("{}", options.disk.display()))?;
    let (kernel, processors) = machine();
    let (rounds, slices, milliseconds) = if options.quick { (3, 2, 100) } else { (5, 3, 150) };
    let mut report = Report {
        kernel,
        processors,
        load_before: load_average(),
        rounds: options.rounds.unwrap_or(rounds).into(),
        slices: options.slices.unwrap_or(slices).into(),
        milliseconds: options.milliseconds.unwrap_or(milliseconds),
        ..Report::default()
    };
    println!(
        "kernel {}, {processors} processors, load average {:.1}; {} rounds, in each {} turns of {} ms; median (min..max)\n",
        report.kernel, report.load_before, report.rounds, report.slices, report.milliseconds
    );
    let cases: usize = groups.iter().map(|(_, cases)| cases.len()).sum();
    let mut progress = Progress::new(cases * report.rounds);
    for (group, cases) in groups {
        let before = report.cases.len();
        measure(group, cases, options, &mut report, |case| progress.next(case))
            .with_context(|| group.name())?;
        let file = options.plots.join(format!("{}.svg", group.name().replace('/', "-")));
        plot(&group.name(), &report.cases[before..].iter().collect::<Vec<_>>(), &file)?;
        println!("plot: {}\n", file.display());
    }
    report.load_after = load_average();
    report.done = done::lines(&report, options.exports.into());
    finish(&report, options)
}

/// Prints what there is to say at the end.
fn finish(report: &Report, options: &Options) -> Result<()> {
    println!("Memory after the load: now; at its peak, with what was mapped of the page cache; in MB");
    for memory in report.memory.iter().filter(|memory| memory.server.starts_with("kagero")) {
        let megabytes = |bytes| bytes as f64 / 1e6;
        let (now, peak) = (megabytes(memory.resident.now), megabytes(memory.resident.peak));
        println!("{:<40}{:<12}{now:>8.1}{peak:>8.1}", memory.group, memory.server);
    }
    println!("\n{}", done::table(&report.done, &report.cases));
    report.notes.iter().for_each(|note| println!("{note}"));
    println!("load average {:.1} before, {:.1} after", report.load_before, report.load_after);
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(report)?)
            .with_context(|| format!("{}", file.display()))?;
    }
    let unmet = report.done.iter().filter(|line| line.passed != Some(true)).count();
    ensure!(!options.require || unmet == 0, "{unmet} of {} demands are not met", report.done.len());
    Ok(())
}

/// Says how far a run has come.
struct Progress {
    start: Instant,
    done: usize,
    all: usize,
}

impl Progress {
    fn new(all: usize) -> Self {
        Progress { start: Instant::now(), done: 0, all }
    }

    /// To standard error, so that the results can be kept without it.
    fn next(&mut self, case: &Case) {
        let passed = self.start.elapsed().as_secs_f64() / 60.0;
        let left = match self.done {
            0 => String::new(),
            done => format!(", about {:.1} left", passed / done as f64 * (self.all - done) as f64),
        };
        self.done += 1;
        eprintln!("[{}/{}] {}; {passed:.1} minutes passed{left}", self.done, self.all, case.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn names_choose_cases() {
        let names = |line: &str| -> Vec<String> {
            let options = Line::parse_from(line.split(' ')).options;
            let cases = groups(&options).into_iter().flat_map(|group| cases(group, &options));
            cases.map(|(_, case)| case.name()).collect()
        };
        assert_eq!(names("bench").len(), 9 * 6);
        assert_eq!(names("bench --only mtu9000/tmpfs/1/random/16"), ["mtu9000/tmpfs/1/random/16"]);
        assert_eq!(names("bench --exports 50 --only /50/random").len(), 2 * 3);
        assert_eq!(names("bench --only overlays/100/random/64").len(), 1);
        assert_eq!(names("bench --quick").len(), 5 * 4);
        assert!(names("bench --only nothing").is_empty());
    }

    #[test]
    fn a_quick_run_measures_every_demand() {
        let options = Line::parse_from(["bench", "--quick"]).options;
        let cases = groups(&options).into_iter().flat_map(|group| cases(group, &options));
        let names: Vec<String> = cases.map(|(_, case)| case.name()).collect();
        for name in done::CASES {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
    }
}
