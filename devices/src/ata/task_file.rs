//! The command block's registers: what a guest writes before the command, and what the disk leaves there after it.

use super::bits::{device, error};
use super::{Address, Geometry};

/// The registers of the command block less Data and Status/Command, which do not hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Features when written, Error when read.
    Features,
    /// Sector Count.
    Count,
    /// LBA Low, or the sector number.
    LbaLow,
    /// LBA Mid, or the cylinder's low byte.
    LbaMid,
    /// LBA High, or the cylinder's high byte.
    LbaHigh,
    /// Device, with LBA 27:24 or the head.
    Device,
}

/// A register of two values, the last one written and the one before it: 48-bit commands use both (ATA/ATAPI-6, 6.20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pair {
    now: u8,
    before: u8,
}

impl Pair {
    fn push(&mut self, value: u8) {
        self.before = self.now;
        self.now = value;
    }

    fn get(self, hob: bool) -> u8 {
        if hob { self.before } else { self.now }
    }
}

/// One disk's copy of the registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFile {
    error: u8,
    features: Pair,
    count: Pair,
    /// Low, mid, high.
    lba: [Pair; 3],
    device: u8,
}

impl TaskFile {
    /// What a read of the register gives; with `hob`, the older of two values.
    #[must_use]
    pub fn read(&self, register: Register, hob: bool) -> u8 {
        match register {
            Register::Features => self.error,
            Register::Count => self.count.get(hob),
            Register::LbaLow => self.lba[0].get(hob),
            Register::LbaMid => self.lba[1].get(hob),
            Register::LbaHigh => self.lba[2].get(hob),
            // SeaBIOS and others compare: it reads back as written, with bits 7 and 5, which are obsolete.
            Register::Device => self.device,
        }
    }

    /// The guest's write to the register.
    pub fn write(&mut self, register: Register, value: u8) {
        match register {
            Register::Features => self.features.push(value),
            Register::Count => self.count.push(value),
            Register::LbaLow => self.lba[0].push(value),
            Register::LbaMid => self.lba[1].push(value),
            Register::LbaHigh => self.lba[2].push(value),
            Register::Device => self.device = value,
        }
    }

    /// Whether the guest means device 1.
    #[must_use]
    pub fn device_1(&self) -> bool {
        self.device & device::DEV != 0
    }

    /// The Features register as last written.
    #[must_use]
    pub fn features(&self) -> u8 {
        self.features.now
    }

    /// The Sector Count register as last written.
    #[must_use]
    pub fn count(&self) -> u8 {
        self.count.now
    }

    /// Both values of the Sector Count register.
    #[must_use]
    pub fn count_16(&self) -> u16 {
        u16::from_be_bytes([self.count.before, self.count.now])
    }

    /// LBA Mid and LBA High as last written: where SMART keeps its key and signatures are looked for.
    #[must_use]
    pub fn cylinder(&self) -> [u8; 2] {
        [self.lba[1].now, self.lba[2].now]
    }

    /// The number of the head, in the Device register.
    #[must_use]
    pub fn head(&self) -> u8 {
        self.device & device::HEAD
    }

    /// How many sectors the command names: 0 in the registers is the largest number.
    #[must_use]
    pub fn sectors(&self, address: Address) -> u32 {
        match address {
            Address::Lba28 => (u32::from(self.count.now) + 255) % 256 + 1,
            Address::Lba48 => (u32::from(self.count_16()) + 65_535) % 65_536 + 1,
        }
    }

    /// The first sector that the command names; `None` for a head or sector number that the geometry does not have.
    #[must_use]
    pub fn lba(&self, address: Address, geometry: Geometry) -> Option<u64> {
        let [low, mid, high] = self.lba;
        match address {
            // The LBA bit "shall be one"; a guest that leaves it out can't mean anything else.
            Address::Lba48 => Some(u64::from_be_bytes([
                0,
                0,
                high.before,
                mid.before,
                low.before,
                high.now,
                mid.now,
                low.now,
            ])),
            Address::Lba28 if self.device & device::LBA != 0 => {
                Some(u32::from_be_bytes([self.head(), high.now, mid.now, low.now]).into())
            }
            Address::Lba28 => geometry.lba(u16::from_be_bytes([high.now, mid.now]), self.head(), low.now),
        }
    }

    /// Leaves an LBA for the guest to read, in the form of the command's own address.
    pub fn put_lba(&mut self, address: Address, geometry: Geometry, lba: u64) {
        let bytes = lba.to_le_bytes();
        let (now, head) = match address {
            Address::Lba48 => {
                for (pair, byte) in self.lba.iter_mut().zip(&bytes[3..6]) {
                    pair.before = *byte;
                }
                ([bytes[0], bytes[1], bytes[2]], self.head())
            }
            Address::Lba28 if self.device & device::LBA != 0 => ([bytes[0], bytes[1], bytes[2]], bytes[3]),
            Address::Lba28 => {
                let (cylinder, head, sector) = geometry.chs(lba);
                let [low, high] = cylinder.to_le_bytes();
                ([sector, low, high], head)
            }
        };
        for (pair, byte) in self.lba.iter_mut().zip(now) {
            pair.now = byte;
        }
        self.device = (self.device & !device::HEAD) | (head & device::HEAD);
    }

    /// Leaves a number of sectors, 65,535 at most, for the guest to read.
    pub fn put_sectors(&mut self, address: Address, sectors: u32) {
        let [high, low] = u16::try_from(sectors).unwrap_or(u16::MAX).to_be_bytes();
        self.count.now = low;
        if address == Address::Lba48 {
            self.count.before = high;
        }
    }

    /// Leaves a value in the Sector Count register for the guest to read.
    pub fn put_count(&mut self, count: u8) {
        self.count.now = count;
    }

    /// Leaves a value in the Error register.
    pub fn put_error(&mut self, error: u8) {
        self.error = error;
    }

    /// A disk's signature, as after a reset (9.12, "signature and persistence"). Device 0 is selected then.
    pub fn put_signature(&mut self) {
        let one = Pair { now: 1, before: 0 };
        let Self { error, features, count, lba, device } = self;
        *error = error::PASSED;
        *features = Pair::default();
        *count = one;
        *lba = [one, Pair::default(), Pair::default()];
        *device = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { cylinders: 100, heads: 16, sectors: 63 };

    fn written(values: &[(Register, u8)]) -> TaskFile {
        let mut file = TaskFile::default();
        for (register, value) in values {
            file.write(*register, *value);
        }
        file
    }

    #[test]
    fn registers_are_two_deep() {
        use Register::{Count, Device, LbaHigh, LbaLow, LbaMid};
        let mut file = written(&[
            (Count, 0x12),
            (LbaLow, 0x44),
            (LbaMid, 0x55),
            (LbaHigh, 0x66),
            (Count, 0x34),
            (LbaLow, 0x11),
            (LbaMid, 0x22),
            (LbaHigh, 0x33),
            (Device, 0x40),
        ]);
        assert_eq!(file.lba(Address::Lba48, GEOMETRY), Some(0x6655_4433_2211));
        assert_eq!(file.sectors(Address::Lba48), 0x1234);
        assert_eq!(file.sectors(Address::Lba28), 0x34);
        assert_eq!((file.read(LbaLow, false), file.read(LbaLow, true)), (0x11, 0x44));
        file.put_lba(Address::Lba48, GEOMETRY, 0x0102_0304_0506);
        assert_eq!(file.lba(Address::Lba48, GEOMETRY), Some(0x0102_0304_0506));
        assert_eq!(file.read(LbaHigh, true), 0x01);
    }

    #[test]
    fn a_count_of_zero_is_the_largest() {
        let file = written(&[]);
        assert_eq!(file.sectors(Address::Lba28), 256);
        assert_eq!(file.sectors(Address::Lba48), 65_536);
    }

    #[test]
    fn addresses_of_28_bits_and_cylinders_come_back_as_they_went() {
        use Register::{Device, LbaHigh, LbaLow, LbaMid};
        let mut lba = written(&[(LbaLow, 0x78), (LbaMid, 0x56), (LbaHigh, 0x34), (Device, 0xe2)]);
        assert_eq!(lba.lba(Address::Lba28, GEOMETRY), Some(0x0234_5678));
        lba.put_lba(Address::Lba28, GEOMETRY, 0x0abc_def0);
        assert_eq!(lba.lba(Address::Lba28, GEOMETRY), Some(0x0abc_def0));
        assert_eq!(lba.read(Device, false), 0xea);

        let mut chs = written(&[(LbaLow, 5), (LbaMid, 2), (LbaHigh, 0), (Device, 0xa3)]);
        assert_eq!(chs.lba(Address::Lba28, GEOMETRY), Some((2 * 16 + 3) * 63 + 4));
        chs.put_lba(Address::Lba28, GEOMETRY, 63);
        assert_eq!(chs.lba(Address::Lba28, GEOMETRY), Some(63));
        assert_eq!(chs.read(Device, false), 0xa1);
    }
}
