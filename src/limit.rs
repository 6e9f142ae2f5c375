//! Warnings that a guest or the network can cause: counted, and rate limited in the log.
//!
//! ```
//! use kagero::limit::Limit;
//!
//! static BAD_PRD: Limit = Limit::new("prd-outside-memory");
//!
//! if let Some(held_back) = BAD_PRD.admit() {
//!     tracing::warn!(held_back, "a PRD points outside the guest's memory");
//! }
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// At most this many lines of one kind ...
const BURST: u64 = 5;
/// ... in each stretch of this length.
const STRETCH: Duration = Duration::from_secs(10);

/// One kind of warning. Make it a `static`.
#[derive(Debug)]
pub struct Limit {
    name: &'static str,
    known: AtomicBool,
    count: AtomicU64,
    /// Which stretch we are in, from 1; the lines said in it; those held back since the last one said.
    stretch: AtomicU64,
    said: AtomicU64,
    held_back: AtomicU64,
}

static ALL: Mutex<Vec<&'static Limit>> = Mutex::new(Vec::new());

impl Limit {
    /// A kind of warning with the name it has in the report.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            known: AtomicBool::new(false),
            count: AtomicU64::new(0),
            stretch: AtomicU64::new(0),
            said: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Counts one more; `Some` when it may be said, with how many were held back since the last that was said.
    pub fn admit(&'static self) -> Option<u64> {
        if !self.known.swap(true, Ordering::Relaxed) {
            ALL.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
        static START: OnceLock<Instant> = OnceLock::new();
        self.admit_at(START.get_or_init(Instant::now).elapsed())
    }

    fn admit_at(&self, now: Duration) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let stretch = now.as_secs() / STRETCH.as_secs() + 1;
        // Two threads at once may both begin a stretch: a line more is no harm.
        if self.stretch.swap(stretch, Ordering::Relaxed) != stretch {
            self.said.store(0, Ordering::Relaxed);
        }
        if self.said.fetch_add(1, Ordering::Relaxed) < BURST {
            Some(self.held_back.swap(0, Ordering::Relaxed))
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Every kind that was due at least once in this process, with how often.
#[must_use]
pub fn counts() -> Vec<(&'static str, u64)> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().map(|limit| (limit.name, limit.count.load(Ordering::Relaxed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let limit = Limit::new("flood");
        let said = (0..1000).filter(|_| limit.admit_at(Duration::from_secs(1)).is_some()).count();
        assert_eq!(said, 5);
        assert_eq!(limit.admit_at(Duration::from_secs(11)), Some(995));
        assert_eq!(limit.admit_at(Duration::from_secs(12)), Some(0));
        assert_eq!(limit.count.load(Ordering::Relaxed), 1002);
    }

    #[test]
    fn a_kind_that_was_due_is_in_the_counts() {
        static SEEN: Limit = Limit::new("seen-in-a-test");
        assert_eq!(SEEN.admit(), Some(0));
        assert_eq!(SEEN.admit(), Some(0));
        assert!(counts().contains(&("seen-in-a-test", 2)));
    }
}
