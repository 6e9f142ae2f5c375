//! Copies of writes that may still be on their way after the write itself is settled.

use crate::Instant;
use alloc::vec::Vec;

/// Ghosts that are remembered one by one; more are folded into one that covers them all.
const MAX_GHOSTS: usize = 256;

/// Sectors from `first` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) end: u64,
}

impl Range {
    /// All sectors there can be.
    pub(crate) const ALL: Range = Range { first: 0, end: u64::MAX };

    pub(crate) fn new(lba: u64, sectors: u32) -> Self {
        Range { first: lba, end: lba.saturating_add(u64::from(sectors)) }
    }

    pub(crate) fn overlaps(self, other: Range) -> bool {
        self.first < other.end && other.first < self.end
    }

    fn cover(self, other: Range) -> Self {
        Range { first: self.first.min(other.first), end: self.end.max(other.end) }
    }
}

/// A transmission of a write that was not answered, though the write is over: answered through another copy, or given up.
#[derive(Clone, Debug)]
struct Ghost {
    /// Its tag; `None` once several were folded.
    tag: Option<u32>,
    /// What it overwrites if it does arrive.
    range: Range,
    /// No copy of its write was answered: the disk may still hold the older data, and change under a reader.
    abandoned: bool,
    /// When it can no longer arrive, if the target is alive then; `None` as long as it has given no sign of life since.
    expires: Option<Instant>,
}

/// The ghosts of one target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ghosts(Vec<Ghost>);

impl Ghosts {
    /// Remembers a copy. `tag` is `None` when its answer could not be told apart.
    pub(crate) fn add(&mut self, tag: Option<u32>, range: Range, abandoned: bool, expires: Option<Instant>) {
        let ghost = Ghost { tag, range, abandoned, expires };
        if self.0.len() < MAX_GHOSTS {
            self.0.push(ghost);
        } else if let Some(last) = self.0.last_mut() {
            // Too many to know each: hold back too much rather than too little.
            last.tag = None;
            last.range = last.range.cover(ghost.range);
            last.abandoned |= ghost.abandoned;
            last.expires = last.expires.zip(ghost.expires).map(|(a, b)| a.max(b));
        }
    }

    /// The copy with this tag has arrived, since here is its answer; whether there was one.
    pub(crate) fn answered(&mut self, tag: u32) -> bool {
        let found = self.0.iter().position(|ghost| ghost.tag == Some(tag));
        found.map(|index| self.0.swap_remove(index)).is_some()
    }

    /// A write to this range was given up: its earlier ghosts too are copies of something that never was acknowledged.
    pub(crate) fn abandon(&mut self, range: Range) {
        for ghost in self.0.iter_mut().filter(|ghost| ghost.range.overlaps(range)) {
            ghost.abandoned = true;
        }
    }

    /// The target gave a sign of life: those that waited for it live until `expires`.
    pub(crate) fn heard(&mut self, expires: Instant) {
        for ghost in &mut self.0 {
            ghost.expires.get_or_insert(expires);
        }
    }

    /// The target has fallen silent: what waits inside it waits for as long.
    pub(crate) fn silence(&mut self) {
        for ghost in &mut self.0 {
            ghost.expires = None;
        }
    }

    /// Forgets those that can't arrive any more; whether there were any. The target was last `heard` then: had it stopped before a
    /// ghost's time was up, the ghost could be in its queue.
    pub(crate) fn expire(&mut self, heard: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|ghost| ghost.expires.is_none_or(|expires| expires > heard));
        self.0.len() < before
    }

    /// When the next one expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.0.iter().filter_map(|ghost| ghost.expires).min()
    }

    /// Whether a sign of life from the target now would bring some to their end, or nearer to it.
    pub(crate) fn overdue(&self, now: Instant) -> bool {
        self.0.iter().any(|ghost| ghost.expires.is_none_or(|expires| expires <= now))
    }

    /// Whether a write to this range would have to fear for its data.
    pub(crate) fn endanger_write(&self, range: Range) -> bool {
        self.0.iter().any(|ghost| ghost.range.overlaps(range))
    }

    /// Whether a read of this range could see data that changes afterwards.
    pub(crate) fn endanger_read(&self, range: Range) -> bool {
        self.0.iter().any(|ghost| ghost.abandoned && ghost.range.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn ranges() {
        let range = Range::new(10, 10);
        assert!(range.overlaps(Range::new(19, 1)) && range.overlaps(Range::new(0, 11)));
        assert!(!range.overlaps(Range::new(20, 1)) && !range.overlaps(Range::new(0, 10)));
        assert!(
            range.overlaps(Range::ALL) && Range::new(u64::MAX - 1, 9).overlaps(Range::new(u64::MAX - 1, 1))
        );
    }

    #[test]
    fn an_answer_or_time_ends_a_ghost() {
        let mut ghosts = Ghosts::default();
        ghosts.add(Some(1), Range::new(0, 8), false, Some(at(100)));
        ghosts.add(Some(2), Range::new(100, 8), true, None);
        assert!(ghosts.endanger_write(Range::new(7, 1)) && !ghosts.endanger_read(Range::new(7, 1)));
        assert!(ghosts.endanger_write(Range::new(100, 1)) && ghosts.endanger_read(Range::new(100, 1)));
        assert!(ghosts.answered(1) && !ghosts.answered(1));
        assert!(!ghosts.endanger_write(Range::new(7, 1)));
        // Without a sign of life time does not count.
        assert!(!ghosts.expire(at(1_000_000)) && ghosts.overdue(at(0)));
        ghosts.heard(at(1_000_500));
        assert_eq!(ghosts.next_expiry(), Some(at(1_000_500)));
        assert!(!ghosts.overdue(at(1_000_499)) && ghosts.overdue(at(1_000_500)));
        assert!(!ghosts.expire(at(1_000_499)) && ghosts.expire(at(1_000_500)));
        assert!(!ghosts.endanger_write(Range::ALL));
    }

    #[test]
    fn too_many_are_folded_but_none_is_forgotten() {
        let mut ghosts = Ghosts::default();
        for n in 0..1000 {
            ghosts.add(Some(n), Range::new(u64::from(n) * 10, 1), false, Some(at(u64::from(n))));
        }
        assert_eq!(ghosts.0.len(), MAX_GHOSTS);
        assert!((0..1000).all(|n| ghosts.endanger_write(Range::new(n * 10, 1))));
        ghosts.expire(at(998));
        assert!(ghosts.endanger_write(Range::new(9990, 1)));
    }
}
