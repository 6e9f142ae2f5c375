//! Replies, and the requests that wait for them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::wire::{self, Command, Request, chunk, violation};

/// What the server said to a request: for a read its data, else nothing.
pub(super) type Answer = Result<Vec<u8>, Failure>;

/// The server's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// By the protocol's numbers, which are Linux' for the most part.
    pub(super) error: u32,
    /// The byte of the disk that it is about, if the server told.
    pub(super) at: Option<u64>,
}

/// Requests that were sent on one connection and not answered yet, by their cookies.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// The connection is gone, and nobody may begin to wait.
    closed: bool,
    next: u64,
    requests: HashMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    /// Of a read.
    data: Vec<u8>,
    received: usize,
    failure: Option<Failure>,
    done: Sender<Answer>,
}

impl Waiting {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait: gives the cookie, and where the answer comes or, when the connection breaks, an error. `None` if it is broken.
    pub(super) fn begin(&self, request: Request) -> Option<(u64, Receiver<Answer>)> {
        let (done, answer) = channel();
        let length = if request.command == Command::Read { request.length as usize } else { 0 };
        let pending = Pending { request, data: vec![0; length], received: 0, failure: None, done };
        let mut table = self.table();
        if table.closed {
            return None;
        }
        let cookie = table.next;
        table.next = cookie.wrapping_add(1);
        table.requests.insert(cookie, pending);
        Some((cookie, answer))
    }

    /// Tells all who wait that no answer will come, and everyone later too.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        table.requests.clear();
    }

    fn take(&self, cookie: u64) -> io::Result<Pending> {
        self.table().requests.remove(&cookie).ok_or_else(|| violation("a reply to no request"))
    }

    /// Reads one reply, or one chunk of one, and wakes whoever it completes.
    ///
    /// # Errors
    /// When the connection is to be given up: the stream's error, or a reply that can't be.
    pub(super) fn receive(&self, input: &mut impl Read, structured: bool) -> io::Result<()> {
        match wire::u32(input)? {
            wire::SIMPLE_REPLY => {
                let error = wire::u32(input)?;
                let mut pending = self.take(wire::u64(input)?)?;
                if pending.request.command == Command::Read && structured {
                    return Err(violation("a read's reply in one piece"));
                }
                if error != 0 {
                    pending.failure = Some(Failure { error, at: None });
                } else {
                    input.read_exact(&mut pending.data)?;
                    pending.received = pending.data.len();
                }
                pending.finish()
            }
            wire::STRUCTURED_REPLY if structured => {
                let (flags, kind) = (wire::u16(input)?, wire::u16(input)?);
                let cookie = wire::u64(input)?;
                let length = wire::u32(input)?;
                let mut pending = self.take(cookie)?;
                pending.chunk(input, kind, length)?;
                if flags & chunk::DONE != 0 {
                    return pending.finish();
                }
                if kind == chunk::NONE {
                    return Err(violation("an empty chunk in the middle"));
                }
                let mut table = self.table();
                if !table.closed {
                    table.requests.insert(cookie, pending);
                }
                Ok(())
            }
            _ => Err(violation("something that is no reply")),
        }
    }
}

impl Pending {
    /// Reads the payload of a chunk.
    fn chunk(&mut self, input: &mut impl Read, kind: u16, length: u32) -> io::Result<()> {
        match kind {
            chunk::NONE if length == 0 => Ok(()),
            chunk::DATA if length > 8 => {
                let offset = wire::u64(input)?;
                input.read_exact(self.part(offset, length - 8)?)
            }
            chunk::HOLE if length == 12 => {
                let offset = wire::u64(input)?;
                let hole = wire::u32(input)?;
                self.part(offset, hole).map(|part| part.fill(0))
            }
            error if error & chunk::ERROR != 0 => {
                let payload = wire::payload(input, length)?;
                let payload = &mut &payload[..];
                let error = wire::u32(payload)?;
                let message = wire::u16(payload)?;
                let text = payload.split_off(..usize::from(message));
                let text = text.ok_or_else(|| violation("an error's text that is longer than its chunk"))?;
                tracing::debug!(error, text = wire::harmless(text), "the NBD server tells an error");
                let at = if kind == chunk::ERROR_AT { Some(wire::u64(payload)?) } else { None };
                // No such thing as an error of 0.
                let failure = Failure { error: error.max(1), at };
                // The first in the disk's order counts; one without a place is about all.
                let place = |failure: &Failure| failure.at.unwrap_or(0);
                if self.failure.as_ref().is_none_or(|other| place(&failure) < place(other)) {
                    self.failure = Some(failure);
                }
                Ok(())
            }
            _ => Err(violation("a chunk that can't be")),
        }
    }

    /// Where the data of a chunk goes.
    fn part(&mut self, offset: u64, length: u32) -> io::Result<&mut [u8]> {
        let outside = || violation("data that was not asked for");
        let begin = offset.checked_sub(self.request.offset).and_then(|at| usize::try_from(at).ok());
        let begin = begin.ok_or_else(outside)?;
        let end = begin.checked_add(length as usize).ok_or_else(outside)?;
        self.received = self.received.saturating_add(length as usize);
        // More than there is room for: something came twice.
        if self.received > self.data.len() {
            return Err(outside());
        }
        self.data.get_mut(begin..end).ok_or_else(outside)
    }

    fn finish(self) -> io::Result<()> {
        let answer = match self.failure {
            Some(failure) => Err(failure),
            None if self.received == self.data.len() => Ok(self.data),
            None => return Err(violation("a read's reply without all data")),
        };
        // Whoever asked may have given up.
        let _ = self.done.send(answer);
        Ok(())
    }
}
