//! What one serving thread has under way.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use kagero_aoe::target::{Fault, Job, Operation};
use kagero_aoe::wire::Address;
use kagero_link::{Buffers, Tail};

use super::flights::Flights;
use super::ring::{Done, Ring};
use super::task::{Task, Work};
use super::workers::{Letter, Mailbox};
use crate::Place;
use crate::Server;
use crate::server::Served;

/// Requests under way at most; more wait in the links' receive rings. Buffers for all of them take 26 MB.
const MOST: u16 = 2_048;

/// Completions taken in at most before their answers are sent, and what those make clients ask for. Many disks complete all that they had at once; who
/// then sent all answers first, would leave them idle. The first come one by one: its first answer wakes a client.
const TOGETHER: usize = 4;

/// So many requests in a row that came alone, and the next is expected to be one, too. When it isn't, that begins anew.
pub(crate) const LONE: u32 = 16;

/// The requests that one thread serves, from their beginning to their answer.
pub(crate) struct Lane<'s> {
    server: &'s Server,
    ring: Option<Ring>,
    mailbox: Arc<Mailbox>,
    flights: Flights,
    buffers: Buffers,
    finished: VecDeque<Finished>,
    announcements: VecDeque<Address>,
    /// Completions to take in the next time.
    together: usize,
    /// Requests in a row that were the only ones when they began.
    lone: u32,
}

/// A request that was carried out.
pub(crate) struct Finished(Box<Task>);

impl Finished {
    /// The number of the link that the answer goes to.
    pub(crate) fn link(&self) -> usize {
        self.0.link
    }

    /// Writes its answer as a frame, without what was read, which comes with it; once only. The length that was written.
    pub(crate) fn encode(&mut self, out: &mut [u8]) -> Option<(usize, Option<Tail>)> {
        let answer = self.0.pending.answer();
        let length = answer.encode_finished(out)?;
        match answer.data(out)?.len() {
            0 => Some((length, None)),
            read => {
                // What is left in its place is never looked at.
                let Work::Read { data, .. } = std::mem::replace(&mut self.0.work, Work::Flush) else {
                    return None;
                };
                (data.len() == read).then(|| (length - read, Some(Tail::Buffer(data))))
            }
        }
    }
}

impl<'s> Lane<'s> {
    pub(crate) fn new(server: &'s Server) -> io::Result<Self> {
        let ring = Ring::new(MOST).inspect_err(|error| {
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
            finished: VecDeque::new(),
            announcements: VecDeque::new(),
            together: 1,
            lone: 0,
        })
    }

    /// Readable when [`collect`](Self::collect) has something to do.
    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(Ring::as_fd)
    }

    /// Readable when [`open_mail`](Self::open_mail) has something to do.
    pub(crate) fn mail(&self) -> BorrowedFd<'_> {
        self.mailbox.as_fd()
    }

    /// Requests that are not carried out yet.
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether no more requests should be taken in now.
    pub(crate) fn is_full(&self) -> bool {
        self.flights.len() >= usize::from(MOST)
    }

    /// Whether a request must wait for another. If so it is to be begun with [`begin`](Self::begin), like all that can't be done at once.
    pub(crate) fn must_wait(&self, job: &Job<'_>) -> bool {
        self.flights.must_wait(job.address(), &job.operation)
    }

    /// Begins a request, in its turn; what it reads is at `place`, if that is known. A disk may have twice as many under way as there is room
    /// left, so that one that doesn't answer leaves room for others; what comes on top is lost, as in a network, and its client sends it again.
    pub(crate) fn begin(&mut self, served: &Arc<Served>, job: Job<'_>, place: Option<Place>, link: usize) {
        if Served::under_way(served) >= 2 * usize::from(MOST).saturating_sub(self.flights.len()) {
            served.stats.unsent();
            return;
        }
        self.lone = if self.flights.len() == 0 { self.lone.saturating_add(1) } else { 0 };
        let wait = self.must_wait(&job);
        let Job { operation, pending } = job;
        let work = Work::new(operation, &self.buffers);
        // What comes before may move it.
        let place = place.filter(|_| !wait);
        let task = Box::new(Task { served: Arc::clone(served), pending, work, link, place, flight: 0 });
        if wait { self.flights.wait(task) } else { self.start(task) }
    }

    fn start(&mut self, mut task: Box<Task>) {
        let alone = self.lone >= LONE && self.len() == 0;
        self.flights.begin(&mut task);
        task.find_place();
        let left = match &mut self.ring {
            Some(ring) => ring.begin(task, alone).err(),
            None => Some(task),
        };
        if let Some(task) = left {
            self.server.workers.start(task, &self.mailbox);
        }
    }

    /// Hands to the kernel what was begun, but what is kept back for when it has done something.
    pub(crate) fn submit(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.submit_most();
        }
    }

    /// Whether something is kept back. If nothing happens soon, it should be [released](Self::release).
    pub(crate) fn keeps(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.unsubmitted() > 0)
    }

    /// Hands to the kernel what was kept back.
    pub(crate) fn release(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.release();
        }
    }

    /// Something else was asked for, and answered at once.
    pub(crate) fn has_company(&mut self) {
        self.lone = 0;
    }

    /// Whether one request alone is under way, was just begun, and the next will be alone, too: one client waits for each of its answers.
    pub(crate) fn is_lone(&self) -> bool {
        self.lone >= LONE && self.len() == 1 && self.ring.as_ref().is_some_and(|ring| ring.unsubmitted() == 1)
    }

    /// As [`submit`](Self::submit) for a [lone](Self::is_lone) request, and waits a moment for it. If it is done by then, it is returned, and
    /// there is nothing to [`collect`](Self::collect): its client gets the answer with half as many system calls.
    pub(crate) fn finish_lone(&mut self) -> Option<Finished> {
        if !self.is_lone() {
            return None;
        }
        if self.ring.as_mut()?.wait_a_moment() {
            return self.next();
        }
        self.lone = 0;
        None
    }

    /// Takes in what the kernel has done meanwhile: the [bell](Self::bell) rang.
    pub(crate) fn collect(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.rang();
        }
        if self.take_in(self.together) == self.together {
            self.together = TOGETHER.min(2 * self.together);
        } else {
            self.together = 1;
            if let Some(ring) = &mut self.ring {
                ring.silence();
            }
            // Of what was done just before that, nothing more will be heard.
            self.take_in(usize::MAX);
        }
        self.submit();
    }

    /// Takes in what workers have done, and what else there is to know.
    pub(crate) fn open_mail(&mut self) {
        for letter in self.mailbox.empty() {
            match letter {
                Letter::Done { task, result } => {
                    let finished = self.land(task, result);
                    self.finished.push_back(finished);
                }
                Letter::Announce(address) => self.announcements.push_back(address),
            }
        }
        self.submit();
    }

    /// Takes in what the kernel has done, but no more than that; how much it was.
    fn take_in(&mut self, most: usize) -> usize {
        for taken in 0..most {
            match self.next() {
                Some(finished) => self.finished.push_back(finished),
                None => return taken,
            }
        }
        most
    }

    /// The next request that the kernel has carried out.
    fn next(&mut self) -> Option<Finished> {
        loop {
            let Done { task, whole } = self.ring.as_mut()?.next()?;
            if whole {
                return Some(self.land(task, Ok(())));
            }
            // Tries again, and knows what to say of an error.
            self.server.workers.start(task, &self.mailbox);
        }
    }

    fn land(&mut self, mut task: Box<Task>, result: Result<(), Fault>) -> Finished {
        self.flights.land(&task);
        while let Some(task) = self.flights.ready() {
            self.start(task);
        }
        match (&task.work, result) {
            (_, Err(fault)) => {
                task.served.stats.error();
                task.pending.fail(fault);
            }
            (Work::Read { data, .. }, Ok(())) => task.served.stats.read(data.len()),
            _ => {}
        }
        Finished(task)
    }

    /// The next request that was carried out.
    pub(crate) fn finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// The next disk that is new or has changed.
    pub(crate) fn announcement(&mut self) -> Option<Address> {
        self.announcements.pop_front()
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
