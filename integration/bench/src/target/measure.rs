//! Measuring a group: its contenders take turns in short slices, since a processor's speed drifts within seconds.

use anyhow::Result;
use kagero_aoe::wire::sectors_for_mtu;
use kagero_integration::network::Namespace;
use std::path::Path;
use std::time::Duration;

use super::Options;
use super::group::{CLIENTS, Group, Storage, image, sectors};
use crate::contender::Contender;
use crate::load::{Outcome, Pattern, Shape, Slice};
use crate::report::{AGAIN, Case, Memory, Metric, Report};
use crate::server::{Access, Bed, Kind};

/// The window of the case that shows the noise, in each group.
const NOISE: (Pattern, usize) = (Pattern::Random, 16);
/// Longer than kagero keeps what it doesn't need at rest.
const REST: Duration = Duration::from_secs(3);
/// Frames that every second client with an overlay writes; they lie in a cluster each.
const WRITES: u64 = 8;

/// Measures the cases, and adds them to the report; `progress` is told before each round of each.
///
/// Every round has images and servers of its own: where in memory their pages lie makes as much of a difference as a server's next version does, and stays
/// the same as long as they live.
pub(super) fn measure(
    group: Group,
    mut cases: Vec<(Pattern, Case)>,
    options: &Options,
    report: &mut Report,
    mut progress: impl FnMut(&Case),
) -> Result<()> {
    for round in 0..report.rounds {
        let on = if group.in_memory() { Path::new("/dev/shm") } else { &options.disk };
        let folder = tempfile::Builder::new().prefix("kagero-bench-").tempdir_in(on)?;
        let bed = Bed {
            client: Namespace::new()?,
            network: Namespace::new()?,
            mtu: group.mtu,
            kagero: &options.kagero,
            logs: folder.path(),
        };
        let mut contenders = contenders(group, folder.path(), &bed, &mut report.notes)?;
        // Once without counting: the servers have started, and the cache is warm.
        for contender in &mut contenders {
            contender.read(Slice { pattern: Pattern::Sequential, window: 16, milliseconds: 200 })?;
        }
        for (pattern, case) in &mut cases {
            progress(case);
            take_turns(&mut contenders, *pattern, case, round, report)?;
        }
        if round + 1 == report.rounds {
            // What is mapped of files under load is the page cache's, and given back by a server that has nothing to do.
            std::thread::sleep(REST);
            for contender in &contenders {
                if let Some(resident) = contender.resident()? {
                    report.memory.push(Memory { group: group.name(), server: contender.name, resident });
                }
            }
        }
    }
    for (_, case) in cases {
        let case = case.finish();
        println!("{}", case.table());
        report.cases.push(case);
    }
    Ok(())
}

/// One round of a case.
fn take_turns(
    contenders: &mut [Contender],
    pattern: Pattern,
    case: &mut Case,
    round: usize,
    report: &Report,
) -> Result<()> {
    let slice = Slice { pattern, window: case.window, milliseconds: report.milliseconds };
    // Who reads, and under which name it counts.
    let mut turns: Vec<(usize, String)> =
        contenders.iter().enumerate().map(|(index, contender)| (index, contender.name.into())).collect();
    if (pattern, case.window) == NOISE {
        turns.insert(turns.len().div_ceil(2), (0, format!("{}{AGAIN}", contenders[0].name)));
    }
    let count = turns.len();
    for number in 0..report.slices {
        // Each is first, second and so on in turn, after one neighbour and then after the other.
        turns.rotate_left(if number == 0 { (round * report.slices + 1) % count } else { 1 });
        turns.reverse();
        for (index, name) in &turns {
            let (outcome, cpu) = contenders[*index].read(slice)?;
            let values = case.values.entry(name.clone()).or_default();
            for metric in Metric::ALL {
                let rounds = values.entry(metric).or_default();
                rounds.resize(round + 1, Vec::with_capacity(number + 1));
                rounds[round].extend(value(metric, &outcome, cpu));
            }
        }
    }
    Ok(())
}

/// Starts everybody who takes part; the first is the one whom the noise is measured with.
fn contenders(group: Group, folder: &Path, bed: &Bed<'_>, notes: &mut Vec<String>) -> Result<Vec<Contender>> {
    let images = group.images(folder)?;
    let shape = Shape { exports: group.exports, sectors: group.sectors(), stations: 1, writes: 0 };
    if group.storage == Storage::Overlays {
        let many = Shape { stations: CLIENTS, writes: WRITES, ..shape };
        let start = |name, shape| {
            let overlays = folder.join(name);
            std::fs::create_dir(&overlays)?;
            Contender::served(Kind::Kagero, name, &images, &Access::Overlays(overlays), shape, bed)
        };
        return Ok(vec![start("kagero-one", shape)?, start("kagero", many)?]);
    }
    let direct = group.storage == Storage::DiskDirect;
    let access = if direct { Access::Direct } else { Access::Cached };
    let start = |kind, name| Contender::served(kind, name, &images, &access, shape, bed);
    let mut contenders = vec![start(Kind::Vblade, "vblade")?];
    match start(Kind::Kagero, "kagero") {
        // This kagero may be older than the option.
        Err(error) if direct => {
            let note =
                format!("{}: left out, kagero does not serve past the page cache: {error:#}", group.name());
            if !notes.contains(&note) {
                println!("{note}\n");
                notes.push(note);
            }
        }
        other => contenders.push(other?),
    }
    if direct {
        let per_frame = sectors_for_mtu(bed.mtu as usize);
        contenders.push(Contender::fio(images[0].clone(), per_frame));
    } else {
        contenders.push(start(Kind::Null, "null")?);
    }
    if group.exports > 1 {
        // As much data as all the others together, so that the processor's caches help neither.
        let images = [image(&folder.join("one.img"), sectors(1))?];
        let shape = Shape { exports: 1, sectors: sectors(1), ..shape };
        contenders.push(Contender::served(Kind::Kagero, "kagero-one", &images, &access, shape, bed)?);
    }
    Ok(contenders)
}

/// `None` where there is nothing to divide by.
fn value(metric: Metric, outcome: &Outcome, cpu: f64) -> Option<f64> {
    let value = match metric {
        Metric::MegabytesPerSecond => outcome.bytes as f64 / 1e6 / outcome.seconds,
        Metric::OperationsPerSecond => outcome.operations as f64 / outcome.seconds,
        Metric::P50Microseconds => outcome.p50 as f64 / 1e3,
        Metric::P99Microseconds => outcome.p99 as f64 / 1e3,
        Metric::CpuSecondsPerGigabyte => cpu / (outcome.bytes as f64 / 1e9),
        Metric::CpuMicrosecondsPerFrame => cpu * 1e6 / outcome.frames as f64,
        Metric::LostFrames => outcome.lost as f64,
    };
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let outcome = Outcome { seconds: 2.0, bytes: 4_000_000_000, frames: 1_000_000, ..Outcome::default() };
        assert_eq!(value(Metric::MegabytesPerSecond, &outcome, 1.0), Some(2000.0));
        assert_eq!(value(Metric::CpuSecondsPerGigabyte, &outcome, 1.0), Some(0.25));
        assert_eq!(value(Metric::CpuMicrosecondsPerFrame, &outcome, 1.0), Some(1.0));
        assert_eq!(value(Metric::CpuMicrosecondsPerFrame, &Outcome::default(), 1.0), None);
    }
}
