//! A network that does to frames what networks do, the same each time: for tests on a virtual clock, and to inject faults on a
//! real link.
//!
//! [`Lane`] is one direction, with its [`Faults`]; [`Network`] is two of them; [`FaultyLink`] puts one before each direction of a real
//! [`Link`](crate::link::Link).

mod faults;
mod lane;
mod link;

pub use faults::{Faults, Outage, ParseFaultsError, REORDER_HOLD, Share};
pub use lane::{Lane, Tally};
pub use link::FaultyLink;

use crate::Instant;
use alloc::vec::Vec;

/// One end of a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By custom the initiator's.
    A,
    /// By custom the target's.
    B,
}

/// A network between two stations.
#[derive(Clone, Debug)]
pub struct Network {
    /// From A to B.
    pub forth: Lane,
    /// From B to A.
    pub back: Lane,
}

impl Network {
    /// A network with the same faults in both directions, which `seed` decides upon.
    #[must_use]
    pub fn new(faults: &Faults, seed: u64) -> Self {
        Network { forth: Lane::new(faults, seed), back: Lane::new(faults, !seed) }
    }

    /// Sends a frame.
    pub fn send(&mut self, now: Instant, from: End, frame: &[u8]) {
        match from {
            End::A => self.forth.push(now, frame),
            End::B => self.back.push(now, frame),
        }
    }

    /// The next frame that has arrived at an end.
    pub fn receive(&mut self, now: Instant, at: End) -> Option<Vec<u8>> {
        match at {
            End::A => self.back.pop(now),
            End::B => self.forth.pop(now),
        }
    }

    /// When the next frame arrives anywhere.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        [self.forth.next_due(), self.back.next_due()].into_iter().flatten().min()
    }
}
