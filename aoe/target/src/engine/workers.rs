//! Threads for what may wait: flushes, trims, and images that are no plain files.

use std::collections::{BTreeMap, VecDeque};
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
pub(super) const MOST: usize = 64;

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
    /// For the next threads that are free.
    jobs: VecDeque<Job>,
    /// Disks that have jobs, by where they lie in memory.
    disks: BTreeMap<usize, Disk>,
    /// Jobs in the queue and with threads.
    under_way: usize,
    threads: usize,
    idle: usize,
    ended: bool,
}

#[derive(Debug)]
struct Job {
    task: Box<Task>,
    mailbox: Arc<Mailbox>,
}

impl Job {
    fn disk(&self) -> usize {
        Arc::as_ptr(&self.task.served).addr()
    }
}

/// The jobs of one disk.
#[derive(Debug, Default)]
struct Disk {
    /// In the queue and with threads, no more than its share.
    under_way: usize,
    /// They wait for the disk's others.
    waiting: VecDeque<Job>,
}

impl Queue {
    fn begin(&mut self, job: Job) {
        let disk = job.disk();
        self.disks.entry(disk).or_default().waiting.push_back(job);
        self.advance(disk);
    }

    fn end(&mut self, disk: usize) {
        if let Some(disk) = self.disks.get_mut(&disk) {
            disk.under_way -= 1;
            self.under_way -= 1;
        }
        self.advance(disk);
    }

    /// Lets the next job of a disk have a thread, if the disk may have one more: a quarter of what the others leave it. So one that doesn't
    /// answer, or even ten of them, have all the threads that they may have and leave some.
    fn advance(&mut self, number: usize) {
        let Some(disk) = self.disks.get_mut(&number) else { return };
        let others = self.under_way - disk.under_way;
        let share = (MOST.saturating_sub(others) / 4).max(1);
        if disk.under_way < share
            && let Some(job) = disk.waiting.pop_front()
        {
            disk.under_way += 1;
            self.under_way += 1;
            self.jobs.push_back(job);
        }
        if disk.under_way == 0 {
            self.disks.remove(&number);
        }
    }
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.queue();
        loop {
            let Some(job) = queue.jobs.pop_front() else {
                if queue.ended {
                    queue.threads -= 1;
                    return;
                }
                queue.idle += 1;
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                continue;
            };
            drop(queue);
            let disk = job.disk();
            let Job { mut task, mailbox } = job;
            // An image format's library may fail in its own way; that is one request's misfortune.
            let result = catch_unwind(AssertUnwindSafe(|| task.carry_out())).unwrap_or_else(|_| {
                tracing::error!(disk = %task.pending.address(), "a request made its image panic");
                Err(Fault::Medium { done: 0 })
            });
            mailbox.post(Letter::Done { task, result });
            queue = self.queue();
            queue.end(disk);
        }
    }
}

impl Workers {
    /// Has a task carried out, and its result posted.
    pub(super) fn start(&self, task: Box<Task>, mailbox: &Arc<Mailbox>) {
        let mut queue = self.0.queue();
        queue.begin(Job { task, mailbox: Arc::clone(mailbox) });
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
    Done { task: Box<Task>, result: Result<(), Fault> },
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
