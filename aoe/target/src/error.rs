//! Why a disk can't be served, in one line that says what to do.

use std::io;
use std::path::PathBuf;

use kagero_aoe::target::AddressTaken;

/// Why a disk can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("no disk image {0}: check the path")]
    NoImage(PathBuf),
    /// The path names something that holds no disk.
    #[error("disk image {path} is {what}: name a file or a block device")]
    NotAnImage {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The file is empty.
    #[error("disk image {0} is empty: make it larger, say with `truncate -s 8G {0}`")]
    Empty(PathBuf),
    /// The file's size is not whole sectors.
    #[error(
        "disk image {path} has {size} bytes, not a multiple of 512: is it a disk image? If so, `truncate -s %512 {path}` fills it up"
    )]
    NotSectors {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file may not be opened so.
    #[error("no permission to {how} disk image {path}: change its mode or owner")]
    Permission {
        /// The path.
        path: PathBuf,
        /// "read" or "write".
        how: &'static str,
    },
    /// The file can't be written where it is.
    #[error(
        "disk image {0} is on a read-only file system: add `,read-only` to its name to use it so, or copy it"
    )]
    ReadOnly(PathBuf),
    /// Somebody else has it open for writing, or has it open and we want to write.
    #[error("disk image {path} is in use{}: end that first, or use a copy", by(.holder))]
    InUse {
        /// The path.
        path: PathBuf,
        /// Who that is, if it can be told.
        holder: Option<String>,
    },
    /// Two disks can't have one address.
    #[error(transparent)]
    Address(#[from] AddressTaken),
    /// Any other refusal by the kernel.
    #[error("disk image {path}: cannot {doing}: {source}")]
    Kernel {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn by(holder: &Option<String>) -> String {
    holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
}
