//! Bytes on their way to the guest's serial port.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// As much as a terminal's own line discipline holds.
const CAPACITY: usize = 4096;

/// A bounded queue with a file descriptor that tells of new bytes.
///
/// The serial port's owner calls [`read`](Self::read) when [`fd`](Self::fd) becomes readable, and again whenever the guest has made room in
/// the port's FIFO.
#[derive(Debug)]
pub struct Input {
    queue: Mutex<Queue>,
    room: Condvar,
    event: OwnedFd,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    taken: u64,
    dropped: u64,
    closed: bool,
}

impl Input {
    /// An empty queue.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::default(), room: Condvar::new(), event })
    }

    /// Readable from the arrival of bytes until the next [`read`](Self::read).
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Takes up to as many bytes as fit `out`; never blocks.
    ///
    /// Makes [`fd`](Self::fd) quiet, whatever remains: a port without room reads nothing into an empty slice, and calls again once
    /// the guest has made room.
    pub fn read(&self, out: &mut [u8]) -> usize {
        let mut queue = self.queue();
        // Fails only when there is nothing to clear.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        let count = out.len().min(queue.bytes.len());
        for (to, byte) in out.iter_mut().zip(queue.bytes.drain(..count)) {
            *to = byte;
        }
        queue.taken += count as u64;
        drop(queue);
        self.room.notify_all();
        count
    }

    /// Adds what was typed. A guest that does not read loses the newest: the keys that end Kagero must still be seen.
    pub fn push_typed(&self, bytes: &[u8]) {
        let mut queue = self.queue();
        let count = bytes.len().min(CAPACITY - queue.bytes.len());
        queue.bytes.extend(&bytes[..count]);
        queue.dropped += (bytes.len() - count) as u64;
        self.signal();
    }

    /// Adds what came through a pipe, all of it: waits until the guest has made room. False when the run has ended first.
    #[must_use]
    pub fn push_piped(&self, mut bytes: &[u8]) -> bool {
        let mut queue = self.queue();
        while !bytes.is_empty() {
            if queue.closed {
                return false;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CAPACITY - queue.bytes.len()));
            queue.bytes.extend(now);
            bytes = later;
            self.signal();
            if !bytes.is_empty() {
                queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
        true
    }

    /// Nobody will read any more: releases whoever waits for room.
    pub fn close(&self) {
        self.queue().closed = true;
        self.room.notify_all();
    }

    /// How many bytes were taken by the guest, and how many typed ones it lost.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let queue = self.queue();
        (queue.taken, queue.dropped)
    }

    /// Under the queue's lock, so that a reader that finds no bytes also leaves no signal.
    fn signal(&self) {
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn readable(input: &Input) -> bool {
        poll(&mut [PollFd::new(&input.event, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn the_descriptor_tells_of_new_bytes_once() {
        let input = Input::new().unwrap();
        assert!(!readable(&input));
        input.push_typed(b"abc");
        assert!(readable(&input));
        assert_eq!(input.read(&mut []), 0);
        assert!(!readable(&input), "a port without room is not woken again and again");
        let mut out = [0; 2];
        assert_eq!(input.read(&mut out), 2);
        assert_eq!(&out, b"ab");
        assert_eq!(input.read(&mut out), 1);
        assert_eq!(input.counts(), (3, 0));
    }

    #[test]
    fn a_pipe_waits_for_the_guest_and_loses_nothing() {
        let input = Arc::new(Input::new().unwrap());
        let sent: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
        let feeder = std::thread::spawn({
            let (input, sent) = (input.clone(), sent.clone());
            move || input.push_piped(&sent)
        });
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let mut fifo = [0; 16];
            let count = input.read(&mut fifo);
            received.extend_from_slice(&fifo[..count]);
            std::thread::yield_now();
        }
        assert!(feeder.join().unwrap());
        assert_eq!(received, sent);
    }

    #[test]
    fn the_end_of_the_run_releases_a_waiting_pipe() {
        let input = Arc::new(Input::new().unwrap());
        let feeder = std::thread::spawn({
            let input = input.clone();
            move || input.push_piped(&[0; 2 * CAPACITY])
        });
        input.close();
        assert!(!feeder.join().unwrap());
    }

    #[test]
    fn what_is_typed_at_a_deaf_guest_is_dropped_and_counted() {
        let input = Input::new().unwrap();
        input.push_typed(&[b'x'; CAPACITY]);
        input.push_typed(b"yz");
        assert_eq!(input.counts(), (0, 2));
    }
}
