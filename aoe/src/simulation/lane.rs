//! One direction of a network.

use super::{Faults, REORDER_HOLD, Share};
use crate::Instant;
use crate::random::Random;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// Frames on the way at once; more are lost, as in a switch whose queue is full.
const MAX_FRAMES: usize = 4096;

/// What happened to the frames of a [`Lane`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that were sent.
    pub sent: u64,
    /// Lost, in outages too.
    pub lost: u64,
    /// Damaged and therefore dropped.
    pub corrupted: u64,
    /// Damaged and delivered.
    pub garbled: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
}

/// One direction of a network: frames go in at one time and come out at another, or don't.
///
/// The same seed, frames and times give the same faults.
#[derive(Clone, Debug)]
pub struct Lane {
    faults: Faults,
    random: Random,
    /// By arrival, and by number among those that arrive together.
    frames: BTreeMap<(Instant, u64), Vec<u8>>,
    numbered: u64,
    /// The latest arrival of those that keep their order.
    latest: Instant,
    first: Option<Instant>,
    /// Buffers of frames that were delivered.
    spare: Vec<Vec<u8>>,
    tally: Tally,
}

impl Lane {
    /// A lane whose dice are thrown from `seed`.
    #[must_use]
    pub fn new(faults: &Faults, seed: u64) -> Self {
        Lane {
            faults: faults.clone(),
            random: Random::new(seed),
            frames: BTreeMap::new(),
            numbered: 0,
            latest: Instant::ZERO,
            first: None,
            spare: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// From now on, other faults. Frames on the way stay on the way.
    pub fn set_faults(&mut self, faults: &Faults) {
        self.faults = faults.clone();
    }

    /// What happened so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Sends a frame.
    pub fn push(&mut self, now: Instant, frame: &[u8]) {
        self.tally.sent += 1;
        let first = *self.first.get_or_insert(now);
        let out = self.faults.outage.is_some_and(|outage| {
            let begin = first + outage.after;
            begin <= now && now < begin + outage.length
        });
        // All dice are thrown for each frame, so that one fault more doesn't change the others'.
        let [loss, corrupt, garble, duplicate, reorder] = [
            self.faults.loss,
            self.faults.corrupt,
            self.faults.garble,
            self.faults.duplicate,
            self.faults.reorder,
        ]
        .map(|share| self.hits(share));
        let (jitter, hold) = (self.faults.jitter, REORDER_HOLD);
        let (jitter, hold) = (self.up_to(jitter), self.up_to(hold));
        if out || loss || self.frames.len() >= MAX_FRAMES {
            self.tally.lost += 1;
            return;
        }
        if corrupt {
            self.tally.corrupted += 1;
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame);
        if garble {
            self.tally.garbled += 1;
            self.garble(&mut bytes);
        }
        let mut due = (now + self.faults.delay + jitter).max(self.latest);
        if reorder {
            self.tally.reordered += 1;
            due = due + hold;
        } else {
            self.latest = due;
        }
        if duplicate {
            self.tally.duplicated += 1;
            self.insert(due, bytes.clone());
        }
        self.insert(due, bytes);
    }

    /// The next frame that has arrived.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        let entry = self.frames.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// The next frame that has arrived, which stays where it is.
    #[must_use]
    pub fn peek(&self, now: Instant) -> Option<&[u8]> {
        let (&(due, _), frame) = self.frames.first_key_value()?;
        (due <= now).then_some(frame)
    }

    /// Gives a delivered frame's buffer back, for the next.
    pub fn recycle(&mut self, frame: Vec<u8>) {
        if self.spare.len() < 64 {
            self.spare.push(frame);
        }
    }

    /// When the next frame arrives.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.frames.first_key_value().map(|(&(due, _), _)| due)
    }

    fn insert(&mut self, due: Instant, bytes: Vec<u8>) {
        self.frames.insert((due, self.numbered), bytes);
        self.numbered += 1;
    }

    fn hits(&mut self, share: Share) -> bool {
        self.random.below(1_000_000) < u64::from(share.millionths())
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_nanos(self.random.below(longest.as_nanos().try_into().unwrap_or(u64::MAX)))
    }

    /// Changes one to eight bytes, mostly in the header, where it does the most.
    fn garble(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.random.below(8) {
            let reach = if self.random.below(4) == 0 { bytes.len() } else { bytes.len().min(48) };
            let at = self.random.below(reach as u64) as usize;
            let value = self.random.next() as u8;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_nanos(us * 1_000)
    }

    fn lane(faults: &str) -> Lane {
        Lane::new(&faults.parse().unwrap(), 1)
    }

    /// Sends 10,000 numbered frames, 10 us apart, and gives the numbers in the order of arrival.
    fn run(lane: &mut Lane) -> Vec<u32> {
        let mut arrived = Vec::new();
        for n in 0..10_500u32 {
            let now = at(u64::from(n) * 10);
            if n < 10_000 {
                lane.push(now, &n.to_be_bytes());
            }
            let due = core::iter::from_fn(|| lane.pop(now));
            arrived.extend(due.map(|frame| u32::from_be_bytes(frame.try_into().unwrap())));
        }
        assert_eq!(lane.next_due(), None);
        arrived
    }

    #[test]
    fn a_perfect_lane_carries_all_in_order() {
        assert!(run(&mut lane("")).iter().copied().eq(0..10_000));
        // Jitter much longer than the distance between frames.
        assert!(run(&mut lane("delay=1ms,jitter=3ms")).iter().copied().eq(0..10_000));
    }

    #[test]
    fn shares_are_met_and_counted() {
        let mut lane = lane("loss=5%,duplicate=1%,reorder=2%,corrupt=3%");
        let arrived = run(&mut lane);
        let tally = lane.tally();
        let near = |count: u64, expected: u64| count.abs_diff(expected) < expected / 3;
        assert!(near(tally.lost, 500) && near(tally.corrupted, 300), "{tally:?}");
        assert!(near(tally.duplicated, 92) && near(tally.reordered, 184), "{tally:?}");
        let expected = tally.sent - tally.lost - tally.corrupted + tally.duplicated;
        assert_eq!(arrived.len() as u64, expected);
        assert!(!arrived.is_sorted());
    }

    #[test]
    fn times_are_kept() {
        let mut lane = lane("delay=1ms");
        lane.push(at(0), &[1]);
        assert_eq!((lane.pop(at(999)), lane.next_due()), (None, Some(at(1000))));
        assert_eq!(lane.peek(at(1000)), Some(&[1][..]));
        assert_eq!(lane.pop(at(1000)), Some(alloc::vec![1]));
    }

    #[test]
    fn an_outage_begins_and_ends() {
        let mut lane = lane("outage=20ms+30ms");
        let arrived = run(&mut lane);
        assert!(arrived.iter().copied().eq((0..2_000).chain(5_000..10_000)));
    }

    #[test]
    fn one_seed_one_fate() {
        let faults = "loss=5%,duplicate=1%,reorder=2%,jitter=1ms";
        assert_eq!(run(&mut lane(faults)), run(&mut lane(faults)));
        assert_ne!(run(&mut lane(faults)), run(&mut Lane::new(&faults.parse().unwrap(), 2)));
    }
}
