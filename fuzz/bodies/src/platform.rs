//! The chipset, the clock and the other small devices.

use core::ops::RangeInclusive;
use core::time::Duration;

use kagero_devices::platform::{
    Apm, DebugPort, FwCfg, I8042, IsaDma, MemoryKind, MemoryRange, Power, ResetControl, Rtc, SystemControlA,
};
use kagero_devices::register::Fault;
use kagero_devices::time::Instant;

use crate::device::{Device, Surroundings, exercise};
use crate::input::Input;
use crate::pci::Functions;

/// The first byte of `data` chooses a device; the rest says what is done to it.
///
/// # Panics
/// When a device does not keep what it promises; so with all functions of this crate.
pub fn platform(data: &[u8]) {
    let mut input = Input::new(data);
    let device = input.below(10);
    match device {
        0 => exercise(Clock(Rtc::new(input.number(), Instant::ZERO)), input),
        1 => exercise(Firmware::new(), input),
        2 => exercise(Acpi(Power::new()), input),
        3 => exercise(Functions::new(), input),
        4 => exercise(keyboard(), input),
        5 => exercise(small(IsaDma::new(), 0x80..=0x8f, IsaDma::read, IsaDma::write, IsaDma::reset), input),
        6 => exercise(small(Apm::new(), 0xb2..=0xb3, Apm::read, Apm::write, Apm::reset), input),
        7 => exercise(debug_port(), input),
        8 => {
            let (read, write): Access<SystemControlA> =
                (|d, _, out| d.read(out), |d, _, data| d.write(data).map(drop));
            exercise(small(SystemControlA::new(), 0x92..=0x92, read, write, SystemControlA::reset), input);
        }
        _ => {
            let (read, write): Access<ResetControl> =
                (|d, _, out| d.read(out), |d, _, data| d.write(data).map(drop));
            exercise(small(ResetControl::new(), 0xcf9..=0xcf9, read, write, ResetControl::reset), input);
        }
    }
}

/// Most often a port of the range.
fn port_of(ports: &RangeInclusive<u16>, input: &mut Input<'_>) -> u16 {
    let count = ports.end() - ports.start() + 1;
    if input.rarely(16) { input.u16() } else { ports.start() + input.below(count) as u16 }
}

type Read<D> = fn(&mut D, u16, &mut [u8]) -> Result<(), Fault>;
type Write<D> = fn(&mut D, u16, &[u8]) -> Result<(), Fault>;
type Access<D> = (Read<D>, Write<D>);

/// A device that is a few bytes of state.
#[derive(Clone)]
struct Small<D> {
    device: D,
    ports: RangeInclusive<u16>,
    read: Read<D>,
    write: Write<D>,
    reset: fn(&mut D),
    check: fn(&mut D),
}

fn small<D>(
    device: D,
    ports: RangeInclusive<u16>,
    read: Read<D>,
    write: Write<D>,
    reset: fn(&mut D),
) -> Small<D> {
    Small { device, ports, read, write, reset, check: |_| {} }
}

fn keyboard() -> Small<I8042> {
    let (read, write): Access<I8042> = (I8042::read, |d, port, data| d.write(port, data).map(drop));
    let check: fn(&mut I8042) = |device| assert_eq!(device.irq() & !3, 0, "there are two interrupts");
    Small { check, ..small(I8042::new(), 0x60..=0x64, read, write, I8042::reset) }
}

fn debug_port() -> Small<DebugPort> {
    let (read, write): Access<DebugPort> = (|d, _, out| d.read(out), |d, _, data| d.write(data));
    let check: fn(&mut DebugPort) = |device| {
        let line = device.poll_line();
        assert!(line.is_none_or(|line| line.len() <= DebugPort::LONGEST_LINE));
    };
    Small { check, ..small(DebugPort::new(), 0x402..=0x402, read, write, DebugPort::reset) }
}

impl<D: Clone> Device for Small<D> {
    type Port = u16;

    fn port(&self, input: &mut Input<'_>) -> u16 {
        port_of(&self.ports, input)
    }

    fn read(&mut self, port: u16, out: &mut [u8], _: &Surroundings) -> Result<(), Fault> {
        (self.read)(&mut self.device, port, out)
    }

    fn write(&mut self, port: u16, data: &[u8], _: &Surroundings) -> Result<(), Fault> {
        (self.write)(&mut self.device, port, data)
    }

    fn reset(&mut self) {
        (self.reset)(&mut self.device);
    }

    fn check(&mut self, _: &Surroundings) {
        (self.check)(&mut self.device);
    }
}

/// Interrupts that come with time: not before the device said, and never unless it said.
fn check_timeout<D: Clone>(
    device: &mut D,
    now: Instant,
    irq: fn(&mut D, Instant) -> bool,
    timeout: fn(&D) -> Option<Instant>,
) {
    let level = irq(device, now);
    let timeout = timeout(device);
    let end = Instant::from_nanos(u64::MAX);
    assert!(timeout.is_none_or(|timeout| timeout > now || timeout == end), "a time that has passed");
    let quiet = match timeout {
        Some(timeout) => Instant::from_nanos(timeout.as_nanos() - 1),
        None => now + Duration::from_secs(10),
    };
    assert_eq!(irq(&mut device.clone(), quiet), level, "an interrupt that was not announced");
}

#[derive(Clone)]
struct Clock(Rtc);

impl Device for Clock {
    type Port = u16;

    fn port(&self, input: &mut Input<'_>) -> u16 {
        port_of(&(0x70..=0x71), input)
    }

    fn read(&mut self, port: u16, out: &mut [u8], around: &Surroundings) -> Result<(), Fault> {
        self.0.read(port, out, around.now)
    }

    fn write(&mut self, port: u16, data: &[u8], around: &Surroundings) -> Result<(), Fault> {
        self.0.write(port, data, around.now)
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    /// Sets one of the registers that do something.
    fn other(&mut self, input: &mut Input<'_>, around: &Surroundings) {
        let (index, value) = (input.below(0x0e) as u8, input.byte());
        assert_eq!(self.0.write(0x70, &[index], around.now), Ok(()));
        assert_eq!(self.0.write(0x71, &[value], around.now), Ok(()));
    }

    fn check(&mut self, around: &Surroundings) {
        check_timeout(&mut self.0, around.now, Rtc::irq, Rtc::poll_timeout);
    }
}

#[derive(Clone)]
struct Acpi(Power);

impl Device for Acpi {
    type Port = u16;

    fn port(&self, input: &mut Input<'_>) -> u16 {
        port_of(&(0..=15), input)
    }

    fn read(&mut self, port: u16, out: &mut [u8], around: &Surroundings) -> Result<(), Fault> {
        self.0.read(port, out, around.now)
    }

    fn write(&mut self, port: u16, data: &[u8], around: &Surroundings) -> Result<(), Fault> {
        self.0.write(port, data, around.now).map(drop)
    }

    fn reset(&mut self) {
        let before = self.0.io_base();
        let change = self.0.reset();
        assert_eq!(change.is_some(), before.is_some(), "without a base after a reset");
    }

    fn other(&mut self, input: &mut Input<'_>, _: &Surroundings) {
        let before = self.0.io_base();
        match input.below(3) {
            0 => self.0.press_power_button(),
            choice => {
                let offset = if choice == 1 { input.one_of(&[0x40, 0x41, 0x80]) } else { input.byte() };
                match self.0.write_config(offset, input.bytes(4)) {
                    Some(change) => assert_eq!((change.from, change.to), (before, self.0.io_base())),
                    None => assert_eq!(before, self.0.io_base()),
                }
            }
        }
        assert!(self.0.io_base().is_none_or(|base| base.checked_add(Power::IO_SIZE - 1).is_some()));
    }

    fn check(&mut self, around: &Surroundings) {
        check_timeout(&mut self.0, around.now, Power::irq, Power::poll_timeout);
    }
}

/// What firmware may write, and how long it is.
const WRITABLE: (&str, usize) = ("etc/writable", 300);

#[derive(Clone)]
struct Firmware(FwCfg);

impl Firmware {
    fn new() -> Self {
        let ram = MemoryRange { base: 0, len: 1 << 30, kind: MemoryKind::Ram };
        let builder = FwCfg::builder().ram_size(1 << 30).cpus(2).boot_order(&["/rom"]).e820(&[ram]);
        Firmware(builder.file("etc/empty", []).writable_file(WRITABLE.0, vec![7; WRITABLE.1]).build())
    }
}

impl Device for Firmware {
    type Port = u16;

    fn port(&self, input: &mut Input<'_>) -> u16 {
        if input.rarely(2) {
            input.one_of(&[0x510, 0x511, 0x514, 0x518])
        } else {
            port_of(&(0x510..=0x51b), input)
        }
    }

    fn read(&mut self, port: u16, out: &mut [u8], _: &Surroundings) -> Result<(), Fault> {
        self.0.read(port, out)
    }

    fn write(&mut self, port: u16, data: &[u8], around: &Surroundings) -> Result<(), Fault> {
        self.0.write(port, data, &around.mem)
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    /// A DMA request that makes some sense.
    fn other(&mut self, input: &mut Input<'_>, around: &Surroundings) {
        use kagero_devices::memory::DmaMemory;
        let at = u64::from(input.u16());
        let control = u32::from(input.byte() & 0x1f) | u32::from(input.below(0x30) as u16) << 16;
        let length = if input.rarely(4) { input.u32() } else { input.below(256) as u32 };
        let address = if input.rarely(4) { input.u64() } else { input.u16().into() };
        let request = [&control.to_be_bytes()[..], &length.to_be_bytes(), &address.to_be_bytes()].concat();
        assert_eq!(around.mem.write(at, &request), Ok(()));
        assert_eq!(self.0.write(0x514, &0u32.to_be_bytes(), &around.mem), Ok(()));
        assert_eq!(self.0.write(0x518, &(at as u32).to_be_bytes(), &around.mem), Ok(()));
        let mut result = [0; 4];
        assert_eq!(around.mem.read(at, &mut result), Ok(()));
        // Data that was read to where the request lies is overwritten by the result, which comes last.
        assert!(matches!(u32::from_be_bytes(result), 0 | 1), "a request ends well or with an error");
    }

    fn check(&mut self, _: &Surroundings) {
        assert_eq!(self.0.file(WRITABLE.0).map(<[u8]>::len), Some(WRITABLE.1), "lengths are fixed");
    }
}
