//! Commands and their sub-commands, each decoded in one step into a closed enum.

/// How the words of an address lie in the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// 28-bit LBA, or cylinder, head and sector; a count of 8 bits, of which 0 means 256.
    Lba28,
    /// 48-bit LBA and a count of 16 bits, of which 0 means 65,536: the EXT commands.
    Lba48,
}

/// How a read or write moves its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Through the data port, an interrupt for each sector.
    Pio,
    /// Through the data port, an interrupt for as many sectors as SET MULTIPLE MODE said.
    Multiple,
    /// By bus master.
    Dma,
}

/// The commands of the Command register that a disk here, or a target, may carry out.
///
/// All others have no name and end with ABRT: [`decode`](Self::decode) gives `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// NOP (00h): always ends with ABRT.
    Nop,
    /// DATA SET MANAGEMENT (06h): TRIM.
    DataSetManagement,
    /// DEVICE RESET (08h): for packet devices only.
    DeviceReset,
    /// RECALIBRATE (10h to 1Fh, of which ATA-4 keeps 10h).
    Recalibrate,
    /// READ SECTORS, READ MULTIPLE, READ DMA and their EXT forms.
    Read {
        /// How the data goes.
        protocol: Protocol,
        /// How the address lies in the registers.
        address: Address,
    },
    /// WRITE SECTORS, WRITE MULTIPLE, WRITE DMA and their EXT and FUA EXT forms.
    Write {
        /// How the data goes.
        protocol: Protocol,
        /// How the address lies in the registers.
        address: Address,
        /// Forced unit access: done only when the data is durable. Exists for EXT commands other than WRITE SECTORS EXT.
        fua: bool,
    },
    /// READ VERIFY SECTORS (40h, 41h) and its EXT form (42h).
    Verify(Address),
    /// SEEK (70h to 7Fh, of which ATA-4 keeps 70h).
    Seek,
    /// EXECUTE DEVICE DIAGNOSTIC (90h).
    ExecuteDiagnostic,
    /// INITIALIZE DEVICE PARAMETERS (91h).
    InitializeParameters,
    /// PACKET (A0h): for packet devices only.
    Packet,
    /// IDENTIFY PACKET DEVICE (A1h): for packet devices only.
    IdentifyPacket,
    /// SMART (B0h), with a function in the Features register.
    Smart,
    /// SET MULTIPLE MODE (C6h).
    SetMultiple,
    /// STANDBY IMMEDIATE (E0h).
    StandbyImmediate,
    /// IDLE IMMEDIATE (E1h).
    IdleImmediate,
    /// STANDBY (E2h).
    Standby,
    /// IDLE (E3h).
    Idle,
    /// CHECK POWER MODE (E5h).
    CheckPower,
    /// SLEEP (E6h).
    Sleep,
    /// FLUSH CACHE (E7h) and FLUSH CACHE EXT (EAh).
    Flush(Address),
    /// IDENTIFY DEVICE (ECh).
    Identify,
    /// SET FEATURES (EFh), with a sub-command in the Features register.
    SetFeatures,
    /// SECURITY FREEZE LOCK (F5h).
    SecurityFreezeLock,
    /// READ NATIVE MAX ADDRESS (F8h) and its EXT form (27h).
    ReadNativeMax(Address),
}

impl Opcode {
    /// What the Command register's `code` asks for.
    #[must_use]
    pub fn decode(code: u8) -> Option<Self> {
        use Address::{Lba28, Lba48};
        use Protocol::{Dma, Multiple, Pio};
        let read = |protocol, address| Opcode::Read { protocol, address };
        let write = |protocol, address, fua| Opcode::Write { protocol, address, fua };
        Some(match code {
            0x00 => Opcode::Nop,
            0x06 => Opcode::DataSetManagement,
            0x08 => Opcode::DeviceReset,
            0x10..=0x1f => Opcode::Recalibrate,
            // The odd one of a pair is the same command "without retries", which ATA-5 made obsolete.
            0x20 | 0x21 => read(Pio, Lba28),
            0x24 => read(Pio, Lba48),
            0x25 => read(Dma, Lba48),
            0x27 => Opcode::ReadNativeMax(Lba48),
            0x29 => read(Multiple, Lba48),
            0x30 | 0x31 => write(Pio, Lba28, false),
            0x34 => write(Pio, Lba48, false),
            0x35 => write(Dma, Lba48, false),
            0x39 => write(Multiple, Lba48, false),
            0x3d => write(Dma, Lba48, true),
            0x40 | 0x41 => Opcode::Verify(Lba28),
            0x42 => Opcode::Verify(Lba48),
            0x70..=0x7f => Opcode::Seek,
            0x90 => Opcode::ExecuteDiagnostic,
            0x91 => Opcode::InitializeParameters,
            0xa0 => Opcode::Packet,
            0xa1 => Opcode::IdentifyPacket,
            0xb0 => Opcode::Smart,
            0xc4 => read(Multiple, Lba28),
            0xc5 => write(Multiple, Lba28, false),
            0xc6 => Opcode::SetMultiple,
            0xc8 | 0xc9 => read(Dma, Lba28),
            0xca | 0xcb => write(Dma, Lba28, false),
            0xce => write(Multiple, Lba48, true),
            0xe0 => Opcode::StandbyImmediate,
            0xe1 => Opcode::IdleImmediate,
            0xe2 => Opcode::Standby,
            0xe3 => Opcode::Idle,
            0xe5 => Opcode::CheckPower,
            0xe6 => Opcode::Sleep,
            0xe7 => Opcode::Flush(Lba28),
            0xea => Opcode::Flush(Lba48),
            0xec => Opcode::Identify,
            0xef => Opcode::SetFeatures,
            0xf5 => Opcode::SecurityFreezeLock,
            0xf8 => Opcode::ReadNativeMax(Lba28),
            _ => return None,
        })
    }

    /// The code to write to a Command register, of several the one that is not obsolete.
    ///
    /// `fua` is left out where no such command exists: with 28-bit addresses and WRITE SECTORS EXT.
    #[must_use]
    pub fn code(self) -> u8 {
        use Address::{Lba28, Lba48};
        use Protocol::{Dma, Multiple, Pio};
        match self {
            Opcode::Nop => 0x00,
            Opcode::DataSetManagement => 0x06,
            Opcode::DeviceReset => 0x08,
            Opcode::Recalibrate => 0x10,
            Opcode::Read { protocol: Pio, address: Lba28 } => 0x20,
            Opcode::Read { protocol: Pio, address: Lba48 } => 0x24,
            Opcode::Read { protocol: Multiple, address: Lba28 } => 0xc4,
            Opcode::Read { protocol: Multiple, address: Lba48 } => 0x29,
            Opcode::Read { protocol: Dma, address: Lba28 } => 0xc8,
            Opcode::Read { protocol: Dma, address: Lba48 } => 0x25,
            Opcode::Write { protocol: Pio, address: Lba28, fua: _ } => 0x30,
            Opcode::Write { protocol: Pio, address: Lba48, fua: _ } => 0x34,
            Opcode::Write { protocol: Multiple, address: Lba28, fua: _ } => 0xc5,
            Opcode::Write { protocol: Multiple, address: Lba48, fua: false } => 0x39,
            Opcode::Write { protocol: Multiple, address: Lba48, fua: true } => 0xce,
            Opcode::Write { protocol: Dma, address: Lba28, fua: _ } => 0xca,
            Opcode::Write { protocol: Dma, address: Lba48, fua: false } => 0x35,
            Opcode::Write { protocol: Dma, address: Lba48, fua: true } => 0x3d,
            Opcode::Verify(Lba28) => 0x40,
            Opcode::Verify(Lba48) => 0x42,
            Opcode::Seek => 0x70,
            Opcode::ExecuteDiagnostic => 0x90,
            Opcode::InitializeParameters => 0x91,
            Opcode::Packet => 0xa0,
            Opcode::IdentifyPacket => 0xa1,
            Opcode::Smart => 0xb0,
            Opcode::SetMultiple => 0xc6,
            Opcode::StandbyImmediate => 0xe0,
            Opcode::IdleImmediate => 0xe1,
            Opcode::Standby => 0xe2,
            Opcode::Idle => 0xe3,
            Opcode::CheckPower => 0xe5,
            Opcode::Sleep => 0xe6,
            Opcode::Flush(Lba28) => 0xe7,
            Opcode::Flush(Lba48) => 0xea,
            Opcode::Identify => 0xec,
            Opcode::SetFeatures => 0xef,
            Opcode::SecurityFreezeLock => 0xf5,
            Opcode::ReadNativeMax(Lba28) => 0xf8,
            Opcode::ReadNativeMax(Lba48) => 0x27,
        }
    }
}

/// The sub-commands of SET FEATURES (7.45) that are carried out; all others end with ABRT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetFeatures {
    /// 02h and 82h: volatile write cache.
    WriteCache(bool),
    /// 03h: transfer mode, in the Sector Count register.
    TransferMode,
    /// AAh and 55h: read look-ahead.
    LookAhead(bool),
}

impl SetFeatures {
    /// What the Features register asks for.
    #[must_use]
    pub fn decode(features: u8) -> Option<Self> {
        Some(match features {
            0x02 => SetFeatures::WriteCache(true),
            0x82 => SetFeatures::WriteCache(false),
            0x03 => SetFeatures::TransferMode,
            0xaa => SetFeatures::LookAhead(true),
            0x55 => SetFeatures::LookAhead(false),
            _ => return None,
        })
    }
}

/// The functions of SMART (7.53) that are carried out; all others end with ABRT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SmartFunction {
    /// D0h: READ DATA.
    ReadData,
    /// D1h: READ THRESHOLDS, which ATA-4 made obsolete and tools still ask for.
    ReadThresholds,
    /// D2h: ATTRIBUTE AUTOSAVE.
    Autosave,
    /// D8h: ENABLE OPERATIONS.
    Enable,
    /// D9h: DISABLE OPERATIONS.
    Disable,
    /// DAh: RETURN STATUS.
    ReturnStatus,
}

impl SmartFunction {
    /// What the Features register asks for.
    #[must_use]
    pub fn decode(features: u8) -> Option<Self> {
        Some(match features {
            0xd0 => SmartFunction::ReadData,
            0xd1 => SmartFunction::ReadThresholds,
            0xd2 => SmartFunction::Autosave,
            0xd8 => SmartFunction::Enable,
            0xd9 => SmartFunction::Disable,
            0xda => SmartFunction::ReturnStatus,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_one_preferred_code() {
        let mut named = 0;
        for code in 0..=0xff {
            if let Some(opcode) = Opcode::decode(code) {
                assert_eq!(Opcode::decode(opcode.code()), Some(opcode), "{code:#x}");
                named += 1;
            }
        }
        assert_eq!(named, 75, "codes with a name, aliases included");
    }

    #[test]
    fn retired_forms_mean_the_same() {
        for (alias, code) in
            [(0x21, 0x20), (0x31, 0x30), (0x41, 0x40), (0xc9, 0xc8), (0xcb, 0xca), (0x1f, 0x10)]
        {
            assert_eq!(Opcode::decode(alias).map(Opcode::code), Some(code));
        }
    }
}
