//! `cargo xtask bench limits`: what the machine can do at most, before any server.

mod files;
mod frames;
mod sys;
mod xdp;

use anyhow::{Context, Result, ensure};
use clap::Args;
use kagero_integration::network::Namespace;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::sample::Sample;
use crate::{load_average, machine};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only the measurements whose name contains this
    #[arg(long, value_name = "PATTERN", default_value = "")]
    pub(crate) only: String,
    /// How often each is measured
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// How long one measurement takes, in milliseconds
    #[arg(long, value_name = "TIME", default_value_t = 300)]
    pub(crate) milliseconds: u64,
    /// A folder on the disk to measure
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    disk: PathBuf,
    /// Only the frames, between kgl0 and kgl1 of this network namespace, as JSON
    #[arg(long, hide = true)]
    frames: bool,
}

/// What one measurement gives.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rate {
    per_second: f64,
    /// Processor time of the thread that did it, each.
    cpu_nanoseconds: f64,
}

/// One thing measured, several times; or why it can't be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    name: String,
    rates: Vec<Rate>,
    refused: Option<String>,
}

/// Measures the speed of something in this thread.
struct Stopwatch {
    start: Instant,
    cpu: f64,
}

impl Stopwatch {
    fn start() -> Self {
        Stopwatch { start: Instant::now(), cpu: thread_cpu() }
    }

    fn runs(&self, time: Duration) -> bool {
        self.start.elapsed() < time
    }

    fn rate(&self, count: u64) -> Rate {
        Rate {
            per_second: count as f64 / self.start.elapsed().as_secs_f64(),
            cpu_nanoseconds: (thread_cpu() - self.cpu) * 1e9 / count.max(1) as f64,
        }
    }
}

fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

type Measure<'a> = Box<dyn FnMut(Duration) -> Result<Rate> + 'a>;

/// Measures everything in turn, then again, so that what disturbs the machine for a while disturbs all.
fn rounds(mut measures: Vec<(String, Measure<'_>)>, options: &Options) -> Vec<Row> {
    measures.retain(|(name, _)| name.contains(&options.only));
    let mut rows: Vec<Row> =
        measures.iter().map(|(name, _)| Row { name: name.clone(), rates: vec![], refused: None }).collect();
    for _ in 0..options.rounds {
        for (row, (_, measure)) in rows.iter_mut().zip(&mut measures) {
            if row.refused.is_none() {
                match measure(Duration::from_millis(options.milliseconds)) {
                    Ok(rate) => row.rates.push(rate),
                    Err(error) => row.refused = Some(format!("{error:#}")),
                }
            }
        }
    }
    rows
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.frames {
        println!("{}", serde_json::to_string(&frames::measure(options))?);
        return Ok(());
    }
    let (kernel, processors) = machine();
    let load = load_average();
    std::fs::create_dir_all(&options.disk).with_context(|| format!("{}", options.disk.display()))?;
    let mut rows = frames_in_namespace(options)?;
    rows.extend(files::measure(&options.disk, options)?);
    println!(
        "Linux {kernel}, {processors} processors; load average {load:.1} before, {:.1} after.",
        load_average()
    );
    println!("Median (min..max) of {} rounds of {} ms.\n", options.rounds, options.milliseconds);
    print!("{}", table(&rows));
    Ok(())
}

fn frames_in_namespace(options: &Options) -> Result<Vec<Row>> {
    let network = Namespace::new()?;
    network.add_cable("kgl0", "kgl1", 9000)?;
    let mut command = network.command(std::env::current_exe().context("our own program")?);
    command.args(["limits", "--frames", "--only", &options.only]);
    command.args(["--rounds", &options.rounds.to_string()]);
    let output = command.args(["--milliseconds", &options.milliseconds.to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| what | thousands a second | CPU us each |\n|---|---|---|\n");
    for Row { name, rates, refused } in rows {
        let sample = |value: fn(&Rate) -> f64| Sample::of(rates.iter().map(value));
        let cells = match (refused, sample(|r| r.per_second / 1e3), sample(|r| r.cpu_nanoseconds / 1e3)) {
            (Some(why), ..) => format!("not here: {why} | "),
            (None, Some(rate), Some(cpu)) if cpu.max.is_finite() && cpu.max > 0.0 => {
                format!("{} | {}", rate.text(1), cpu.text(2))
            }
            (None, Some(rate), _) => format!("{} | ", rate.text(1)),
            (None, None, _) => " | ".into(),
        };
        text.push_str(&format!("| {name} | {cells} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_and_not_repeated() {
        let options =
            Options { only: "a ".into(), rounds: 3, milliseconds: 1, disk: PathBuf::new(), frames: false };
        let mut calls = 0;
        let refuse: Measure<'_> = Box::new(|_| {
            calls += 1;
            anyhow::bail!("no such thing")
        });
        let measures: Vec<(String, Measure<'_>)> = vec![
            ("a good one".into(), Box::new(|_| Ok(Rate { per_second: 5e3, cpu_nanoseconds: 1500.0 }))),
            ("a bad one".into(), refuse),
            ("left out".into(), Box::new(|_| unreachable!())),
        ];
        let table = table(&rounds(measures, &options));
        assert!(table.contains("| a good one | 5.0 (5.0..5.0) | 1.50 (1.50..1.50) |"), "{table}");
        assert!(table.contains("| a bad one | not here: no such thing |  |"), "{table}");
        assert!(!table.contains("left out"), "{table}");
        assert_eq!(calls, 1);
    }
}
