//! `cargo xtask bench target`: vblade and `kagero serve` side by side.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kagero_integration::network::Namespace;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::load::{Outcome, Pattern};
use crate::plot::plot;
use crate::report::{Case, Metric, Report};
use crate::server::{Bed, Kind, Server};
use crate::{load_average, machine};

/// Bytes of all images of a group together.
const BYTES: usize = 256 << 20;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Fewer groups, shorter runs, three rounds: under two minutes
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
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// How long one measurement takes, in milliseconds
    #[arg(long, value_name = "TIME")]
    milliseconds: Option<u64>,
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/kagero")]
    kagero: PathBuf,
    /// A folder on a disk for images, not on tmpfs
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    disk: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    Tmpfs,
    DiskCached,
    DiskDirect,
}

/// Servers that run at the same time, one at a time under load.
#[derive(Clone, Copy, Debug)]
struct Group {
    mtu: u32,
    storage: Storage,
    exports: usize,
}

impl Group {
    fn name(self) -> String {
        let storage = match self.storage {
            Storage::Tmpfs => "tmpfs",
            Storage::DiskCached => "disk-cached",
            Storage::DiskDirect => "disk-direct",
        };
        format!("mtu{}/{storage}/{}", self.mtu, self.exports)
    }

    /// Sectors of one image, a multiple of 4 KiB.
    fn sectors(self) -> u64 {
        (BYTES / self.exports / 4096 * 8) as u64
    }
}

fn groups(options: &Options) -> Vec<Group> {
    let mut groups = Vec::new();
    for mtu in [1500, 9000] {
        let group = |storage, exports| Group { mtu, storage, exports };
        groups.push(group(Storage::Tmpfs, 1));
        if !options.quick {
            groups.push(group(Storage::DiskCached, 1));
        }
        if !options.quick || mtu == 9000 {
            groups.push(group(Storage::DiskDirect, 1));
            groups.push(group(Storage::Tmpfs, options.exports.into()));
        }
    }
    groups
}

/// The cases of a group, without figures yet.
fn cases(group: Group, options: &Options) -> Vec<(Pattern, Case)> {
    let windows: &[usize] = if options.quick { &[1, 16] } else { &[1, 16, 64] };
    let mut cases = Vec::new();
    for pattern in [Pattern::Sequential, Pattern::Random] {
        for &window in windows {
            let case =
                Case { group: group.name(), pattern: pattern.name().into(), window, ..Case::default() };
            if case.name().contains(&options.only) {
                cases.push((pattern, case));
            }
        }
    }
    cases
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
    let mut report = Report {
        kernel,
        processors,
        load_before: load_average(),
        load_after: 0.0,
        rounds: options.rounds.unwrap_or(if options.quick { 3 } else { 5 }),
        milliseconds: options.milliseconds.unwrap_or(if options.quick { 250 } else { 1000 }),
        cases: Vec::new(),
    };
    println!(
        "kernel {}, {processors} processors, load average {:.1}; {} rounds of {} ms; median (min..max)\n",
        report.kernel, report.load_before, report.rounds, report.milliseconds
    );
    for (group, cases) in groups {
        let before = report.cases.len();
        measure(group, cases, options, &mut report).with_context(|| group.name())?;
        let file = options.plots.join(format!("{}.svg", group.name().replace('/', "-")));
        plot(&group.name(), &report.cases[before..].iter().collect::<Vec<_>>(), &file)?;
        println!("plot: {}\n", file.display());
    }
    report.load_after = load_average();
    println!("load average {:.1} before, {:.1} after", report.load_before, report.load_after);
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}

fn measure(group: Group, cases: Vec<(Pattern, Case)>, options: &Options, report: &mut Report) -> Result<()> {
    let on = if group.storage == Storage::Tmpfs { Path::new("/dev/shm") } else { &options.disk };
    let folder = tempfile::Builder::new().prefix("kagero-bench-").tempdir_in(on)?;
    let bed = Bed {
        client: Namespace::new()?,
        network: Namespace::new()?,
        mtu: group.mtu,
        images: make_images(group, folder.path())?,
        direct: group.storage == Storage::DiskDirect,
        kagero: &options.kagero,
        logs: folder.path(),
    };
    let kinds = [Kind::Vblade, Kind::Kagero, Kind::Null].into_iter();
    let able = kinds.filter(|kind| !bed.direct || kind.has_direct());
    let mut servers = able.map(|kind| Server::start(kind, &bed)).collect::<Result<Vec<_>>>()?;
    // Once without counting: the servers have started, and the cache is warm.
    for server in &mut servers {
        load(group, server, &bed.client, Pattern::Sequential, 16, 200)?;
    }
    for (pattern, mut case) in cases {
        for _ in 0..report.rounds {
            for server in &mut servers {
                let before = server.cpu_seconds()?;
                let outcome = load(group, server, &bed.client, pattern, case.window, report.milliseconds)?;
                let cpu = server.cpu_seconds()? - before;
                let metrics = case.rounds.entry(server.kind.name()).or_default();
                for metric in Metric::ALL {
                    metrics.entry(metric).or_default().push(value(metric, &outcome, cpu));
                }
            }
        }
        let case = case.finish();
        println!("{}", case.table());
        report.cases.push(case);
    }
    Ok(())
}

fn value(metric: Metric, outcome: &Outcome, cpu: f64) -> f64 {
    match metric {
        Metric::MegabytesPerSecond => outcome.bytes as f64 / 1e6 / outcome.seconds,
        Metric::OperationsPerSecond => outcome.operations as f64 / outcome.seconds,
        Metric::P50Microseconds => outcome.p50 as f64 / 1e3,
        Metric::P99Microseconds => outcome.p99 as f64 / 1e3,
        Metric::CpuSecondsPerGigabyte => cpu / (outcome.bytes as f64 / 1e9),
        Metric::CpuMicrosecondsPerFrame => cpu * 1e6 / outcome.frames as f64,
        Metric::LostFrames => outcome.lost as f64,
    }
}

/// Images full of data, so that no read is of a hole.
fn make_images(group: Group, folder: &Path) -> Result<Vec<PathBuf>> {
    let sectors: Vec<u8> = (0..group.sectors()).flat_map(|sector| sector.to_le_bytes().repeat(64)).collect();
    let make = |index: usize| {
        let path = folder.join(format!("{index}.img"));
        let mut file = File::create(&path)?;
        file.write_all(&sectors)?;
        file.sync_all()?;
        Ok(path)
    };
    (0..group.exports)
        .map(make)
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("{}", folder.display()))
}

fn load(
    group: Group,
    server: &mut Server,
    client: &Namespace,
    pattern: Pattern,
    window: usize,
    milliseconds: u64,
) -> Result<Outcome> {
    let mut command = client.command(std::env::current_exe().context("our own program")?);
    command.args(["load", "--interface", &server.kind.client_interface(), "--pattern", pattern.name()]);
    let numbers = [
        ("--exports", group.exports as u64),
        ("--sectors", group.sectors()),
        ("--window", window as u64),
        ("--milliseconds", milliseconds),
    ];
    for (flag, number) in numbers {
        command.arg(flag).arg(number.to_string());
    }
    let output = command.output().context("the load generator")?;
    let name = server.kind.name();
    if !output.status.success() {
        let why = server.complaint().unwrap_or_default();
        bail!("{name}: {} {why}", String::from_utf8_lossy(&output.stderr).trim());
    }
    if let Some(why) = server.complaint() {
        bail!("{name} has ended: {why}");
    }
    serde_json::from_slice(&output.stdout).context("the load generator's outcome")
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
        assert_eq!(names("bench").len(), 8 * 6);
        assert_eq!(names("bench --only mtu9000/tmpfs/1/random/16"), ["mtu9000/tmpfs/1/random/16"]);
        assert_eq!(names("bench --exports 50 --only /50/random").len(), 2 * 3);
        assert!(names("bench --quick").len() < 20);
        assert!(names("bench --only nothing").is_empty());
    }

    #[test]
    fn units() {
        let outcome = Outcome { seconds: 2.0, bytes: 4_000_000_000, frames: 1_000_000, ..Outcome::default() };
        assert_eq!(value(Metric::MegabytesPerSecond, &outcome, 1.0), 2000.0);
        assert_eq!(value(Metric::CpuSecondsPerGigabyte, &outcome, 1.0), 0.25);
        assert_eq!(value(Metric::CpuMicrosecondsPerFrame, &outcome, 1.0), 1.0);
    }
}
