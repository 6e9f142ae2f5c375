//! The files that will be written: whether they can be, and that none of them is something else's.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::error::UserError;

/// A file that will be written.
pub(super) struct Output<'a> {
    /// The option that says so.
    pub(super) option: &'static str,
    pub(super) path: &'a Path,
}

/// Checks that each of `outputs` can be written and is neither one of the `inputs` nor another output: a disk image is not to be
/// lost to a slip of the finger.
pub(super) fn check<'a>(
    outputs: impl IntoIterator<Item = Output<'a>>,
    inputs: &[&Path],
) -> Result<(), UserError> {
    let mut seen: Vec<Output<'_>> = Vec::new();
    for output in outputs {
        let Output { option, path } = output;
        writable(&output)?;
        if inputs.iter().any(|input| same(input, path)) {
            let problem = format!("{option} would write over it, and it is needed here");
            return Err(UserError::new(path.display(), problem, "give another file"));
        }
        if let Some(other) = seen.iter().find(|other| same(other.path, path)) {
            let problem = format!("{} and {option} would both write it", other.option);
            return Err(UserError::new(path.display(), problem, "give each a file of its own"));
        }
        seen.push(output);
    }
    Ok(())
}

/// One capture file for each link; the first has the name that was given.
pub(crate) fn numbered(path: &Path, index: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if index > 0 {
        name.push(format!(".{index}"));
    }
    name.into()
}

/// Whether two paths lead to one file on a disk, or would. Devices and pipes may be written by many.
fn same(one: &Path, other: &Path) -> bool {
    let identity = |meta: Metadata| (meta.is_file() || is_block(&meta)).then(|| (meta.dev(), meta.ino()));
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => identity(one).is_some_and(|one| Some(one) == identity(other)),
        (Err(_), Err(_)) => place(one) == place(other),
        _ => false,
    }
}

fn is_block(meta: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_block_device(&meta.file_type())
}

/// Where a file that is not there yet will be.
fn place(path: &Path) -> PathBuf {
    let folder = fs::canonicalize(folder(path)).unwrap_or_default();
    path.file_name().map_or(folder.clone(), |name| folder.join(name))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn writable(output: &Output<'_>) -> Result<(), UserError> {
    let Output { option, path } = *output;
    let wrong = |problem: String, mend: &str| Err(UserError::new(path.display(), problem, mend));
    if path.is_dir() {
        return wrong(format!("a directory, where {option} needs a file"), "add a file name");
    }
    let folder = folder(path);
    if !folder.is_dir() {
        let problem = format!("{option} can't make a file there: no folder {}", folder.display());
        return wrong(problem, "create it first");
    }
    // The report comes to its place whole, from a file beside it.
    let beside = option == "--report" && fs::metadata(path).is_ok_and(|meta| meta.is_file());
    let asked = if path.exists() && !beside { path } else { folder };
    let rights = if asked == folder { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    match accessat(CWD, asked, rights, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(why) => {
            let why = std::io::Error::from(why);
            wrong(format!("{option} can't write there: {why}"), "give a file elsewhere")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "").unwrap();
        fs::write(path("b"), "").unwrap();
        fs::hard_link(path("a"), path("link")).unwrap();
        assert!(same(&path("a"), &path("link")));
        assert!(!same(&path("a"), &path("b")));
        assert!(same(&path("new"), &folder.path().join("./new")));
        assert!(!same(&path("new"), &path("newer")));
        assert!(!same(Path::new("/dev/null"), Path::new("/dev/null")));
    }
}
