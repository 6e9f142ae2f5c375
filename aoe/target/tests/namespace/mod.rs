//! A network of a test's own: a thread in a fresh network namespace, with a veth pair. It is gone when the test ends.
#![allow(unsafe_code)]

use std::process::Command;

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` in a network namespace in which `kgv0` and `kgv1` are the ends of a cable with jumbo frames. Does nothing, and says so, for a
/// user who may not make one.
pub(crate) fn with_cable(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            // SAFETY: only this thread, which ends with the test, moves to another namespace; no memory is unshared.
            match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {
                    eprintln!("skipped: only root may make a network namespace");
                    return;
                }
                other => other.expect("a network namespace"),
            }
            ip("link add kgv0 type veth peer name kgv1");
            for end in ["kgv0", "kgv1"] {
                ip(&format!("link set dev {end} mtu 9000 up"));
            }
            test();
        });
        if let Err(panic) = ran.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `ip` with these arguments in the namespace of this thread.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("the command ip");
    assert!(status.success(), "ip {arguments}: {status}");
}
