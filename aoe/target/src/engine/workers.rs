//! Threads for what may wait: flushes, trims, and images that are no plain files.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use kagero_aoe::target::Fault;
use kagero_aoe::wire::Address;
use rustix::event::{EventfdFlags, eventfd};

use super::Task;

/// Threads at most. They wait for storage, so there may be many more than processors.
const MOST: usize = 64;

/// Threads that are started when they are needed, and then wait for more.
#[derive(Debug, Default)]
pub(crate) struct Workers(Arc<Pool>);

#[derive(Debug, Default)]
struct Pool {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<(usize, Task, Arc<Mailbox>)>,
    threads: usize,
    idle: usize,
    ended: bool,
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue();
            let (flight, mut task, mailbox) = loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.ended {
                    queue.threads -= 1;
                    return;
                }
                queue.idle += 1;
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            };
            drop(queue);
            // An image format's library may fail in its own way; that is one request's misfortune.
            let result = catch_unwind(AssertUnwindSafe(|| task.carry_out())).unwrap_or_else(|_| {
                tracing::error!(disk = %task.pending.address(), "a request made its image panic");
                Err(Fault::Medium { done: 0 })
            });
            mailbox.post(Letter::Done { flight, task, result });
        }
    }
}

impl Workers {
    /// Has a task carried out, and its result posted.
    pub(super) fn start(&self, flight: usize, task: Task, mailbox: &Arc<Mailbox>) {
        let mut queue = self.0.queue();
        queue.jobs.push_back((flight, task, Arc::clone(mailbox)));
        if queue.idle < queue.jobs.len() && queue.threads < MOST {
            let pool = Arc::clone(&self.0);
            match thread::Builder::new().name("aoe-worker".into()).spawn(move || pool.work()) {
                Ok(_) => queue.threads += 1,
                Err(error) if queue.threads == 0 => {
                    tracing::error!(%error, "no thread for what takes longer: it waits");
                }
                Err(_) => {}
            }
        }
        drop(queue);
        self.0.more.notify_one();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.more.notify_all();
    }
}

/// Where a serving thread is told what it should know.
#[derive(Debug)]
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    bell: OwnedFd,
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Letter {
    /// A task is done.
    Done { flight: usize, task: Task, result: Result<(), Fault> },
    /// A disk is new or has changed: its clients should hear of it.
    Announce(Address),
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Mailbox { letters: Mutex::default(), bell })
    }

    pub(crate) fn post(&self, letter: Letter) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push(letter);
        if letters.len() == 1 {
            // Fails only when the counter is full, and then it is readable anyway.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// All letters so far.
    pub(crate) fn empty(&self) -> Vec<Letter> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        if !letters.is_empty() {
            // It has rung, so this doesn't fail.
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        std::mem::take(&mut letters)
    }
}

impl AsFd for Mailbox {
    /// Readable when there is a letter.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
