//! What comes in: answers, each taken once.

use super::Initiator;
use super::attach::State;
use super::command::Stage;
use super::flight::{Piece, Transmission, Work};
use super::transmit::{LOST_ATTEMPTS, LOST_SILENCE};
use crate::Instant;
use crate::wire::{Ata, Command, Config, Frame, MacAddress, SECTOR};
use kagero_devices::ata::bits::{error, status};
use kagero_devices::memory::DmaMemory;
use kagero_devices::storage::{Controller, Operation, Outcome};

/// Status bits of an answer that is none of success: what the Linux aoe driver goes by too.
const FAILED: u8 = status::BSY | status::DF | status::DRQ | status::ERR;

impl Initiator {
    /// Takes a received frame. Whatever is not an answer that was waited for is dropped and counted.
    pub fn handle_frame<C: Controller>(
        &mut self,
        now: Instant,
        frame: &[u8],
        controller: &mut C,
        mem: &impl DmaMemory,
    ) {
        let Ok(Frame { header, argument }) = Frame::parse(frame) else {
            self.statistics.ignored += 1;
            return;
        };
        if !self.is_ours(&header) {
            self.statistics.ignored += 1;
            return;
        }
        self.statistics.frames_received += 1;
        self.statistics.bytes_received += frame.len() as u64;
        if header.error.is_some() {
            self.statistics.refused += 1;
            return self.refused(now, header.tag);
        }
        match header.command {
            Command::Config => self.handle_config(now, header.source, header.tag, argument),
            Command::Ata => self.handle_ata(now, header.tag, argument, controller, mem),
            Command::Mask | Command::Reserve | Command::Other(_) => self.statistics.ignored += 1,
        }
        self.statistics.window = self.window.size();
    }

    /// A config answer; also the one that targets broadcast unasked when they start.
    fn handle_config(&mut self, now: Instant, source: MacAddress, tag: u32, argument: &[u8]) {
        let Ok(config) = Config::parse(argument) else {
            self.statistics.malformed += 1;
            return;
        };
        if let State::Discovering { .. } = self.state {
            self.found(now, source, &config);
            return;
        }
        self.alive(now);
        if let Some(found) = self.flight.find(tag)
            && self.flight.get(found.packet).is_some_and(|packet| packet.work == Work::Alive)
        {
            self.answered(now, &found);
            self.flight.remove(found.packet);
            self.asking = false;
        } else {
            self.statistics.stale += 1;
        }
    }

    fn handle_ata<C: Controller>(
        &mut self,
        now: Instant,
        tag: u32,
        argument: &[u8],
        controller: &mut C,
        mem: &impl DmaMemory,
    ) {
        let Ok((ata, rest)) = Ata::parse(argument) else {
            self.statistics.malformed += 1;
            return;
        };
        self.alive(now);
        let Some(found) = self.flight.find(tag) else {
            self.statistics.stale += 1;
            self.recheck |= self.ghosts.answered(tag);
            return;
        };
        let Some(packet) = self.flight.get(found.packet).copied() else { return };
        if packet.work == Work::Alive {
            // A config query is not answered so.
            self.statistics.stale += 1;
            return;
        }
        let failed = ata.command & FAILED != 0;
        let sectors = match packet.work {
            _ if failed => 0,
            Work::Identify => 1,
            Work::Probe { sectors } => usize::from(sectors),
            Work::Piece(piece) => self.sectors_in(piece),
            Work::Alive => 0,
        };
        let Ok(data) = Ata::data(rest, sectors) else {
            self.statistics.malformed += 1;
            return;
        };
        self.answered(now, &found);
        if found.number < packet.number {
            self.statistics.needless += 1;
            self.window.restore();
        }
        self.flight.remove(found.packet);
        let expires = now + self.lifetime();
        self.bury(&packet, Some(tag), failed, Some(expires));
        match packet.work {
            Work::Identify if failed => self.look_again(now),
            Work::Identify => self.identified(now, data),
            Work::Probe { sectors } => self.probed(now, sectors, !failed),
            Work::Alive => {}
            Work::Piece(piece) => {
                let Some(active) = self.commands.get_mut(piece.slot) else { return };
                if failed && active.other_flush(ata.feature) {
                    self.target.flush_extended = true;
                    self.commands.again(piece);
                } else if failed {
                    let (error, at) = failure(&ata, active.stage, active.command.operation, piece);
                    active.failed(error, at);
                } else {
                    active.answered(piece);
                    if let Operation::Read { .. } = active.command.operation {
                        let at = piece.offset.saturating_mul(SECTOR as u32);
                        controller.data_in(mem, active.command.tag, at, data);
                    }
                }
                if let Some((tag, outcome)) = self.commands.settle(piece.slot) {
                    self.recheck = true;
                    self.statistics.failed += u64::from(matches!(outcome, Outcome::Failed { .. }));
                    controller.complete(mem, tag, outcome);
                }
            }
        }
    }

    /// The target is there but not its disk, or it is someone else's now. As good as no answer at first, so it is asked again; after a
    /// while as good as no target.
    fn refused(&mut self, now: Instant, tag: u32) {
        let packet = self.flight.find(tag).and_then(|found| self.flight.get(found.packet));
        let lost = packet.is_some_and(|packet| {
            packet.attempts >= LOST_ATTEMPTS && now - packet.first_sent >= LOST_SILENCE
        });
        if lost {
            self.lose_target(now);
        }
    }

    /// Any answer is a sign of life.
    fn alive(&mut self, now: Instant) {
        self.heard = now;
        self.ghosts.heard(now + self.lifetime());
    }

    /// A transmission was answered.
    fn answered(&mut self, now: Instant, found: &Transmission) {
        self.statistics.round_trip.sample(now - found.sent);
        self.window.answered();
        self.overtaken = self.overtaken.max(found.number);
    }

    /// Sectors of data in the answer to a piece.
    fn sectors_in(&self, piece: Piece) -> usize {
        match self.commands.get(piece.slot).map(|active| active.command.operation) {
            Some(Operation::Read { .. } | Operation::Verify { .. }) => piece.count as usize,
            _ => 0,
        }
    }
}

/// The ATA error of an answer, and the sector of the command at which it happened.
fn failure(ata: &Ata, stage: Stage, operation: Operation, piece: Piece) -> (u8, u32) {
    // A device fault needs no error bit; the guest wants one.
    let error = if ata.command & status::ERR != 0 && ata.feature != 0 { ata.feature } else { error::ABRT };
    let at = match operation {
        Operation::Write { sectors, .. } if stage == Stage::Flushing => sectors,
        Operation::Read { lba, .. } | Operation::Write { lba, .. } | Operation::Verify { lba, .. } => {
            // The LBA registers hold the first bad sector, if the target cares to say.
            let first = lba.saturating_add(u64::from(piece.offset));
            let within = ata.address().wrapping_sub(first);
            let done = u32::try_from(within).ok().filter(|&done| done < piece.count).unwrap_or(0);
            piece.offset.saturating_add(done)
        }
        Operation::Flush | Operation::Trim { .. } => piece.offset,
    };
    (error, at)
}
