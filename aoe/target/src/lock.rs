//! Locks that keep two writers from one disk image.
//!
//! They are open file description locks (`F_OFD_SETLK` in fcntl(2)): they belong to the open file rather than to the process, so two disks of one
//! process exclude each other too, and they end with it, SIGKILL included. They cover the whole file, and so also meet the locks of other
//! virtual machine monitors on it.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// Locks the whole file, for one writer or for many readers. False when somebody else's lock is in the way.
///
/// # Errors
/// When the file system knows no locks.
pub(crate) fn lock(file: &File, exclusive: bool) -> io::Result<bool> {
    match set(file, if exclusive { libc::F_WRLCK } else { libc::F_RDLCK }) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Gives the lock back. Closing the file does so too, but not while a child process has its copy, as between fork and exec.
pub(crate) fn unlock(file: &File) {
    // Fails only where there are no locks.
    let _ = set(file, libc::F_UNLCK);
}

fn set(file: &File, kind: libc::c_int) -> io::Result<()> {
    // Length 0: to the end of the file, wherever it will be. The process id must be 0.
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and F_OFD_SETLK reads one `flock`.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Who holds a lock on this file, for an error message: "process 1234 (kagero)". Looks at every process, as far as we may.
pub(crate) fn holder(file: &File) -> Option<String> {
    let inode = format!(":{} ", file.metadata().ok()?.ino());
    let pid =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).find(
            |pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && holds_lock(pid, &inode).unwrap_or(false),
        )?;
    if pid == std::process::id().to_string() {
        return Some("another disk of this process".into());
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} ({})", name.trim()))
}

/// Whether a descriptor of process `pid` has a lock on a file with this inode number (proc_pid_fdinfo(5)).
fn holds_lock(pid: &str, inode: &str) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        if info.lines().any(|line| line.starts_with("lock:") && line.contains(inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}
