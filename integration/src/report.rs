//! What `kagero run --report` wrote, read with tolerance: fields that are missing or new are no error, so that the lab's tests
//! need no change when the report grows.

use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// A report.
#[derive(Debug, Clone, PartialEq)]
pub struct Report(Value);

impl Report {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there or is no JSON.
    pub fn read(path: &Path) -> Result<Report> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        Ok(Report(serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?))
    }

    /// A value by its JSON pointer, such as `/disks/0/resends`; null when there is none.
    pub fn get(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The milestones and when they were reached, in milliseconds since the start.
    pub fn phases(&self) -> Vec<(String, u64)> {
        let phase = |phase: &Value| {
            let at = ["ms", "at_ms"].iter().find_map(|key| phase.get(key)?.as_f64())?;
            Some((phase.get("name")?.as_str()?.to_owned(), at as u64))
        };
        self.get("/phases").as_array().into_iter().flatten().filter_map(phase).collect()
    }

    /// The milestones as a table: when each was reached, and how long that took since the one before.
    pub fn phase_table(&self) -> String {
        let mut table = format!("{:<24} {:>10} {:>10}\n", "phase", "reached", "took");
        let mut before = 0;
        for (name, at) in self.phases() {
            let took = at.saturating_sub(before) as f64 / 1e3;
            let _ = writeln!(table, "{name:<24} {:>8.1} s {took:>8.1} s", at as f64 / 1e3);
            before = at;
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_found_under_both_names_of_their_time() {
        let json = r#"{"phases":[{"name":"firmware","ms":1500,"boot":1},{"name":"login","at_ms":60000.5},{"odd":1}]}"#;
        let report = Report(serde_json::from_str(json).unwrap());
        assert_eq!(report.phases(), [("firmware".into(), 1500), ("login".into(), 60000)]);
        let table = report.phase_table();
        assert!(table.contains("58.5 s"), "{table}");
        assert!(Report(Value::Null).phases().is_empty());
    }
}
