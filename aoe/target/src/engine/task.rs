//! One request that is under way.

use std::sync::Arc;

use kagero_aoe::target::{Fault, Operation, Pending, Range};
use kagero_link::{Buffer, Buffers};

use crate::Place;
use crate::server::Served;

/// A request with all that it takes to carry it out and to answer it, wherever that happens.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) served: Arc<Served>,
    pub(crate) pending: Pending,
    pub(crate) work: Work,
    /// The number of the link that the answer goes to.
    pub(crate) link: usize,
    /// Where its bytes lie as they are in a file, if they do. Keeps that open.
    pub(super) place: Option<Place>,
    /// Its number among those that are under way.
    pub(super) flight: usize,
}

/// An [`Operation`] with data of its own.
#[derive(Debug)]
pub(crate) enum Work {
    Read { offset: u64, data: Buffer },
    Write { offset: u64, data: Buffer, durable: bool },
    Verify { offset: u64, length: usize },
    Flush,
    Trim(Vec<Range>),
}

impl Work {
    pub(super) fn new(operation: Operation<'_>, buffers: &Buffers) -> Self {
        match operation {
            Operation::Read { offset, length } => Work::Read { offset, data: buffers.take(length) },
            Operation::Write { offset, data, durable } => {
                Work::Write { offset, data: buffers.copy(data), durable }
            }
            Operation::Verify { offset, length } => Work::Verify { offset, length },
            Operation::Flush => Work::Flush,
            Operation::Trim(ranges) => Work::Trim(ranges.iter().collect()),
        }
    }
}

impl Task {
    /// Finds its place, if that isn't known.
    pub(super) fn find_place(&mut self) {
        let (source, client) = (&self.served.source, self.pending.client());
        self.place = self.place.take().or_else(|| match &self.work {
            Work::Read { offset, data } => source.place_to_read(client, *offset, data.len()),
            Work::Write { offset, data, durable: false } => source.place_to_write(client, *offset, data),
            _ => None,
        });
    }

    /// Does it here and now, however long it takes.
    pub(crate) fn carry_out(&mut self) -> Result<(), Fault> {
        let source = &self.served.source;
        let client = self.pending.client();
        match &mut self.work {
            Work::Read { offset, data } => source.reader(client, |image| image.read(*offset, data)),
            Work::Write { offset, data, durable } => {
                source.writer(client, |image| image.write(*offset, data, *durable))
            }
            Work::Verify { offset, length } => source.reader(client, |image| image.verify(*offset, *length)),
            Work::Flush => source.written(client, |image| image.flush()),
            Work::Trim(ranges) => {
                source.written(client, |image| ranges.iter().try_for_each(|&range| image.trim(range)))
            }
        }
    }
}
