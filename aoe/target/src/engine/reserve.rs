//! When a disk gets what was asked of it.
//!
//! Some disks tell of what they have done only when nothing is left for them to do: those of virtual machines mostly, where the host carries out
//! one request after the other. Then everything comes back together, like a convoy, and the disk idles until clients have their answers and
//! the next requests are here. With such a disk some requests are kept back, for it to begin with at once when it has done the others.
//! With 64 reads of 4 KiB outstanding, that takes a server from 0.65 to 0.80 of what the disk does for a program on the same machine.

/// How many requests to keep back, by how they came back before.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Requests that were here when a convoy came back: the most, of late. None when the disk had more to do than what came back.
    convoy: usize,
    /// What came back is being taken in.
    ringing: bool,
    /// When that began: requests that were here, and those of them that the disk had.
    here: usize,
    due: usize,
    /// Taken in since then.
    taken: usize,
    /// Handed to the disk since then.
    fresh: usize,
}

impl Reserve {
    /// Something came back, when so many requests were here, of which the disk had so many; what was kept back is on its way. Not told again before
    /// that is all [taken in](Self::silenced).
    pub(super) fn rang(&mut self, here: usize, in_kernel: usize) {
        *self = Reserve { convoy: self.convoy, ringing: true, here, due: in_kernel, taken: 0, fresh: 0 };
    }

    /// Whether what came back is being taken in.
    pub(super) fn is_ringing(&self) -> bool {
        self.ringing
    }

    /// A request that came back was taken in.
    pub(super) fn taken(&mut self) {
        self.taken += 1;
    }

    /// All that came back was taken in.
    pub(super) fn silenced(&mut self) {
        if !std::mem::take(&mut self.ringing) {
            return;
        }
        let most_of_late = self.here.max(self.convoy - self.convoy / 8);
        self.convoy = if self.taken >= self.due { most_of_late } else { 0 };
    }

    /// The disk got so many.
    pub(super) fn submitted(&mut self, requests: usize) {
        self.fresh += requests;
    }

    /// Nothing has come back for long.
    pub(super) fn give_up(&mut self) {
        self.convoy = 0;
    }

    /// Requests to keep back when the disk has so many: a quarter of the convoy, once half of it is on its way again. None when there is nothing that
    /// could come back.
    pub(super) fn size(&self, in_kernel: usize) -> usize {
        if in_kernel > 0 && self.fresh >= self.convoy.div_ceil(2) { self.convoy / 4 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many come back, of those that the disk had.
    fn come_back(reserve: &mut Reserve, here: usize, in_kernel: usize, back: usize) {
        reserve.rang(here, in_kernel);
        assert!(reserve.is_ringing());
        (0..back).for_each(|_| reserve.taken());
        reserve.silenced();
        assert!(!reserve.is_ringing());
    }

    #[test]
    fn a_quarter_of_a_convoy_once_half_of_it_is_under_way() {
        let mut reserve = Reserve::default();
        reserve.submitted(64);
        assert_eq!(reserve.size(64), 0, "nothing is known of the disk");
        come_back(&mut reserve, 64, 64, 64);
        reserve.submitted(31);
        assert_eq!(reserve.size(31), 0);
        reserve.submitted(1);
        assert_eq!(reserve.size(32), 16);
        // The same again, with those that were kept back.
        come_back(&mut reserve, 64, 48, 48);
        reserve.submitted(48);
        assert_eq!(reserve.size(48), 16);
    }

    #[test]
    fn none_for_a_disk_that_has_more_to_do() {
        let mut reserve = Reserve::default();
        come_back(&mut reserve, 64, 64, 64);
        reserve.submitted(64);
        assert_eq!(reserve.size(64), 16);
        come_back(&mut reserve, 64, 64, 63);
        reserve.submitted(64);
        assert_eq!(reserve.size(64), 0);
    }

    #[test]
    fn none_when_nothing_could_come_back() {
        let mut reserve = Reserve::default();
        come_back(&mut reserve, 64, 64, 64);
        reserve.submitted(64);
        assert_eq!((reserve.size(1), reserve.size(0)), (16, 0));
        reserve.give_up();
        assert_eq!(reserve.size(64), 0, "and for a disk that doesn't answer");
    }

    #[test]
    fn smaller_convoys_are_believed_by_and_by() {
        let mut reserve = Reserve::default();
        let mut sizes = Vec::new();
        for here in [64, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16] {
            come_back(&mut reserve, here, here, here);
            reserve.submitted(64);
            sizes.push(reserve.size(64));
        }
        assert_eq!(sizes, [16, 14, 12, 10, 9, 8, 7, 6, 6, 5, 4, 4]);
    }
}
