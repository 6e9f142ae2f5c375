//! Reads and writes of files through io_uring(7), many at once.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

use super::Task;
use super::reserve::Reserve;
use super::task::Work;

/// Requests handed to the kernel at once: so few that the disk begins while we look at what else was received, and so many that the processor
/// has time for all else. With 64 direct reads of 4 KiB outstanding, 16 do 1.07 times as many as 8 do; 32 fewer.
const TOGETHER: usize = 16;

/// Requests that an idle disk gets first, so that it begins.
const FIRST: u32 = 4;

/// How long a request is waited for that is the only one: what others send meanwhile waits as long. Shorter times would have the kernel program
/// the processor's timer each time, since they end before its next tick does: in a virtual machine that takes as long as the system call.
const MOMENT: Duration = Duration::from_millis(10);

/// A ring, and what the kernel is doing with it.
pub(super) struct Ring {
    ring: IoUring,
    /// Rings when a task is done.
    bell: OwnedFd,
    /// What the kernel reads or writes stays here until it says that it is done.
    held: Slab<Box<Task>>,
    unsubmitted: usize,
    reserve: Reserve,
}

/// A task that the kernel is done with.
pub(super) struct Done {
    pub(super) task: Box<Task>,
    /// Whether all its bytes were moved. If not, the slow way tells why.
    pub(super) whole: bool,
}

impl Ring {
    /// For so many tasks at once.
    ///
    /// # Errors
    /// When the kernel has no io_uring, or we may not use it.
    pub(super) fn new(depth: u16) -> io::Result<Self> {
        // Completions wait until we look, instead of interrupting whatever we do: Linux 6.1.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(depth.into())
            .or_else(|_| IoUring::new(depth.into()))?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        Ok(Ring { ring, bell, held: Slab::new(), unsubmitted: 0, reserve: Reserve::default() })
    }

    /// Begins a read, or a write that needn't be durable, at the task's place. Gives it back when there is no room, or it is another. `lone`
    /// ones stay here until they are [waited for](Self::wait_a_moment) or [submitted](Self::submit).
    pub(super) fn begin(&mut self, mut task: Box<Task>, lone: bool) -> Result<(), Box<Task>> {
        let Some(place) = &task.place else { return Err(task) };
        let entry = self.held.vacant_entry();
        let (fd, at) = (Fd(place.file.for_requests().as_raw_fd()), place.at);
        let operation = match &mut task.work {
            Work::Read { data, .. } => {
                let Ok(length) = u32::try_from(data.len()) else { return Err(task) };
                opcode::Read::new(fd, data.as_mut_ptr(), length).offset(at).build()
            }
            Work::Write { data, durable: false, .. } => {
                let Ok(length) = u32::try_from(data.len()) else { return Err(task) };
                opcode::Write::new(fd, data.as_ptr(), length).offset(at).build()
            }
            _ => return Err(task),
        };
        let operation = operation.user_data(entry.key() as u64);
        // SAFETY: the buffer's bytes lie on the heap and stay where they are while the task is in `held`, which also keeps the file open; it leaves only when
        // the kernel has completed the operation, or when the ring is gone, for which `drop` waits.
        if unsafe { self.ring.submission().push(&operation) }.is_err() {
            return Err(task);
        }
        entry.insert(task);
        self.unsubmitted += 1;
        let in_kernel = self.in_kernel();
        let enough = in_kernel.min(TOGETHER - 1).max(self.reserve.size(in_kernel));
        if !lone && self.unsubmitted > enough {
            self.submit();
        }
        Ok(())
    }

    /// Requests that the kernel has, those that it is done with included.
    fn in_kernel(&self) -> usize {
        self.held.len() - self.unsubmitted
    }

    /// Hands to the kernel what was begun.
    pub(super) fn submit(&mut self) {
        if self.unsubmitted > 0 {
            self.enter();
        }
    }

    /// As [`submit`](Self::submit), but leaves what is better [kept back](Reserve), until something is done.
    pub(super) fn submit_most(&mut self) {
        if self.unsubmitted > self.reserve.size(self.in_kernel()) {
            self.submit();
        }
    }

    /// Hands over what was kept back: nothing was done for too long.
    pub(super) fn release(&mut self) {
        self.reserve.give_up();
        self.submit();
    }

    /// Lets the kernel take what was begun, and tell what is done.
    fn enter(&mut self) {
        let entered = self.ring.submit();
        self.has_entered(entered);
    }

    fn has_entered(&mut self, entered: io::Result<usize>) {
        match entered {
            Ok(taken) => {
                let taken = taken.min(self.unsubmitted);
                self.unsubmitted -= taken;
                self.reserve.submitted(taken);
            }
            // EAGAIN, EBUSY, EINTR: it stays in the ring for the next time, which is when the kernel has something for us at the latest.
            Err(error) => tracing::debug!(%error, "io_uring"),
        }
    }

    /// Requests that the kernel doesn't have yet.
    pub(super) fn unsubmitted(&self) -> usize {
        self.unsubmitted
    }

    /// As [`submit`](Self::submit), and waits a moment for what is done; whether something is. It doesn't ring for that.
    pub(super) fn wait_a_moment(&mut self) -> bool {
        self.ring.completion().disable_eventfd();
        let moment = Timespec::from(MOMENT);
        let entered = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&moment));
        self.has_entered(entered);
        // Where nothing was taken, as by Linux before 5.11, which can't wait so: nobody else may come by to submit it.
        self.submit();
        self.ring.completion().enable_eventfd();
        // What came meanwhile didn't ring.
        self.has_done()
    }

    /// Whether a task is done.
    fn has_done(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// It rings. If something is done, what was kept back goes to the disk.
    pub(super) fn rang(&mut self) {
        if self.reserve.is_ringing() || !self.has_done() {
            return;
        }
        let (here, in_kernel) = (self.held.len(), self.in_kernel());
        if self.unsubmitted > FIRST as usize {
            // SAFETY: without an argument there is nothing that must be valid.
            let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(FIRST, 0, 0, None) };
            self.has_entered(entered);
        }
        self.submit();
        self.reserve.rang(here, in_kernel);
    }

    /// It has rung, and what was done is taken in: it will be silent until something is done from now on.
    pub(super) fn silence(&mut self) {
        self.reserve.silenced();
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// The next task that is done.
    pub(super) fn next(&mut self) -> Option<Done> {
        let mut completion = self.ring.completion().next();
        if completion.is_none() && self.ring.submission().taskrun() {
            self.enter();
            completion = self.ring.completion().next();
        }
        let completion = completion?;
        let key = usize::try_from(completion.user_data()).ok()?;
        self.reserve.taken();
        let task = self.held.try_remove(key)?;
        let length = match &task.work {
            Work::Read { data, .. } | Work::Write { data, .. } => data.len(),
            _ => 0,
        };
        let whole = usize::try_from(completion.result()).is_ok_and(|moved| moved == length);
        Some(Done { task, whole })
    }
}

impl AsFd for Ring {
    /// Readable when a task is done.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while !self.held.is_empty() {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => {
                    // Better to lose memory than to have the kernel write to it when it is somebody else's.
                    std::mem::forget(std::mem::take(&mut self.held));
                    return;
                }
                _ => while self.next().is_some() {},
            }
        }
    }
}
