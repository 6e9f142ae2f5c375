//! A disk that is soon full: a small file system in memory, in a mount namespace of a thread of its own. It is gone when the test ends.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` with the path of a file system of so many KiB, which this thread and those that it starts see. Does nothing, and says so,
/// for a user who may not make one.
pub(crate) fn with_small_disk(kib: usize, test: impl FnOnce(&Path) + Send) {
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            // SAFETY: only this thread, which ends with the test, moves to another mount namespace (and, as that needs it, to a working
            // directory of its own).
            if unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.is_err() {
                eprintln!("skipped: may not mount a small file system");
                return;
            }
            let folder = tempfile::tempdir().unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let size = CString::new(format!("size={kib}k")).unwrap();
            rustix::mount::mount("none", folder.path(), "tmpfs", MountFlags::empty(), Some(&*size)).unwrap();
            test(folder.path());
            rustix::mount::unmount(folder.path(), UnmountFlags::DETACH).unwrap();
        });
        if let Err(panic) = ran.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
