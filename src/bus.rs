//! The bus: from an address to the device that answers there. A bad access floats to ones and is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kagero_devices::ide;
use kagero_devices::pci::{ConfigAddress, Selected};
use kagero_devices::platform::Effect;
use kagero_devices::register::Fault;

use crate::board::{BOARD, COM1, Device, PASSTHROUGH, PIRQS, PM_BASE, Ports};
use crate::chipset::Chipset;
use crate::clock;
use crate::console::Console;
use crate::control::{Control, Ending};
use crate::functions::{Address, Functions, Space};
use crate::limit::Limit;
use crate::memory::CHIPSET;
use crate::report::Recorder;
use crate::storage::Storage;
use crate::trace::{Direction, Trace};

/// A stretch of ports and what answers there.
#[derive(Clone, Copy, Debug)]
struct Decoded {
    first: u16,
    last: u16,
    /// Index in [`BOARD`].
    part: usize,
}

/// How often the guest came to one line of the board.
#[derive(Debug, Default)]
pub struct Accesses {
    reads: AtomicU64,
    writes: AtomicU64,
}

/// Accesses that no device answered.
#[derive(Debug, Default)]
pub struct BadAccesses {
    /// At ports.
    pub pio: AtomicU64,
    /// At memory addresses.
    pub mmio: AtomicU64,
    /// By [`Fault`]: no register, width, unaligned.
    by_fault: [AtomicU64; 3],
}

impl BadAccesses {
    /// What was wrong, and how often.
    pub fn by_fault(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.by_fault.iter().map(|count| count.load(Ordering::Relaxed));
        ["no register", "width", "unaligned"].into_iter().zip(counts)
    }

    fn count(&self, fault: Fault) {
        let [no_register, width, unaligned] = &self.by_fault;
        let count = match fault {
            Fault::NoRegister => no_register,
            Fault::Width => width,
            Fault::Unaligned => unaligned,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

static BAD_ACCESS: Limit = Limit::new("bad-access");

/// The board in operation.
///
/// Lock order: kept-back writes, then the chipset, then the storage path; each may be skipped. The map of ports is a leaf: whoever holds it
/// takes no other lock. Passed-through functions have [locks of their own](Functions), which are not taken under the chipset's: no
/// device of the board waits for hardware.
pub struct Bus {
    map: RwLock<Vec<Decoded>>,
    chipset: Mutex<Chipset>,
    console: Console,
    storage: Arc<Storage>,
    functions: Arc<Functions>,
    control: Arc<Control>,
    trace: Trace,
    recorder: Recorder,
    order: Mutex<()>,
    driver_seen: AtomicBool,
    accesses: [Accesses; BOARD.len()],
    bad: BadAccesses,
}

impl Bus {
    pub(crate) fn new(
        chipset: Chipset,
        storage: Arc<Storage>,
        functions: Arc<Functions>,
        control: Arc<Control>,
        trace: Trace,
        recorder: Recorder,
    ) -> Self {
        let map = BOARD.iter().enumerate().filter_map(|(part, line)| match &line.ports {
            Ports::Fixed(ports) => Some(Decoded { first: *ports.start(), last: *ports.end(), part }),
            Ports::Moving(_) => None,
        });
        Bus {
            map: RwLock::new(map.collect()),
            console: chipset.console().clone(),
            chipset: Mutex::new(chipset),
            storage,
            functions,
            control,
            trace,
            recorder,
            order: Mutex::new(()),
            driver_seen: AtomicBool::new(false),
            accesses: Default::default(),
            bad: BadAccesses::default(),
        }
    }

    /// Lets one CPU at a time carry out writes that KVM has kept back: so a CPU that comes later finds them done.
    pub(crate) fn in_order(&self, carry_out: impl FnOnce()) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        carry_out();
    }

    /// The guest reads ports: one access of `width` bytes, or a string instruction's many.
    pub fn io_read(&self, cpu: u8, port: u16, width: usize, data: &mut [u8]) {
        let Some(decoded) = self.find(port) else {
            if !self.function_read(cpu, Space::Io, port.into(), width, data) {
                data.fill(0xff);
                self.bad_pio(port, Direction::Read, Fault::NoRegister);
            }
            return;
        };
        let device = BOARD[decoded.part].device;
        self.accesses[decoded.part].reads.fetch_add(1, Ordering::Relaxed);
        let result = match ide_port(device, port, decoded.first) {
            Some(register) => self.storage.read(register, width, data),
            None => {
                data.chunks_mut(width).try_for_each(|out| self.chipset_read(device, port, decoded.first, out))
            }
        };
        if let Err(fault) = result {
            data.fill(0xff);
            self.bad_pio(port, Direction::Read, fault);
        }
        if self.trace.is_on() {
            self.trace.access(cpu, device.name(), format_args!("{port:x}"), Direction::Read, data);
        }
    }

    /// The guest writes ports, as with [`io_read`](Self::io_read).
    pub fn io_write(&self, cpu: u8, port: u16, width: usize, data: &[u8]) {
        let Some(decoded) = self.find(port) else {
            if !self.function_write(cpu, Space::Io, port.into(), width, data) {
                self.bad_pio(port, Direction::Write, Fault::NoRegister);
            }
            return;
        };
        let device = BOARD[decoded.part].device;
        self.accesses[decoded.part].writes.fetch_add(1, Ordering::Relaxed);
        if self.trace.is_on() {
            self.trace.access(cpu, device.name(), format_args!("{port:x}"), Direction::Write, data);
        }
        if device == Device::IdeBusMaster && !self.driver_seen.swap(true, Ordering::Relaxed) {
            // SeaBIOS reads by PIO: whoever comes here first is the operating system's driver.
            self.recorder.phase("disk driver");
        }
        if device == Device::Uart && port == COM1 {
            // Before any lock: only the CPU that talks waits for a reader, and not when another one ends the machine.
            self.console.wait_for_room(|| self.control.stopping());
        }
        let result = match ide_port(device, port, decoded.first) {
            Some(register) => self.storage.write(register, width, data),
            None => {
                data.chunks(width).try_for_each(|data| self.chipset_write(device, port, decoded.first, data))
            }
        };
        if let Err(fault) = result {
            self.bad_pio(port, Direction::Write, fault);
        }
    }

    /// The guest reads memory that is neither RAM nor mapped, up to 8 bytes.
    pub fn mmio_read(&self, cpu: u8, gpa: u64, data: &mut [u8]) {
        if CHIPSET.contains(&gpa) || !self.function_read(cpu, Space::Memory, gpa, data.len(), data) {
            data.fill(0xff);
            self.bad_mmio(gpa, Direction::Read);
        }
    }

    /// The guest writes such memory, or firmware's.
    pub fn mmio_write(&self, cpu: u8, gpa: u64, data: &[u8]) {
        if CHIPSET.contains(&gpa) || !self.function_write(cpu, Space::Memory, gpa, data.len(), data) {
            self.bad_mmio(gpa, Direction::Write);
        }
    }

    /// Whether a passed-through function answered.
    fn function_read(&self, cpu: u8, space: Space, address: u64, width: usize, data: &mut [u8]) -> bool {
        let Some(found) = self.functions.find(space, address, width) else { return false };
        self.functions.read(found, width, data);
        self.end_without_functions();
        if self.trace.is_on() {
            let register = self.functions.describe(found);
            self.trace.access(cpu, PASSTHROUGH, register, Direction::Read, data);
        }
        true
    }

    /// As [`function_read`](Self::function_read).
    fn function_write(&self, cpu: u8, space: Space, address: u64, width: usize, data: &[u8]) -> bool {
        let Some(found) = self.functions.find(space, address, width) else { return false };
        if self.trace.is_on() {
            let register = self.functions.describe(found);
            self.trace.access(cpu, PASSTHROUGH, register, Direction::Write, data);
        }
        self.functions.write(found, width, data);
        self.end_without_functions();
        true
    }

    /// Accesses to each of the board's devices: name, reads, writes. A string instruction's many count as one.
    pub fn accesses(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        BOARD.iter().zip(&self.accesses).map(|(part, count)| {
            let (reads, writes) = (&count.reads, &count.writes);
            (part.device.name(), reads.load(Ordering::Relaxed), writes.load(Ordering::Relaxed))
        })
    }

    /// Accesses that no device answered.
    pub fn bad_accesses(&self) -> &BadAccesses {
        &self.bad
    }

    /// What firmware does to the chipset before a kernel starts, where there is no firmware: places the power management ports and
    /// routes PCI's interrupts.
    pub(crate) fn initialize_chipset(&self) {
        let write = |device: u32, function: u32, register: u32, data: &[u8]| {
            let address = 1 << 31 | device << 11 | function << 8 | register & !3;
            self.io_write(0, 0xcf8, 4, &address.to_le_bytes());
            self.io_write(0, 0xcfc + (register & 3) as u16, data.len(), data);
        };
        // The base, with the bit that says "I/O ports", and then its enable bit (PIIX4 data sheet, 7.2.2).
        write(1, 3, 0x40, &(u32::from(PM_BASE) | 1).to_le_bytes());
        write(1, 3, 0x80, &[1]);
        for (register, irq) in (0x60..).zip(PIRQS) {
            write(1, 0, register, &[irq]);
        }
    }

    /// The chipset's devices.
    pub(crate) fn chipset(&self) -> MutexGuard<'_, Chipset> {
        self.chipset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, port: u16) -> Option<Decoded> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.iter().find(|entry| (entry.first..=entry.last).contains(&port)).copied()
    }

    fn chipset_read(&self, device: Device, port: u16, first: u16, out: &mut [u8]) -> Result<(), Fault> {
        match device {
            Device::PciConfig if !is_reset_control(port, out.len()) => self.pci_read(port, out),
            Device::Power => self.chipset().read(device, port - first, out, clock::now()),
            _ => self.chipset().read(device, port, out, clock::now()),
        }
    }

    fn chipset_write(&self, device: Device, port: u16, first: u16, data: &[u8]) -> Result<(), Fault> {
        let effect = match device {
            Device::PciConfig if !is_reset_control(port, data.len()) => return self.pci_write(port, data),
            Device::Power => self.chipset().write(device, port - first, data, clock::now())?,
            _ => self.chipset().write(device, port, data, clock::now())?,
        };
        match effect {
            Some(Effect::Reset) => self.control.end(Ending::Reset),
            Some(Effect::PowerOff) => self.control.end(Ending::PowerOff),
            None => {}
        }
        Ok(())
    }

    fn pci_read(&self, port: u16, out: &mut [u8]) -> Result<(), Fault> {
        let chipset = self.chipset();
        match chipset.pci.select(port, out.len())? {
            Selected::Address => {
                for (out, byte) in out.iter_mut().zip(chipset.pci.read_address().to_le_bytes()) {
                    *out = byte;
                }
            }
            Selected::Config(ConfigAddress { bus: 0, device: 0, function: 0, register }) => {
                chipset.host.config().read(register, out);
            }
            Selected::Config(ConfigAddress { bus: 0, device: 1, function: 0, register }) => {
                chipset.isa.config().read(register, out);
            }
            Selected::Config(ConfigAddress { bus: 0, device: 1, function: 1, register }) => {
                self.storage.read_config(register, out);
            }
            Selected::Config(ConfigAddress { bus: 0, device: 1, function: 3, register }) => {
                chipset.power.config().read(register, out);
            }
            Selected::Config(ConfigAddress { bus: 0, device, function, register }) => {
                drop(chipset);
                self.functions.read_config(Address { slot: device, function }, register.into(), out);
                self.end_without_functions();
            }
            // No such bus: that is how guests find out.
            Selected::Config(_) | Selected::Nothing => out.fill(0xff),
        }
        Ok(())
    }

    fn pci_write(&self, port: u16, data: &[u8]) -> Result<(), Fault> {
        let mut chipset = self.chipset();
        match chipset.pci.select(port, data.len())? {
            Selected::Address => {
                let mut address = [0; 4];
                address.copy_from_slice(data);
                chipset.pci.write_address(u32::from_le_bytes(address));
            }
            Selected::Config(ConfigAddress { bus: 0, device: 0, function: 0, register }) => {
                chipset.host.write_config(register, data);
            }
            Selected::Config(ConfigAddress { bus: 0, device: 1, function: 0, register }) => {
                chipset.isa.write_config(register, data);
                drop(chipset);
                // PIRQs may lead elsewhere.
                self.functions.route(|| self.chipset().pirq_routes());
            }
            Selected::Config(ConfigAddress { bus: 0, device: 1, function: 1, register }) => {
                self.storage.write_config(register, data);
                self.place(Device::IdeBusMaster, self.storage.bus_master_base());
            }
            Selected::Config(ConfigAddress { bus: 0, device: 1, function: 3, register }) => {
                if let Some(change) = chipset.write_power_config(register, data) {
                    self.place(Device::Power, change.to);
                }
            }
            Selected::Config(ConfigAddress { bus: 0, device, function, register }) => {
                drop(chipset);
                self.functions.write_config(Address { slot: device, function }, register.into(), data);
                self.end_without_functions();
            }
            Selected::Config(_) | Selected::Nothing => {}
        }
        Ok(())
    }

    /// A moving block of ports now begins at `base`, or nowhere.
    fn place(&self, device: Device, base: Option<u16>) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for (part, line) in BOARD.iter().enumerate().filter(|(_, line)| line.device == device) {
            let Ports::Moving(count) = line.ports else { continue };
            map.retain(|entry| entry.part != part);
            // At the end of the map: what is fixed wins, wherever the guest puts this.
            map.extend(base.map(|first| Decoded { first, last: first.saturating_add(count - 1), part }));
        }
    }

    /// A guest whose hardware is gone can't go on.
    fn end_without_functions(&self) {
        if let Some(why) = self.functions.lost() {
            self.control.end(Ending::Failed(why.to_owned()));
        }
    }

    fn bad_pio(&self, port: u16, direction: Direction, fault: Fault) {
        self.bad.pio.fetch_add(1, Ordering::Relaxed);
        self.bad.count(fault);
        if let Some(held_back) = BAD_ACCESS.admit() {
            tracing::debug!(held_back, "{direction} of port {port:#x}: {fault}");
        }
    }

    fn bad_mmio(&self, gpa: u64, direction: Direction) {
        self.bad.mmio.fetch_add(1, Ordering::Relaxed);
        self.bad.count(Fault::NoRegister);
        if let Some(held_back) = BAD_ACCESS.admit() {
            tracing::debug!(held_back, "{direction} of {gpa:#x}: {}", Fault::NoRegister);
        }
    }
}

/// CF9h read or written as a byte is the PIIX's reset control, which lies between the mechanism's ports.
fn is_reset_control(port: u16, width: usize) -> bool {
    port == 0xcf9 && width == 1
}

/// The controller's name for a port of the storage path.
fn ide_port(device: Device, port: u16, first: u16) -> Option<ide::Port> {
    let offset = (port - first) as u8;
    match device {
        Device::IdeCommand(channel) => Some(ide::Port::Command(channel, offset)),
        Device::IdeControl(channel) => Some(ide::Port::Control(channel)),
        Device::IdeBusMaster => Some(ide::Port::BusMaster(offset)),
        _ => None,
    }
}
