//! Frames on their way to the kernel.

use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sendmsg};

use crate::Tail;
use crate::pages::{self, Pages};

/// Frames given to the kernel in one call, at most.
const BATCH: usize = 32;

/// Frames after which to ask whether their pages had to be waited for.
const ASK_AFTER: usize = 32;

/// A ring of transmit buffers. The kernel copies each frame when it is sent, so a slot is free again at once, whatever becomes of the
/// frame on its way through bridges and taps.
#[derive(Debug)]
pub(super) struct Backlog {
    buffers: Box<[u8]>,
    slot_size: usize,
    lens: Box<[usize]>,
    /// What frames end with that is not in their buffers.
    tails: Box<[Option<Tail>]>,
    /// How many of these are mapped pages.
    paged: usize,
    /// Frames sent since it was last asked whether pages had to be waited for.
    unasked: usize,
    /// How often they had to be, then.
    waits: i64,
    first: usize,
    waiting: usize,
}

/// What became of the frames that were waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The kernel took these.
    pub(super) sent: u64,
    /// The kernel refused these; they are lost.
    pub(super) refused: u64,
}

impl Backlog {
    pub(super) fn new(slots: usize, slot_size: usize) -> Self {
        Backlog {
            buffers: vec![0; slots * slot_size].into_boxed_slice(),
            slot_size,
            lens: vec![0; slots].into_boxed_slice(),
            tails: (0..slots).map(|_| None).collect(),
            paged: 0,
            unasked: 0,
            waits: 0,
            first: 0,
            waiting: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting == self.lens.len()
    }

    /// Lets `fill` write the next frame, without the tail that it ends with; `None` when it had nothing. Must not be full.
    pub(super) fn push(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Option<(usize, Option<Tail>)>,
    ) -> Option<()> {
        let slot = self.slot(self.waiting);
        let buffer = &mut self.buffers[slot * self.slot_size..][..self.slot_size];
        let (len, tail) = fill(buffer).filter(|&(len, _)| len <= buffer.len())?;
        self.lens[slot] = if tail.is_some() { len } else { crate::pad(buffer, len) };
        if let Some(pages) = tail.as_ref().and_then(Tail::pages) {
            self.paged += 1;
            pages.fetch();
        }
        self.tails[slot] = tail;
        self.waiting += 1;
        Some(())
    }

    /// Hands frames to the kernel until none is left or it has no room.
    pub(super) fn send(&mut self, socket: impl AsFd) -> Progress {
        let mut progress = Progress::default();
        while self.waiting > 0 {
            match self.send_some(&socket) {
                Ok(sent) => {
                    progress.sent += sent as u64;
                    let waited = self.has_waited(sent);
                    self.pop(sent, |pages| {
                        if waited {
                            pages.were_cold()
                        }
                    });
                }
                Err(Errno::INTR) => {}
                // The send buffer is full: it drains by itself, and the socket becomes writable.
                Err(Errno::AGAIN) => break,
                // ENETDOWN, ENXIO, EMSGSIZE, ENOBUFS, or EFAULT for pages: this frame is lost as on any network; its sender will ask again.
                Err(error) => {
                    progress.refused += 1;
                    self.pop(1, |pages| {
                        if error == Errno::FAULT {
                            pages.broke()
                        }
                    });
                }
            }
        }
        progress
    }

    /// Whether pages of the last frames had to be read from a disk. Asked now and then only, for it costs a system call.
    fn has_waited(&mut self, sent: usize) -> bool {
        self.unasked += if self.paged > 0 { sent } else { 0 };
        if self.unasked < ASK_AFTER {
            return false;
        }
        self.unasked = 0;
        let waits = pages::waits();
        std::mem::replace(&mut self.waits, waits) != waits
    }

    /// Hands some frames to the kernel in one call, for which few need less to be made ready than many.
    fn send_some(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        match self.waiting {
            0..=1 => {
                sendmsg(socket, &self.frame(0), &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT)?;
                Ok(1)
            }
            2..=8 => self.send_up_to::<8>(socket),
            _ => self.send_up_to::<BATCH>(socket),
        }
    }

    fn send_up_to<const MOST: usize>(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        let count = self.waiting.min(MOST);
        let nothing = || [IoSlice::new(&[]), IoSlice::new(&[])];
        let frames: [[IoSlice<'_>; 2]; MOST] =
            std::array::from_fn(|i| if i < count { self.frame(i) } else { nothing() });
        let mut control: [SendAncillaryBuffer<'_, '_, '_>; MOST] =
            std::array::from_fn(|_| Default::default());
        let mut pairs = frames.iter().zip(&mut control);
        let mut messages: [MMsgHdr<'_>; MOST] = std::array::from_fn(|_| {
            let (frame, control) = pairs.next().expect("as many as there are messages");
            MMsgHdr::new(frame, control)
        });
        sendmmsg(socket, &mut messages[..count], SendFlags::DONTWAIT)
    }

    /// One that waits, the first is 0: what is in its buffer, and what is not.
    fn frame(&self, number: usize) -> [IoSlice<'_>; 2] {
        let slot = self.slot(number);
        let rest = self.tails[slot].as_ref().map_or(IoSlice::new(&[]), Tail::io_slice);
        [IoSlice::new(&self.buffers[slot * self.slot_size..][..self.lens[slot]]), rest]
    }

    fn pop(&mut self, count: usize, look_at: impl Fn(&Pages)) {
        for _ in 0..count {
            if let Some(pages) = self.tails[self.first].take().as_ref().and_then(Tail::pages) {
                self.paged -= 1;
                look_at(pages);
            }
            self.first = self.slot(1);
        }
        self.waiting -= count;
        // The same buffer again and again stays in the processor's cache.
        if self.waiting == 0 {
            self.first = 0;
        }
    }

    /// That of the frame that is so many behind the first, at most as many as there are slots.
    fn slot(&self, behind: usize) -> usize {
        let slot = self.first + behind;
        if slot < self.lens.len() { slot } else { slot - self.lens.len() }
    }
}
