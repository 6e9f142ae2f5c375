//! What goes out: resends, new packets, and what time brings about.

use super::attach::{PROBES, State};
use super::command::{self, Stage};
use super::flight::{Packet, Piece, Work};
use super::{Initiator, OnLoss};
use crate::Instant;
use crate::wire::{self, ATA_LENGTH, Ata, Command, Config, Header, SECTOR};
use core::time::Duration;
use kagero_devices::ata::bits::{device, error};
use kagero_devices::ata::{Address, Opcode, Protocol};
use kagero_devices::memory::DmaMemory;
use kagero_devices::storage::{Controller, Operation, Outcome};

/// Bounds of the retransmission timer. RFC 6298 wants a second at least, for the Internet.
const MIN_TIMEOUT: Duration = Duration::from_millis(5);
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(2);

/// The least for a probe, which costs more than a moment when it is wrongly believed lost.
const MIN_PROBE_TIMEOUT: Duration = Duration::from_millis(25);

/// So often a request is believed lost as soon as a later one is answered, if it has had the time that answers take.
const EARLY_ATTEMPTS: u32 = 2;

/// The target is asked for a sign of life when a request is believed lost, and nothing at all was answered for so long.
const ASK_SILENCE: Duration = Duration::from_millis(100);

/// The target is lost when it was asked so often, and has been silent for so long.
pub(super) const LOST_ATTEMPTS: u32 = 5;
pub(super) const LOST_SILENCE: Duration = Duration::from_secs(1);

/// DATA SET MANAGEMENT, Feature register: Trim.
const TRIM: u8 = 1;

/// What came of an attempt to build a frame.
enum Built {
    /// A frame of this length.
    Frame(usize),
    /// The buffer is too short.
    NoRoom,
    /// The payload is not guest memory.
    DmaFault,
}

impl Initiator {
    /// Writes the next frame to send into `buffer`, which must hold the MTU and 14 bytes, and returns its length. `None` when there is
    /// nothing to send now.
    ///
    /// Also does what time brings about: finds requests lost, finds the target lost, gives commands up by policy.
    pub fn poll_transmit<C: Controller>(
        &mut self,
        now: Instant,
        controller: &mut C,
        mem: &impl DmaMemory,
        buffer: &mut [u8],
    ) -> Option<usize> {
        self.handle_time(now);
        self.give_up(now, controller, mem);
        let length = match self.state {
            State::Discovering { .. } => self.query(now, buffer),
            State::Attaching | State::Attached => self.packet(now, controller, mem, buffer),
        }?;
        self.statistics.frames_sent += 1;
        self.statistics.bytes_sent += length as u64;
        Some(length)
    }

    /// The next packet, when the window has room.
    fn packet<C: Controller>(
        &mut self,
        now: Instant,
        controller: &mut C,
        mem: &impl DmaMemory,
        buffer: &mut [u8],
    ) -> Option<usize> {
        self.start_commands();
        if self.commands.any_waiting() && self.ghosts.overdue(now) {
            self.ask_for_life();
        }
        while self.has_room() {
            let Some(index) = self.flight.front() else {
                self.new_packet().then_some(())?;
                continue;
            };
            let packet = *self.flight.get(index)?;
            let tag = self.flight.fresh_tag();
            match self.build(&packet, tag, controller, mem, buffer) {
                Built::Frame(length) => {
                    self.statistics.resends += u64::from(packet.attempts > 0);
                    let check = self.timeout(packet.work, packet.attempts);
                    self.flight.sent(now, tag, check.min(self.statistics.round_trip.timeout()));
                    return Some(length);
                }
                Built::NoRoom => return None,
                Built::DmaFault => {
                    let Work::Piece(piece) = packet.work else { return None };
                    if let Some(active) = self.drop_command(piece.slot) {
                        controller.complete(mem, active.command.tag, Outcome::DmaFault);
                    }
                    self.start_commands();
                }
            }
        }
        None
    }

    /// Starts the commands that nothing stands in the way of any more.
    fn start_commands(&mut self) {
        if self.state != State::Attached || !core::mem::take(&mut self.recheck) {
            return;
        }
        let ghosts = &self.ghosts;
        self.statistics.held_back += self.commands.start(|operation| {
            command::writes(operation).is_some_and(|range| ghosts.endanger_write(range))
                || command::reads(operation).is_some_and(|range| ghosts.endanger_read(range))
        });
    }

    /// Queues a packet for the next piece of a command; false when there is none.
    fn new_packet(&mut self) -> bool {
        if self.state != State::Attached {
            return false;
        }
        let sectors = u32::from(self.target.sectors);
        let blocks = match u32::from(self.target.trim_blocks) {
            0 => sectors,
            blocks => blocks.min(sectors),
        };
        let piece = self.commands.next_piece(|operation| match operation {
            Operation::Trim { .. } => blocks,
            _ => sectors,
        });
        if let Some(piece) = piece {
            let lands = self.commands.get(piece.slot).and_then(|active| active.lands(piece));
            return self.flight.add(Work::Piece(piece), lands);
        }
        false
    }

    /// Whether the window has room for one more packet; a question for a sign of life needs none.
    fn has_room(&self) -> bool {
        let alive = || self.flight.front().and_then(|index| self.flight.get(index)).map(|packet| packet.work);
        self.flight.in_network() < self.window.size() || alive() == Some(Work::Alive)
    }

    /// Asks the target for a sign of life.
    fn ask_for_life(&mut self) {
        if self.state == State::Attached && !self.asking {
            self.asking = self.flight.add(Work::Alive, None);
        }
    }

    /// How long to wait for the answer to a packet that was sent `attempts` times before.
    fn timeout(&self, work: Work, attempts: u32) -> Duration {
        let least = if let Work::Probe { .. } = work { MIN_PROBE_TIMEOUT } else { MIN_TIMEOUT };
        let first = self.statistics.round_trip.timeout().max(least);
        first.saturating_mul(1 << attempts.min(16)).min(MAX_TIMEOUT)
    }

    /// What time brings about.
    fn handle_time(&mut self, now: Instant) {
        self.recheck |= self.ghosts.expire(self.heard);
        if self.flight.earliest().is_none_or(|earliest| now < earliest) {
            return;
        }
        let soon = self.statistics.round_trip.timeout();
        for index in self.flight.indexes() {
            let Some(packet) = self.flight.get(index).filter(|_| self.flight.due(index, now)).copied() else {
                continue;
            };
            // What is lost again and again tells of itself rather than of the network: a bad sector that the target tries for long, a
            // frame too long for the path. It waits for its timer, and doesn't make the window smaller for the others.
            let early = packet.attempts <= EARLY_ATTEMPTS && matches!(packet.work, Work::Piece(_));
            let deadline = packet.sent + self.timeout(packet.work, packet.attempts.saturating_sub(1));
            if now < deadline && !(early && packet.number < self.overtaken) {
                if let Some(packet) = self.flight.get_mut(index) {
                    packet.check = if early { deadline.min(now + soon) } else { deadline };
                }
                continue;
            }
            if early {
                self.window.lost(now, packet.sent);
            }
            self.flight.requeue(index);
            let silence = now - self.heard.max(packet.first_sent);
            match packet.work {
                Work::Probe { sectors } if packet.attempts >= PROBES => {
                    self.flight.remove(index);
                    self.probed(now, sectors, false);
                }
                // A disk may hang for long while its server is well: the server is asked.
                Work::Piece(_) if silence >= ASK_SILENCE => self.ask_for_life(),
                Work::Alive | Work::Identify
                    if packet.attempts >= LOST_ATTEMPTS && silence >= LOST_SILENCE =>
                {
                    self.lose_target(now);
                    break;
                }
                Work::Probe { .. } | Work::Piece(_) | Work::Alive | Work::Identify => {}
            }
        }
        self.flight.settle();
        self.statistics.window = self.window.size();
    }

    /// Fails all commands when the policy says that the target has been lost for too long.
    fn give_up<C: Controller>(&mut self, now: Instant, controller: &mut C, mem: &impl DmaMemory) {
        let (OnLoss::FailAfter(patience), Some(since)) = (self.config.on_loss, self.lost) else { return };
        if now < since + patience {
            return;
        }
        while let Some(active) = self.commands.any().and_then(|slot| self.drop_command(slot)) {
            let outcome = Outcome::Failed { error: error::ABRT, done: 0 };
            self.statistics.failed += 1;
            controller.complete(mem, active.command.tag, outcome);
        }
    }

    /// Builds the frame for one transmission of a packet.
    fn build<C: Controller>(
        &self,
        packet: &Packet,
        tag: u32,
        controller: &mut C,
        mem: &impl DmaMemory,
        buffer: &mut [u8],
    ) -> Built {
        let header =
            |command| Header::request(self.config.mac, self.target.mac, self.config.target, command, tag);
        let registers = |ata: Ata| move |out: &mut [u8]| ata.encode(out);
        let length = match packet.work {
            Work::Alive => wire::encode(buffer, &header(Command::Config), |out| Config::query().encode(out)),
            Work::Identify => {
                let ata = Ata { count: 1, command: Opcode::Identify.code(), ..Ata::default() };
                wire::encode(buffer, &header(Command::Ata), registers(ata))
            }
            Work::Probe { sectors } => wire::encode(buffer, &header(Command::Ata), |out| {
                // As long as a write of so many sectors. The target ignores what a read brings along.
                let length = self.read(0, sectors).encode(out)?;
                let end = length + usize::from(sectors) * SECTOR;
                out.get_mut(length..end)?.fill(0);
                Some(end)
            }),
            Work::Piece(piece) => {
                let Some(active) = self.commands.get(piece.slot) else { return Built::NoRoom };
                let ata = self.ata(active.stage, active.command.operation, piece);
                if !ata.write {
                    wire::encode(buffer, &header(Command::Ata), registers(ata))
                } else {
                    let mut fault = false;
                    let length = wire::encode(buffer, &header(Command::Ata), |out| {
                        let end = ATA_LENGTH + piece.count as usize * SECTOR;
                        ata.encode(out)?;
                        let data = out.get_mut(ATA_LENGTH..end)?;
                        let at = piece.offset.saturating_mul(SECTOR as u32);
                        fault = controller.data_out(mem, active.command.tag, at, data).is_err();
                        Some(end)
                    });
                    if fault {
                        return Built::DmaFault;
                    }
                    length
                }
            }
        };
        length.map_or(Built::NoRoom, Built::Frame)
    }

    /// The registers for a piece of a command.
    fn ata(&self, stage: Stage, operation: Operation, piece: Piece) -> Ata {
        let count = piece.count.try_into().unwrap_or(u8::MAX);
        let at = |lba: u64| lba.saturating_add(u64::from(piece.offset));
        if stage == Stage::Flushing {
            let address = if self.target.flush_extended { Address::Lba48 } else { Address::Lba28 };
            return Ata {
                extended: self.target.flush_extended,
                command: Opcode::Flush(address).code(),
                ..Ata::default()
            };
        }
        match operation {
            Operation::Read { lba, .. } | Operation::Verify { lba, .. } => self.read(at(lba), count),
            Operation::Write { lba, .. } => {
                let write = |address| Opcode::Write { protocol: Protocol::Pio, address, fua: false }.code();
                Ata { write: true, ..self.transfer(at(lba), count, write) }
            }
            Operation::Trim { .. } => Ata {
                extended: true,
                write: true,
                feature: TRIM,
                count,
                command: Opcode::DataSetManagement.code(),
                ..Ata::default()
            },
            Operation::Flush => Ata::default(),
        }
    }

    fn read(&self, lba: u64, count: u8) -> Ata {
        self.transfer(lba, count, |address| Opcode::Read { protocol: Protocol::Pio, address }.code())
    }

    /// A read or write, which go by READ and WRITE SECTORS: every AoE target knows them. One form is used for all of a disk, EXT if it
    /// has it, rather than switching at 128 GiB as the Linux driver does: one path, always tested.
    fn transfer(&self, lba: u64, count: u8, code: impl Fn(Address) -> u8) -> Ata {
        let mut registers = Ata::registers(lba);
        if self.target.extended {
            return Ata {
                extended: true,
                count,
                command: code(Address::Lba48),
                lba: registers,
                ..Ata::default()
            };
        }
        registers[3] = registers[3] & device::HEAD | device::LBA;
        Ata { count, command: code(Address::Lba28), lba: registers, ..Ata::default() }
    }
}
