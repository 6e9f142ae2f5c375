//! The lab's scenarios: the tests of `integration/` that are marked `#[ignore]`, found by asking the test programs.

use anyhow::{Context, Result, ensure};
use kagero_images::command::{command, text};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// Those that are left out: what takes long and shows the peer only. `cargo test` runs them by name all the same.
const LEFT_OUT: [&str; 1] = ["ten_reboots_under_qemu"];

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// The file in `integration/tests`.
    pub(crate) file: String,
    /// The function.
    pub(crate) name: String,
    program: PathBuf,
}

impl Scenario {
    /// Runs this one and nothing else.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--ignored", "--exact", "--nocapture", "--test-threads", "1", &self.name]);
        command
    }
}

/// Builds the test programs and returns their scenarios, by file and then in the order of their names.
pub(crate) fn find() -> Result<Vec<Scenario>> {
    let mut cargo =
        command([env!("CARGO"), "test", "--quiet", "--package", "kagero-integration", "--tests", "--no-run"]);
    let messages =
        text(cargo.arg("--message-format=json-render-diagnostics")).context("building the lab's tests")?;
    let mut found = Vec::new();
    for (file, program) in messages.lines().filter_map(test_program) {
        let list = text(&mut command([program.as_os_str(), "--ignored".as_ref(), "--list".as_ref()]))?;
        found.extend(names(&list).map(|name| Scenario {
            file: file.clone(),
            name,
            program: program.clone(),
        }));
    }
    found.retain(|scenario| !LEFT_OUT.contains(&scenario.name.as_str()));
    found.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
    ensure!(!found.is_empty(), "found no scenario in integration/tests");
    Ok(found)
}

/// The target's name and program in a message of cargo about a built test.
fn test_program(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    let name = message.pointer("/target/name")?.as_str()?.to_owned();
    is_test.then_some((name, message.get("executable")?.as_str()?.into()))
}

/// The names in a list of libtest: `name: test`.
fn names(list: &str) -> impl Iterator<Item = String> {
    list.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_left_out() {
        let tests = concat!(
            include_str!("../../integration/tests/passthrough.rs"),
            include_str!("../../integration/tests/passthrough_faults.rs")
        );
        for name in LEFT_OUT {
            assert!(tests.contains(&format!("fn {name}()")), "{name} is no scenario any more");
        }
    }

    #[test]
    fn cargo_and_libtest_are_understood() {
        let built = r#"{"reason":"compiler-artifact","target":{"name":"lab"},"profile":{"test":true},"executable":"/t/lab-1"}"#;
        assert_eq!(test_program(built), Some(("lab".into(), "/t/lab-1".into())));
        assert_eq!(test_program(&built.replace("true", "false")), None);
        assert_eq!(test_program("Compiling"), None);
        let list: Vec<_> = names("a::b: test\nc: test\n\n2 tests, 0 benchmarks\n").collect();
        assert_eq!(list, ["a::b", "c"]);
    }
}
