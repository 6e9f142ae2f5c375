//! How many requests may be in the network at once.

use crate::Instant;

/// The most requests in the network, whatever buffer count a target announces: it bounds our own tables.
pub(crate) const MAX_WINDOW: usize = 256;

/// The window: additive increase, multiplicative decrease, between one request and the target's buffer count.
///
/// It begins at the buffer count, since the target says that it can hold so many; what the network in between can't hold shows as
/// loss, and halves it once for each window's worth of requests.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    size: usize,
    limit: usize,
    /// Answers since the size last changed; a whole window of them adds one.
    answers: usize,
    shrunk: Instant,
    /// The size before that.
    before: usize,
}

impl Window {
    /// The window for a target with this buffer count; 0 counts as 1.
    pub(crate) fn new(buffer_count: u16) -> Self {
        let limit = usize::from(buffer_count).clamp(1, MAX_WINDOW);
        Window { size: limit, limit, answers: 0, shrunk: Instant::ZERO, before: limit }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// A request was answered.
    pub(crate) fn answered(&mut self) {
        self.answers += 1;
        if self.answers >= self.size {
            self.answers = 0;
            self.size = (self.size + 1).min(self.limit);
        }
    }

    /// A request sent at `sent` was found lost. What was sent before the last decrease says nothing new.
    pub(crate) fn lost(&mut self, now: Instant, sent: Instant) {
        if sent >= self.shrunk {
            self.shrunk = now;
            self.answers = 0;
            self.before = self.size;
            self.size = (self.size / 2).max(1);
        }
    }

    /// What was believed lost was only slow: the last decrease was a mistake.
    pub(crate) fn restore(&mut self) {
        self.size = self.size.max(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn begins_at_the_buffer_count() {
        assert_eq!(Window::new(16).size(), 16);
        assert_eq!(Window::new(0).size(), 1);
        assert_eq!(Window::new(u16::MAX).size(), MAX_WINDOW);
    }

    #[test]
    fn halves_once_for_each_flight_and_never_below_one() {
        let mut window = Window::new(16);
        window.lost(at(10), at(1));
        assert_eq!(window.size(), 8);
        window.lost(at(11), at(9));
        assert_eq!(window.size(), 8);
        for ms in 12..20 {
            window.lost(at(ms), at(ms));
        }
        assert_eq!(window.size(), 1);
    }

    #[test]
    fn a_mistaken_decrease_is_taken_back_once() {
        let mut window = Window::new(16);
        window.lost(at(10), at(1));
        window.lost(at(20), at(11));
        window.restore();
        window.restore();
        assert_eq!(window.size(), 8);
    }

    #[test]
    fn grows_by_one_for_each_window_answered_up_to_the_limit() {
        let mut window = Window::new(4);
        window.lost(at(2), at(1));
        assert_eq!(window.size(), 2);
        window.answered();
        assert_eq!(window.size(), 2);
        window.answered();
        assert_eq!(window.size(), 3);
        for _ in 0..100 {
            window.answered();
        }
        assert_eq!(window.size(), 4);
    }
}
