//! Faults on a real link.

use super::{Faults, Lane, Tally};
use crate::Instant;
use crate::link::Link;
use crate::wire::ETHERNET_HEADER;
use alloc::vec::Vec;

/// Frames taken from the inner link in one go.
const BATCH: usize = 256;

/// A [`Link`] with [`Faults`] in both directions.
///
/// A link knows no time and faults do, so `clock` tells it: `move || clock.now()` on a real machine, a `Cell` in a test. Frames that
/// are held back need someone to come for them: wake up at [`next_due`](Self::next_due) and call [`pump`](Self::pump), then receive.
#[derive(Clone, Debug)]
pub struct FaultyLink<L, C> {
    inner: L,
    clock: C,
    out: Lane,
    r#in: Lane,
    buffer: Vec<u8>,
}

impl<L: Link, C: Fn() -> Instant> FaultyLink<L, C> {
    /// Wraps a link.
    pub fn new(inner: L, faults: &Faults, seed: u64, clock: C) -> Self {
        let buffer = alloc::vec![0; inner.mtu() + ETHERNET_HEADER];
        FaultyLink { inner, clock, out: Lane::new(faults, seed), r#in: Lane::new(faults, !seed), buffer }
    }

    /// The link inside.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    /// The link inside. What is received or sent through it directly passes by the faults.
    pub fn inner_mut(&mut self) -> &mut L {
        &mut self.inner
    }

    /// The link inside, alone. What was held back is lost.
    pub fn into_inner(self) -> L {
        self.inner
    }

    /// When the next frame that is held back is due, in either direction.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        [self.out.next_due(), self.r#in.next_due()].into_iter().flatten().min()
    }

    /// What happened to the frames sent, and to those received.
    #[must_use]
    pub fn tally(&self) -> (Tally, Tally) {
        (self.out.tally(), self.r#in.tally())
    }

    /// Sends what is due, as far as the inner link has room.
    pub fn pump(&mut self) {
        let now = (self.clock)();
        while let Some(frame) = self.out.peek(now) {
            let sent = self.inner.transmit(|buffer| {
                buffer.get_mut(..frame.len())?.copy_from_slice(frame);
                Some(frame.len())
            });
            if !sent {
                break;
            }
            if let Some(frame) = self.out.pop(now) {
                self.out.recycle(frame);
            }
        }
    }
}

impl<L: Link, C: Fn() -> Instant> Link for FaultyLink<L, C> {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        self.pump();
        let now = (self.clock)();
        let lane = &mut self.r#in;
        for _ in 0..BATCH {
            if !self.inner.receive(|frame| lane.push(now, frame)) {
                break;
            }
        }
        let Some(frame) = lane.pop(now) else { return false };
        take(&frame);
        lane.recycle(frame);
        true
    }

    /// Always has room: a frame for which the inner link has none waits, and the network's own queue is bounded.
    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let Some(length) = fill(&mut self.buffer) else { return false };
        if let Some(frame) = self.buffer.get(..length) {
            self.out.push((self.clock)(), frame);
        }
        self.pump();
        true
    }

    fn mtu(&self) -> usize {
        self.inner.mtu()
    }

    fn mac(&self) -> [u8; 6] {
        self.inner.mac()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use core::cell::Cell;

    /// Gives back what was sent, with room for two frames.
    #[derive(Default)]
    struct Loop(VecDeque<Vec<u8>>);

    impl Link for Loop {
        fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
            self.0.pop_front().inspect(|frame| take(frame)).is_some()
        }

        fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
            let mut buffer = alloc::vec![0; 1514];
            if self.0.len() >= 2 {
                return false;
            }
            let Some(length) = fill(&mut buffer) else { return false };
            buffer.truncate(length);
            self.0.push_back(buffer);
            true
        }

        fn mtu(&self) -> usize {
            1500
        }

        fn mac(&self) -> [u8; 6] {
            [2; 6]
        }
    }

    fn send(link: &mut impl Link, byte: u8) -> bool {
        link.transmit(|buffer| {
            buffer[..60].fill(byte);
            Some(60)
        })
    }

    #[test]
    fn delays_in_both_directions_and_loses_nothing_for_want_of_room() {
        let now = Cell::new(Instant::ZERO);
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut link = FaultyLink::new(Loop::default(), &"delay=1ms".parse().unwrap(), 1, || now.get());
        assert!(!link.transmit(|_| None));
        for byte in 0..5 {
            assert!(send(&mut link, byte));
        }
        assert_eq!(link.next_due(), Some(at(1)));
        assert!(!link.receive(|_| panic!("too early")));
        let mut got = Vec::new();
        for ms in 1..10 {
            now.set(at(ms));
            while link.receive(|frame| got.push(frame[0])) {}
        }
        assert_eq!(got, [0, 1, 2, 3, 4]);
        assert_eq!(link.next_due(), None);
        assert_eq!(link.tally().0.sent, 5);
    }
}
