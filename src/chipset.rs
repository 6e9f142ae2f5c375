//! The chipset's devices in one place, behind the board's one lock: everything but the storage path.

use std::array;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kagero_devices::pci::ConfigMechanism;
use kagero_devices::platform::{
    Apm, BaseChange, DebugPort, Effect, FwCfg, HostBridge, I8042, IsaBridge, IsaDma, Power, ResetControl,
    Rtc, SystemControlA,
};
use kagero_devices::register::Fault;
use kagero_devices::time::Instant;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::board::{COM1, Device, RTC_IRQ, SCI_IRQ, UART_IRQ};
use crate::clock::Timer;
use crate::console::Console;
use crate::irq::Lines;
use crate::memory::GuestRam;

/// Registers and bits of the serial port (PC16550D, table II): reading these has no effect.
const MODEM_CONTROL: u16 = 4;
const LOOPBACK: u8 = 1 << 4;
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1 << 0;

/// COM1 raises its interrupt by edges.
pub(crate) struct UartIrq(Arc<Lines>);

impl Trigger for UartIrq {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse(UART_IRQ);
        Ok(())
    }
}

/// What the guest sends goes to the console.
pub(crate) struct ToConsole(Console);

impl Write for ToConsole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What firmware must know of the machine.
pub(crate) struct Facts {
    /// Virtual CPUs.
    pub(crate) cpus: u8,
    /// What firmware finds in its fw_cfg.
    pub(crate) fw_cfg: FwCfg,
    /// Where firmware's log goes.
    pub(crate) log: Option<File>,
    /// The clock of the machine's life before this one: it has a battery.
    pub(crate) rtc: Option<Rtc>,
}

/// The devices. A new machine gets new ones: that is their reset. Only the clock goes on.
pub(crate) struct Chipset {
    pub(crate) pci: ConfigMechanism,
    pub(crate) host: HostBridge,
    pub(crate) isa: IsaBridge,
    pub(crate) power: Power,
    isa_dma: IsaDma,
    i8042: I8042,
    rtc: Rtc,
    system_control: SystemControlA,
    reset_control: ResetControl,
    apm: Apm,
    debug_port: DebugPort,
    fw_cfg: FwCfg,
    uart: Serial<UartIrq, NoEvents, ToConsole>,
    console: Console,
    ram: GuestRam,
    lines: Arc<Lines>,
    log: Option<File>,
    timer: Timer,
}

impl Chipset {
    pub(crate) fn new(
        facts: Facts,
        ram: &GuestRam,
        lines: &Arc<Lines>,
        console: &Console,
        now: Instant,
    ) -> io::Result<Self> {
        let rtc = facts.rtc.unwrap_or_else(|| {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            Rtc::new(unix, now)
        });
        Ok(Chipset {
            pci: ConfigMechanism::new(),
            host: HostBridge::new(),
            isa: IsaBridge::new(),
            power: Power::new(),
            isa_dma: IsaDma::new(),
            i8042: I8042::new(),
            // Whatever the last guest wrote there, firmware reads the machine's own facts.
            rtc: rtc.with_memory(ram.low_end(), ram.above_4g()).with_cpus(facts.cpus),
            system_control: SystemControlA::new(),
            reset_control: ResetControl::new(),
            apm: Apm::new(),
            debug_port: DebugPort::new(),
            fw_cfg: facts.fw_cfg,
            uart: Serial::new(UartIrq(Arc::clone(lines)), ToConsole(console.clone())),
            console: console.clone(),
            ram: ram.clone(),
            lines: Arc::clone(lines),
            log: facts.log,
            timer: Timer::new()?,
        })
    }

    /// One access of `device`; `port` is the port, or for moving blocks the offset from their base.
    pub(crate) fn read(
        &mut self,
        device: Device,
        port: u16,
        out: &mut [u8],
        now: Instant,
    ) -> Result<(), Fault> {
        match device {
            Device::IsaDma => self.isa_dma.read(port, out)?,
            Device::I8042 => {
                self.i8042.read(port, out)?;
                self.settle(now);
            }
            Device::Rtc => {
                self.rtc.read(port, out, now)?;
                self.settle(now);
            }
            Device::SystemControlA => self.system_control.read(out)?,
            Device::Apm => self.apm.read(port, out)?,
            Device::DebugPort => self.debug_port.read(out)?,
            Device::FwCfg => self.fw_cfg.read(port, out)?,
            Device::PciConfig => self.reset_control.read(out)?,
            Device::Power => {
                self.power.read(port, out, now)?;
                self.settle(now);
            }
            Device::Uart => {
                let [byte] = out else { return Err(Fault::Width) };
                *byte = self.uart.read((port - COM1) as u8);
                if port == COM1 {
                    // There may be room for more.
                    self.feed_uart();
                }
            }
            Device::IdeCommand(_) | Device::IdeControl(_) | Device::IdeBusMaster => {
                return Err(Fault::NoRegister);
            }
        }
        Ok(())
    }

    /// As [`read`](Self::read).
    pub(crate) fn write(
        &mut self,
        device: Device,
        port: u16,
        data: &[u8],
        now: Instant,
    ) -> Result<Option<Effect>, Fault> {
        let effect = match device {
            Device::IsaDma => self.isa_dma.write(port, data).map(|()| None),
            Device::I8042 => self.i8042.write(port, data),
            Device::Rtc => self.rtc.write(port, data, now).map(|()| None),
            Device::SystemControlA => self.system_control.write(data),
            Device::Apm => self.apm.write(port, data).map(|()| None),
            Device::DebugPort => {
                self.debug_port.write(data)?;
                self.log_lines();
                Ok(None)
            }
            Device::FwCfg => self.fw_cfg.write(port, data, &self.ram).map(|()| None),
            Device::PciConfig => self.reset_control.write(data),
            Device::Power => self.power.write(port, data, now),
            Device::Uart => {
                let [byte] = data else { return Err(Fault::Width) };
                // The only error is one of the console, which has none.
                let _ = self.uart.write((port - COM1) as u8, *byte);
                if port == COM1 + MODEM_CONTROL {
                    // Out of loopback, it may listen again.
                    self.feed_uart();
                }
                Ok(None)
            }
            Device::IdeCommand(_) | Device::IdeControl(_) | Device::IdeBusMaster => Err(Fault::NoRegister),
        }?;
        if matches!(device, Device::I8042 | Device::Rtc | Device::Power) {
            self.settle(now);
        }
        Ok(effect)
    }

    /// Where PIRQA to PIRQD lead.
    pub(crate) fn pirq_routes(&self) -> [Option<u8>; 4] {
        array::from_fn(|pirq| self.isa.pirq_route(pirq as u8))
    }

    /// Where the serial port leads.
    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// The clock with its memory as the next life of the machine finds it.
    pub(crate) fn clock_after_reset(&self) -> Rtc {
        let mut rtc = self.rtc.clone();
        rtc.reset();
        rtc
    }

    /// A guest's write to the power management function's configuration space: may move its ports.
    pub(crate) fn write_power_config(&mut self, offset: u8, data: &[u8]) -> Option<BaseChange> {
        self.power.write_config(offset, data)
    }

    /// Drives the interrupt lines as the devices want them now.
    fn settle(&mut self, now: Instant) {
        let keyboard = self.i8042.irq();
        self.lines.set(1, keyboard & 1 != 0);
        self.lines.set(12, keyboard & 2 != 0);
        self.lines.set(RTC_IRQ, self.rtc.irq(now));
        self.lines.set(SCI_IRQ, self.power.irq(now));
        let next = [self.rtc.poll_timeout(), self.power.poll_timeout()].into_iter().flatten().min();
        self.timer.wake_at(next, now);
    }

    /// Readable when the devices' time has come: call [`wake`](Self::wake) then.
    pub(crate) fn timer(&self) -> io::Result<OwnedFd> {
        self.timer.waitable()
    }

    /// Looks after what happens by itself: clock interrupts and typed keys.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.timer.clear();
        self.feed_uart();
        self.settle(now);
    }

    /// Moves what was typed into the serial port: a byte, when the port has none.
    ///
    /// The port says "received data" once for all that is put in together, and no more when the guest has read the first byte of it. A 16550
    /// goes on saying so, and there are guests that read a byte for each time they are told.
    fn feed_uart(&mut self) {
        let listens = self.uart.read(MODEM_CONTROL as u8) & LOOPBACK == 0;
        let empty = self.uart.read(LINE_STATUS) & DATA_READY == 0;
        let mut byte = [0];
        // Without room nothing is taken, but the input need not wake us until there is.
        let room = if listens && empty { 1 } else { 0 };
        if self.console.input().read(&mut byte[..room]) > 0 {
            // There is room, and the trigger can't fail.
            let _ = self.uart.enqueue_raw_bytes(&byte);
        }
    }

    fn log_lines(&mut self) {
        while let Some(line) = self.debug_port.poll_line() {
            tracing::debug!(target: "firmware", "{}", String::from_utf8_lossy(&line));
            if let Some(log) = &mut self.log {
                let written = log.write_all(&line).and_then(|()| log.write_all(b"\n"));
                if let Err(error) = written {
                    tracing::warn!("the firmware's log ends here: {error}");
                    self.log = None;
                }
            }
        }
    }
}
