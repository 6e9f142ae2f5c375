//! What a log changes in a file.

use std::collections::BTreeMap;

/// The unit of changes in bytes ([MS-VHDX] 2.3).
pub(super) const PAGE: usize = 4 << 10;

/// Parts of a file that differ from it, by their offsets; none overlap.
#[derive(Debug, Default)]
pub(super) struct Patches(BTreeMap<u64, Patch>);

/// Bytes up to `end`.
#[derive(Debug)]
struct Patch {
    end: u64,
    /// A page, or zeros of any length.
    page: Option<Box<[u8; PAGE]>>,
}

impl Patches {
    /// Writes a page over what was there. Its offset is a multiple of [`PAGE`].
    pub(super) fn write(&mut self, offset: u64, page: Box<[u8; PAGE]>) {
        self.insert(offset, offset.saturating_add(PAGE as u64), Some(page));
    }

    /// Writes zeros over what was there. Both are multiples of [`PAGE`].
    pub(super) fn zero(&mut self, offset: u64, length: u64) {
        if length > 0 {
            self.insert(offset, offset.saturating_add(length), None);
        }
    }

    fn insert(&mut self, start: u64, end: u64, page: Option<Box<[u8; PAGE]>>) {
        // Only zeros reach into something else, or out of it: a page is replaced as a whole.
        let mut rest = None;
        if let Some((_, before)) = self.0.range_mut(..start).next_back()
            && before.end > start
        {
            rest = Some(before.end);
            before.end = start;
        }
        while let Some((&at, patch)) = self.0.range(start..end).next() {
            rest = Some(patch.end);
            self.0.remove(&at);
        }
        if let Some(rest) = rest
            && rest > end
        {
            self.0.insert(end, Patch { end: rest, page: None });
        }
        self.0.insert(start, Patch { end, page });
    }

    /// Changes bytes that were read at `offset`.
    pub(super) fn apply(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset.saturating_add(bytes.len() as u64);
        let first = self.0.range(..=offset).next_back().map_or(offset, |(&start, _)| start);
        for (&start, patch) in self.0.range(first..end) {
            let (from, to) = (start.max(offset), patch.end.min(end));
            if from >= to {
                continue;
            }
            let part = &mut bytes[(from - offset) as usize..(to - offset) as usize];
            match &patch.page {
                None => part.fill(0),
                Some(page) => part.copy_from_slice(&page[(from - start) as usize..(to - start) as usize]),
            }
        }
    }

    /// The end of the last one.
    pub(super) fn end(&self) -> u64 {
        self.0.values().next_back().map_or(0, |patch| patch.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_changes_win() {
        const P: u64 = PAGE as u64;
        // A model of twelve pages, a letter each.
        let mut patches = Patches::default();
        let mut model = [b'.'; 12];
        let mut state = 1u32;
        for round in 0..2_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (at, many) = (state >> 8 & 7, state >> 12 & 3);
            if state >> 16 & 1 == 0 {
                let letter = b'a' + (round % 26) as u8;
                patches.write(u64::from(at) * P, Box::new([letter; PAGE]));
                model[at as usize] = letter;
            } else {
                patches.zero(u64::from(at) * P, u64::from(many) * P);
                model[at as usize..][..many as usize].fill(0);
            }
            // From any offset, of any length.
            let (from, to) =
                ((state >> 17) as usize % (6 * PAGE), 6 * PAGE + (state >> 5) as usize % (6 * PAGE));
            let mut bytes = vec![b'.'; to - from];
            patches.apply(from as u64, &mut bytes);
            for (at, byte) in (from..).zip(bytes) {
                assert_eq!(byte, model[at / PAGE], "byte {at} after round {round}");
            }
            let last = model.iter().rposition(|&letter| letter != b'.').map_or(0, |last| last as u64 + 1);
            assert_eq!(patches.end(), last * P);
            if round % 20 == 19 {
                (patches, model) = (Patches::default(), [b'.'; 12]);
            }
        }
    }
}
