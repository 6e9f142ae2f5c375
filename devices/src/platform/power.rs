//! The 82371AB (PIIX4) power management function, 01.3: ACPI's fixed hardware.

use super::Effect;
use crate::pci::{ConfigSpace, Identity};
use crate::register::Fault;
use crate::time::Instant;

/// A register of the I/O block, and which of its bytes.
#[derive(Clone, Copy)]
enum Register {
    Status(u8),
    Enable(u8),
    Control(u8),
    Timer(u8),
}

impl Register {
    /// By offset from the block's base (ACPI 6.5, 4.8.3; the PIIX4 has them in this order).
    fn decode(offset: u16) -> Option<Self> {
        match offset {
            0..=1 => Some(Register::Status(offset as u8)),
            2..=3 => Some(Register::Enable(offset as u8 - 2)),
            4..=5 => Some(Register::Control(offset as u8 - 4)),
            8..=11 => Some(Register::Timer(offset as u8 - 8)),
            _ => None,
        }
    }

    /// The bytes of an access, which must begin in a register; reserved bytes behind it are `None`.
    fn bytes(offset: u16, width: usize) -> Result<impl Iterator<Item = Option<Self>>, Fault> {
        if !matches!(width, 1 | 2 | 4) {
            return Err(Fault::Width);
        }
        Self::decode(offset).ok_or(Fault::NoRegister)?;
        Ok((0..width as u16).map(move |i| Self::decode(offset.saturating_add(i))))
    }
}

/// Bits that PM1 Status and PM1 Enable share.
mod event {
    pub(super) const TIMER: u16 = 1 << 0;
    pub(super) const GLOBAL: u16 = 1 << 5;
    pub(super) const POWER_BUTTON: u16 = 1 << 8;
    pub(super) const RTC: u16 = 1 << 10;
    pub(super) const ALL: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC;
}

/// Bits of PM1 Control.
mod control {
    pub(super) const SCI_ENABLE: u16 = 1 << 0;
    pub(super) const BUS_MASTER_RELOAD: u16 = 1 << 1;
    pub(super) const SLEEP_TYPE: u16 = 0b111 << 10;
    pub(super) const SLEEP_ENABLE: u16 = 1 << 13;
}

/// The function decodes its I/O block elsewhere than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChange {
    /// First port before; `None` when it was not decoded.
    pub from: Option<u16>,
    /// First port now.
    pub to: Option<u16>,
}

/// The power management function: PM1 event and control registers and the PM timer.
///
/// The machine is always in ACPI mode: SCI_EN is fixed to one, as ACPI wants it where SMI_CMD is zero. There is no
/// System Management Mode, no general-purpose event and no SMBus.
#[derive(Clone, Debug)]
pub struct Power {
    config: ConfigSpace,
    status: u16,
    enable: u16,
    control: u16,
    /// Up to when the timer's overflows are in `status`.
    seen: Instant,
}

impl Power {
    /// Ports in the I/O block.
    pub const IO_SIZE: u16 = 64;
    /// The PM timer's frequency in Hz (ACPI 6.5, 4.8.2.1).
    pub const TIMER_HZ: u64 = 3_579_545;
    /// The sleep type that switches off: the value for `_S5`. SeaBIOS writes it without looking.
    pub const SLEEP_TYPE_OFF: u8 = 0;

    const TIMER_BITS: u32 = 24;
    const PMBASE: u8 = 0x40;
    const DEVACTB: u8 = 0x58;
    const PMREGMISC: u8 = 0x80;
    const SMBBASE: u8 = 0x90;

    /// As after power-on: the I/O block is not decoded.
    #[must_use]
    pub fn new() -> Self {
        let config =
            ConfigSpace::new(Identity { vendor: 0x8086, device: 0x7113, class: 0x06_80_00, revision: 3 })
                .with_subsystem(0x1af4, 0x1100)
                .with_value(0x06, &[0x80, 0x02])
                // No interrupt pin: the SCI is irq 9 by itself, and there is no SMBus to interrupt.
                .with_value(Self::PMBASE, &[0x01])
                .with_writable(Self::PMBASE, &[0xc0, 0xff])
                // APMC_EN: SeaBIOS takes it as the sign that System Management Mode has been set up, and leaves it alone.
                .with_value(Self::DEVACTB, &[0, 0, 0, 0x02])
                .with_writable(Self::PMREGMISC, &[0x01])
                .with_value(Self::SMBBASE, &[0x01])
                // SMBHSTCFG at D2h stays zero: Linux would wait for the answers of an SMBus that was enabled.
                .with_writable(Self::SMBBASE, &[0xf0, 0xff]);
        Self { config, status: 0, enable: 0, control: control::SCI_ENABLE, seen: Instant::ZERO }
    }

    /// Back to the state after power-on, the timer excepted: it runs on.
    pub fn reset(&mut self) -> Option<BaseChange> {
        self.change(|Self { config, status, enable, control, seen: _ }| {
            let _no_bars = config.reset();
            *status = 0;
            *enable = 0;
            *control = control::SCI_ENABLE;
        })
    }

    /// The configuration space, to read.
    #[must_use]
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// A guest's write to the configuration space. The base lies at 40h and is enabled by bit 0 of 80h.
    pub fn write_config(&mut self, offset: u8, data: &[u8]) -> Option<BaseChange> {
        self.change(|power| {
            let _no_bars = power.config.write(offset, data);
        })
    }

    /// The first port of the I/O block, while it is decoded.
    #[must_use]
    pub fn io_base(&self) -> Option<u16> {
        let base = self.config.word(Self::PMBASE) & 0xffc0;
        (self.config.byte(Self::PMREGMISC) & 1 != 0 && base != 0).then_some(base)
    }

    /// Reads at `offset` from the base. Any width up to four bytes; the timer is read whole or not at all by those who care.
    ///
    /// # Errors
    /// [`Fault`] where there is no register.
    pub fn read(&mut self, offset: u16, out: &mut [u8], now: Instant) -> Result<(), Fault> {
        self.settle(now);
        let timer = (ticks(now) as u32) & ((1 << Self::TIMER_BITS) - 1);
        for (register, byte) in Register::bytes(offset, out.len())?.zip(out) {
            *byte = match register {
                Some(Register::Status(lane)) => self.status.to_le_bytes()[usize::from(lane)],
                Some(Register::Enable(lane)) => self.enable.to_le_bytes()[usize::from(lane)],
                Some(Register::Control(lane)) => self.control.to_le_bytes()[usize::from(lane)],
                Some(Register::Timer(lane)) => timer.to_le_bytes()[usize::from(lane)],
                None => 0,
            };
        }
        Ok(())
    }

    /// Writes at `offset` from the base.
    ///
    /// # Errors
    /// [`Fault`] where there is no register.
    pub fn write(&mut self, offset: u16, data: &[u8], now: Instant) -> Result<Option<Effect>, Fault> {
        self.settle(now);
        let mut effect = None;
        for (register, value) in Register::bytes(offset, data.len())?.zip(data) {
            let value = u16::from(*value);
            match register {
                Some(Register::Status(lane)) => self.status &= !(value << (8 * lane)),
                Some(Register::Enable(lane)) => {
                    self.enable = with_lane(self.enable, lane, value) & event::ALL
                }
                Some(Register::Control(lane)) => {
                    let written = with_lane(self.control, lane, value);
                    self.control =
                        (written & (control::BUS_MASTER_RELOAD | control::SLEEP_TYPE)) | control::SCI_ENABLE;
                    let kind = (written & control::SLEEP_TYPE) >> 10;
                    if written & control::SLEEP_ENABLE != 0 && kind == u16::from(Self::SLEEP_TYPE_OFF) {
                        effect = Some(Effect::PowerOff);
                    }
                }
                Some(Register::Timer(_)) | None => {} // Read only.
            }
        }
        Ok(effect)
    }

    /// Someone pressed the power button: an operating system that listens shuts down.
    pub fn press_power_button(&mut self) {
        self.status |= event::POWER_BUTTON;
    }

    /// The System Control Interrupt, irq 9, level triggered and active high.
    pub fn irq(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.status & self.enable != 0
    }

    /// When [`irq`](Self::irq) may rise by itself: the timer's next overflow, if the guest wants to hear of it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.enable & event::TIMER != 0 && self.status & event::TIMER == 0;
        waiting.then(|| {
            let next = ((ticks(self.seen) >> (Self::TIMER_BITS - 1)) + 1) << (Self::TIMER_BITS - 1);
            let nanos = (u128::from(next) * 1_000_000_000).div_ceil(u128::from(Self::TIMER_HZ));
            Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        })
    }

    /// TMR_STS is set whenever the timer's highest bit changes (ACPI 6.5, 4.8.3.1.1).
    fn settle(&mut self, now: Instant) {
        let half_turns = |at| ticks(at) >> (Self::TIMER_BITS - 1);
        if half_turns(now) > half_turns(self.seen) {
            self.status |= event::TIMER;
        }
        self.seen = self.seen.max(now);
    }

    fn change(&mut self, edit: impl FnOnce(&mut Self)) -> Option<BaseChange> {
        let from = self.io_base();
        edit(self);
        let to = self.io_base();
        (from != to).then_some(BaseChange { from, to })
    }
}

impl Default for Power {
    fn default() -> Self {
        Self::new()
    }
}

/// PM timer ticks since the clock's origin.
fn ticks(at: Instant) -> u64 {
    let ticks = u128::from(at.as_nanos()) * u128::from(Power::TIMER_HZ) / 1_000_000_000;
    ticks as u64 // At most 2^64 / 279.
}

fn with_lane(register: u16, lane: u8, value: u16) -> u16 {
    (register & !(0xff << (8 * lane))) | (value << (8 * lane))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const START: Instant = Instant::ZERO;

    fn read16(power: &mut Power, offset: u16, now: Instant) -> u16 {
        let mut out = [0; 2];
        power.read(offset, &mut out, now).unwrap();
        u16::from_le_bytes(out)
    }

    #[test]
    fn firmware_moves_the_block() {
        let mut power = Power::new();
        assert_eq!(power.write_config(0x40, &0x601u32.to_le_bytes()), None);
        assert_eq!(power.write_config(0x80, &[1]), Some(BaseChange { from: None, to: Some(0x600) }));
        assert_eq!(power.config().dword(0x40), 0x601);
        assert_eq!(power.reset(), Some(BaseChange { from: Some(0x600), to: None }));
    }

    #[test]
    fn switches_off_by_sleep_type_five() {
        let mut power = Power::new();
        assert_eq!(read16(&mut power, 4, START), 1);
        assert_eq!(power.write(4, &0x2400u16.to_le_bytes(), START), Ok(None), "another sleep state");
        assert_eq!(power.write(4, &0x0000u16.to_le_bytes(), START), Ok(None));
        assert_eq!(read16(&mut power, 4, START), 1, "always in ACPI mode");
        assert_eq!(power.write(4, &0x2000u16.to_le_bytes(), START), Ok(Some(Effect::PowerOff)));
        assert_eq!(power.write(5, &[0x20], START), Ok(Some(Effect::PowerOff)));
    }

    #[test]
    fn timer_counts_and_overflows() {
        let mut power = Power::new();
        let mut out = [0; 4];
        power.read(8, &mut out, START + Duration::from_secs(1)).unwrap();
        assert_eq!(u32::from_le_bytes(out), 3_579_545);
        power.write(2, &[1, 0], START).unwrap();
        let overflow = power.poll_timeout().unwrap();
        assert_eq!(overflow.as_nanos() / 1_000_000, 2_343, "2^23 ticks");
        assert!(!power.irq(Instant::from_nanos(overflow.as_nanos() - 1)));
        assert!(power.irq(overflow));
        assert_eq!(power.poll_timeout(), None);
        power.write(0, &[1, 0], overflow).unwrap();
        assert!(!power.irq(overflow));
        power.read(8, &mut out, overflow + Duration::from_secs(10)).unwrap();
        assert!(u32::from_le_bytes(out) < 1 << 24);
        assert!(power.irq(overflow + Duration::from_secs(10)));
    }

    #[test]
    fn power_button_interrupts() {
        let mut power = Power::new();
        power.press_power_button();
        assert!(!power.irq(START));
        power.write(0, &[0, 0, 0, 1], START).unwrap();
        assert!(power.irq(START));
        assert_eq!(read16(&mut power, 0, START), 0x100);
        power.write(1, &[1], START).unwrap();
        assert!(!power.irq(START));
    }

    #[test]
    fn bad_accesses() {
        let mut power = Power::new();
        assert_eq!(power.read(6, &mut [0; 2], START), Err(Fault::NoRegister));
        assert_eq!(power.read(12, &mut [0; 4], START), Err(Fault::NoRegister));
        let mut out = [0xff; 4];
        assert_eq!(power.read(4, &mut out, START), Ok(()));
        assert_eq!(out, [1, 0, 0, 0]);
        assert_eq!(power.read(8, &mut [0; 3], START), Err(Fault::Width));
        assert_eq!(power.write(0xffff, &[0; 2], START), Err(Fault::NoRegister));
    }
}
