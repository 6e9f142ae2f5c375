//! What a server has done so far, for any thread to count and to read.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, of a server or of one of its disks.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    frames: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    errors: AtomicU64,
    unsent: AtomicU64,
}

/// What was done, of a server or for one of its disks, up to one moment.
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
    /// Requests that came on top of too many of the same disk, and answers that found no room in the transmit buffers: the client asks again.
    pub unsent: u64,
}

impl Stats {
    /// All counters now.
    pub(crate) fn counters(&self) -> Counters {
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

    /// Counts what another has counted.
    pub(crate) fn absorb(&self, other: Counters) {
        let Counters { frames, reads, writes, flushes, bytes_read, bytes_written, errors, unsent } = other;
        add(&self.frames, frames);
        add(&self.reads, reads);
        add(&self.writes, writes);
        add(&self.flushes, flushes);
        add(&self.bytes_read, bytes_read);
        add(&self.bytes_written, bytes_written);
        add(&self.errors, errors);
        add(&self.unsent, unsent);
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

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let Counters { frames, reads, writes, flushes, bytes_read, bytes_written, errors, unsent } = other;
        self.frames += frames;
        self.reads += reads;
        self.writes += writes;
        self.flushes += flushes;
        self.bytes_read += bytes_read;
        self.bytes_written += bytes_written;
        self.errors += errors;
        self.unsent += unsent;
    }
}
