//! What a child process does between fork and exec, and new namespaces: the only place here that needs `unsafe`.
#![allow(unsafe_code)]

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// The kernel kills the child when the thread that starts it ends, so that nothing of ours survives a test that
/// panics, is interrupted or is killed (PR_SET_PDEATHSIG).
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe, and the closure neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

/// The child runs in the network namespace that `namespace` refers to.
pub(crate) fn enter_network(command: &mut Command, namespace: Arc<OwnedFd>) {
    // SAFETY: setns is async-signal-safe, and the closure neither allocates nor takes a lock; the descriptor stays
    // open because the closure owns a share of it.
    unsafe {
        command.pre_exec(move || {
            Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
        });
    }
}

/// A new network namespace, held open by the descriptor that is returned.
pub(crate) fn new_network() -> io::Result<OwnedFd> {
    // A thread of its own leaves the namespace and then ends; the others stay where they are.
    let thread = std::thread::spawn(|| {
        // SAFETY: only unsharing the descriptor table is dangerous, and this doesn't.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    });
    thread.join().unwrap_or_else(|_| Err(io::Error::other("thread panicked")))
}
