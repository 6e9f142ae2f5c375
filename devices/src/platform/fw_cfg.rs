//! fw_cfg: how firmware learns about the machine. Selector 510h, data 511h, DMA 514h to 51Bh (QEMU, docs/specs/fw_cfg).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::byte_mut;
use crate::memory::{DmaFault, DmaMemory};
use crate::register::Fault;

/// Keys of items that are no files.
mod key {
    pub(super) const SIGNATURE: u16 = 0x00;
    pub(super) const ID: u16 = 0x01;
    pub(super) const RAM_SIZE: u16 = 0x03;
    pub(super) const CPUS: u16 = 0x05;
    pub(super) const BOOT_MENU: u16 = 0x0e;
    pub(super) const MAX_CPUS: u16 = 0x0f;
    pub(super) const FILE_DIRECTORY: u16 = 0x19;
    pub(super) const FIRST_FILE: u16 = 0x20;
    pub(super) const LAST_FILE: u16 = 0x3fff;
    pub(super) const IRQ0_OVERRIDE: u16 = 0x8002;
}

/// Bits of a DMA request's control word; the upper half is a key.
mod control {
    pub(super) const ERROR: u32 = 1 << 0;
    pub(super) const READ: u32 = 1 << 1;
    pub(super) const SKIP: u32 = 1 << 2;
    pub(super) const SELECT: u32 = 1 << 3;
    pub(super) const WRITE: u32 = 1 << 4;
}

/// What the ID item says: the traditional interface and DMA.
const FEATURES: u32 = 0b11;
/// What the DMA address register reads as.
const DMA_SIGNATURE: &[u8; 8] = b"QEMU CFG";
/// Bytes of a DMA request: control, length, address, all big endian.
const REQUEST: usize = 16;
/// How far past an item's end one request may read: what lies there is zero, and need not keep us busy.
const READ_PAST_END: u32 = 1 << 20;

/// What a range of the guest's physical addresses is, as in an E820 map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// RAM for the guest's use.
    Ram = 1,
    /// To be left alone.
    Reserved = 2,
}

/// A range of the guest's physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// What is there.
    pub kind: MemoryKind,
}

#[derive(Clone, Debug)]
struct Item {
    bytes: Vec<u8>,
    writable: bool,
}

#[derive(Clone, Copy)]
enum Port {
    Selector,
    Data,
    DmaHigh,
    DmaLow,
    Dma,
}

impl Port {
    fn decode(port: u16, width: usize) -> Result<Self, Fault> {
        match (port, width) {
            (0x510, 2) => Ok(Port::Selector),
            (0x511, 1) => Ok(Port::Data),
            (0x514, 4) => Ok(Port::DmaHigh),
            (0x518, 4) => Ok(Port::DmaLow),
            (0x514, 8) => Ok(Port::Dma),
            (0x510 | 0x511 | 0x514..=0x51b, _) => Err(Fault::Width),
            _ => Err(Fault::NoRegister),
        }
    }
}

/// The device: items by key, and a place in one of them.
#[derive(Clone, Debug)]
pub struct FwCfg {
    items: BTreeMap<u16, Item>,
    selected: u16,
    offset: u32,
    dma_high: u32,
}

impl FwCfg {
    /// Nothing but the signature: add items and [`build`](FwCfgBuilder::build).
    #[must_use]
    pub fn builder() -> FwCfgBuilder {
        FwCfgBuilder::new()
    }

    /// Back to the signature. The items stay, also those that firmware has written.
    pub fn reset(&mut self) {
        let Self { items: _, selected, offset, dma_high } = self;
        *selected = key::SIGNATURE;
        *offset = 0;
        *dma_high = 0;
    }

    /// The bytes of file `name` as they are now, for files that firmware writes.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let directory = &self.items.get(&key::FILE_DIRECTORY)?.bytes;
        let entry = directory.get(4..)?.chunks_exact(64).find(|entry| {
            let end = entry[8..].iter().position(|&byte| byte == 0).unwrap_or(56);
            &entry[8..8 + end] == name.as_bytes()
        })?;
        Some(&self.items.get(&u16::from_be_bytes([entry[4], entry[5]]))?.bytes)
    }

    /// Reads `port`.
    ///
    /// # Errors
    /// [`Fault`] for accesses that the device does not have; the selector is write-only.
    pub fn read(&mut self, port: u16, out: &mut [u8]) -> Result<(), Fault> {
        match Port::decode(port, out.len())? {
            Port::Selector => return Err(Fault::NoRegister),
            Port::Data => {
                let offset = self.offset as usize;
                let item = self.items.get(&self.selected);
                *byte_mut(out)? = item.and_then(|item| item.bytes.get(offset)).copied().unwrap_or(0);
                self.offset = self.offset.saturating_add(1);
            }
            Port::DmaHigh => out.copy_from_slice(&DMA_SIGNATURE[..4]),
            Port::DmaLow => out.copy_from_slice(&DMA_SIGNATURE[4..]),
            Port::Dma => out.copy_from_slice(DMA_SIGNATURE),
        }
        Ok(())
    }

    /// Writes `port`. Writing the low half of the DMA address carries the request out before this returns.
    ///
    /// # Errors
    /// [`Fault`] for accesses that the device does not have.
    pub fn write(&mut self, port: u16, data: &[u8], mem: &impl DmaMemory) -> Result<(), Fault> {
        match (Port::decode(port, data.len())?, data) {
            (Port::Selector, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            (Port::DmaHigh, &[a, b, c, d]) => self.dma_high = u32::from_be_bytes([a, b, c, d]),
            (Port::DmaLow, &[a, b, c, d]) => {
                let high = core::mem::take(&mut self.dma_high);
                self.dma(u64::from(high) << 32 | u64::from(u32::from_be_bytes([a, b, c, d])), mem);
            }
            (Port::Dma, &[a, b, c, d, e, f, g, h]) => {
                self.dma_high = 0;
                self.dma(u64::from_be_bytes([a, b, c, d, e, f, g, h]), mem);
            }
            // Writing items through the data port has long been taken out of the interface.
            (Port::Data, _) => {}
            (Port::Selector | Port::DmaHigh | Port::DmaLow | Port::Dma, _) => return Err(Fault::Width),
        }
        Ok(())
    }

    fn select(&mut self, key: u16) {
        // Bit 14 once announced a write and has no meaning any more.
        self.selected = key & !0x4000;
        self.offset = 0;
    }

    /// Carries out the request at guest physical address `gpa` and writes its result there.
    fn dma(&mut self, gpa: u64, mem: &impl DmaMemory) {
        let mut request = [0; REQUEST];
        let outcome = mem.read(gpa, &mut request).and_then(|()| self.request(&request, mem));
        let result = if outcome.is_ok() { 0 } else { control::ERROR };
        // Where the request itself is not in memory, there is nowhere to tell.
        let _ = mem.write(gpa, &result.to_be_bytes());
    }

    fn request(&mut self, request: &[u8; REQUEST], mem: &impl DmaMemory) -> Result<(), DmaFault> {
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = *request;
        let command = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let address = u64::from_be_bytes(address);
        if command & control::SELECT != 0 {
            self.select((command >> 16) as u16);
        }
        if command & control::READ != 0 {
            self.dma_read(address, length, mem)?;
        } else if command & control::WRITE != 0 {
            self.dma_write(address, length, mem)?;
        } else if command & control::SKIP == 0 {
            return Ok(());
        }
        self.offset = self.offset.saturating_add(length);
        Ok(())
    }

    /// Past the end of an item, and for items that there are not, one reads zeros.
    fn dma_read(&self, address: u64, length: u32, mem: &impl DmaMemory) -> Result<(), DmaFault> {
        let item = self.items.get(&self.selected).map_or(&[][..], |item| &item.bytes);
        let rest = item.get(self.offset as usize..).unwrap_or(&[]);
        let there = rest.get(..length as usize).unwrap_or(rest);
        let zeros = length - there.len() as u32;
        let fault = DmaFault { gpa: address };
        if zeros > READ_PAST_END || address.checked_add(length.into()).is_none() {
            return Err(fault);
        }
        mem.write(address, there)?;
        let mut at = address + there.len() as u64;
        let end = address + u64::from(length);
        while at < end {
            let chunk = (end - at).min(4096) as usize;
            mem.write(at, &[0; 4096][..chunk])?;
            at += chunk as u64;
        }
        Ok(())
    }

    fn dma_write(&mut self, address: u64, length: u32, mem: &impl DmaMemory) -> Result<(), DmaFault> {
        let item = self.items.get_mut(&self.selected).filter(|item| item.writable);
        let offset = self.offset as usize;
        let end = offset.saturating_add(length as usize);
        let place = item.and_then(|item| item.bytes.get_mut(offset..end)).ok_or(DmaFault { gpa: address })?;
        mem.read(address, place)
    }
}

/// Collects the items for a [`FwCfg`].
#[derive(Clone, Debug)]
pub struct FwCfgBuilder {
    items: BTreeMap<u16, Item>,
    files: BTreeMap<String, Item>,
}

impl FwCfgBuilder {
    /// The longest name of a file in bytes.
    pub const LONGEST_NAME: usize = 55;

    fn new() -> Self {
        Self { items: BTreeMap::new(), files: BTreeMap::new() }
            .item(key::SIGNATURE, b"QEMU")
            .item(key::ID, &FEATURES.to_le_bytes())
            // Interrupt 0 comes in at the I/O APIC's input 2: SeaBIOS notes it in its MP table.
            .item(key::IRQ0_OVERRIDE, &[1])
    }

    /// RAM in bytes, all of it.
    #[must_use]
    pub fn ram_size(self, bytes: u64) -> Self {
        self.item(key::RAM_SIZE, &bytes.to_le_bytes())
    }

    /// How many processors the machine has. Their APIC IDs are 0 to `cpus` - 1.
    #[must_use]
    pub fn cpus(self, cpus: u16) -> Self {
        self.item(key::CPUS, &cpus.to_le_bytes()).item(key::MAX_CPUS, &cpus.to_le_bytes())
    }

    /// Whether SeaBIOS offers its boot menu, and how long it waits for a key then.
    #[must_use]
    pub fn boot_menu(self, wait: Option<Duration>) -> Self {
        let new = self.item(key::BOOT_MENU, &u16::from(wait.is_some()).to_le_bytes());
        match wait {
            Some(wait) => new.file("etc/boot-menu-wait", milliseconds(wait).to_le_bytes()),
            None => new,
        }
    }

    /// How long SeaBIOS waits before it resets a machine that nothing could be booted on; `None` for ever.
    #[must_use]
    pub fn boot_fail_wait(self, wait: Option<Duration>) -> Self {
        self.file("etc/boot-fail-wait", wait.map_or(u32::MAX, milliseconds).to_le_bytes())
    }

    /// The order of boot devices, as Open Firmware paths: `/pci@i0cf8/ide@1,1/drive@0/disk@0`.
    #[must_use]
    pub fn boot_order(self, paths: &[&str]) -> Self {
        let mut text = paths.join("\n").into_bytes();
        text.push(0);
        self.file("bootorder", text)
    }

    /// The UART that SeaBIOS uses as its console: its first port.
    #[must_use]
    pub fn serial_console(self, port: u16) -> Self {
        self.file("etc/sercon-port", port.to_le_bytes())
    }

    /// The map of physical addresses, where it is RAM or reserved.
    #[must_use]
    pub fn e820(self, map: &[MemoryRange]) -> Self {
        let mut bytes = Vec::with_capacity(20 * map.len());
        for MemoryRange { base, len, kind } in map {
            bytes.extend_from_slice(&base.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&(*kind as u32).to_le_bytes());
        }
        self.file("etc/e820", bytes)
    }

    /// Adds a file, or replaces the one of that name.
    ///
    /// # Panics
    /// When the name is longer than [`LONGEST_NAME`](Self::LONGEST_NAME) or has a NUL in it, or the file 4 GiB or more.
    #[must_use]
    pub fn file(self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.named(name, Item { bytes: bytes.into(), writable: false })
    }

    /// Adds a file that the guest may write, through DMA. Its length is fixed.
    ///
    /// # Panics
    /// As [`file`](Self::file).
    #[must_use]
    pub fn writable_file(self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.named(name, Item { bytes: bytes.into(), writable: true })
    }

    /// The device. Files get their keys in the order of their names.
    ///
    /// # Panics
    /// With more than 16,352 files.
    #[must_use]
    pub fn build(self) -> FwCfg {
        let Self { mut items, files } = self;
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (key, (name, item)) in (key::FIRST_FILE..).zip(files) {
            assert!(key <= key::LAST_FILE, "fw_cfg has no room for file {name}");
            directory.extend_from_slice(&(item.bytes.len() as u32).to_be_bytes());
            directory.extend_from_slice(&key.to_be_bytes());
            directory.extend_from_slice(&[0; 2]);
            let mut padded = [0; Self::LONGEST_NAME + 1];
            padded[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend_from_slice(&padded);
            items.insert(key, item);
        }
        items.insert(key::FILE_DIRECTORY, Item { bytes: directory, writable: false });
        FwCfg { items, selected: key::SIGNATURE, offset: 0, dma_high: 0 }
    }

    fn item(mut self, key: u16, bytes: &[u8]) -> Self {
        self.items.insert(key, Item { bytes: bytes.to_vec(), writable: false });
        self
    }

    fn named(mut self, name: &str, item: Item) -> Self {
        assert!(
            name.len() <= Self::LONGEST_NAME && !name.contains('\0'),
            "no file of fw_cfg can be named {name:?}"
        );
        assert!(u32::try_from(item.bytes.len()).is_ok(), "{name} is too big for fw_cfg");
        self.files.insert(name.into(), item);
        self
    }
}

fn milliseconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX - 1)
}
