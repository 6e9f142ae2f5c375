//! Guests of 512 bytes: a boot sector that says something on the first serial port and reads the disk with the firmware.
//! Firmware and boot sectors run where operating systems don't yet, such as straight on a host's /dev/kvm that emulates
//! kernel-mode instructions.

use std::fmt;

/// A boot sector being written, as 16-bit code for 7C00h. The parts run in the order in which they are added; then it halts.
#[derive(Debug, Clone)]
pub struct BootSector {
    code: Vec<u8>,
}

/// A boot sector takes 510 bytes of code; this one got more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge(usize);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of code don't fit into a boot sector", self.0)
    }
}

impl std::error::Error for TooLarge {}

/// Where the firmware loads it.
const ORIGIN: usize = 0x7c00;
/// Where it reads sectors to.
const BUFFER: u16 = 0x8000;

impl Default for BootSector {
    fn default() -> Self {
        // cli; cld; xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,7C00h; sti. DL stays the boot drive.
        let code = vec![0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb];
        BootSector { code }
    }
}

impl BootSector {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `text` to COM1, without waiting for the transmitter: emulated ones are always ready. Keeps DL.
    pub fn print(mut self, text: &str) -> Self {
        // push dx; mov dx,3F8h; mov si,text; mov cx,length; rep outsb; pop dx; jmp over; text
        let length = text.len() as u16;
        self.code.extend([0x52, 0xba, 0xf8, 0x03, 0xbe]);
        let text_at = ORIGIN + self.code.len() + 2 + 3 + 2 + 1 + 3;
        self.code.extend((text_at as u16).to_le_bytes());
        self.code.push(0xb9);
        self.code.extend(length.to_le_bytes());
        self.code.extend([0xf3, 0x6e, 0x5a, 0xe9]);
        self.code.extend(length.to_le_bytes());
        self.code.extend(text.as_bytes());
        self
    }

    /// Reads sector `lba` of the boot drive with INT 13h, function 42h, and goes on when it begins with `expected`. Else it
    /// halts: print before and after to see which.
    pub fn expect_sector(mut self, lba: u64, expected: &[u8]) -> Self {
        // jmp over data; packet (16 bytes); expected bytes
        let data_at = ORIGIN + self.code.len() + 3;
        self.code.push(0xe9);
        self.code.extend((16 + expected.len() as u16).to_le_bytes());
        // Disk address packet: size, 0, count, offset, segment, LBA.
        self.code.extend([16, 0, 1, 0]);
        self.code.extend(BUFFER.to_le_bytes());
        self.code.extend([0, 0]);
        self.code.extend(lba.to_le_bytes());
        self.code.extend(expected);
        // mov si,packet; mov ah,42h; push dx; int 13h; pop dx; jc halt
        self.code.push(0xbe);
        self.code.extend((data_at as u16).to_le_bytes());
        self.code.extend([0xb4, 0x42, 0x52, 0xcd, 0x13, 0x5a, 0x72, 13]);
        // mov si,expected; mov di,BUFFER; mov cx,length; repe cmpsb; je over the halt
        self.code.push(0xbe);
        self.code.extend((data_at as u16 + 16).to_le_bytes());
        self.code.push(0xbf);
        self.code.extend(BUFFER.to_le_bytes());
        self.code.push(0xb9);
        self.code.extend((expected.len() as u16).to_le_bytes());
        self.code.extend([0xf3, 0xa6, 0x74, 0x04]);
        self.halt()
    }

    /// Writes `value` to an I/O port, such as one that ends the machine. Keeps DL.
    pub fn out16(mut self, port: u16, value: u16) -> Self {
        // push dx; mov dx,port; mov ax,value; out dx,ax; pop dx
        self.code.extend([0x52, 0xba]);
        self.code.extend(port.to_le_bytes());
        self.code.push(0xb8);
        self.code.extend(value.to_le_bytes());
        self.code.extend([0xef, 0x5a]);
        self
    }

    /// The sector, with a halt after the last part, and the signature.
    ///
    /// # Errors
    /// The parts don't fit.
    pub fn build(self) -> Result<[u8; 512], TooLarge> {
        let code = self.halt().code;
        let mut sector = [0; 512];
        sector
            .get_mut(..code.len().min(511))
            .filter(|_| code.len() <= 510)
            .ok_or(TooLarge(code.len()))?
            .copy_from_slice(&code);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        Ok(sector)
    }

    /// cli; hlt; jmp to the hlt: four bytes, which `expect_sector` jumps over.
    fn halt(mut self) -> Self {
        self.code.extend([0xfa, 0xf4, 0xeb, 0xfd]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_has_its_signature_and_its_limit() {
        let sector = BootSector::new().print("hello").build().unwrap();
        assert_eq!(sector[510..], [0x55, 0xaa]);
        assert!(sector.windows(5).any(|w| w == b"hello"));
        assert!(BootSector::new().print(&"x".repeat(600)).build().is_err());
        assert!(BootSector::new().expect_sector(1, &[0; 500]).build().is_err());
    }
}
