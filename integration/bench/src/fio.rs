//! What fio reads from a file, without a network: what the disk can do.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::load::{Outcome, Pattern};

/// How fio reads, through io_uring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) pattern: Pattern,
    /// Past the page cache.
    pub(crate) direct: bool,
    /// Bytes a read.
    pub(crate) block: usize,
    /// Reads outstanding.
    pub(crate) depth: usize,
    pub(crate) time: Duration,
    /// Before that, uncounted.
    pub(crate) ramp: Duration,
}

/// What came of it, and the processor seconds that fio used. There are no frames in it.
pub(crate) fn fio(path: &Path, job: Job) -> Result<(Outcome, f64)> {
    let mut command = Command::new("fio");
    let pattern = match job.pattern {
        Pattern::Sequential => "--rw=read",
        Pattern::Random => "--rw=randread",
    };
    command.args(["--name=bench", pattern, "--ioengine=io_uring", "--time_based", "--readonly"]);
    command.args(["--invalidate=0", "--output-format=json", &format!("--filename={}", path.display())]);
    command.args([&format!("--bs={}", job.block), &format!("--iodepth={}", job.depth)]);
    command.args([
        &format!("--direct={}", u8::from(job.direct)),
        &format!("--runtime={}ms", job.time.as_millis()),
        &format!("--ramp_time={}ms", job.ramp.as_millis()),
    ]);
    let output = command.output().context("fio; `cargo xtask setup` installs it")?;
    ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse(&serde_json::from_slice(&output.stdout)?)
}

fn parse(report: &Value) -> Result<(Outcome, f64)> {
    let job = &report["jobs"][0];
    let read = &job["read"];
    let number = |value: &Value| value.as_f64().context("fio's report lacks a figure");
    let operations = number(&read["total_ios"])?;
    // `runtime` counts whole milliseconds; the rate is more exact.
    let seconds = operations / number(&read["iops"])?;
    let latency = |share: &str| read["clat_ns"]["percentile"][share].as_u64().unwrap_or(0);
    let outcome = Outcome {
        seconds,
        bytes: number(&read["io_bytes"])? as u64,
        operations: operations as u64,
        p50: latency("50.000000"),
        p99: latency("99.000000"),
        ..Outcome::default()
    };
    // Percent of one processor.
    let cpu = (number(&job["usr_cpu"])? + number(&job["sys_cpu"])?) / 100.0 * seconds;
    Ok((outcome, cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_understood() {
        let read = serde_json::json!({
            "total_ios": 1000, "iops": 2000.0, "io_bytes": 4_096_000,
            "clat_ns": { "percentile": { "50.000000": 7, "99.000000": 9 } },
        });
        let report = serde_json::json!({ "jobs": [{ "read": read, "usr_cpu": 10.0, "sys_cpu": 40.0 }] });
        let (outcome, cpu) = parse(&report).unwrap();
        assert_eq!((outcome.seconds, outcome.bytes, outcome.operations), (0.5, 4_096_000, 1000));
        assert_eq!((outcome.p50, outcome.p99, cpu), (7, 9, 0.25));
        assert!(parse(&serde_json::json!({ "jobs": [] })).is_err());
    }
}
