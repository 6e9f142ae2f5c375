//! The folders of lab runs.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Kept folders, and those of killed tests, are removed after this.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The folder of one run, below `target/lab/runs`. It is removed with the run unless the test panics or
/// `KAGERO_KEEP_RUNS` is set.
#[derive(Debug)]
pub(crate) struct Folder(Option<tempfile::TempDir>);

impl Folder {
    /// A new, empty one; its name starts with `prefix`.
    pub(crate) fn new(prefix: &str) -> Result<Folder> {
        let runs = kagero_images::cache_dir().join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("{}", runs.display()))?;
        remove_old(&runs);
        let folder = tempfile::Builder::new().prefix(&format!("{prefix}-")).tempdir_in(&runs);
        Ok(Folder(Some(folder.with_context(|| format!("{}", runs.display()))?)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().expect("only drop takes it").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("KAGERO_KEEP_RUNS").is_some() {
            let kept = self.0.take().expect("dropped once").keep();
            eprintln!("lab: kept {}", kept.display());
        }
    }
}

fn remove_old(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
