//! The results: as a table for people, and as JSON.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

use crate::done::Line;
use crate::sample::Sample;
use crate::server::Resident;

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

/// What was measured of one server: of each metric, by round, the value of each slice.
pub(crate) type Values = BTreeMap<Metric, Vec<Vec<f64>>>;

/// One load on one group of servers.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Case {
    /// MTU, image and number of exports, such as `mtu9000/tmpfs/1`.
    pub(crate) group: String,
    pub(crate) pattern: String,
    pub(crate) window: usize,
    /// By contender, in the order of the columns below; one that can't do this is missing.
    pub(crate) values: BTreeMap<String, Values>,
    /// By contender: each round's mean, over all rounds.
    pub(crate) samples: BTreeMap<String, BTreeMap<Metric, Sample>>,
    /// Such as `kagero/vblade`: each round's ratio, over all rounds.
    pub(crate) ratios: BTreeMap<String, BTreeMap<Metric, Sample>>,
}

/// The contender that is measured twice in a round, under a second name, to show the noise.
pub(crate) const AGAIN: &str = "-again";

/// What is compared with what, beside a contender with itself.
const PAIRS: [(&str, &str); 4] =
    [("kagero", "vblade"), ("kagero", "fio"), ("kagero", "kagero-one"), ("null", "kagero")];

const COLUMNS: [&str; 4] = ["vblade", "fio", "kagero-one", "kagero"];

impl Case {
    /// Works out what the rounds say together.
    pub(crate) fn finish(mut self) -> Self {
        for (name, values) in &self.values {
            let means = |rounds: &Vec<Vec<f64>>| Sample::of(rounds.iter().filter_map(|round| mean(round)));
            let samples = values.iter().filter_map(|(metric, rounds)| Some((*metric, means(rounds)?)));
            self.samples.insert(name.clone(), samples.collect());
        }
        let again = self.values.keys().filter_map(|name| Some((name.as_str(), name.strip_suffix(AGAIN)?)));
        for (over, under) in again.chain(PAIRS) {
            if let (Some(ours), Some(theirs)) = (self.values.get(over), self.values.get(under)) {
                let ratio = |metric: &Metric| Sample::of_rounds(ours.get(metric)?, theirs.get(metric)?);
                let ratios = Metric::ALL.iter().filter_map(|metric| Some((*metric, ratio(metric)?)));
                self.ratios.insert(format!("{over}/{under}"), ratios.collect());
            }
        }
        self
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}/{}", self.group, self.pattern, self.window)
    }

    pub(crate) fn ratio(&self, pair: &str, metric: Metric) -> Option<Sample> {
        self.ratios.get(pair)?.get(&metric).copied()
    }

    /// The ratio, in bytes a second, of a contender to itself.
    pub(crate) fn noise(&self) -> Option<(&str, Sample)> {
        let (pair, ratios) = self.ratios.iter().find(|(pair, _)| pair.contains(AGAIN))?;
        Some((pair, *ratios.get(&Metric::MegabytesPerSecond)?))
    }

    /// A few lines for people.
    pub(crate) fn table(&self) -> String {
        let columns = COLUMNS.into_iter().filter(|name| self.samples.contains_key(*name));
        let columns: Vec<&str> = columns.chain(self.ratios.keys().map(String::as_str)).collect();
        let mut text = format!("{}\n  {:<14}", self.name(), "");
        for column in &columns {
            let _ = write!(text, "{column:>26}");
        }
        text.push('\n');
        for metric in Metric::ALL {
            let _ = write!(text, "  {:<14}", metric.title());
            for column in &columns {
                let value = match self.samples.get(*column) {
                    Some(samples) => samples.get(&metric).map(|sample| sample.text(metric.places())),
                    None => self.ratio(column, metric).map(|ratio| ratio.text(2)),
                };
                let _ = write!(text, "{:>26}", value.unwrap_or_else(|| "-".into()));
            }
            text.push('\n');
        }
        text
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A server's memory after all loads of its group.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) group: String,
    pub(crate) server: &'static str,
    pub(crate) resident: Resident,
}

/// All of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    /// The load average of the last minute, before and after: what others did to the machine shows here.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
    pub(crate) rounds: usize,
    /// In a round, the contenders take turns so often, each for so long.
    pub(crate) slices: usize,
    pub(crate) milliseconds: u64,
    /// What could not be measured, and why.
    pub(crate) notes: Vec<String>,
    pub(crate) cases: Vec<Case>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) done: Vec<Line>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        // Two rounds of two slices; while the second slice ran, the machine was half as fast.
        let rounds = |a: f64, b: f64| {
            BTreeMap::from([(Metric::MegabytesPerSecond, vec![vec![a, a / 2.0], vec![b, b]])])
        };
        let values = [
            ("vblade".to_owned(), rounds(100.0, 100.0)),
            ("vblade-again".to_owned(), rounds(100.0, 90.0)),
            ("kagero".to_owned(), rounds(150.0, 160.0)),
        ];
        Case {
            group: "mtu9000/tmpfs/1".into(),
            pattern: "random".into(),
            window: 16,
            values: values.into(),
            ..Case::default()
        }
        .finish()
    }

    #[test]
    fn table() {
        let table = case().table();
        assert!(table.starts_with("mtu9000/tmpfs/1/random/16\n"), "{table}");
        assert!(table.contains("88 (75..100)"), "{table}");
        assert!(table.contains("1.55 (1.50..1.60)"), "{table}");
        let mut alone = case();
        alone.values.remove("kagero");
        (alone.samples, alone.ratios) = Default::default();
        assert!(!alone.finish().table().contains("kagero"));
    }

    #[test]
    fn noise() {
        let case = case();
        let (pair, noise) = case.noise().unwrap();
        assert_eq!((pair, noise.min, noise.max), ("vblade-again/vblade", 0.9, 1.0));
    }

    #[test]
    fn json() {
        let value = serde_json::to_value(case()).unwrap();
        assert_eq!(value["samples"]["kagero"]["megabytes_per_second"]["max"], 160.0);
        assert_eq!(value["values"]["vblade"]["megabytes_per_second"][0][1], 50.0);
        assert_eq!(value["ratios"]["kagero/vblade"]["megabytes_per_second"]["max"], 1.6);
    }
}
