//! The firmware: a flash image that ends at 4 GiB, with its last 128 KiB also below 1 MiB.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::memory::GuestRam;

/// What a firmware image may be at most; from here on the interrupt controllers come.
const LARGEST: usize = 16 << 20;
/// The part that a real chipset shows at E0000-FFFFF as well.
const SHADOW: usize = 128 << 10;

/// A firmware image, checked.
pub struct Firmware {
    image: Vec<u8>,
}

impl Firmware {
    /// Reads the image at `path`.
    ///
    /// # Errors
    /// That it can't be read, or what is wrong with its size.
    pub fn open(path: &Path) -> Result<Self, String> {
        let mut image = Vec::new();
        // One byte more than there may be tells a larger file.
        let limit = LARGEST as u64 + 1;
        let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut image));
        read.map_err(|error| error.to_string())?;
        Self::new(image)
    }

    /// Takes `image`.
    ///
    /// # Errors
    /// What is wrong with its size: chips come in multiples of 64 KiB.
    pub fn new(image: Vec<u8>) -> Result<Self, String> {
        if image.len() > LARGEST {
            return Err(format!("too large for a firmware image, which has {} MiB at most", LARGEST >> 20));
        }
        if image.is_empty() || !image.len().is_multiple_of(0x1_0000) {
            return Err(format!(
                "{} bytes are no firmware image: those have a multiple of 64 KiB",
                image.len()
            ));
        }
        Ok(Firmware { image })
    }

    /// The flash chip, to be mapped read-only.
    ///
    /// # Errors
    /// When the host is short of memory.
    pub fn rom(&self) -> Result<GuestMemoryMmap, String> {
        let start = GuestAddress((1 << 32) - self.image.len() as u64);
        let rom = GuestMemoryMmap::from_ranges(&[(start, self.image.len())]).map_err(|e| e.to_string())?;
        rom.write_slice(&self.image, start).map_err(|e| e.to_string())?;
        Ok(rom)
    }

    /// Copies the part below 1 MiB into RAM, as at every reset.
    ///
    /// On a PC this range reads from flash until the firmware switches the host bridge's PAM registers to RAM and copies itself. Here
    /// it always is RAM: the firmware's copy finds itself there already.
    ///
    /// # Errors
    /// When guest memory is too small.
    pub fn shadow(&self, ram: &GuestRam) -> Result<(), String> {
        let part = &self.image[self.image.len() - self.image.len().min(SHADOW)..];
        let start = GuestAddress((1 << 20) - part.len() as u64);
        ram.mapping().write_slice(part, start).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sizes_are_refused() {
        assert!(Firmware::new(vec![0; 100]).is_err());
        assert!(Firmware::new(Vec::new()).is_err());
        assert!(Firmware::new(vec![0; LARGEST + 0x1_0000]).is_err());
    }

    #[test]
    fn the_reset_vector_is_at_both_places() {
        let mut image = vec![0; 256 << 10];
        image[(256 << 10) - 16] = 0xea;
        let firmware = Firmware::new(image).unwrap();
        let ram = GuestRam::new(crate::memory::MINIMUM).unwrap();
        firmware.shadow(&ram).unwrap();
        let low: u8 = ram.mapping().read_obj(GuestAddress(0xf_fff0)).unwrap();
        let high: u8 = firmware.rom().unwrap().read_obj(GuestAddress(0xffff_fff0)).unwrap();
        assert_eq!((low, high), (0xea, 0xea));
    }
}
