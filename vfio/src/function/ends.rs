//! What a function stands between, and what goes wrong there.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::{Error, Hardware, Machine, Rung};

/// The hardware on one side, the guest's machine on the other, and what they failed to do.
pub(super) struct Ends {
    pub(super) hardware: Box<dyn Hardware>,
    pub(super) machine: Arc<dyn Machine>,
    /// What has failed before. It is not told again: a guest may try for ever.
    told: BTreeSet<&'static str>,
    errors: Vec<Error>,
}

impl Ends {
    pub(super) fn new(hardware: Box<dyn Hardware>, machine: Arc<dyn Machine>) -> Self {
        Ends { hardware, machine, told: BTreeSet::new(), errors: Vec::new() }
    }

    /// What came of `doing` something, if it worked; else it is noted.
    pub(super) fn check<T>(&mut self, doing: &'static str, outcome: io::Result<T>) -> Option<T> {
        outcome.map_err(|source| self.note(doing, source)).ok()
    }

    /// As [`check`](Self::check), for interrupts of which fewer won't do.
    pub(super) fn check_rung(&mut self, doing: &'static str, outcome: io::Result<Rung>) -> Option<()> {
        self.check(
            doing,
            outcome.and_then(|rung| match rung {
                Rung::All => Ok(()),
                Rung::AtMost(_) => Err(io::Error::other("the host has no interrupt vectors left for it")),
            }),
        )
    }

    /// The oldest error that nobody has taken yet.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        (!self.errors.is_empty()).then(|| self.errors.remove(0))
    }

    /// What it means that `doing` something failed.
    pub(super) fn error(&self, doing: &'static str, source: io::Error) -> Error {
        let device = self.hardware.name().to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NODEV | Errno::NXIO | Errno::IO) => Error::Vanished { device, doing, source },
            _ => Error::Kernel { device, doing, source },
        }
    }

    fn note(&mut self, doing: &'static str, source: io::Error) {
        let error = self.error(doing, source);
        // Once it is gone everything fails: that it is gone says it all.
        let kind = if matches!(error, Error::Vanished { .. }) { "" } else { doing };
        if !self.told.contains("") && self.told.insert(kind) {
            self.errors.push(error);
        }
    }
}
