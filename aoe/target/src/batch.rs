//! Frames that are served together: each either answered at once or begun.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLockReadGuard};

use kagero_aoe::link::Link;
use kagero_aoe::target::{Answer, Fault, Job, Operation, Port, Step};
use kagero_aoe::wire::Address;
use kagero_link::{ServerLink, Tail};

use crate::Server;
use crate::engine::{Lane, at_once};
use crate::server::Served;

/// Some frames of one link. While it lives, no disk comes or goes.
pub(crate) struct Batch<'b, 's> {
    server: &'b Server,
    served: RwLockReadGuard<'b, BTreeMap<Address, Arc<Served>>>,
    lane: &'b mut Lane<'s>,
    port: Port,
    /// The link's number.
    link: usize,
    /// What came of a frame and is still to be sent; one item but for broadcasts.
    replies: Vec<Reply>,
}

enum Reply {
    Answer(Answer),
    /// Waits for the transmit buffer, so that data goes from the page cache straight there.
    Read(Job<'static>),
}

impl<'b, 's> Batch<'b, 's> {
    pub(crate) fn new(server: &'b Server, lane: &'b mut Lane<'s>, port: Port, link: usize) -> Self {
        Batch { server, served: server.served(), lane, port, link, replies: Vec::new() }
    }

    /// Serves one frame; false when there is none, or no more should be taken in now.
    pub(crate) fn serve_one(&mut self, link: &mut impl ServerLink) -> bool {
        if self.lane.is_full() || !link.receive(|frame| self.take(frame)) {
            return false;
        }
        while let Some(reply) = self.replies.pop() {
            match reply {
                Reply::Answer(answer) => self.send(link, &answer),
                Reply::Read(job) => self.read(link, job),
            }
        }
        true
    }

    /// Does all that a frame asks for, except to read what lies in the page cache.
    fn take(&mut self, frame: &[u8]) {
        self.server.stats.frame();
        // Not carried out under the lock.
        let (mut first, mut rest) = (None, Vec::new());
        self.server.target().handle_frame(&self.port, frame, |_, step| match first {
            None => first = Some(step),
            Some(_) => rest.push(step),
        });
        for step in first.into_iter().chain(rest) {
            match step {
                // Who set something hears of it when that will survive this process.
                Step::Answer(answer) if !self.server.keeps_settings(&answer) => {}
                Step::Answer(answer) => {
                    if answer.is_error() {
                        self.server.stats.error();
                    }
                    self.replies.push(Reply::Answer(answer));
                }
                Step::Job(job) => self.carry_out(job),
            }
        }
    }

    fn carry_out(&mut self, job: Job<'_>) {
        let Some(served) = self.served.get(&job.address()) else {
            self.replies.push(Reply::Answer(job.finish(Err(Fault::Aborted))));
            return;
        };
        match job.operation {
            Operation::Write { data, .. } => served.stats.write(data.len()),
            Operation::Flush => served.stats.flush(),
            Operation::Read { .. } | Operation::Verify { .. } | Operation::Trim(_) => {}
        }
        let is_read = matches!(job.operation, Operation::Read { .. });
        if self.lane.must_wait(&job) {
            self.lane.begin(served, job, self.link);
        } else if !is_read && at_once(served, &job) {
            self.replies.push(Reply::Answer(job.finish(Ok(()))));
        } else {
            match job.detach() {
                Ok(read) if is_read => self.replies.push(Reply::Read(read)),
                Ok(job) | Err(job) => self.lane.begin(served, job, self.link),
            }
        }
    }

    fn send(&mut self, link: &mut impl Link, answer: &Answer) {
        self.lane.has_company();
        let encode = |out: &mut [u8]| {
            answer.encode_finished(out).or_else(|| self.server.target().encode(&self.port, answer, out))
        };
        if !link.transmit(encode) {
            self.server.stats.unsent();
        }
    }

    /// Reads into the transmit buffer, or begins to read elsewhere.
    fn read(&mut self, link: &mut impl ServerLink, job: Job<'static>) {
        let Some(served) = self.served.get(&job.address()) else { return };
        let Operation::Read { offset, length } = job.operation else { return };
        let place = served.source.place_to_read(job.client(), offset, length);
        let mut job = Some(job);
        if let Some(place) = place {
            let finish = |job: Job<'_>, out: &mut [u8]| {
                served.stats.read(length);
                job.finish(Ok(())).encode_finished(out)
            };
            let pages = if link.takes_pages() { place.pages(length) } else { None };
            let sent = pages.is_some_and(|pages| {
                link.transmit_with(|out| Some((finish(job.take()?, out)? - length, Some(Tail::Pages(pages)))))
            });
            if !sent {
                link.transmit(|out| {
                    let job = job.take_if(|job| job.data(out).is_some_and(|data| place.read_now(data)))?;
                    finish(job, out)
                });
            }
        }
        match job {
            Some(job) => self.lane.begin(served, job, self.link),
            None => self.lane.has_company(),
        }
    }
}
