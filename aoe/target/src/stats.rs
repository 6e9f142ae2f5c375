//! What a server has done so far, for any thread to read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that the serving thread alone writes.
#[derive(Debug, Default)]
pub struct Stats {
    frames: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    errors: AtomicU64,
    unsent: AtomicU64,
}

/// The [`Stats`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received, for us or not.
    pub frames: u64,
    /// Requests that read.
    pub reads: u64,
    /// Requests that wrote.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes sent to clients.
    pub bytes_read: u64,
    /// Bytes taken from clients.
    pub bytes_written: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Answers that found no room in the transmit buffers; the client asks again.
    pub unsent: u64,
}

impl Stats {
    /// All counters now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let Stats { frames, reads, writes, flushes, bytes_read, bytes_written, errors, unsent } = self;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            frames: get(frames),
            reads: get(reads),
            writes: get(writes),
            flushes: get(flushes),
            bytes_read: get(bytes_read),
            bytes_written: get(bytes_written),
            errors: get(errors),
            unsent: get(unsent),
        }
    }

    pub(crate) fn frame(&self) {
        add(&self.frames, 1);
    }

    pub(crate) fn read(&self, bytes: usize) {
        add(&self.reads, 1);
        add(&self.bytes_read, bytes as u64);
    }

    pub(crate) fn write(&self, bytes: usize) {
        add(&self.writes, 1);
        add(&self.bytes_written, bytes as u64);
    }

    pub(crate) fn flush(&self) {
        add(&self.flushes, 1);
    }

    pub(crate) fn error(&self) {
        add(&self.errors, 1);
    }

    pub(crate) fn unsent(&self) {
        add(&self.unsent, 1);
    }
}

/// With one writer a plain addition will do; an atomic one costs ten times as much.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}
