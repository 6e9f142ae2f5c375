//! The argument of command 0: the ATA registers.

use super::{Malformed, SECTOR, front, take};

/// Bytes of ATA registers before the data.
pub const ATA_LENGTH: usize = 12;

/// AFlags E: LBA48, so the registers are two deep.
const EXTENDED: u8 = 0x40;
/// AFlags D: the device/head register's bit.
const DEVICE: u8 = 0x10;
/// AFlags A: the server may answer a write before it is done.
const ASYNCHRONOUS: u8 = 0x02;
/// AFlags W: the frame carries data to the disk.
const WRITE: u8 = 0x01;

/// The ATA registers of a request, or of an answer: error stands in for feature, and status for command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ata {
    /// The LBA has 48 bits.
    pub extended: bool,
    /// Bit 4 of the device/head register.
    pub device: bool,
    /// A write may be answered before it is carried out.
    pub asynchronous: bool,
    /// Data follows in the request; else data follows in the answer, if the command has any.
    pub write: bool,
    /// Feature in a request, Error in an answer.
    pub feature: u8,
    /// Sectors of data; 0 in the answer to a command that went well.
    pub count: u8,
    /// Command in a request, Status in an answer.
    pub command: u8,
    /// The LBA registers, lowest byte first.
    pub lba: [u8; 6],
}

impl Ata {
    /// The address in the registers: 48 bits, or, when not [`extended`](Self::extended), 28, without the upper half of the fourth byte
    /// (some clients put the device register's E0h there).
    #[must_use]
    pub fn address(&self) -> u64 {
        let [a, b, c, d, e, f] = self.lba;
        if self.extended {
            u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
        } else {
            u64::from(u32::from_le_bytes([a, b, c, d & 0x0f]))
        }
    }

    /// The registers for a 48-bit address; the upper 16 bits of `address` are dropped.
    #[must_use]
    pub fn registers(address: u64) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = address.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Reads the registers; the rest is what follows them, padding included: see [`data`](Self::data).
    ///
    /// # Errors
    /// [`Malformed::Short`] below 12 bytes.
    pub fn parse(argument: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (&[flags, feature, count, command, a, b, c, d, e, f, _, _], rest) = take::<ATA_LENGTH>(argument)?;
        let ata = Ata {
            extended: flags & EXTENDED != 0,
            device: flags & DEVICE != 0,
            asynchronous: flags & ASYNCHRONOUS != 0,
            write: flags & WRITE != 0,
            feature,
            count,
            command,
            lba: [a, b, c, d, e, f],
        };
        Ok((ata, rest))
    }

    /// The first `sectors` sectors of what follows the registers.
    ///
    /// # Errors
    /// [`Malformed::Short`] when the frame holds fewer.
    pub fn data(rest: &[u8], sectors: usize) -> Result<&[u8], Malformed> {
        front(rest, sectors.saturating_mul(SECTOR))
    }

    /// Writes the 12 bytes and returns their number. `None` when `out` is shorter.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = bit(self.extended, EXTENDED)
            | bit(self.device, DEVICE)
            | bit(self.asynchronous, ASYNCHRONOUS)
            | bit(self.write, WRITE);
        let [a, b, c, d, e, f] = self.lba;
        *out.first_chunk_mut()? = [flags, self.feature, self.count, self.command, a, b, c, d, e, f, 0, 0];
        Some(ATA_LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let mut ata = Ata { extended: true, lba: [1, 2, 3, 0xe4, 5, 6], ..Ata::default() };
        assert_eq!(ata.address(), 0x0605_e403_0201);
        assert_eq!(Ata::registers(0x0605_e403_0201), ata.lba);
        ata.extended = false;
        assert_eq!(ata.address(), 0x0403_0201);
    }

    #[test]
    fn data_ends_with_the_frame() {
        let frame = [0; ATA_LENGTH + 1000];
        let (_, rest) = Ata::parse(&frame).unwrap();
        assert_eq!(Ata::data(rest, 1).unwrap().len(), 512);
        assert_eq!(Ata::data(rest, 2), Err(Malformed::Short { needed: 1024, present: 1000 }));
        assert!(Ata::data(rest, usize::MAX).is_err());
        assert_eq!(Ata::parse(&frame[..11]), Err(Malformed::Short { needed: 12, present: 11 }));
    }
}
