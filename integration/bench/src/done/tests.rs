use super::*;
use crate::server::Resident;
use std::collections::BTreeMap;

fn sample(median: f64) -> Sample {
    Sample { median, min: median - 0.1, max: median + 0.1 }
}

fn case(group: &str, pattern: &str, window: usize, ratios: &[(&str, f64)]) -> Case {
    let both = |value| {
        let metrics = [Metric::MegabytesPerSecond, Metric::CpuMicrosecondsPerFrame];
        BTreeMap::from(metrics.map(|metric| (metric, sample(value))))
    };
    Case {
        group: group.into(),
        pattern: pattern.into(),
        window,
        ratios: ratios.iter().map(|(pair, value)| ((*pair).to_owned(), both(*value))).collect(),
        ..Case::default()
    }
}

fn of(cases: Vec<Case>, now: u64, what: &str) -> Line {
    let memory =
        Memory { group: "mtu9000/tmpfs/200".into(), server: "kagero", resident: Resident { now, peak: now } };
    let report = Report { cases, memory: vec![memory], ..Report::default() };
    lines(&report, 200).into_iter().find(|line| line.what.contains(what)).unwrap()
}

#[test]
fn a_line_is_of_its_case() {
    let with = |ratio| vec![case("mtu9000/tmpfs/1", "random", 16, &[("kagero/vblade", ratio)])];
    assert_eq!(of(with(1.6), 0, "random/16").passed, Some(true));
    assert_eq!(of(with(1.59), 0, "random/16").passed, Some(false));
    assert_eq!(of(with(0.6), 0, "CPU a frame, mtu9000/tmpfs/1/random/16").passed, Some(true));
    assert_eq!(of(with(0.61), 0, "CPU a frame, mtu9000/tmpfs/1/random/16").passed, Some(false));
    assert_eq!(of(with(2.0), 0, "sequential/64").passed, None, "it was not measured");
}

#[test]
fn the_worst_case_counts() {
    let cases = vec![
        case("mtu9000/tmpfs/200", "random", 16, &[("kagero/kagero-one", 0.95)]),
        case("mtu9000/tmpfs/200", "random", 64, &[("kagero/kagero-one", 0.85)]),
    ];
    let line = of(cases, 0, "200 exports, to one");
    assert_eq!((line.passed, line.measured), (Some(false), Some(sample(0.85))));
    assert!(line.note.contains("random/64"), "{}", line.note);
}

#[test]
fn slower_is_beyond_the_noise() {
    let with = |ratio| {
        let again = ("vblade-again/vblade", 1.05);
        vec![
            case("g", "random", 16, &[again, ("kagero/vblade", 2.0)]),
            case("g", "random", 1, &[("kagero/vblade", ratio)]),
        ]
    };
    let line = of(with(0.96), 0, "nowhere");
    assert_eq!(line.passed, Some(true));
    assert!(line.note.contains("g/random/1 0.96, within the noise"), "{}", line.note);
    let line = of(with(0.94), 0, "nowhere");
    assert_eq!(line.passed, Some(false));
    assert_eq!(of(with(1.0), 0, "nowhere").note, "worst of 2: g/random/1");
}

#[test]
fn memory_has_a_limit() {
    assert_eq!(of(vec![], 63_000_000, "memory").passed, Some(true));
    assert_eq!(of(vec![], 64_000_000, "memory").passed, Some(false));
}

#[test]
fn table_says_what_is_not_met() {
    let cases =
        vec![case("mtu9000/tmpfs/1", "random", 16, &[("kagero/vblade", 1.2), ("vblade-again/vblade", 1.01)])];
    let report = Report { cases, ..Report::default() };
    let table = table(&lines(&report, 200), &report.cases);
    assert!(table.contains("1.20 (1.10..1.30)  FAIL"), "{table}");
    assert!(table.contains("not measured  -"), "{table}");
    assert!(table.contains("1.01 (0.91..1.11)"), "{table}");
}
