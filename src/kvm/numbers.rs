//! Numbers that are given out and come back: of memory slots, and of interrupts.

use std::collections::BTreeSet;
use std::ops::Range;

/// The numbers of a range that nobody has.
#[derive(Debug)]
pub(super) struct Numbers {
    /// Were given out, and came back.
    back: BTreeSet<u32>,
    /// Were never given out.
    new: Range<u32>,
}

impl Numbers {
    /// All of `range` are there.
    pub(super) fn new(range: Range<u32>) -> Self {
        Numbers { back: BTreeSet::new(), new: range }
    }

    /// The lowest that is there.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.back.pop_first().or_else(|| self.new.next())
    }

    /// `number` was [taken](Self::take) and is there again.
    pub(super) fn give_back(&mut self, number: u32) {
        self.back.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_a_number_that_another_one_has() {
        let mut numbers = Numbers::new(24..27);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [Some(24), Some(25), Some(26)]);
        assert_eq!(numbers.take(), None);
        numbers.give_back(25);
        numbers.give_back(24);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [Some(24), Some(25), None]);
    }
}
