//! What was changed on the host, written down before it is: a file a run, kept until all is undone.
//!
//! A run holds a lock on its journal for as long as it lives, however it ends. So a journal that nobody holds is one of a run that
//! could not clean up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Address;
use super::host::names;

/// How a function was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    pub(super) function: Address,
    /// The driver that had it.
    pub(super) driver: Option<String>,
    /// Its `driver_override`.
    pub(super) only: Option<String>,
}

/// This run's journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    pub(super) entries: Vec<Before>,
}

impl Journal {
    /// A new one in `folder`, which must be there.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        for attempt in 0..1000 {
            let path = folder.join(format!("{}-{attempt}.journal", std::process::id()));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    // Until it is locked, it looks like a dead run's, and may be cleaned up.
                    if try_lock(&file)? && is_at(&file, &path) {
                        File::open(folder)?.sync_all()?;
                        return Ok(Self { path, file, entries: Vec::new() });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// Writes down what is about to be changed; it is on the medium when this returns.
    pub(super) fn note(&mut self, before: Before) -> io::Result<()> {
        let mut line = serde_json::to_string(&before)?;
        line.push('\n');
        self.entries.push(before);
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The end: all is as it was.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// A journal that was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Its run lives.
    Alive { run: String, entries: Vec<Before> },
    /// Its run is dead; nobody else cleans up while this value lives.
    Dead { run: String, journal: Journal },
}

/// All journals in a folder.
pub(super) fn find(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in names(folder) {
        let Some(run) = name.strip_suffix(".journal") else { continue };
        let run = run.split('-').next().unwrap_or(run).to_owned();
        let path = folder.join(&name);
        let mut file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            // Its run has just ended well.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let alive = !try_lock(&file)?;
        if !alive && !is_at(&file, &path) {
            continue;
        }
        let entries = entries(&mut file).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        found.push(match alive {
            true => Found::Alive { run, entries },
            false => Found::Dead { run, journal: Journal { path, file, entries } },
        });
    }
    Ok(found)
}

/// What is in a journal. A line that is not whole is the last: it was being written when its run died, and what it was for was not begun.
fn entries(file: &mut File) -> io::Result<Vec<Before>> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
    let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
}

/// Locks a file until it is closed; false when somebody else has.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file is still the one of this name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |meta: &fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(ours), Ok(there)) if identity(&ours) == identity(&there))
}
