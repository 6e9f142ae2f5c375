//! What servers may do to us.

mod noise;
mod outages;
mod requests;
mod start;

use std::time::{Duration, Instant};

use super::Nbd;
use super::session::Pace;
use super::toy::Toy;
use crate::Access;
use crate::backend::Backend;

/// Requests wait longer than any test lets them.
const PATIENT: Pace = pace(60_000);

const fn pace(patience_ms: u64) -> Pace {
    let (first_delay, longest_delay) = (Duration::from_millis(5), Duration::from_millis(20));
    Pace { patience: Duration::from_millis(patience_ms), first_delay, longest_delay }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Waits until something is so.
#[track_caller]
fn until(mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "that takes too long");
        std::thread::yield_now();
    }
}

fn open(toy: &Toy) -> Nbd {
    Nbd::open(&toy.uri(), Access::ReadWrite, PATIENT).unwrap_or_else(|error| panic!("{error}"))
}

fn all(nbd: &Nbd) -> Vec<u8> {
    let mut data = vec![0; nbd.size() as usize];
    nbd.read(0, &mut data).unwrap();
    data
}
