//! Reads and writes of files through io_uring(7), many at once.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{IoUring, opcode, types::Fd};
use slab::Slab;

use super::Task;
use super::task::Work;
use crate::Place;
use crate::file::ImageFile;

/// Requests in the kernel at once; more wait in the socket's ring.
const DEPTH: u32 = 256;

/// A ring, and what the kernel is doing with it.
pub(super) struct Ring {
    ring: IoUring,
    /// What the kernel reads or writes stays here until it says that it is done.
    held: Slab<Held>,
    unsubmitted: bool,
}

struct Held {
    flight: usize,
    task: Task,
    /// Keeps the descriptor open.
    _file: Arc<ImageFile>,
}

/// A task that the kernel is done with.
pub(super) struct Done {
    pub(super) flight: usize,
    pub(super) task: Task,
    /// Whether all its bytes were moved. If not, the slow way tells why.
    pub(super) whole: bool,
}

impl Ring {
    /// # Errors
    /// When the kernel has no io_uring, or we may not use it.
    pub(super) fn new() -> io::Result<Self> {
        // Completions wait until we look, instead of interrupting us: Linux 5.19. For this thread alone: 6.0.
        let ring = IoUring::builder()
            .setup_coop_taskrun()
            .setup_single_issuer()
            .build(DEPTH)
            .or_else(|_| IoUring::new(DEPTH))?;
        Ok(Ring { ring, held: Slab::with_capacity(DEPTH as usize), unsubmitted: false })
    }

    /// Begins a read, or a write that needn't be durable, at this place. Gives the task back when there is no room, or it is another.
    pub(super) fn begin(&mut self, flight: usize, mut task: Task, place: Place) -> Result<(), Task> {
        if self.held.len() >= DEPTH as usize {
            return Err(task);
        }
        let entry = self.held.vacant_entry();
        let fd = Fd(place.file.for_requests().as_raw_fd());
        let operation = match &mut task.work {
            Work::Read { data, .. } => {
                let Ok(length) = u32::try_from(data.len()) else { return Err(task) };
                opcode::Read::new(fd, data.as_mut_ptr(), length).offset(place.at).build()
            }
            Work::Write { data, durable: false, .. } => {
                let Ok(length) = u32::try_from(data.len()) else { return Err(task) };
                opcode::Write::new(fd, data.as_ptr(), length).offset(place.at).build()
            }
            _ => return Err(task),
        };
        let operation = operation.user_data(entry.key() as u64);
        // SAFETY: the buffer's bytes lie on the heap and stay where they are while the task is in `held`, as does the file; it leaves only when
        // the kernel has completed the operation, or when the ring is gone, for which `drop` waits.
        if unsafe { self.ring.submission().push(&operation) }.is_err() {
            return Err(task);
        }
        self.unsubmitted = true;
        entry.insert(Held { flight, task, _file: place.file });
        Ok(())
    }

    /// Hands to the kernel what was begun.
    pub(super) fn submit(&mut self) {
        if std::mem::take(&mut self.unsubmitted)
            && let Err(error) = self.ring.submit()
        {
            // EAGAIN, EBUSY, EINTR: it stays in the ring for the next time, which is when the kernel has something for us at the latest.
            tracing::debug!(%error, "io_uring");
            self.unsubmitted = true;
        }
    }

    /// The next task that is done.
    pub(super) fn next(&mut self) -> Option<Done> {
        let completion = self.ring.completion().next()?;
        let key = usize::try_from(completion.user_data()).ok()?;
        let Held { flight, task, .. } = self.held.try_remove(key)?;
        let length = match &task.work {
            Work::Read { data, .. } | Work::Write { data, .. } => data.len(),
            _ => 0,
        };
        let whole = usize::try_from(completion.result()).is_ok_and(|moved| moved == length);
        Some(Done { flight, task, whole })
    }
}

impl AsFd for Ring {
    /// Readable when a task is done.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring is.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
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
