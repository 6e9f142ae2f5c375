//! Writes that the server has answered and not flushed yet.
//!
//! A server that dies may lose them, and the client, who got its answer, will not send them again. So they are kept here until a flush, and
//! written again when the server is back: then a flush means what it says, whatever happened before it.

use std::collections::VecDeque;

use super::wire::{Command, Request};

/// With so many bytes kept, a flush is due.
const ENOUGH: usize = 16 << 20;

/// What an entry costs beside its data.
const ENTRY: usize = 64;

/// A write or a trim.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) request: Request,
    pub(super) data: Vec<u8>,
}

/// Writes since the last flush, in the order in which they were answered.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    /// The number of the first; each has one.
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Unflushed {
    /// Notes a write or trim that was answered. A durable one needs it only when it may lie over one that isn't.
    pub(super) fn push(&mut self, request: Request, data: &[u8]) {
        let writes = matches!(request.command, Command::Write | Command::Trim);
        if writes && !(request.durable && self.entries.is_empty()) {
            self.bytes += ENTRY + data.len();
            self.entries.push_back(Entry { request, data: data.to_vec() });
        }
    }

    /// Whether a flush is due.
    pub(super) fn is_enough(&self) -> bool {
        self.bytes >= ENOUGH
    }

    /// The number that the next gets: a flush that begins now is about those below it.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Forgets what was flushed.
    pub(super) fn flushed(&mut self, below: u64) {
        while self.first < below
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            self.bytes -= ENTRY + entry.data.len();
        }
    }

    /// Takes all out, in order.
    pub(super) fn take(&mut self) -> VecDeque<Entry> {
        self.first = self.next();
        self.bytes = 0;
        std::mem::take(&mut self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, durable: bool) -> Request {
        Request { command: Command::Write, durable, offset, length: 512 }
    }

    #[test]
    fn a_flush_covers_what_was_there_when_it_began() {
        let mut unflushed = Unflushed::default();
        unflushed.push(write(9, true), &[9; 512]);
        assert_eq!(unflushed.next(), 0, "durable, and over nothing");
        unflushed.push(write(1, false), &[1; 512]);
        let mark = unflushed.next();
        unflushed.push(write(2, true), &[2; 512]);
        unflushed.push(Request { command: Command::Trim, ..write(3, false) }, &[]);
        unflushed.push(Request::bare(Command::Flush), &[]);
        unflushed.flushed(mark);
        let kept: Vec<_> = unflushed.take().iter().map(|entry| entry.request.offset).collect();
        assert_eq!(kept, [2, 3]);
        assert_eq!((unflushed.next(), unflushed.bytes), (3, 0));
        // A flush of before, that ends only now.
        unflushed.flushed(2);
        unflushed.push(write(4, false), &[4; 512]);
        assert_eq!(unflushed.next(), 4);
    }

    #[test]
    fn a_flush_becomes_due() {
        let mut unflushed = Unflushed::default();
        let data = vec![0; ENOUGH / 2];
        unflushed.push(write(0, false), &data);
        assert!(!unflushed.is_enough());
        unflushed.push(write(0, false), &data);
        assert!(unflushed.is_enough());
        unflushed.flushed(unflushed.next());
        assert!(!unflushed.is_enough() && unflushed.bytes == 0);
    }
}
