//! The storage path: from the guest's IDE registers to frames on a link and back.
//!
//! A CPU's access runs through the controller, the initiator and out on the link in that CPU's own thread; answers come in on the
//! storage thread, which also keeps the time. Both hold the one lock of this module, and interrupt levels change under it.
//!
//! Lock order: the chipset's lock, if it is taken at all, comes first; under this one only leaves are locked (the queues of a link in
//! memory, the log).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kagero_aoe::initiator::{Event, Initiator};
use kagero_aoe::link::Link;
use kagero_devices::ide::{self, Ide};
use kagero_devices::register::Fault;
use kagero_devices::storage::{Controller, Disk, Outcome, Request};
use kagero_devices::time::Instant;
use kagero_link::AnyLink;

use crate::board::IDE_IRQS;
use crate::clock::{self, Timer};
use crate::events;
use crate::irq::Lines;
use crate::limit::Limit;
use crate::memory::GuestRam;
use crate::stop::Stop;

/// When a link has no room, it is tried again after this time.
const NO_ROOM: Duration = Duration::from_micros(500);

/// Frames taken from a link before CPUs get their turn at the lock.
const BATCH: usize = 64;

static STRAY_COMMAND: Limit = Limit::new("command-without-disk");

/// One disk: who speaks for it, and on which link.
pub struct Attachment {
    /// As the user named it.
    pub source: String,
    /// Speaks to its target.
    pub initiator: Initiator,
    /// Index in the list of links.
    pub link: usize,
    /// Commands that went to the target.
    pub commands: u64,
    /// Bytes read and written.
    pub bytes: (u64, u64),
}

impl Attachment {
    /// A disk that has done nothing yet.
    pub fn new(source: String, initiator: Initiator, link: usize) -> Self {
        Attachment { source, initiator, link, commands: 0, bytes: (0, 0) }
    }
}

/// The controller, its disks and their links, behind one lock.
pub struct Storage {
    path: Mutex<Path>,
}

struct Path {
    ide: Ide,
    disks: Vec<Attachment>,
    links: Vec<AnyLink>,
    ram: GuestRam,
    lines: Option<Arc<Lines>>,
    timer: Timer,
}

impl Storage {
    /// A controller with `disks`, whose initiators are attached to their targets.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new(disks: Vec<Attachment>, links: Vec<AnyLink>, ram: GuestRam) -> io::Result<Self> {
        let mut given: [Option<Disk>; 4] = Default::default();
        for attachment in &disks {
            if let Some(place) = given.get_mut(usize::from(attachment.initiator.config().disk)) {
                *place = attachment.initiator.disk().cloned();
            }
        }
        let timer = Timer::new()?;
        let path = Path { ide: Ide::new(given), disks, links, ram, lines: None, timer };
        Ok(Storage { path: Mutex::new(path) })
    }

    /// The machine starts, or starts again: the controller is reset and drives these lines from now on.
    pub fn power_on(&self, lines: Arc<Lines>) {
        let mut path = self.lock();
        path.lines = Some(lines);
        // The bus looks for the bus master's ports itself.
        let _ = path.ide.reset();
        path.service();
    }

    /// The guest reads a register: once, or of the data port many times with a string instruction.
    ///
    /// # Errors
    /// [`Fault`] when no register answers so.
    pub fn read(&self, port: ide::Port, width: usize, data: &mut [u8]) -> Result<(), Fault> {
        let mut path = self.lock();
        match port {
            ide::Port::Command(channel, 0) => {
                path.ide.read_data(channel, width, data)?;
                path.service();
            }
            port => {
                data.chunks_mut(width).try_for_each(|out| path.ide.read(port, out))?;
                // Reads start nothing, but a read of Status lets the interrupt drop.
                path.settle();
            }
        }
        Ok(())
    }

    /// The guest writes a register, as with [`read`](Self::read).
    ///
    /// # Errors
    /// [`Fault`] when no register takes it.
    pub fn write(&self, port: ide::Port, width: usize, data: &[u8]) -> Result<(), Fault> {
        let mut path = self.lock();
        let Path { ide, ram, .. } = &mut *path;
        match port {
            ide::Port::Command(channel, 0) => ide.write_data(channel, width, data)?,
            port => data.chunks(width).try_for_each(|data| ide.write(ram, port, data))?,
        }
        path.service();
        Ok(())
    }

    /// Fills `out` from the function's configuration space.
    pub fn read_config(&self, register: u8, out: &mut [u8]) {
        self.lock().ide.read_config(register, out);
    }

    /// Writes the function's configuration space. Ask [`bus_master_base`](Self::bus_master_base) afterwards.
    pub fn write_config(&self, register: u8, data: &[u8]) {
        // There is one BAR, and its place is asked for.
        let _ = self.lock().ide.write_config(register, data);
    }

    /// The bus master's first port, while it is decoded.
    pub fn bus_master_base(&self) -> Option<u16> {
        self.lock().ide.bus_master_base()
    }

    /// What the disks and their links have done.
    pub fn with_disks<R>(&self, look: impl FnOnce(&[Attachment]) -> R) -> R {
        look(&self.lock().disks)
    }

    /// The storage thread: takes frames and keeps the time until the run stops.
    ///
    /// # Errors
    /// When waiting fails, which the kernel's documentation allows for no reason that applies.
    pub fn run(&self, stop: &Stop) -> io::Result<()> {
        let (timer, links) = {
            let path = self.lock();
            let links = path.links.iter().map(|link| link.as_fd().try_clone_to_owned());
            (path.timer.waitable()?, links.collect::<io::Result<Vec<OwnedFd>>>()?)
        };
        let fds: Vec<_> =
            [stop.fd(), timer.as_fd()].into_iter().chain(links.iter().map(AsFd::as_fd)).collect();
        let going_on = || !stop.is_requested();
        events::serve(&fds, going_on, |ready| {
            let mut path = self.lock();
            if ready == timer.as_raw_fd() {
                path.timer.clear();
            }
            path.receive();
            path.service();
        })
    }

    fn lock(&self) -> MutexGuard<'_, Path> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Path {
    /// Lets everything flow that can, settles the interrupt lines and sets the timer.
    fn service(&mut self) {
        let now = clock::now();
        let retry = self.flow(now);
        self.settle();
        let next = self.disks.iter().filter_map(|disk| disk.initiator.poll_timeout()).chain(retry).min();
        self.timer.wake_at(next, now);
    }

    /// Takes what has come in on the links.
    fn receive(&mut self) {
        let Path { ide, disks, links, ram, .. } = self;
        let now = clock::now();
        for (index, link) in links.iter_mut().enumerate() {
            for _ in 0..BATCH {
                let taken = link.receive(|frame| {
                    for disk in disks.iter_mut().filter(|disk| disk.link == index) {
                        disk.initiator.handle_frame(now, frame, ide, ram);
                    }
                });
                if !taken {
                    break;
                }
            }
        }
    }

    /// Commands from the controller to the initiators, frames from them to the links, until nothing moves any more. Returns when to
    /// try again, if a link had no room.
    fn flow(&mut self, now: Instant) -> Option<Instant> {
        let mut retry = None;
        let mut first = true;
        // What was sent may have ended a command at once (memory that is not there), and the controller then wants to go on.
        while self.take_requests(now) || first {
            first = false;
            let Path { ide, disks, links, ram, .. } = self;
            for disk in &mut *disks {
                let Some(link) = links.get_mut(disk.link) else { continue };
                link.hold();
                loop {
                    let mut asked = false;
                    let sent = link.transmit(|frame| {
                        asked = true;
                        disk.initiator.poll_transmit(now, ide, ram, frame)
                    });
                    if !asked {
                        retry = Some(now + NO_ROOM);
                    }
                    if !sent {
                        break;
                    }
                }
                if !link.flush() {
                    retry = Some(now + NO_ROOM);
                }
                while let Some(event) = disk.initiator.poll() {
                    disk.note(event);
                }
            }
        }
        retry
    }

    /// Hands the controller's requests on; false when there were none.
    fn take_requests(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(request) = self.ide.poll_request() {
            moved = true;
            match request {
                Request::Start(command) => {
                    let disk =
                        self.disks.iter_mut().find(|disk| disk.initiator.config().disk == command.disk);
                    let taken = disk.is_some_and(|disk| {
                        disk.commands += 1;
                        disk.bytes.0 += u64::from(command.operation.bytes_in());
                        disk.bytes.1 += u64::from(command.operation.bytes_out());
                        disk.initiator.submit(now, command).is_ok()
                    });
                    if !taken {
                        if let Some(held_back) = STRAY_COMMAND.admit() {
                            tracing::warn!(held_back, "a command that nobody takes: {command:?}");
                        }
                        let outcome =
                            Outcome::Failed { error: kagero_devices::ata::bits::error::ABRT, done: 0 };
                        self.ide.complete(&self.ram, command.tag, outcome);
                    }
                }
                Request::Cancel(tag) => {
                    self.disks.iter_mut().for_each(|disk| disk.initiator.cancel(now, tag));
                }
            }
        }
        moved
    }

    /// Drives the interrupt lines, which know their last levels.
    fn settle(&self) {
        let irq = self.ide.irq();
        if let Some(lines) = &self.lines {
            for (bit, line) in IDE_IRQS.into_iter().enumerate() {
                lines.set(line, irq & 1 << bit != 0);
            }
        }
    }
}

impl Attachment {
    /// Says what the initiator has to tell.
    fn note(&self, event: Event) {
        let source = &self.source;
        match event {
            Event::Ready(disk) => tracing::info!("{source}: {} sectors, {}", disk.sectors, disk.model),
            Event::Unusable(why) => tracing::warn!("{source}: not a disk: {why}"),
            Event::TargetLost { silent } => {
                tracing::warn!("{source}: the target has not answered for {silent:.1?}; the guest waits");
            }
            Event::TargetBack { mac, silent } => {
                tracing::warn!("{source}: the target is back at {mac} after {silent:.1?}");
            }
            Event::Changed(disk) => {
                tracing::warn!("{source}: the target came back with another disk ({} sectors)", disk.sectors);
            }
        }
    }
}
