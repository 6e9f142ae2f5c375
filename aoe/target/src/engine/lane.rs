//! What one serving thread has under way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use kagero_aoe::target::{Answer, Fault, Job, Operation};
use kagero_aoe::wire::Address;

use super::buffer::{Buffer, Buffers};
use super::flights::{Extent, Flights};
use super::ring::{Done, Ring};
use super::task::{Task, Work};
use super::workers::{Letter, Mailbox};
use crate::Server;
use crate::server::Served;

/// Requests under way at most; more wait in the links' receive rings.
const MOST: usize = 512;

/// The requests that one thread serves, from their beginning to their answer.
pub(crate) struct Lane<'s> {
    server: &'s Server,
    ring: Option<Ring>,
    mailbox: Arc<Mailbox>,
    flights: Flights,
    buffers: Buffers,
    finished: Vec<Finished>,
    announcements: Vec<Address>,
}

/// A request that was carried out.
pub(crate) struct Finished {
    answer: Answer,
    /// What was read.
    data: Option<Buffer>,
    /// The number of the link that the answer goes to.
    pub(crate) link: usize,
}

impl Finished {
    /// Writes its answer as a frame; the frame's length.
    pub(crate) fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let place = self.answer.data(out)?;
        if let Some(data) = &self.data
            && !place.is_empty()
        {
            place.copy_from_slice(data.get(..place.len())?);
        }
        self.answer.encode_finished(out)
    }
}

impl<'s> Lane<'s> {
    pub(crate) fn new(server: &'s Server) -> io::Result<Self> {
        let ring = Ring::new().inspect_err(|error| {
            tracing::info!(%error, "no io_uring: what is not in the page cache is read by threads");
        });
        let mailbox = Arc::new(Mailbox::new()?);
        server.register(&mailbox);
        Ok(Lane {
            server,
            ring: ring.ok(),
            mailbox,
            flights: Flights::default(),
            buffers: Buffers::default(),
            finished: Vec::new(),
            announcements: Vec::new(),
        })
    }

    /// Readable when [`collect`](Self::collect) has something to do.
    pub(crate) fn events(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(self.mailbox.as_fd()), self.ring.as_ref().map(Ring::as_fd)].into_iter().flatten()
    }

    /// Requests that are not carried out yet.
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether no more requests should be taken in now.
    pub(crate) fn is_full(&self) -> bool {
        self.flights.len() >= MOST
    }

    /// Whether a request must wait for another. If so it is to be begun with [`begin`](Self::begin), like all that can't be done at once.
    pub(crate) fn must_wait(&self, job: &Job<'_>) -> bool {
        let extent = Extent::new(job.address(), &job.operation);
        self.flights.must_wait(extent.as_ref())
    }

    /// Begins a request, in its turn.
    pub(crate) fn begin(&mut self, served: &Arc<Served>, job: Job<'_>, link: usize) {
        let wait = self.must_wait(&job);
        let Job { operation, pending } = job;
        let work = Work::new(operation, &mut self.buffers);
        let task = Task { served: Arc::clone(served), pending, work, link };
        if wait { self.flights.wait(task) } else { self.start(task) }
    }

    fn start(&mut self, task: Task) {
        let flight = self.flights.begin(&task);
        let (source, client) = (&task.served.source, task.pending.client());
        let place = match &task.work {
            Work::Read { offset, data } => source.place_to_read(client, *offset, data.len()),
            Work::Write { offset, data, durable: false } => source.place_to_write(client, *offset, data),
            _ => None,
        };
        let left = match (&mut self.ring, place) {
            (Some(ring), Some(place)) => ring.begin(flight, task, place).err(),
            _ => Some(task),
        };
        if let Some(task) = left {
            self.server.workers.start(flight, task, &self.mailbox);
        }
    }

    /// Hands to the kernel what was begun.
    pub(crate) fn submit(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.submit();
        }
    }

    /// Takes in what was done meanwhile.
    pub(crate) fn collect(&mut self) {
        while let Some(Done { flight, task, whole }) = self.ring.as_mut().and_then(Ring::next) {
            if whole {
                self.land(flight, task, Ok(()));
            } else {
                // Tries again, and knows what to say of an error.
                self.server.workers.start(flight, task, &self.mailbox);
            }
        }
        for letter in self.mailbox.empty() {
            match letter {
                Letter::Done { flight, task, result } => self.land(flight, task, result),
                Letter::Announce(address) => self.announcements.push(address),
            }
        }
        self.submit();
    }

    fn land(&mut self, flight: usize, task: Task, result: Result<(), Fault>) {
        self.flights.land(flight);
        let Task { served, pending, work, link } = task;
        match (&work, result) {
            (_, Err(_)) => served.stats.error(),
            (Work::Read { data, .. }, Ok(())) => served.stats.read(data.len()),
            _ => {}
        }
        let is_read = matches!(work, Work::Read { .. });
        let mut data = work.into_buffer();
        if !is_read && let Some(buffer) = data.take() {
            self.buffers.give_back(buffer);
        }
        self.finished.push(Finished { answer: pending.finish(result), data, link });
        while let Some(task) = self.flights.ready() {
            self.start(task);
        }
    }

    /// What was carried out since the last time.
    pub(crate) fn finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// Disks that are new or have changed since the last time.
    pub(crate) fn announcements(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.announcements)
    }

    /// Takes back what was sent.
    pub(crate) fn sent(&mut self, finished: Finished) {
        if let Some(buffer) = finished.data {
            self.buffers.give_back(buffer);
        }
    }
}

/// Does what can be done without a wait, reads left out: writes to the page cache.
pub(crate) fn at_once(served: &Served, job: &Job<'_>) -> bool {
    match job.operation {
        Operation::Write { offset, data, durable: false } => {
            let place = served.source.place_to_write(job.client(), offset, data);
            place.is_some_and(|place| place.write_now(data))
        }
        _ => false,
    }
}
