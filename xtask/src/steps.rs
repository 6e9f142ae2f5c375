//! Steps that are run one after the other, each timed, and the table at the end.

use anyhow::Result;
use kagero_images::cache_dir;
use kagero_integration::process::Process;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How much of a failed step's output is shown at most.
const LINES_OF_FAILURE: usize = 120;
/// How much of its end, if no test's own words can be told from the rest.
const LINES_OF_END: usize = 60;

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    took: Duration,
    counts: Counts,
    /// Why it failed.
    why: Option<String>,
}

/// What a step's output says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    retries: u64,
}

impl Steps {
    /// Runs a function as a step.
    pub(crate) fn call(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        let started = begin(name);
        let result = step();
        let counts = Counts { passed: result.is_ok().into(), failed: result.is_err().into(), retries: 0 };
        self.end(name, started, counts, result.err().map(|e| format!("{e:#}")));
    }

    /// Runs a command as a step; it is killed after `patience`. Its output goes to a file below `target/lab/steps`; of a failure,
    /// what failed tests said is shown too, or the end. Lines of cargo's test runner and of the lab's retries are counted.
    pub(crate) fn run(&mut self, name: &str, command: Command, patience: Duration) {
        let started = begin(name);
        let (counts, why) = attempt(name, command, patience);
        self.end(name, started, counts, why);
    }

    /// As [`Self::run`], and up to `retries` times again when it fails. What it prints is shown.
    pub(crate) fn run_with_retries(
        &mut self,
        name: &str,
        command: impl Fn() -> Command,
        patience: Duration,
        retries: u64,
    ) {
        let started = begin(name);
        let (mut counts, mut why) = attempt(name, command(), patience);
        for retry in 1..=retries {
            let Some(reason) = why else { break };
            println!("   failed: {reason}\n   retry {retry} of {retries}");
            let before = counts.retries + 1;
            (counts, why) = attempt(&format!("{name} retry {retry}"), command(), patience);
            counts.retries += before;
        }
        self.end(name, started, counts, why);
    }

    /// Prints the table and the closing line. Returns whether all passed.
    pub(crate) fn summary(&self) -> bool {
        println!("\n{:<62} {:>9} {:>7} {:>7} {:>8}", "step", "time", "passed", "failed", "retries");
        let mut sum = Counts::default();
        for Step { name, took, counts, why } in &self.done {
            let time = format!("{:.1} s", took.as_secs_f64());
            let Counts { passed, failed, retries } = counts;
            println!("{name:<62} {time:>9} {passed:>7} {failed:>7} {retries:>8}");
            why.iter().for_each(|why| println!("    {why}"));
            sum.passed += passed;
            sum.failed += failed;
            sum.retries += retries;
        }
        let took: Duration = self.done.iter().map(|step| step.took).sum();
        println!("\n{:.0} s, {} retries", took.as_secs_f64(), sum.retries);
        println!("{} passed, {} failed", sum.passed, sum.failed);
        sum.failed == 0
    }

    fn end(&mut self, name: &str, started: Instant, counts: Counts, why: Option<String>) {
        let took = started.elapsed();
        match &why {
            None => println!("   ok in {:.1} s", took.as_secs_f64()),
            Some(why) => println!("   FAILED in {:.1} s: {why}", took.as_secs_f64()),
        }
        self.done.push(Step { name: name.to_owned(), took, counts, why });
    }
}

fn begin(name: &str) -> Instant {
    println!("== {name}");
    Instant::now()
}

/// Runs a command to its end: what its output says, and why it failed.
fn attempt(name: &str, command: Command, patience: Duration) -> (Counts, Option<String>) {
    let folder = cache_dir().join("steps");
    let log = folder.join(format!("{}.log", name.replace(|c: char| !c.is_alphanumeric(), "-")));
    let ended = fs::create_dir_all(&folder)
        .map_err(Into::into)
        .and_then(|()| Process::start(command, &log))
        .and_then(|mut process| process.wait(patience));
    let said = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let mut counts = count(&said);
    let why = match ended {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("{status}; all it wrote is in {}", log.display())),
        Err(e) => Some(format!("{e:#}")),
    };
    if why.is_some() {
        counts.failed = counts.failed.max(1);
        println!("{}", failure(&said).join("\n"));
    } else {
        counts.passed += u64::from(counts.passed == 0 && !said.contains("test result: "));
        notes(&log).iter().for_each(|note| println!("   {note}"));
    }
    (counts, why)
}

/// What a failed step's output is shown of: what failed tests wrote, which may be far from the end, or else the end.
fn failure(said: &str) -> Vec<&str> {
    let mut told = Vec::new();
    let mut within = false;
    for line in said.lines() {
        within |= line.starts_with("---- ");
        if within {
            told.push(line);
        }
        within &= !line.starts_with("test result: ");
    }
    if told.is_empty() {
        told = said.lines().collect();
        told.drain(..told.len().saturating_sub(LINES_OF_END));
    }
    told.truncate(LINES_OF_FAILURE);
    told
}

/// What a scenario printed, without the test runner's own words.
fn notes(log: &Path) -> Vec<String> {
    let said = fs::read_to_string(log).unwrap_or_default();
    if said.matches("\nrunning ").count() != 1 {
        return Vec::new();
    }
    let rest_of_line = |line: &str| match line.strip_prefix("test ") {
        // libtest goes on in the line of the test's name.
        Some(test) => test.split_once(" ... ").map(|(_, rest)| rest.to_owned()),
        None => Some(line.to_owned()),
    };
    let noise = |line: &String| line.is_empty() || line == "ok" || line.starts_with("running ");
    said.lines().filter_map(rest_of_line).filter(|line| !noise(line)).collect()
}

/// Adds up `test result: ok. 3 passed; 0 failed; ...` and `lab: retry ...` lines.
fn count(said: &str) -> Counts {
    let mut counts = Counts::default();
    for line in said.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            let words: Vec<&str> = result.split_whitespace().collect();
            let before = |label: &str| {
                let at = words.iter().position(|word| word.trim_end_matches(';') == label)?;
                words.get(at.checked_sub(1)?)?.parse::<u64>().ok()
            };
            counts.passed += before("passed").unwrap_or(0);
            counts.failed += before("failed").unwrap_or(0);
        } else if line.starts_with("lab: retry ") {
            counts.retries += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_and_retries_are_added_up() {
        let said = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    lab: retry 1 of L1's start: stalled\n\
                    test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(count(said), Counts { passed: 3, failed: 3, retries: 1 });
    }

    #[test]
    fn of_a_failure_the_failed_tests_are_shown() {
        let said = "running 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nwhy\n\nfailures:\n    a\n\n\
                    test result: FAILED. 0 passed; 1 failed\n\nrunning 0 tests\ntest result: ok. 0 passed; 0 failed\n";
        let shown = failure(said);
        assert_eq!(shown[..2], ["---- a stdout ----", "why"]);
        assert_eq!(shown.last().unwrap(), &"test result: FAILED. 0 passed; 1 failed");
        assert_eq!(failure("one\ntwo"), ["one", "two"]);
        let long = "line\n".repeat(1_000);
        assert_eq!(failure(&long).len(), LINES_OF_END);
    }

    #[test]
    fn notes_are_what_the_scenario_printed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(&log, "\nrunning 1 test\ntest a_b ... ready in 3 s\nsecond\nok\n\ntest result: ok. 1 passed; 0 failed\n\n").unwrap();
        assert_eq!(notes(log.path()), ["ready in 3 s", "second"]);
    }

    #[test]
    fn a_failing_step_is_tried_again_and_counted() {
        let mut steps = Steps::default();
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let flag = tempfile::tempdir().unwrap().path().join("tried");
        let script = format!("mkdir {0} 2>/dev/null || exit 0; exit 5", flag.display());
        fs::create_dir_all(flag.parent().unwrap()).unwrap();
        steps.run_with_retries("unit test: second try", || sh(&script), Duration::from_secs(60), 1);
        assert_eq!(steps.done[0].counts, Counts { passed: 1, failed: 0, retries: 1 });
        assert!(steps.summary());
        steps.run(
            "unit test: failure",
            sh("echo 'test result: ok. 0 passed; 0 failed'; exit 5"),
            Duration::from_secs(60),
        );
        assert_eq!(steps.done[1].counts, Counts { passed: 0, failed: 1, retries: 0 });
        assert!(!steps.summary());
        fs::remove_dir_all(flag.parent().unwrap()).unwrap();
    }
}
