//! What is demanded of the target, line by line, and what a run says about it.

use serde::Serialize;
use std::fmt::Write;

use crate::report::{Case, Memory, Metric, Report};
use crate::sample::Sample;

/// The cases whose server time a frame is demanded.
const CACHED: [(&str, f64); 3] = [
    ("mtu9000/tmpfs/1/sequential/64", 1.5),
    ("mtu9000/tmpfs/1/random/16", 1.6),
    ("mtu1500/tmpfs/1/sequential/16", 1.3),
];

const DIRECT_RANDOM: &str = "mtu9000/disk-direct/1/random/64";
const DIRECT_SEQUENTIAL: &str = "mtu9000/disk-direct/1/sequential/64";

/// Most memory, in MB, of a server of many exports.
const MEMORY: f64 = 64.0;

/// One demand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) demanded: String,
    /// `None` if the run had no such case.
    pub(crate) measured: Option<Sample>,
    pub(crate) passed: Option<bool>,
    pub(crate) note: String,
}

#[derive(Clone, Copy)]
enum Demand {
    AtLeast(f64),
    AtMost(f64),
}

impl Demand {
    fn met(self, value: f64) -> bool {
        match self {
            Demand::AtLeast(least) => value >= least,
            Demand::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Demand::AtLeast(least) => format!(">= {least}"),
            Demand::AtMost(most) => format!("<= {most}"),
        }
    }

    /// How much worse one value is than another: more is worse.
    fn badness(self, value: f64) -> f64 {
        match self {
            Demand::AtLeast(_) => -value,
            Demand::AtMost(_) => value,
        }
    }
}

/// All lines, of the cases that were measured; `many` is the number of exports in the groups with many.
pub(crate) fn lines(report: &Report, many: usize) -> Vec<Line> {
    let throughput = Metric::MegabytesPerSecond;
    let one = |what: &str, case: &str, pair, metric, demand| {
        line(what, report.cases.iter().filter(|other| other.name() == case), pair, metric, demand)
    };
    let mut lines = Vec::new();
    for (case, least) in CACHED {
        lines.push(one(case, case, "kagero/vblade", throughput, Demand::AtLeast(least)));
    }
    for (case, _) in CACHED {
        let what = format!("CPU a frame, {case}");
        lines.push(one(&what, case, "kagero/vblade", Metric::CpuMicrosecondsPerFrame, Demand::AtMost(0.6)));
    }
    lines.push(nowhere_slower(&report.cases));
    let (random, sequential) = (DIRECT_RANDOM, DIRECT_SEQUENTIAL);
    lines.push(one(random, random, "kagero/vblade", throughput, Demand::AtLeast(5.0)));
    lines.push(one("the same, to fio", random, "kagero/fio", throughput, Demand::AtLeast(0.8)));
    lines.push(one(sequential, sequential, "kagero/vblade", throughput, Demand::AtLeast(5.0)));
    let shared = |what: &str, end: &str| {
        let cases = report.cases.iter().filter(|case| case.group.ends_with(end));
        line(what, cases, "kagero/kagero-one", throughput, Demand::AtLeast(0.9))
    };
    lines.push(shared(&format!("{many} exports, to one"), &format!("/tmpfs/{many}")));
    lines.push(shared("100 clients with overlays, to one", "/overlays/100"));
    lines.push(memory(report, many));
    lines
}

/// The worst of some cases.
fn line<'a>(
    what: &str,
    cases: impl Iterator<Item = &'a Case>,
    pair: &str,
    metric: Metric,
    demand: Demand,
) -> Line {
    let ratios: Vec<(Sample, &Case)> =
        cases.filter_map(|case| Some((case.ratio(pair, metric)?, case))).collect();
    let badness = |ratio: &Sample| demand.badness(ratio.median);
    let worst = ratios.iter().max_by(|(a, _), (b, _)| badness(a).total_cmp(&badness(b)));
    let note = match worst {
        Some((_, case)) if ratios.len() > 1 => format!("worst of {}: {}", ratios.len(), case.name()),
        _ => String::new(),
    };
    let measured = worst.map(|(ratio, _)| *ratio);
    let passed = measured.map(|ratio| demand.met(ratio.median));
    Line { what: what.into(), demanded: demand.text(), measured, passed, note }
}

/// Every case's throughput. A case is slower if its median is below 1 and below all that vblade reached against itself in its group:
/// that much is noise.
fn nowhere_slower(cases: &[Case]) -> Line {
    let throughput = |case: &Case| case.ratio("kagero/vblade", Metric::MegabytesPerSecond);
    let noise = |case: &Case| {
        let group = cases.iter().filter(|other| other.group == case.group);
        group.filter_map(Case::noise).map(|(_, noise)| noise.min).fold(1.0, f64::min)
    };
    let mut line = line(
        "nowhere slower than vblade",
        cases.iter(),
        "kagero/vblade",
        Metric::MegabytesPerSecond,
        Demand::AtLeast(1.0),
    );
    let mut slow = Vec::new();
    let mut passed = true;
    for case in cases {
        if let Some(ratio) = throughput(case).filter(|ratio| ratio.median < 1.0) {
            let within = ratio.median >= noise(case);
            passed &= within;
            let how = if within { ", within the noise" } else { "" };
            slow.push(format!("{} {:.2}{how}", case.name(), ratio.median));
        }
    }
    line.passed = line.measured.map(|_| passed);
    if !slow.is_empty() {
        line.note = format!("below 1: {}", slow.join("; "));
    }
    line
}

/// The memory of a kagero with many exports when it has rested after its load, in MB.
fn memory(report: &Report, many: usize) -> Line {
    let end = format!("/tmpfs/{many}");
    let of = |memory: &&Memory| memory.server == "kagero" && memory.group.ends_with(&end);
    let servers = report.memory.iter().filter(of);
    let measured = Sample::of(servers.map(|memory| memory.resident.now as f64 / 1e6));
    Line {
        what: format!("memory of {many} exports, MB, after its load"),
        demanded: format!("< {MEMORY}"),
        measured,
        passed: measured.map(|megabytes| megabytes.max < MEMORY),
        note: String::new(),
    }
}

/// The lines for people, with the noise below them.
pub(crate) fn table(lines: &[Line], cases: &[Case]) -> String {
    let mut text = format!("{:<52}{:>10}{:>24}\n", "Demands on the target", "demanded", "measured");
    for line in lines {
        let measured = line.measured.map_or_else(|| "not measured".into(), |sample| sample.text(2));
        let passed = match line.passed {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "-",
        };
        let _ = writeln!(
            text,
            "{:<52}{:>10}{measured:>24}  {passed:<4}  {}",
            line.what, line.demanded, line.note
        );
    }
    text.push_str("\nThe noise: a server against itself in the same rounds, throughput\n");
    for (case, (pair, noise)) in cases.iter().filter_map(|case| Some((case, case.noise()?))) {
        let _ = writeln!(text, "{:<40}{pair:<28}{:>18}", case.name(), noise.text(2));
    }
    text
}

/// The cases that demands name.
#[cfg(test)]
pub(crate) const CASES: [&str; 5] = [CACHED[0].0, CACHED[1].0, CACHED[2].0, DIRECT_RANDOM, DIRECT_SEQUENTIAL];

#[cfg(test)]
mod tests;
