//! The order between requests that are under way.
//!
//! A client waits for an answer before it sends what depends on it. So only one thing must be seen to here: requests for the same sectors, one
//! of which changes them, are carried out in the order in which they came. A write that the network has doubled is then written twice in a row,
//! before anything newer that the client sends once it has its answer.

use std::collections::VecDeque;
use std::ops::Range;

use kagero_aoe::target::Operation;
use kagero_aoe::wire::Address;
use slab::Slab;

use super::Task;
use super::task::Work;

/// The sectors that a request touches, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    disk: Address,
    bytes: Range<u64>,
    changes: bool,
}

impl Extent {
    /// Of a request; `None` when it touches none.
    pub(super) fn new(disk: Address, operation: &Operation<'_>) -> Option<Self> {
        let (bytes, changes) = match *operation {
            Operation::Read { offset, length } | Operation::Verify { offset, length } => {
                (offset..offset + length as u64, false)
            }
            Operation::Write { offset, data, .. } => (offset..offset + data.len() as u64, true),
            // Covers what was answered before; that is done.
            Operation::Flush => return None,
            // Has many parts: all of the disk is near enough for something so rare.
            Operation::Trim(_) => (0..u64::MAX, true),
        };
        Some(Extent { disk, bytes, changes })
    }

    fn of(task: &Task) -> Option<Self> {
        let disk = task.pending.address();
        let (offset, length, changes) = match &task.work {
            Work::Read { offset, data } => (*offset, data.len() as u64, false),
            Work::Verify { offset, length } => (*offset, *length as u64, false),
            Work::Write { offset, data, .. } => (*offset, data.len() as u64, true),
            Work::Flush => return None,
            Work::Trim(_) => (0, u64::MAX, true),
        };
        Some(Extent { disk, bytes: offset..offset.saturating_add(length), changes })
    }

    fn disturbs(&self, other: &Self) -> bool {
        (self.changes || other.changes)
            && self.disk == other.disk
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

/// What is under way, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Flights {
    under_way: Slab<Option<Extent>>,
    /// How many of these change something.
    changing: usize,
    waiting: VecDeque<Box<Task>>,
}

impl Flights {
    /// Requests that are not answered yet.
    pub(super) fn len(&self) -> usize {
        self.under_way.len() + self.waiting.len()
    }

    /// Whether this must wait for something that came before.
    pub(super) fn must_wait(&self, disk: Address, operation: &Operation<'_>) -> bool {
        // Reads don't disturb each other, and there is mostly nothing else.
        let only_reads = self.changing == 0 && self.waiting.is_empty();
        if only_reads && matches!(operation, Operation::Read { .. }) {
            return false;
        }
        let Some(extent) = Extent::new(disk, operation) else { return false };
        self.under_way.iter().filter_map(|(_, other)| other.as_ref()).any(|other| extent.disturbs(other))
            || self.waiting.iter().filter_map(|task| Extent::of(task)).any(|other| extent.disturbs(&other))
    }

    /// Takes note of a task that must wait.
    pub(super) fn wait(&mut self, task: Box<Task>) {
        self.waiting.push_back(task);
    }

    /// Takes note of a task that begins, and gives it its number.
    pub(super) fn begin(&mut self, task: &mut Task) {
        let extent = Extent::of(task);
        self.changing += usize::from(extent.as_ref().is_some_and(|extent| extent.changes));
        task.flight = self.under_way.insert(extent);
    }

    /// Takes note that one has ended.
    pub(super) fn land(&mut self, task: &Task) {
        if let Some(Some(extent)) = self.under_way.try_remove(task.flight) {
            self.changing -= usize::from(extent.changes);
        }
    }

    /// The next task that waits no longer.
    pub(super) fn ready(&mut self) -> Option<Box<Task>> {
        let free = |place: &usize| {
            let Some(extent) = self.waiting.get(*place).and_then(|task| Extent::of(task)) else {
                return true;
            };
            let mut before = self.under_way.iter().filter_map(|(_, other)| other.clone());
            !before.any(|other| extent.disturbs(&other))
                && !self
                    .waiting
                    .iter()
                    .take(*place)
                    .filter_map(|task| Extent::of(task))
                    .any(|other| extent.disturbs(&other))
        };
        let place = (0..self.waiting.len()).find(free)?;
        self.waiting.remove(place)
    }
}
