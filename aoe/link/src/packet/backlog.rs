//! Frames on their way to the kernel.

use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// Frames given to the kernel in one call, at most.
const BATCH: usize = 32;

/// A ring of transmit buffers. The kernel copies each frame when it is sent, so a slot is free again at once, whatever becomes of the
/// frame on its way through bridges and taps.
#[derive(Debug)]
pub(super) struct Backlog {
    buffers: Box<[u8]>,
    slot_size: usize,
    lens: Box<[usize]>,
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

    /// Lets `fill` write the next frame; `None` when it had nothing. Must not be full.
    pub(super) fn push(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        let slot = (self.first + self.waiting) % self.lens.len();
        let buffer = &mut self.buffers[slot * self.slot_size..][..self.slot_size];
        let len = fill(buffer).filter(|&len| len <= buffer.len())?;
        self.lens[slot] = crate::pad(buffer, len);
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
                    self.pop(sent);
                }
                Err(Errno::INTR) => {}
                // The send buffer is full: it drains by itself, and the socket becomes writable.
                Err(Errno::AGAIN) => break,
                // ENETDOWN, ENXIO, EMSGSIZE, ENOBUFS: this frame is lost as on any network; its sender will ask again.
                Err(_) => {
                    progress.refused += 1;
                    self.pop(1);
                }
            }
        }
        progress
    }

    fn send_some(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        let count = self.waiting.min(BATCH);
        let frames: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|i| {
            let slot = (self.first + i) % self.lens.len();
            let len = if i < count { self.lens[slot] } else { 0 };
            [IoSlice::new(&self.buffers[slot * self.slot_size..][..len])]
        });
        let mut control: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
            std::array::from_fn(|_| Default::default());
        let mut pairs = frames.iter().zip(&mut control);
        let mut messages: [MMsgHdr<'_>; BATCH] = std::array::from_fn(|_| {
            let (frame, control) = pairs.next().expect("as many as there are messages");
            MMsgHdr::new(frame, control)
        });
        sendmmsg(socket, &mut messages[..count], SendFlags::DONTWAIT)
    }

    fn pop(&mut self, count: usize) {
        self.first = (self.first + count) % self.lens.len();
        self.waiting -= count;
    }
}
