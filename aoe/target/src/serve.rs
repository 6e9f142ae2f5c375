//! The serving loop.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use kagero_aoe::link::Link;
use kagero_aoe::target::{Answer, Fault, Job, Operation, Port, Step};
use kagero_aoe::wire::{Address, MacAddress};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::server::{Served, Source};
use crate::{Backend, Server};

/// Frames taken from one link before the others get their turn. Fewer than any link has transmit buffers.
const BATCH: usize = 64;

/// Requests of one client that we are ready to hold, as config queries report it. A receive ring has room for many such clients.
const BUFFER_COUNT: u16 = 64;

/// The epoll token of the stop event; links are counted from 0.
const STOP: u64 = u64::MAX;

#[derive(Debug)]
enum Work {
    Send(Answer),
    /// Reads wait for the transmit buffer, so that data goes from the file straight there.
    Read(Job<'static>),
}

impl Server {
    /// Serves until `stop` is readable. Interfaces may go down and come up again, and frames may find no way out: it goes on.
    ///
    /// # Errors
    /// Only when the kernel refuses to wait for events.
    pub fn serve<L: Link + AsFd>(&self, links: &mut [L], stop: &impl AsFd) -> io::Result<()> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, stop, EventData::new_u64(STOP), EventFlags::IN)?;
        for (token, link) in (0..).zip(links.iter()) {
            epoll::add(&poll, link, EventData::new_u64(token), EventFlags::IN)?;
        }
        for link in links.iter_mut() {
            self.announce(link);
        }
        let mut events = Vec::with_capacity(16);
        // What came of a received frame and is still to be sent; one item but for broadcasts.
        let mut work = Vec::new();
        loop {
            events.clear();
            match epoll::wait(&poll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if events.iter().any(|event| event.data.u64() == STOP) {
                return Ok(());
            }
            for event in &events {
                let (token, happened) = (event.data.u64(), event.flags);
                let Some(link) = usize::try_from(token).ok().and_then(|token| links.get_mut(token)) else {
                    continue;
                };
                let ahead = self.serve_batch(link, &mut work);
                if happened.intersects(EventFlags::ERR | EventFlags::HUP) && is_gone(link) {
                    tracing::warn!("a link is gone; its clients are not served any more");
                    epoll::delete(&poll, &*link)?;
                } else {
                    // Who sends faster than the network takes answers waits in the receive ring.
                    let wanted = if ahead { EventFlags::IN } else { EventFlags::OUT };
                    let before = happened & (EventFlags::IN | EventFlags::OUT);
                    if before != wanted {
                        epoll::modify(&poll, &*link, EventData::new_u64(token), wanted)?;
                    }
                }
            }
        }
    }

    /// Tells everyone on a link that we are there, so that who waits for us after a restart need not wait longer.
    fn announce(&self, link: &mut impl Link) {
        let port = port(link);
        let target = self.target();
        for answer in target.announcements(&port) {
            link.transmit(|out| target.encode(&port, &answer, out));
        }
    }

    /// Answers what waits on a link, up to a batch. False when answers wait for the network.
    fn serve_batch(&self, link: &mut impl Link, work: &mut Vec<Work>) -> bool {
        let port = port(link);
        if !link.flush() {
            return false;
        }
        link.hold();
        let served = self.served();
        for _ in 0..BATCH {
            if !link.receive(|frame| self.take(&served, &port, frame, work)) {
                break;
            }
            for work in work.drain(..) {
                self.send(&served, &port, work, link);
            }
        }
        link.flush()
    }

    /// Does all that a received frame asks for, except to read.
    fn take(&self, served: &Disks, port: &Port, frame: &[u8], work: &mut Vec<Work>) {
        self.stats.frame();
        self.target().handle_frame(port, frame, |_, step| {
            work.push(match step {
                Step::Answer(answer) => Work::Send(answer),
                Step::Job(job) => match job.operation {
                    Operation::Read { .. } => match job.detach() {
                        Ok(read) => Work::Read(read),
                        Err(job) => Work::Send(job.finish(Err(Fault::Aborted))),
                    },
                    _ => {
                        let result = find(served, &job).and_then(|disk| disk.carry_out(&job));
                        Work::Send(job.finish(result))
                    }
                },
            });
        });
        // Who set something hears of it when that will survive this process.
        work.retain(|work| !matches!(work, Work::Send(answer) if !self.keeps_settings(answer)));
    }

    /// Sends an answer; reads into it first where that is to be done.
    fn send(&self, served: &Disks, port: &Port, work: Work, link: &mut impl Link) {
        let mut work = Some(work);
        let fill = |out: &mut [u8]| match work.take()? {
            Work::Send(answer) => {
                if answer.is_error() {
                    self.stats.error();
                }
                self.target().encode(port, &answer, out)
            }
            Work::Read(job) => {
                let result = find(served, &job).and_then(|disk| disk.read(&job, out));
                if result.is_err() {
                    self.stats.error();
                }
                job.finish(result).encode_finished(out)
            }
        };
        if !link.transmit(fill) {
            self.stats.unsent();
        }
    }
}

type Disks = BTreeMap<Address, Arc<Served>>;

fn find<'s>(served: &'s Disks, job: &Job<'_>) -> Result<&'s Served, Fault> {
    served.get(&job.address()).map(|served| &**served).ok_or(Fault::Aborted)
}

impl Served {
    fn read(&self, job: &Job<'_>, out: &mut [u8]) -> Result<(), Fault> {
        let (Operation::Read { offset, length }, Some(data)) = (job.operation, job.data(out)) else {
            return Err(Fault::Aborted);
        };
        match &self.source {
            Source::Shared(image) => image.read(offset, data)?,
            Source::Overlays(overlays) => overlays.read(job.client(), offset, data)?,
        }
        self.stats.read(length);
        Ok(())
    }

    fn carry_out(&self, job: &Job<'_>) -> Result<(), Fault> {
        // Reads and flushes make no overlay.
        let writes = matches!(job.operation, Operation::Write { .. });
        match &self.source {
            Source::Shared(image) => self.on(image.backend(), job),
            Source::Overlays(overlays) if writes => self.on(&*overlays.of_writer(job.client())?, job),
            Source::Overlays(overlays) => match overlays.of(job.client()) {
                Some(overlay) => self.on(&*overlay, job),
                None if matches!(job.operation, Operation::Verify { .. }) => {
                    self.on(overlays.base().backend(), job)
                }
                // Nothing was written.
                None => Ok(()),
            },
        }
    }

    fn on(&self, image: &dyn Backend, job: &Job<'_>) -> Result<(), Fault> {
        match job.operation {
            // Needs a transmit buffer.
            Operation::Read { .. } => Err(Fault::Aborted),
            Operation::Write { offset, data, durable } => {
                self.stats.write(data.len());
                image.write(offset, data, durable)
            }
            Operation::Verify { offset, length } => image.verify(offset, length),
            Operation::Flush => {
                self.stats.flush();
                image.flush()
            }
            Operation::Trim(ranges) => ranges.iter().try_for_each(|range| image.trim(range)),
        }
    }
}

/// What answers on a link have to say of it. Asked each time, since a link's MTU may change.
fn port(link: &impl Link) -> Port {
    Port { mac: MacAddress(link.mac()), mtu: link.mtu(), buffer_count: BUFFER_COUNT }
}

/// Whether a link that has an error still has it after it was told. A tap whose interface was deleted does.
fn is_gone(link: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(link, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}
