//! An export of an NBD server as an image: through `qemu-nbd`, `nbdkit` or `rbd-nbd` the way to storage that is none of ours. docs/nbd.md
//! says what survives what.
//!
//! | module | |
//! |---|---|
//! | `uri` | how an export is named |
//! | `wire` | the protocol's numbers |
//! | `negotiate` | from the server's first words to an open export |
//! | `reply` | replies, and the requests that wait for them |
//! | `connection` | one connection |
//! | `unflushed` | what a server that dies may lose |
//! | `session` | one connection after another |

mod connection;
mod negotiate;
mod refusal;
mod reply;
mod session;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
mod unflushed;
mod uri;
mod wire;

pub use refusal::NbdRefusal;
pub use uri::{BadUri, NbdUri};

use std::sync::{Arc, PoisonError, RwLock};

use kagero_aoe::target::{Fault, Range};

use crate::backend::{Backend, after, sectors};
use crate::{Access, Error};
use session::{Pace, Session, Trouble};
use wire::{Command, Request};

/// A trim has at most so many bytes: its length has 32 bits.
const LONGEST_TRIM: u64 = 1 << 30;

/// An open export.
#[derive(Debug)]
struct Nbd {
    session: Arc<Session>,
    access: Access,
    /// Who writes part of a server's block reads the rest of it before, and nobody may write to it meanwhile.
    parts: RwLock<()>,
}

/// Opens an export.
pub(crate) fn open(uri: &NbdUri, access: Access) -> Result<Box<dyn Backend>, Error> {
    Ok(Box::new(Nbd::open(uri, access, Pace::USUAL)?))
}

impl Nbd {
    fn open(uri: &NbdUri, access: Access, pace: Pace) -> Result<Self, Error> {
        let session = Session::start(uri, access == Access::ReadWrite, pace)
            .map_err(|why| Error::Nbd { uri: uri.clone(), why })?;
        Ok(Nbd { session, access, parts: RwLock::new(()) })
    }

    /// Has a request done; a failure becomes the client's.
    fn perform(&self, request: Request, data: &[u8]) -> Result<Vec<u8>, Fault> {
        self.session.perform(request, data).map_err(|trouble| {
            let uri = &self.session.uri;
            match trouble {
                Trouble::Failure(failure) => {
                    let (error, done) = (failure.error, failure.at.unwrap_or(request.offset));
                    let done = done.saturating_sub(request.offset).min(u64::from(request.length));
                    tracing::warn!(%uri, error, offset = request.offset, "{:?} failed", request.command);
                    match i32::try_from(error) {
                        Ok(libc::EIO) => Fault::Medium { done: sectors(done as usize) },
                        _ => Fault::Aborted,
                    }
                }
                // No bad sector, which a guest would remember: it can't be done now.
                Trouble::Away => {
                    tracing::warn!(%uri, offset = request.offset, "{:?} failed: no server", request.command);
                    Fault::Aborted
                }
            }
        })
    }

    /// Reads what begins and ends with blocks.
    fn read_blocks(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let longest = self.session.terms.longest as usize;
        for (i, part) in out.chunks_mut(longest).enumerate() {
            let request = Request {
                command: Command::Read,
                durable: false,
                offset: offset + (i * longest) as u64,
                length: part.len() as u32,
            };
            let data = self.perform(request, &[]).map_err(|fault| after(i * longest, fault))?;
            // As long as was asked for, or the connection would have been given up.
            part.copy_from_slice(&data);
        }
        Ok(())
    }

    /// Writes what begins and ends with blocks.
    fn write_blocks(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        let longest = self.session.terms.longest as usize;
        for (i, part) in data.chunks(longest).enumerate() {
            let request = Request {
                command: Command::Write,
                durable,
                offset: offset + (i * longest) as u64,
                length: part.len() as u32,
            };
            self.perform(request, part).map_err(|fault| after(i * longest, fault))?;
        }
        Ok(())
    }

    /// The blocks around a range: where they begin, where in them the range does, how long they are.
    fn around(&self, offset: u64, length: usize) -> (u64, usize, usize) {
        let block = u64::from(self.session.terms.block);
        let within = offset % block;
        (offset - within, within as usize, (within as usize + length).next_multiple_of(block as usize))
    }
}

impl Backend for Nbd {
    fn size(&self) -> u64 {
        self.session.terms.size
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let (begin, within, length) = self.around(offset, out.len());
        if length == out.len() {
            return self.read_blocks(offset, out);
        }
        let mut blocks = vec![0; length];
        self.read_blocks(begin, &mut blocks).map_err(|fault| before(within, fault))?;
        out.copy_from_slice(&blocks[within..within + out.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        let terms = &self.session.terms;
        if self.access == Access::ReadOnly || durable && self.session.is_lossy() {
            return Err(Fault::Aborted);
        }
        // Without flushes, every write has to be durable.
        let force = terms.durable_writes && (durable || !terms.flush);
        let (begin, within, length) = self.around(offset, data.len());
        if length == data.len() {
            let _others = self.parts.read().unwrap_or_else(PoisonError::into_inner);
            self.write_blocks(offset, data, force)?;
        } else {
            let _alone = self.parts.write().unwrap_or_else(PoisonError::into_inner);
            let mut blocks = vec![0; length];
            self.read_blocks(begin, &mut blocks).map_err(|fault| before(within, fault))?;
            blocks[within..within + data.len()].copy_from_slice(data);
            self.write_blocks(begin, &blocks, force).map_err(|fault| before(within, fault))?;
        }
        if durable && !force || self.session.has_enough() { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Fault> {
        if self.session.is_lossy() {
            return Err(Fault::Aborted);
        }
        if self.access == Access::ReadOnly || !self.session.terms.flush {
            return Ok(());
        }
        match self.session.perform(Request::bare(Command::Flush), &[]) {
            // Its answer may be about data that the connection before it had.
            Ok(_) if self.session.is_lossy() => Err(Fault::Aborted),
            Ok(_) => Ok(()),
            Err(Trouble::Failure(failure)) => {
                self.session.set_lossy();
                tracing::error!(uri = %self.session.uri, error = failure.error, "flush failed: data may be lost; no flush will succeed until the export is opened anew");
                Err(Fault::Aborted)
            }
            // Nothing is lost: what is unflushed is kept for the server's return.
            Err(Trouble::Away) => {
                tracing::warn!(uri = %self.session.uri, "Flush failed: no server");
                Err(Fault::Aborted)
            }
        }
    }

    fn trim(&self, range: Range) -> Result<(), Fault> {
        let terms = &self.session.terms;
        if self.access == Access::ReadOnly {
            return Err(Fault::Aborted);
        }
        if !terms.trim {
            return Ok(());
        }
        // Whole blocks only.
        let block = u64::from(terms.block);
        let end = range.offset.saturating_add(range.length).min(terms.size) / block * block;
        let mut offset = range.offset.next_multiple_of(block);
        while offset < end {
            let length = (end - offset).min(LONGEST_TRIM);
            let request = Request { command: Command::Trim, durable: false, offset, length: length as u32 };
            match self.session.perform(request, &[]) {
                Ok(_) => {}
                // It is a hint.
                Err(Trouble::Failure(failure)) => {
                    tracing::debug!(uri = %self.session.uri, error = failure.error, "trim refused");
                    return Ok(());
                }
                Err(Trouble::Away) => return Err(Fault::Aborted),
            }
            offset += length;
        }
        Ok(())
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        self.session.close();
    }
}

/// A fault of blocks as one of the range that begins `within` bytes after them.
fn before(within: usize, fault: Fault) -> Fault {
    match fault {
        Fault::Medium { done } => Fault::Medium { done: done.saturating_sub(sectors(within)) },
        Fault::Aborted => fault,
    }
}
