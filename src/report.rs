//! What a run was like: the document of `--report`, and the table of phases at the end.
//!
//! docs/report.md describes the document for those who read it with a program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::{RunConfig, grouped};
use crate::error::Error;
use crate::stop::Exit;

/// Changes when a reader of the document would have to change; a new field is no reason.
pub const FORMAT: u32 = 1;

/// The document of `--report`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The form of this document: [`FORMAT`].
    pub format: u32,
    /// Kagero's version.
    pub version: String,
    /// What was asked for.
    pub config: Option<RunConfig>,
    /// How it ended; none while the run goes on.
    pub end: Option<End>,
    /// From the start of the process to the end of the run, in milliseconds.
    pub wall_ms: u64,
    /// Milestones, in the order they were reached.
    pub phases: Vec<Phase>,
    /// How often the guest's machine was started: once, and once more for each reset.
    pub boots: u32,
    /// VM exits to user space, by kind.
    pub exits: BTreeMap<String, u64>,
    /// Register accesses by device, coalesced ones too; a string instruction counts once.
    pub accesses: BTreeMap<String, u64>,
    /// The guest's accesses that no device answered.
    pub bus: Bus,
    /// One for each disk, by position.
    pub disks: Vec<DiskReport>,
    /// The serial console.
    pub console: ConsoleReport,
    /// How often each warning that a guest or the network can cause was due, also when the log held it back.
    pub warnings: BTreeMap<String, u64>,
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    /// The reason: `power-off`, `reset`, `expected`, `timed-out`, `signal`, `quit` or `error`.
    pub how: String,
    /// The signal's number, for `signal`.
    pub signal: Option<u8>,
    /// The message, for `error`.
    pub error: Option<String>,
    /// The process's exit code.
    pub exit_code: u8,
}

/// A milestone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// What was reached: `target found`, `firmware`, `boot loader`, `kernel`, `init`, `login`, ...
    pub name: String,
    /// When, in milliseconds since the start of the process.
    pub ms: u64,
    /// In which start of the machine, from 1.
    pub boot: u32,
}

/// The guest's accesses that no device answered: reads gave ones, writes were dropped.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Bus {
    /// At I/O ports.
    pub bad_pio: u64,
    /// At memory addresses.
    pub bad_mmio: u64,
    /// By what was wrong: no register, wrong width, unaligned.
    pub by_fault: BTreeMap<String, u64>,
}

/// The way between a disk and its target.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DiskReport {
    /// 0 to 3.
    pub position: u8,
    /// As it was given: a path, or `aoe:shelf.slot`.
    pub source: String,
    /// The disk's size in sectors of 512 bytes.
    pub sectors: u64,
    /// Commands that the guest's driver or firmware gave and that went to the target.
    pub commands: u64,
    /// AoE frames sent, resends among them.
    pub frames_sent: u64,
    /// AoE frames received, whatever became of them.
    pub frames_received: u64,
    /// Bytes in the frames sent.
    pub bytes_sent: u64,
    /// Bytes in the frames received.
    pub bytes_received: u64,
    /// Bytes the guest read from the disk.
    pub bytes_read: u64,
    /// Bytes the guest wrote to the disk.
    pub bytes_written: u64,
    /// Frames sent again because no answer came in time.
    pub resends: u64,
    /// Answers to what had been answered or given up already.
    pub duplicates: u64,
    /// Commands that ended with an error for the guest.
    pub errors: u64,
    /// How often the target was lost.
    pub losses: u64,
    /// From a frame to its answer, for frames that were sent once.
    pub round_trip: RoundTrips,
}

/// Round-trip times in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoundTrips {
    /// How many were measured.
    pub count: u64,
    /// The shortest.
    pub min_us: u64,
    /// The mean.
    pub mean_us: u64,
    /// The longest.
    pub max_us: u64,
    /// The smoothed time that the retransmission timer works with (RFC 6298), at the end.
    pub smoothed_us: u64,
}

/// The serial console.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConsoleReport {
    /// Bytes the guest wrote.
    pub bytes_out: u64,
    /// Bytes the guest was given.
    pub bytes_in: u64,
    /// Typed bytes that the guest did not take in time.
    pub dropped_in: u64,
}

/// Keeps the report while the run goes on; every thread may have a handle.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    report: Mutex<Report>,
}

impl Recorder {
    /// A report that begins now.
    #[must_use]
    pub fn new(config: &RunConfig) -> Self {
        let report = Report {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            config: Some(config.clone()),
            boots: 1,
            ..Report::default()
        };
        Self(Arc::new(Shared { start: Instant::now(), report: Mutex::new(report) }))
    }

    /// Since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.start.elapsed()
    }

    /// The milestone `name` is reached. Only the first time counts in each start of the machine.
    pub fn phase(&self, name: &str) {
        let ms = millis(self.elapsed());
        let new = self.with(|report| {
            let boot = report.boots;
            let new = !report.phases.iter().any(|phase| phase.boot == boot && phase.name == name);
            if new {
                report.phases.push(Phase { name: name.to_owned(), ms, boot });
            }
            new
        });
        if new {
            tracing::debug!(ms, "reached {name}");
        }
    }

    /// The guest's machine was reset and starts again.
    pub fn reboot(&self) {
        self.with(|report| report.boots += 1);
    }

    /// Fills in what only its owner knows: the VMM its exits and bus, the storage thread its disks.
    pub fn with<R>(&self, fill: impl FnOnce(&mut Report) -> R) -> R {
        fill(&mut self.0.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The report as it stands at the end.
    #[must_use]
    pub fn finish(&self, outcome: &Result<Exit, Error>) -> Report {
        let wall_ms = millis(self.elapsed());
        self.with(|report| {
            let expecting = report.config.as_ref().is_some_and(|config| config.expect.is_some());
            report.wall_ms = wall_ms;
            report.end = Some(End::of(outcome, expecting));
            for (name, count) in crate::limit::counts() {
                report.warnings.insert(name.to_owned(), count);
            }
            report.clone()
        })
    }
}

impl End {
    fn of(outcome: &Result<Exit, Error>, expecting: bool) -> Self {
        let end = |how: &str, exit_code| End { how: how.into(), signal: None, error: None, exit_code };
        match outcome {
            Err(error) => End { error: Some(error.to_string()), ..end("error", error.exit_code()) },
            Ok(exit) => {
                let code = exit.code(expecting);
                match exit {
                    Exit::PowerOff => end("power-off", code),
                    Exit::Reset => end("reset", code),
                    Exit::Expected => end("expected", code),
                    Exit::TimedOut => end("timed-out", code),
                    Exit::Quit => end("quit", code),
                    Exit::Signal { number } => End { signal: Some(*number), ..end("signal", code) },
                }
            }
        }
    }
}

impl Report {
    /// Writes the document, whole or not at all: a reader never finds half of it. To a pipe or a device it is simply written.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut document = serde_json::to_vec_pretty(self)?;
        document.push(b'\n');
        if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
            return File::options().write(true).open(path)?.write_all(&document);
        }
        // Where a symbolic link leads, so that the link stays one.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = Path::new(&name);
        let write = || {
            let mut file = File::create(temporary)?;
            file.write_all(&document)?;
            file.sync_all()?;
            fs::rename(temporary, path)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(temporary);
        })
    }

    /// The phases and the traffic as a table for people, with a line break at the end of each line.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        if !self.phases.is_empty() {
            let width = self.phases.iter().map(|phase| phase.name.chars().count()).max().unwrap_or(0).max(5);
            let _ = writeln!(out, "{:width$}  {:>9}  {:>9}", "phase", "after", "took");
            let mut last = (0, 1);
            for phase in &self.phases {
                if phase.boot != last.1 {
                    let _ = writeln!(out, "-- start {} of the machine", phase.boot);
                }
                let took = phase.ms.saturating_sub(last.0);
                let _ =
                    writeln!(out, "{:width$}  {:>9}  {:>9}", phase.name, seconds(phase.ms), seconds(took));
                last = (phase.ms, phase.boot);
            }
        }
        for disk in &self.disks {
            let _ = writeln!(
                out,
                "{}: {} read, {} written, {} frames sent, {} resent, mean round trip {} us",
                disk.source,
                bytes(disk.bytes_read),
                bytes(disk.bytes_written),
                grouped(disk.frames_sent),
                grouped(disk.resends),
                grouped(disk.round_trip.mean_us),
            );
        }
        out
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

/// A number of bytes to three figures or so, for people.
fn bytes(number: u64) -> String {
    match number {
        0..1_000_000 => format!("{}.{} kB", number / 1_000, number % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} MB", number / 1_000_000, number % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", number / 1_000_000_000, number % 1_000_000_000 / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> Recorder {
        Recorder::new(&RunConfig { expect: Some("login:".into()), ..RunConfig::default() })
    }

    #[test]
    fn a_phase_counts_once_in_each_start() {
        let recorder = recorder();
        recorder.phase("firmware");
        recorder.phase("firmware");
        recorder.reboot();
        recorder.phase("firmware");
        let phases = recorder.with(|report| report.phases.clone());
        assert_eq!(
            phases.iter().map(|phase| (&*phase.name, phase.boot)).collect::<Vec<_>>(),
            [("firmware", 1), ("firmware", 2)]
        );
    }

    #[test]
    fn the_document_says_how_it_ended() {
        let end = |outcome| serde_json::to_value(recorder().finish(&outcome).end).unwrap();
        let signal = end(Ok(Exit::Signal { number: 15 }));
        assert_eq!(signal["how"], "signal");
        assert_eq!(signal["signal"], 15);
        assert_eq!(signal["exit_code"], 143);
        assert_eq!(end(Ok(Exit::PowerOff))["exit_code"], 1, "the text was never seen");
        let error = end(Err(Error::Failure(anyhow::anyhow!("KVM_RUN failed"))));
        assert_eq!((error["how"].as_str(), error["error"].as_str()), (Some("error"), Some("KVM_RUN failed")));
    }

    #[test]
    fn the_document_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let report = recorder().finish(&Ok(Exit::Expected));
        report.save(&path).unwrap();
        report.save(&path).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["format"], FORMAT);
        assert_eq!(read["config"]["memory"], "1G");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");

        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink("run.json", &link).unwrap();
        report.save(&link).unwrap();
        assert!(link.is_symlink() && !path.is_symlink());
        fs::remove_file(link).unwrap();

        assert!(report.save(folder.path()).is_err(), "a folder can't be replaced by a file");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_table_is_for_people() {
        let phase = |name: &str, ms, boot| Phase { name: name.into(), ms, boot };
        let report = Report {
            phases: vec![
                phase("target found", 12, 1),
                phase("login", 41_230, 1),
                phase("firmware", 60_000, 2),
            ],
            disks: vec![DiskReport {
                source: "aoe:7.1".into(),
                bytes_read: 123_456_789,
                frames_sent: 12_345,
                ..DiskReport::default()
            }],
            ..Report::default()
        };
        assert_eq!(
            report.table(),
            "phase             after       took\n\
             target found     0.01 s     0.01 s\n\
             login           41.23 s    41.21 s\n\
             -- start 2 of the machine\n\
             firmware        60.00 s    18.77 s\n\
             aoe:7.1: 123.4 MB read, 0.0 kB written, 12,345 frames sent, 0 resent, mean round trip 0 us\n"
        );
    }
}
