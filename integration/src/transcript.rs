//! A growing log file and waiting for what it will say.

use anyhow::{Result, bail};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a growing file is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Reads a log, such as a guest's serial console, from where the last match ended.
#[derive(Debug, Clone)]
pub struct Transcript {
    path: PathBuf,
    at: u64,
}

impl Transcript {
    /// The log at `path`, which need not exist yet, from its beginning.
    pub fn new(path: impl Into<PathBuf>) -> Transcript {
        Transcript { path: path.into(), at: 0 }
    }

    /// The log file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that was written so far; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// What was written since the last match or the last `rest`, whichever came later, and goes on after it.
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.unread();
        self.at += rest.len() as u64;
        rest
    }

    /// Looks for `needle` after the last match. Returns what came before it, and goes on after it.
    pub fn take(&mut self, needle: &str) -> Option<String> {
        let rest = self.unread();
        let found = rest.windows(needle.len().max(1)).position(|window| window == needle.as_bytes())?;
        self.at += (found + needle.len()) as u64;
        Some(String::from_utf8_lossy(&rest[..found]).into_owned())
    }

    fn unread(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.path) {
            let _ = file.seek(SeekFrom::Start(self.at)).and_then(|_| file.read_to_end(&mut bytes));
        }
        bytes
    }

    /// Waits until `needle` is written after the last match; returns as [`Self::take`].
    ///
    /// # Errors
    /// It didn't come within `patience`, or `alive` says that nobody will write any more. The error holds the last lines.
    pub fn expect(
        &mut self,
        needle: &str,
        patience: Duration,
        mut alive: impl FnMut() -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            // Asked before the look: what a process wrote before it ended is still found.
            let was_alive = alive();
            if let Some(before) = self.take(needle) {
                return Ok(before);
            }
            if !was_alive {
                bail!("ended before it wrote {needle:?}; last: {}", self.last_lines());
            }
            if Instant::now() > deadline {
                bail!("did not write {needle:?} within {patience:?}; last: {}", self.last_lines());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The last lines, for error messages.
    pub fn last_lines(&self) -> String {
        kagero_images::command::last_lines(&self.text(), 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_go_forward_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Transcript::new(file.path());
        assert!(log.take("login:").is_none());
        fs::write(file.path(), "boot\nlogin: root\n# ").unwrap();
        assert_eq!(log.take("login:").as_deref(), Some("boot\n"));
        assert!(log.take("login:").is_none(), "the same words are not found twice");
        assert_eq!(log.take("# ").as_deref(), Some(" root\n"));
        fs::write(file.path(), "boot\nlogin: root\n# uptime").unwrap();
        assert_eq!(log.rest(), b"uptime");
        assert_eq!(log.rest(), b"");
        let error = log.expect("never", Duration::ZERO, || true).unwrap_err();
        assert!(error.to_string().contains("\"never\""), "{error}");
        let error = log.expect("never", Duration::from_secs(60), || false).unwrap_err();
        assert!(error.to_string().contains("ended before"), "{error}");
    }
}
