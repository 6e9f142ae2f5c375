//! Commands from the controller: what each still has to send and to hear, and which may not pass each other.

use super::flight::Piece;
use super::ghost::Range;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use kagero_devices::ata::bits::error;
use kagero_devices::storage::{Command, Operation, Outcome, Tag};

/// Commands that can be queued: AHCI brings 32 for a disk.
pub(crate) const MAX_COMMANDS: usize = 64;

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was sent: an earlier command or a ghost is in the way.
    Waiting,
    /// Its payload is on the way.
    Moving,
    /// A flush, or a durable write whose data is written, waits for FLUSH CACHE.
    Flushing,
}

/// A command under way.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) command: Command,
    pub(crate) stage: Stage,
    /// Its place in the order of submission.
    order: u64,
    /// Units (sectors, blocks of a Trim, one flush) of this stage that were made packets.
    next: u32,
    /// Units of this stage.
    total: u32,
    /// Units of this stage that are not answered.
    left: u32,
    /// Packets that are not answered.
    pub(crate) flying: u32,
    /// ATA error and the sector where it happened, the first of them.
    failure: Option<(u8, u32)>,
    /// Its flush has been tried in the other form as well.
    other_flush: bool,
    /// It has been counted as held back.
    held: bool,
}

impl Active {
    /// A piece was answered well.
    pub(crate) fn answered(&mut self, piece: Piece) {
        self.flying = self.flying.saturating_sub(1);
        self.left = self.left.saturating_sub(piece.count);
    }

    /// A piece was answered with an error at sector `at` of the command.
    pub(crate) fn failed(&mut self, error: u8, at: u32) {
        self.flying = self.flying.saturating_sub(1);
        if self.failure.is_none_or(|(_, earlier)| at < earlier) {
            self.failure = Some((error, at));
        }
    }

    /// Whether a flush that ended with this ATA error shall be tried in its other form, once: the target may not know the first.
    pub(crate) fn other_flush(&mut self, error: u8) -> bool {
        let other = self.stage == Stage::Flushing && error & error::ABRT != 0 && !self.other_flush;
        self.other_flush |= other;
        other
    }

    /// How it ended, if it has; moves a durable write on to its flush.
    fn advance(&mut self) -> Option<Outcome> {
        if let Some((error, done)) = self.failure {
            return (self.flying == 0).then_some(Outcome::Failed { error, done });
        }
        if self.left > 0 {
            return None;
        }
        if self.stage == Stage::Moving
            && matches!(self.command.operation, Operation::Write { durable: true, .. })
        {
            (self.stage, self.next, self.total, self.left) = (Stage::Flushing, 0, 1, 1);
            return None;
        }
        Some(Outcome::Done)
    }

    /// The sectors that a piece overwrites, if it does.
    pub(crate) fn lands(&self, piece: Piece) -> Option<Range> {
        match (self.stage, self.command.operation) {
            (Stage::Flushing, _) => None,
            (_, Operation::Write { lba, .. }) => {
                Some(Range::new(lba.saturating_add(u64::from(piece.offset)), piece.count))
            }
            // The ranges are in the payload. A resent Trim is rare enough to keep away from everything.
            (_, Operation::Trim { .. }) => Some(Range::ALL),
            (_, Operation::Read { .. } | Operation::Verify { .. } | Operation::Flush) => None,
        }
    }
}

/// The sectors that an operation reads.
pub(crate) fn reads(operation: Operation) -> Option<Range> {
    match operation {
        Operation::Read { lba, sectors } | Operation::Verify { lba, sectors } => {
            Some(Range::new(lba, sectors))
        }
        Operation::Write { .. } | Operation::Flush | Operation::Trim { .. } => None,
    }
}

/// The sectors that an operation changes.
pub(crate) fn writes(operation: Operation) -> Option<Range> {
    match operation {
        Operation::Write { lba, sectors, .. } => Some(Range::new(lba, sectors)),
        Operation::Trim { .. } => Some(Range::ALL),
        Operation::Read { .. } | Operation::Verify { .. } | Operation::Flush => None,
    }
}

/// Whether `later` must wait until `earlier`, submitted before it, has ended.
///
/// On one sector a disk does one thing after the other; a network does not, unless the second waits. A flush covers the
/// writes before it, and a Trim is a barrier for all that moves data.
pub(crate) fn conflict(earlier: Operation, later: Operation) -> bool {
    let overlap = |a: Option<Range>, b: Option<Range>| a.zip(b).is_some_and(|(a, b)| a.overlaps(b));
    match (earlier, later) {
        (Operation::Trim { .. }, _) | (_, Operation::Trim { .. }) => true,
        (_, Operation::Flush) => writes(earlier).is_some(),
        (Operation::Flush, _) => false,
        _ => {
            overlap(writes(earlier), writes(later))
                || overlap(writes(earlier), reads(later))
                || overlap(reads(earlier), writes(later))
        }
    }
}

/// The commands of one disk, each in a slot that it keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commands {
    slots: Vec<Option<Active>>,
    submitted: u64,
    /// Slots of started commands that have packets to make, in order.
    ready: VecDeque<usize>,
    /// Pieces whose packets were dissolved: before anything new.
    again: VecDeque<Piece>,
}

impl Commands {
    /// Takes a command; gives it back when all slots are taken.
    pub(crate) fn submit(&mut self, command: Command) -> Result<(), Command> {
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.slots.len() < MAX_COMMANDS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(command),
        };
        let (stage, order) = (Stage::Waiting, self.submitted);
        self.slots[slot] = Some(Active {
            command,
            stage,
            order,
            next: 0,
            total: 0,
            left: 0,
            flying: 0,
            failure: None,
            other_flush: false,
            held: false,
        });
        self.submitted += 1;
        Ok(())
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Active> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Active> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn find(&self, tag: Tag) -> Option<usize> {
        self.slots.iter().position(|active| active.as_ref().is_some_and(|active| active.command.tag == tag))
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// A slot in use.
    pub(crate) fn any(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_some)
    }

    /// Takes a command out, however far it is.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<Active> {
        self.ready.retain(|&ready| ready != slot);
        self.again.retain(|piece| piece.slot != slot);
        self.slots.get_mut(slot)?.take()
    }

    /// Starts what may start. `endangered` says whether a ghost is in an operation's way; returns how many it holds back that it did
    /// not before.
    pub(crate) fn start(&mut self, endangered: impl Fn(Operation) -> bool) -> u64 {
        let mut held = 0;
        let mut from = 0;
        // In the order of submission, so that what starts together is sent in that order.
        while let Some((slot, order)) = self.next_waiting(from) {
            from = order + 1;
            let Some(operation) = self.get(slot).map(|active| active.command.operation) else { break };
            let mut earlier = self.slots.iter().flatten().filter(|active| active.order < order);
            if earlier.any(|active| conflict(active.command.operation, operation)) {
                continue;
            }
            let Some(active) = self.get_mut(slot) else { break };
            if endangered(operation) {
                held += u64::from(!active.held);
                active.held = true;
                continue;
            }
            let (stage, total) = match operation {
                Operation::Read { sectors, .. }
                | Operation::Write { sectors, .. }
                | Operation::Verify { sectors, .. } => (Stage::Moving, sectors),
                Operation::Trim { blocks } => (Stage::Moving, blocks),
                Operation::Flush => (Stage::Flushing, 1),
            };
            (active.stage, active.total, active.left) = (stage, total, total);
            self.ready.push_back(slot);
        }
        held
    }

    /// The slot of the first waiting command from place `from` on, and its place.
    fn next_waiting(&self, from: u64) -> Option<(usize, u64)> {
        let waiting = |(slot, active): (usize, &Option<Active>)| {
            let active = active.as_ref()?;
            (active.stage == Stage::Waiting && active.order >= from).then_some((slot, active.order))
        };
        self.slots.iter().enumerate().filter_map(waiting).min_by_key(|&(_, order)| order)
    }

    /// Whether some wait.
    pub(crate) fn any_waiting(&self) -> bool {
        self.slots.iter().flatten().any(|active| active.stage == Stage::Waiting)
    }

    /// The next piece to be made a packet, of at most `limit(operation)` units.
    pub(crate) fn next_piece(&mut self, limit: impl Fn(Operation) -> u32) -> Option<Piece> {
        if let Some(mut piece) = self.again.pop_front() {
            let active = self.get_mut(piece.slot)?;
            active.flying += 1;
            let most = limit(active.command.operation).max(1);
            if piece.count > most {
                let rest = Piece { offset: piece.offset + most, count: piece.count - most, ..piece };
                self.again.push_front(rest);
                piece.count = most;
            }
            return Some(piece);
        }
        let slot = *self.ready.front()?;
        let active = self.get_mut(slot)?;
        let offset = active.next;
        let count = limit(active.command.operation).max(1).min(active.total - offset);
        active.next += count;
        active.flying += 1;
        if active.next == active.total {
            self.ready.pop_front();
        }
        Some(Piece { slot, offset, count })
    }

    /// A packet was dissolved: its piece has to be sent in another.
    pub(crate) fn again(&mut self, piece: Piece) {
        if let Some(active) = self.get_mut(piece.slot) {
            active.flying = active.flying.saturating_sub(1);
            self.again.push_back(piece);
        }
    }

    /// Looks whether a command has ended; if so, takes it out.
    pub(crate) fn settle(&mut self, slot: usize) -> Option<(Tag, Outcome)> {
        let active = self.get_mut(slot)?;
        let tag = active.command.tag;
        let stage = active.stage;
        if active.failure.is_some() {
            self.ready.retain(|&ready| ready != slot);
            self.again.retain(|piece| piece.slot != slot);
        }
        let active = self.get_mut(slot)?;
        if let Some(outcome) = active.advance() {
            self.remove(slot);
            return Some((tag, outcome));
        }
        if active.stage != stage {
            self.ready.push_back(slot);
        }
        None
    }
}
