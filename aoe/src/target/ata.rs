//! ATA commands, from the registers in a frame to a job or an answer.
//!
//! What moves no data is carried out by a [`Drive`], as if its registers had been written one by one. Reads and writes differ from a
//! cable's: a frame counts 1 to 255 sectors in its one byte, and all protocols (PIO, MULTIPLE, DMA) say the same.

use kagero_devices::ata::bits::{device, error, status};
use kagero_devices::ata::{self, Action, Drive, Opcode, Register};

use super::answer::{Answer, Body};
use super::{Export, Job, Operation, Port, Ranges, Step, refuse};
use crate::wire::{Ata, ErrorCode, Frame, Header, SECTOR};

/// Features register of DATA SET MANAGEMENT: the ranges are to be trimmed.
const TRIM: u8 = 1 << 0;

/// Carries out a request, as far as no storage is needed.
pub(super) fn handle<'f>(export: &mut Export, port: &Port, frame: &Frame<'f>, header: Header) -> Step<'f> {
    // Without registers there is no way to say it in ATA's terms.
    let Ok((mut registers, payload)) = Ata::parse(frame.argument) else {
        return refuse(header, ErrorCode::BadArgument);
    };
    let opcode = Opcode::decode(registers.command);
    if let Some(opcode) = opcode {
        registers.extended = is_extended(opcode);
    }
    let request = Request { registers, payload, header };
    let Some(opcode) = opcode else { return request.fail(error::ABRT) };
    // Every disk on the network is meant: tell what you are, but change nothing.
    if frame.header.address.is_broadcast() && opcode != Opcode::Identify {
        return request.fail(error::ABRT);
    }
    match opcode {
        Opcode::Read { .. } => {
            request.media(export, port.sectors(), |offset, length| Ok(Operation::Read { offset, length }))
        }
        Opcode::Write { fua, .. } => {
            let durable = fua || !export.drive.settings().write_cache;
            request.media(export, u8::MAX, |offset, _| {
                let data = request.written(export, request.registers.count)?;
                Ok(Operation::Write { offset, data, durable })
            })
        }
        Opcode::Verify(_) => {
            request.media(export, u8::MAX, |offset, length| Ok(Operation::Verify { offset, length }))
        }
        Opcode::Flush(_) => request.job(Operation::Flush),
        // A disk that stops spinning has written its cache before (7.47, 7.57).
        Opcode::Standby | Opcode::StandbyImmediate | Opcode::Sleep => {
            export.drive.execute(request.registers.command);
            request.job(Operation::Flush)
        }
        Opcode::DataSetManagement => request.trim(export),
        Opcode::Nop
        | Opcode::DeviceReset
        | Opcode::Recalibrate
        | Opcode::Seek
        | Opcode::ExecuteDiagnostic
        | Opcode::InitializeParameters
        | Opcode::Packet
        | Opcode::IdentifyPacket
        | Opcode::Smart
        | Opcode::SetMultiple
        | Opcode::IdleImmediate
        | Opcode::Idle
        | Opcode::CheckPower
        | Opcode::Identify
        | Opcode::SetFeatures
        | Opcode::SecurityFreezeLock
        | Opcode::ReadNativeMax(_) => request.by_drive(&mut export.drive),
    }
}

/// Whether the command uses both values of the registers, whatever flag E says: a contradiction is not worth a wrong sector.
fn is_extended(opcode: Opcode) -> bool {
    match opcode {
        Opcode::Read { address, .. }
        | Opcode::Write { address, .. }
        | Opcode::Verify(address)
        | Opcode::Flush(address)
        | Opcode::ReadNativeMax(address) => address == ata::Address::Lba48,
        Opcode::DataSetManagement => true,
        _ => false,
    }
}

/// A request with its registers.
#[derive(Clone, Copy)]
struct Request<'f> {
    registers: Ata,
    /// What follows the registers, padding included.
    payload: &'f [u8],
    /// Of the answer.
    header: Header,
}

impl<'f> Request<'f> {
    fn job(self, operation: Operation<'f>) -> Step<'f> {
        let data = match operation {
            Operation::Read { length, .. } => length,
            Operation::Write { .. } | Operation::Verify { .. } | Operation::Flush | Operation::Trim(_) => 0,
        };
        let registers = Ata { feature: 0, count: 0, command: status::DRDY, ..self.registers };
        Step::Job(Job::new(operation, Answer { header: self.header, body: Body::Ata { registers, data } }))
    }

    fn fail(self, error: u8) -> Step<'static> {
        let registers = Ata { feature: error, command: status::DRDY | status::ERR, ..self.registers };
        Step::Answer(Answer { header: self.header, body: Body::Ata { registers, data: 0 } })
    }

    /// An operation on the sectors that the registers name, `most` at once.
    fn media(
        self,
        export: &Export,
        most: u8,
        operation: impl FnOnce(u64, usize) -> Result<Operation<'f>, u8>,
    ) -> Step<'f> {
        let (lba, count) = (self.registers.address(), self.registers.count);
        if count == 0 || count > most {
            return self.fail(error::ABRT);
        }
        // 48 bits and 8: no overflow.
        if lba + u64::from(count) > export.drive.disk().sectors {
            return self.fail(error::IDNF);
        }
        match operation(lba * SECTOR as u64, usize::from(count) * SECTOR) {
            Ok(operation) => self.job(operation),
            Err(error) => self.fail(error),
        }
    }

    /// The data that came with the request: `sectors` of it, for a disk that may be written to.
    fn written(self, export: &Export, sectors: u8) -> Result<&'f [u8], u8> {
        match Ata::data(self.payload, sectors.into()) {
            Ok(data) if !export.read_only => Ok(data),
            _ => Err(error::ABRT),
        }
    }

    fn trim(self, export: &Export) -> Step<'f> {
        let disk = export.drive.disk();
        let blocks = self.registers.count;
        if !disk.trim || self.registers.feature & TRIM == 0 || blocks == 0 {
            return self.fail(error::ABRT);
        }
        let ranges = match self.written(export, blocks) {
            Ok(data) => Ranges(data),
            Err(error) => return self.fail(error),
        };
        let size = disk.sectors.saturating_mul(SECTOR as u64);
        let inside = |range: super::Range| range.offset + range.length <= size;
        // Checked before the first is trimmed: all or nothing.
        if ranges.iter().all(inside) { self.job(Operation::Trim(ranges)) } else { self.fail(error::IDNF) }
    }

    /// Writes the registers of a drive, the older values first, and reads them back after the command.
    fn by_drive(self, drive: &mut Drive) -> Step<'static> {
        const LBA: [Register; 3] = [Register::LbaLow, Register::LbaMid, Register::LbaHigh];
        let Ata { feature, count, command, lba, .. } = self.registers;
        let file = drive.file_mut();
        file.write(Register::Count, 0);
        file.write(Register::Count, count);
        file.write(Register::Features, feature);
        for (register, (now, before)) in LBA.into_iter().zip(lba.iter().zip(&lba[3..])) {
            file.write(register, *before);
            file.write(register, *now);
        }
        file.write(Register::Device, device::LBA | lba[3] & device::HEAD);

        let data = match drive.execute(command) {
            Action::Ended => None,
            Action::Answer(data) => Some(data),
            Action::Diagnose => {
                drive.soft_reset();
                None
            }
            // Everything that needs the medium was sorted out before.
            Action::Job(_) => return self.fail(error::ABRT),
        };
        let file = drive.file();
        let mut after = [0; 6];
        for (i, register) in LBA.into_iter().enumerate() {
            after[i] = file.read(register, false);
            after[i + 3] = if self.registers.extended { file.read(register, true) } else { 0 };
        }
        if !self.registers.extended {
            after[3] = file.read(Register::Device, false) & device::HEAD;
        }
        let registers = Ata {
            feature: file.read(Register::Features, false),
            count: if data.is_some() { 0 } else { file.read(Register::Count, false) },
            command: drive.idle_status(),
            lba: after,
            ..self.registers
        };
        let body = match data {
            Some(data) => Body::Drive { registers, data },
            None => Body::Ata { registers, data: 0 },
        };
        Step::Answer(Answer { header: self.header, body })
    }
}
