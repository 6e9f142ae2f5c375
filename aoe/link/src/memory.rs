//! A cable in memory: two ends, each of which may live in a thread of its own.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use kagero_aoe::link::Link;
use rustix::event::{EventfdFlags, eventfd};

use crate::{Counters, ETHERNET_HEADER, ServerLink};

/// How a cable in memory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The largest Ethernet payload in bytes. No network card sets a limit here: the default carries 128 sectors in a frame.
    pub mtu: usize,
    /// Frames that may wait in each direction. What comes on top is lost, as in a network.
    pub queue: usize,
    /// Addresses of the two ends.
    pub macs: [[u8; 6]; 2],
}

impl Default for Options {
    fn default() -> Self {
        // Locally administered addresses.
        let mac = |last| [0x02, b'k', b'g', b'r', 0, last];
        Options { mtu: 22 + 128 * 512, queue: 256, macs: [mac(1), mac(2)] }
    }
}

/// One end of a cable in memory. Frames are lost, silently as in a network, when the other end is gone or its queue is full.
///
/// Buffers go round: once the queues have seen their deepest, no frame allocates.
#[derive(Debug)]
pub struct MemoryLink {
    incoming: Arc<Lane>,
    outgoing: Arc<Lane>,
    held: bool,
    mtu: usize,
    mac: [u8; 6],
    counters: Counters,
}

/// One direction. Its lock is a leaf: nothing else is locked, and no frame is copied, while it is held.
#[derive(Debug)]
struct Lane {
    queue: Mutex<Queue>,
    /// Readable while `Queue::signalled`.
    ready: OwnedFd,
    depth: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Frame>,
    spare: Vec<Frame>,
    /// The receiver has been told and has not yet found the queue empty.
    signalled: bool,
}

#[derive(Debug)]
struct Frame {
    buffer: Box<[u8]>,
    len: usize,
}

impl MemoryLink {
    /// A cable: its two ends.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn pair(options: Options) -> io::Result<(Self, Self)> {
        let lane = || -> io::Result<Arc<Lane>> {
            let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            Ok(Arc::new(Lane { queue: Mutex::default(), ready, depth: options.queue }))
        };
        let (there, back) = (lane()?, lane()?);
        let end = |incoming: &Arc<Lane>, outgoing: &Arc<Lane>, mac| MemoryLink {
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            held: false,
            mtu: options.mtu,
            mac,
            counters: Counters::default(),
        };
        Ok((end(&back, &there, options.macs[0]), end(&there, &back, options.macs[1])))
    }

    /// Frames moved and lost so far, as this end saw them.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole at every point where its holder could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the receiver, once until it has found the queue empty.
    fn signal(&self, queue: &mut Queue) {
        if !queue.waiting.is_empty() && !mem::replace(&mut queue.signalled, true) {
            // Fails only at a count of 2^64 - 1, and it is 0 here.
            let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
        }
    }

    fn clear(&self, queue: &mut Queue) {
        if mem::replace(&mut queue.signalled, false) {
            let _ = rustix::io::read(&self.ready, &mut [0; 8]);
        }
    }
}

impl ServerLink for MemoryLink {}

impl Link for MemoryLink {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        let frame = {
            let mut queue = self.incoming.lock();
            let Some(frame) = queue.waiting.pop_front() else {
                self.incoming.clear(&mut queue);
                return false;
            };
            frame
        };
        take(&frame.buffer[..frame.len]);
        self.incoming.lock().spare.push(frame);
        self.counters.received += 1;
        true
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let spare = self.outgoing.lock().spare.pop();
        let mut frame = spare.unwrap_or_else(|| Frame {
            buffer: vec![0; ETHERNET_HEADER + self.mtu].into_boxed_slice(),
            len: 0,
        });
        let filled = fill(&mut frame.buffer).filter(|&len| len <= frame.buffer.len());
        let alone = Arc::strong_count(&self.outgoing) == 1;
        let mut queue = self.outgoing.lock();
        let Some(len) = filled else {
            queue.spare.push(frame);
            return false;
        };
        frame.len = len;
        if alone || queue.waiting.len() >= self.outgoing.depth {
            queue.spare.push(frame);
            self.counters.unsent += 1;
        } else {
            queue.waiting.push_back(frame);
            if !self.held {
                self.outgoing.signal(&mut queue);
            }
            self.counters.sent += 1;
        }
        true
    }

    fn hold(&mut self) {
        self.held = true;
    }

    fn flush(&mut self) -> bool {
        if mem::replace(&mut self.held, false) {
            self.outgoing.signal(&mut self.outgoing.lock());
        }
        true
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

impl AsFd for MemoryLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.ready.as_fd()
    }
}
