//! The serving loop.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use kagero_aoe::link::Link;
use kagero_aoe::target::{Admission, Answer, Export, Fault, Job, Operation, Port, Step, Target};
use kagero_aoe::wire::{Address, MacAddress};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::{Access, Backend, Error, Image, Overlays, Stats};

/// Frames taken from one link before the others get their turn. Fewer than any link has transmit buffers.
const BATCH: usize = 64;

/// Requests of one client that we are ready to hold, as config queries report it. A receive ring has room for many such clients.
const BUFFER_COUNT: u16 = 64;

/// The epoll token of the stop event; links are counted from 0.
const STOP: u64 = u64::MAX;

/// An AoE target for any number of disks on any number of links.
#[derive(Debug, Default)]
pub struct Server {
    target: Target,
    engine: Engine,
    /// What came of a received frame and is still to be sent; one item but for broadcasts.
    work: Vec<Work>,
}

/// Carries out jobs on the images.
#[derive(Debug, Default)]
struct Engine {
    images: BTreeMap<Address, Source>,
    stats: Arc<Stats>,
}

/// Where the bytes of an export come from.
#[derive(Debug)]
enum Source {
    /// All clients share them.
    Shared(Image),
    /// Each client has its own.
    Overlays(Overlays),
}

#[derive(Debug)]
enum Work {
    Send(Answer),
    /// Reads wait for the transmit buffer, so that data goes from the file straight there.
    Read(Job<'static>),
}

impl Server {
    /// A server without disks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves the image at `path` as the disk `address`.
    ///
    /// # Errors
    /// As [`Image::open`]; also when two disks have one address.
    pub fn export(&mut self, address: Address, path: &Path, access: Access) -> Result<(), Error> {
        self.export_image(address, Image::open(path, access)?)
    }

    /// Serves an image as the disk `address`.
    ///
    /// # Errors
    /// When two disks have one address.
    pub fn export_image(&mut self, address: Address, image: Image) -> Result<(), Error> {
        let mut export = Export::new(address, image.disk(address));
        export.read_only = image.access() == Access::ReadOnly;
        self.target.add(export)?;
        self.engine.images.insert(address, Source::Shared(image));
        Ok(())
    }

    /// Serves a base image with overlays as the disk `address`, which every client may write to.
    ///
    /// # Errors
    /// When two disks have one address.
    pub fn export_overlays(&mut self, address: Address, overlays: Overlays) -> Result<(), Error> {
        let disk = crate::image::disk(overlays.base().size(), address, Access::ReadWrite);
        self.target.add(Export::new(address, disk))?;
        self.engine.images.insert(address, Source::Overlays(overlays));
        Ok(())
    }

    /// Says who may reach the disk `address`. The links given to [`serve`](Self::serve) are counted from 0.
    pub fn admit(&mut self, address: Address, admission: Admission) {
        if let Some(export) = self.target.export_mut(address) {
            export.admission = admission;
        }
    }

    /// The disks.
    #[must_use]
    pub fn exports(&self) -> &[Export] {
        self.target.exports()
    }

    /// What it does, to be read while it serves.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.engine.stats)
    }

    /// Serves until `stop` is readable. Interfaces may go down and come up again, and frames may find no way out: it goes on.
    ///
    /// # Errors
    /// Only when the kernel refuses to wait for events.
    pub fn serve<L: Link + AsFd>(&mut self, links: &mut [L], stop: &impl AsFd) -> io::Result<()> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, stop, EventData::new_u64(STOP), EventFlags::IN)?;
        for (token, link) in (0..).zip(links.iter()) {
            epoll::add(&poll, link, EventData::new_u64(token), EventFlags::IN)?;
        }
        for (number, link) in (0..).zip(links.iter_mut()) {
            self.announce(link, number);
        }
        let mut events = Vec::with_capacity(16);
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
                let number = u16::try_from(token).ok();
                let Some((number, link)) = number.and_then(|n| Some((n, links.get_mut(usize::from(n))?)))
                else {
                    continue;
                };
                let ahead = self.serve_batch(link, number);
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
    fn announce(&self, link: &mut impl Link, number: u16) {
        let port = port(link, number);
        for answer in self.target.announcements(&port) {
            link.transmit(|out| self.target.encode(&port, &answer, out));
        }
    }

    /// Answers what waits on a link, up to a batch. False when answers wait for the network.
    fn serve_batch(&mut self, link: &mut impl Link, number: u16) -> bool {
        let port = port(link, number);
        if !link.flush() {
            return false;
        }
        link.hold();
        for _ in 0..BATCH {
            let Server { target, engine, work } = self;
            if !link.receive(|frame| engine.take(target, &port, frame, work)) {
                break;
            }
            for work in work.drain(..) {
                engine.send(target, &port, work, link);
            }
        }
        link.flush()
    }
}

impl Engine {
    /// Does all that a received frame asks for, except to read.
    fn take(&self, target: &mut Target, port: &Port, frame: &[u8], work: &mut Vec<Work>) {
        self.stats.frame();
        target.handle_frame(port, frame, |_, step| {
            work.push(match step {
                Step::Answer(answer) => Work::Send(answer),
                Step::Job(job) => match job.operation {
                    Operation::Read { .. } => match job.detach() {
                        Ok(read) => Work::Read(read),
                        Err(job) => Work::Send(job.finish(Err(Fault::Aborted))),
                    },
                    _ => {
                        let result = self.carry_out(&job);
                        Work::Send(job.finish(result))
                    }
                },
            });
        });
    }

    /// Sends an answer; reads into it first where that is to be done.
    fn send(&self, target: &Target, port: &Port, work: Work, link: &mut impl Link) {
        let mut work = Some(work);
        let fill = |out: &mut [u8]| {
            let answer = match work.take()? {
                Work::Send(answer) => answer,
                Work::Read(job) => {
                    let result = self.read(&job, out);
                    job.finish(result)
                }
            };
            if answer.is_error() {
                self.stats.error();
            }
            target.encode(port, &answer, out)
        };
        if !link.transmit(fill) {
            self.stats.unsent();
        }
    }

    fn source(&self, job: &Job<'_>) -> Result<&Source, Fault> {
        self.images.get(&job.address()).ok_or(Fault::Aborted)
    }

    fn read(&self, job: &Job<'_>, out: &mut [u8]) -> Result<(), Fault> {
        let (Operation::Read { offset, length }, Some(data)) = (job.operation, job.data(out)) else {
            return Err(Fault::Aborted);
        };
        match self.source(job)? {
            Source::Shared(image) => image.read(offset, data)?,
            Source::Overlays(overlays) => overlays.read(job.client(), offset, data)?,
        }
        self.stats.read(length);
        Ok(())
    }

    fn carry_out(&self, job: &Job<'_>) -> Result<(), Fault> {
        // Reads and flushes make no overlay.
        let writes = matches!(job.operation, Operation::Write { .. });
        let overlay = match self.source(job)? {
            Source::Shared(image) => return self.on(image.backend(), job),
            Source::Overlays(overlays) if writes => Some(overlays.of_writer(job.client())?),
            Source::Overlays(overlays) => overlays.of(job.client()),
        };
        match (overlay, self.source(job)?) {
            (Some(overlay), _) => self.on(&*overlay, job),
            (None, Source::Overlays(overlays)) if matches!(job.operation, Operation::Verify { .. }) => {
                self.on(overlays.base().backend(), job)
            }
            // Nothing was written.
            (None, _) => Ok(()),
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
fn port(link: &impl Link, number: u16) -> Port {
    Port { number, mac: MacAddress(link.mac()), mtu: link.mtu(), buffer_count: BUFFER_COUNT }
}

/// Whether a link that has an error still has it after it was told. A tap whose interface was deleted does.
fn is_gone(link: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(link, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}
