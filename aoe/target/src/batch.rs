//! Frames that are served together: each either answered at once or begun.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLockReadGuard};

use kagero_aoe::link::Link;
use kagero_aoe::target::{Answer, Fault, Job, Operation, Port, Step};
use kagero_aoe::wire::Address;
use kagero_link::{ServerLink, Tail};

use crate::engine::{Lane, at_once};
use crate::server::Served;
use crate::{Place, Server};

/// Some frames of one link. While it lives, no disk comes or goes.
pub(crate) struct Batch<'b, 's> {
    server: &'b Server,
    served: RwLockReadGuard<'b, BTreeMap<Address, Arc<Served>>>,
    lane: &'b mut Lane<'s>,
    port: Port,
    /// The link's number.
    link: usize,
    /// What else came of a broadcast and is still to be sent.
    more: Vec<Reply>,
}

enum Reply {
    Answer(Answer),
    /// Waits for the transmit buffer, so that data goes from the page cache straight there.
    Read(Job<'static>),
}

impl<'b, 's> Batch<'b, 's> {
    pub(crate) fn new(server: &'b Server, lane: &'b mut Lane<'s>, port: Port, link: usize) -> Self {
        Batch { server, served: server.served(), lane, port, link, more: Vec::new() }
    }

    /// Serves one frame; false when there is none, or no more should be taken in now.
    pub(crate) fn serve_one(&mut self, link: &mut impl ServerLink) -> bool {
        let mut reply = None;
        if self.lane.is_full() || !link.receive(|frame| reply = self.take(frame)) {
            return false;
        }
        while let Some(next) = reply {
            match next {
                Reply::Answer(answer) => self.send(link, &answer),
                Reply::Read(job) => self.read(link, job),
            }
            reply = self.more.pop();
        }
        true
    }

    /// Does all that a frame asks for, except to read what lies in the page cache.
    fn take(&mut self, frame: &[u8]) -> Option<Reply> {
        self.server.stats.frame();
        // Not carried out under the lock.
        let (mut first, mut rest) = (None, Vec::new());
        self.server.target().handle_frame(&self.port, frame, |_, step| match first {
            None => first = Some(step),
            Some(_) => rest.push(step),
        });
        for step in rest {
            let reply = self.carry_out(step);
            self.more.extend(reply);
        }
        self.carry_out(first?)
    }

    fn carry_out(&mut self, step: Step<'_>) -> Option<Reply> {
        match step {
            // Who set something hears of it when that will survive this process.
            Step::Answer(answer) if !self.server.keeps_settings(&answer) => None,
            Step::Answer(answer) => {
                if answer.is_error() {
                    self.server.stats.error();
                }
                Some(Reply::Answer(answer))
            }
            Step::Job(job) => self.start(job),
        }
    }

    fn start(&mut self, job: Job<'_>) -> Option<Reply> {
        let Some(served) = self.served.get(&job.address()) else {
            return Some(Reply::Answer(job.finish(Err(Fault::Aborted))));
        };
        match job.operation {
            Operation::Write { data, .. } => served.stats.write(data.len()),
            Operation::Flush => served.stats.flush(),
            Operation::Read { .. } | Operation::Verify { .. } | Operation::Trim(_) => {}
        }
        let is_read = matches!(job.operation, Operation::Read { .. });
        if self.lane.must_wait(&job) {
            self.lane.begin(served, job, None, self.link);
        } else if !is_read && at_once(served, &job) {
            return Some(Reply::Answer(job.finish(Ok(()))));
        } else {
            match job.detach() {
                Ok(read) if is_read => return Some(Reply::Read(read)),
                Ok(job) | Err(job) => self.lane.begin(served, job, None, self.link),
            }
        }
        None
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

    /// Sends what is in the page cache, or begins to read it.
    fn read(&mut self, link: &mut impl ServerLink, job: Job<'static>) {
        let Some(served) = self.served.get(&job.address()) else { return };
        let Operation::Read { offset, length } = job.operation else { return };
        let place = served.source.place_to_read(job.client(), offset, length);
        let cached = place.as_ref().filter(|place| place.may_be_cached());
        if cached.is_some_and(|place| send_cached(link, place, job.pending.answer(), length)) {
            served.stats.read(length);
            self.lane.has_company();
        } else {
            self.lane.begin(served, job, place, self.link);
        }
    }
}

/// Answers a read from the page cache: with its pages themselves, or read into the transmit buffer. False if it isn't there, or there is no room.
fn send_cached(link: &mut impl ServerLink, place: &Place, answer: &Answer, length: usize) -> bool {
    let pages = if link.takes_pages() { place.pages(length) } else { None };
    if let Some(pages) = pages {
        let tail = |head| (head, Some(Tail::Pages(pages)));
        if link.transmit_with(|out| Some(tail(answer.encode_finished(out)? - length))) {
            return true;
        }
    }
    link.transmit(|out| {
        let read = answer.data(out).is_some_and(|data| place.read_now(data));
        if read { answer.encode_finished(out) } else { None }
    })
}
