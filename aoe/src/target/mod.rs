//! The target's core: requests in, jobs for a storage engine and answers out. No I/O, no clock, nothing held of a request.
//!
//! A caller hands each received frame to [`Target::handle_frame`], which tells for each disk that the request reaches what is to be done:
//! an [`Answer`] at once, or a [`Job`] for the storage engine, which [`Job::finish`] turns into an answer. [`Target::encode`] writes an
//! answer as a frame. Jobs may be finished in any order and from many frames at once: the client waits for what must come first.
//! One thing only is the engine's: a write that the network has doubled (two requests with one tag) must not be carried out again after an
//! answer to it was sent, since the client may by then have written something newer there. To do what arrives in order is enough for that.
//!
//! What a client can't have is said in ATA's own registers (ERR and ABRT) wherever the frame has any: the Linux driver ignores
//! answers with the protocol's error flag and repeats its request for minutes.
//!
//! ```
//! use kagero_aoe::target::{Export, Operation, Port, Step, Target};
//! use kagero_aoe::wire::MacAddress;
//!
//! fn answer(target: &mut Target, port: &Port, frame: &[u8], disk: &mut [u8], out: &mut [u8]) -> Option<usize> {
//!     let mut length = None;
//!     target.handle_frame(port, frame, |target, step| {
//!         let answer = match step {
//!             Step::Answer(answer) => answer,
//!             Step::Job(job) => {
//!                 if let Operation::Read { offset, length } = job.operation {
//!                     let from = &disk[offset as usize..][..length];
//!                     job.data(out).expect("a whole transmit buffer").copy_from_slice(from);
//!                 } // and so on
//!                 job.finish(Ok(()))
//!             }
//!         };
//!         length = target.encode(port, &answer, out);
//!     });
//!     length
//! }
//! ```

mod admission;
mod answer;
mod ata;
mod export;
mod job;
mod lists;

pub use admission::Admission;
pub use answer::Answer;
pub use export::{Export, Settings};
pub use job::{Fault, Job, Operation, Pending, Range, Ranges, Step};

use alloc::vec::Vec;
use core::fmt;

use crate::wire::{self, Address, Command, ErrorCode, Frame, Header, MacAddress};
use answer::Body;

/// The link on which a request came and its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// What it is called in [`Admission`]s: the links of a target are counted from 0.
    pub number: u16,
    /// Our own address there.
    pub mac: MacAddress,
    /// Its MTU in bytes.
    pub mtu: usize,
    /// How many requests of one client we are ready to hold at once. At least 2: the Linux driver begins with half of them.
    pub buffer_count: u16,
}

impl Port {
    /// The most sectors in one frame here, 1 to 255 (what a request can count).
    #[must_use]
    pub fn sectors(&self) -> u8 {
        u8::try_from(wire::sectors_for_mtu(self.mtu)).unwrap_or(u8::MAX).max(1)
    }
}

/// A target: the disks that are served, and what their clients have set.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// In the order of their addresses, which differ.
    exports: Vec<Export>,
}

/// Two disks can't have one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressTaken(pub Address);

impl fmt::Display for AddressTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two disks have the address {}: give each its own shelf.slot", self.0)
    }
}

impl core::error::Error for AddressTaken {}

impl Target {
    /// A target without disks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves one more disk.
    ///
    /// # Errors
    /// [`AddressTaken`] when there is one with this address.
    pub fn add(&mut self, export: Export) -> Result<(), AddressTaken> {
        match self.find(export.address) {
            Ok(_) => Err(AddressTaken(export.address)),
            Err(place) => {
                self.exports.insert(place, export);
                Ok(())
            }
        }
    }

    /// Serves the disk at this address no longer; it is returned.
    pub fn remove(&mut self, address: Address) -> Option<Export> {
        let place = self.find(address).ok()?;
        Some(self.exports.remove(place))
    }

    /// The disks, in the order of their addresses.
    #[must_use]
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// The disk at this address.
    #[must_use]
    pub fn export(&self, address: Address) -> Option<&Export> {
        self.find(address).ok().and_then(|place| self.exports.get(place))
    }

    /// The disk at this address, for a change of its size or settings.
    pub fn export_mut(&mut self, address: Address) -> Option<&mut Export> {
        self.find(address).ok().and_then(|place| self.exports.get_mut(place))
    }

    fn find(&self, address: Address) -> Result<usize, usize> {
        self.exports.binary_search_by_key(&address, |export| export.address)
    }

    /// Takes a received frame, and calls `each` with what is to be done: once for each disk that it reaches, which is more than one for a
    /// broadcast query only. What isn't for us gets no call.
    ///
    /// Ignored, as the protocol wants it: answers, requests for other disks, stations that a disk's mask list leaves out, queries of a
    /// configuration string that is another. Also whom a disk's [`Admission`] leaves out, what is no AoE, is for another station, or comes from a group address.
    pub fn handle_frame<'f>(&mut self, port: &Port, frame: &'f [u8], mut each: impl FnMut(&Self, Step<'f>)) {
        let Ok(frame) = Frame::parse(frame) else { return };
        let header = &frame.header;
        let to_us = header.destination == port.mac || header.destination == MacAddress::BROADCAST;
        if header.response || !to_us || header.source.is_multicast() {
            return;
        }
        // One disk is found quickly among hundreds; only a broadcast goes through all.
        let reached = match self.find(header.address) {
            Ok(place) => place..place + 1,
            Err(_) if header.address.is_broadcast() => 0..self.exports.len(),
            Err(_) => return,
        };
        for place in reached {
            let step = self.exports.get_mut(place).and_then(|export| handle(export, port, &frame));
            if let Some(step) = step {
                each(self, step);
            }
        }
    }

    /// For each disk the answer that nobody asked for, to all stations that its [`Admission`] lets in: a target sends it when it starts, so that clients who wait for it
    /// need not ask again (the Linux driver and vblade know the custom).
    pub fn announcements(&self, port: &Port) -> impl Iterator<Item = Answer> {
        let port = *port;
        self.exports.iter().flat_map(move |export| export.announcements(&port))
    }

    /// Writes an answer as a frame into `out` and returns its length. The data of a read must be there already: see [`Pending::data`].
    ///
    /// `None` when `out` is too short (a buffer for the port's MTU never is) or the disk is no longer served.
    pub fn encode(&self, port: &Port, answer: &Answer, out: &mut [u8]) -> Option<usize> {
        answer.encode(self.export(answer.header.address)?, port, out)
    }
}

/// What a request means for one disk; `None` for nothing.
fn handle<'f>(export: &mut Export, port: &Port, frame: &Frame<'f>) -> Option<Step<'f>> {
    let request = &frame.header;
    let admitted = export.admission.admits(port, request.source) && export.settings.admits(request.source);
    if !admitted || !request.address.reaches(export.address) {
        return None;
    }
    let header = request.answer(port.mac, export.address);
    if request.version != wire::VERSION {
        return Some(refuse(header, ErrorCode::UnsupportedVersion));
    }
    match request.command {
        Command::Ata if !export.settings.may_use(request.source) => {
            Some(refuse(header, ErrorCode::TargetReserved))
        }
        Command::Ata => Some(ata::handle(export, port, frame, header)),
        Command::Config => lists::config(&mut export.settings, frame.argument, header),
        Command::Mask => Some(lists::mask(&mut export.settings, frame.argument, header)),
        Command::Reserve => {
            Some(lists::reserve(&mut export.settings, request.source, frame.argument, header))
        }
        Command::Other(_) => Some(refuse(header, ErrorCode::UnrecognizedCommand)),
    }
}

/// The answer to a request whose argument can't be answered in kind.
fn refuse(header: Header, error: ErrorCode) -> Step<'static> {
    Step::Answer(Answer { header: Header { error: Some(error), ..header }, body: Body::Nothing })
}
