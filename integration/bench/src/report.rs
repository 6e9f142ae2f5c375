//! The results: as a table for people, and as JSON.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

use crate::sample::Sample;

/// What is measured of each run, with the unit it is printed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    MegabytesPerSecond,
    OperationsPerSecond,
    P50Microseconds,
    P99Microseconds,
    CpuSecondsPerGigabyte,
    CpuMicrosecondsPerFrame,
    LostFrames,
}

impl Metric {
    pub(crate) const ALL: [Metric; 7] = [
        Metric::MegabytesPerSecond,
        Metric::OperationsPerSecond,
        Metric::P50Microseconds,
        Metric::P99Microseconds,
        Metric::CpuSecondsPerGigabyte,
        Metric::CpuMicrosecondsPerFrame,
        Metric::LostFrames,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Metric::MegabytesPerSecond => "MB/s",
            Metric::OperationsPerSecond => "operations/s",
            Metric::P50Microseconds => "p50, us",
            Metric::P99Microseconds => "p99, us",
            Metric::CpuSecondsPerGigabyte => "CPU s/GB",
            Metric::CpuMicrosecondsPerFrame => "CPU us/frame",
            Metric::LostFrames => "lost frames",
        }
    }

    fn places(self) -> usize {
        match self {
            Metric::CpuSecondsPerGigabyte | Metric::CpuMicrosecondsPerFrame => 2,
            _ => 0,
        }
    }
}

/// One load on one group of servers: of each server, each metric's value in each round.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Case {
    /// MTU, image and number of exports, such as `mtu9000/tmpfs/1`.
    pub(crate) group: String,
    pub(crate) pattern: String,
    pub(crate) window: usize,
    /// By server; a server that can't do this is missing.
    pub(crate) rounds: BTreeMap<&'static str, BTreeMap<Metric, Vec<f64>>>,
    /// Medians and spreads of `rounds`.
    pub(crate) samples: BTreeMap<&'static str, BTreeMap<Metric, Sample>>,
    /// Ours over vblade's, pair by pair.
    pub(crate) ratios: BTreeMap<Metric, Sample>,
    /// The null target's over ours: how much more the load generator could take.
    pub(crate) ceilings: BTreeMap<Metric, Sample>,
}

impl Case {
    /// Works out what the rounds say together.
    pub(crate) fn finish(mut self) -> Self {
        for (server, metrics) in &self.rounds {
            let samples = metrics
                .iter()
                .filter_map(|(metric, values)| Some((*metric, Sample::of(values.iter().copied())?)));
            self.samples.insert(server, samples.collect());
        }
        let ratios = |over: &str, under: &str| {
            let (Some(over), Some(under)) = (self.rounds.get(over), self.rounds.get(under)) else {
                return BTreeMap::new();
            };
            let ratio = |metric: &Metric| Sample::of_ratios(over.get(metric)?, under.get(metric)?);
            Metric::ALL.iter().filter_map(|metric| Some((*metric, ratio(metric)?))).collect()
        };
        (self.ratios, self.ceilings) = (ratios("kagero", "vblade"), ratios("null", "kagero"));
        self
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}/{}", self.group, self.pattern, self.window)
    }

    /// A few lines for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n", self.name());
        let columns = ["vblade", "kagero", "kagero/vblade", "null/kagero"];
        let _ = write!(text, "  {:<14}", "");
        for column in columns {
            let _ = write!(text, "{column:>26}");
        }
        text.push('\n');
        for metric in Metric::ALL {
            let of = |server| Some(self.samples.get(server)?.get(&metric)?.text(metric.places()));
            let ratio = |ratios: &BTreeMap<Metric, Sample>| ratios.get(&metric).map(|ratio| ratio.text(2));
            let missing = |server| if self.samples.contains_key(server) { "-" } else { "not yet" };
            let cells = [
                of("vblade").unwrap_or_else(|| missing("vblade").into()),
                of("kagero").unwrap_or_else(|| missing("kagero").into()),
                ratio(&self.ratios).unwrap_or_else(|| "-".into()),
                ratio(&self.ceilings).unwrap_or_else(|| "-".into()),
            ];
            let _ = write!(text, "  {:<14}", metric.title());
            for cell in cells {
                let _ = write!(text, "{cell:>26}");
            }
            text.push('\n');
        }
        text
    }
}

/// All of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    /// The load average of the last minute, before and after: what others did to the machine shows here.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
    pub(crate) rounds: usize,
    pub(crate) milliseconds: u64,
    pub(crate) cases: Vec<Case>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        let rounds = |values: [f64; 3]| BTreeMap::from([(Metric::MegabytesPerSecond, values.to_vec())]);
        let rounds = [("vblade", rounds([100.0, 50.0, 101.0])), ("kagero", rounds([150.0, 80.0, 150.0]))];
        Case {
            group: "mtu9000/tmpfs/1".into(),
            pattern: "random".into(),
            window: 16,
            rounds: rounds.into(),
            ..Case::default()
        }
        .finish()
    }

    #[test]
    fn table() {
        let table = case().table();
        assert!(table.starts_with("mtu9000/tmpfs/1/random/16\n"), "{table}");
        assert!(table.contains("100 (50..101)"), "{table}");
        assert!(table.contains("1.50 (1.49..1.60)"), "{table}");
        let mut alone = case();
        alone.rounds.remove("kagero");
        alone.samples.clear();
        assert!(alone.finish().table().contains("not yet"));
    }

    #[test]
    fn json() {
        let value = serde_json::to_value(case()).unwrap();
        assert_eq!(value["samples"]["kagero"]["megabytes_per_second"]["median"], 150.0);
        assert_eq!(value["rounds"]["vblade"]["megabytes_per_second"][1], 50.0);
        assert_eq!(value["ratios"]["megabytes_per_second"]["max"], 1.6);
    }
}
