//! The real-time clock with its battery-backed memory: an MC146818 at ports 70h and 71h.

use super::{byte, byte_mut};
use crate::register::Fault;
use crate::time::Instant;
use core::time::Duration;

mod calendar;

use calendar::{Calendar, Format};

#[derive(Clone, Copy)]
enum Port {
    Index,
    Data,
}

impl Port {
    fn decode(port: u16) -> Result<Self, Fault> {
        match port {
            0x70 => Ok(Port::Index),
            0x71 => Ok(Port::Data),
            _ => Err(Fault::NoRegister),
        }
    }
}

/// A byte behind the index. The century's place is a convention; the FADT names it.
#[derive(Clone, Copy)]
enum Register {
    Time(calendar::Field),
    Alarm(usize),
    A,
    B,
    C,
    D,
    Ram(usize),
}

impl Register {
    fn decode(index: u8) -> Self {
        use calendar::Field;
        match index & 0x7f {
            0x00 => Register::Time(Field::Second),
            0x02 => Register::Time(Field::Minute),
            0x04 => Register::Time(Field::Hour),
            0x06 => Register::Time(Field::Weekday),
            0x07 => Register::Time(Field::Day),
            0x08 => Register::Time(Field::Month),
            0x09 => Register::Time(Field::Year),
            0x32 => Register::Time(Field::Century),
            0x01 => Register::Alarm(0),
            0x03 => Register::Alarm(1),
            0x05 => Register::Alarm(2),
            0x0a => Register::A,
            0x0b => Register::B,
            0x0c => Register::C,
            0x0d => Register::D,
            other => Register::Ram(other.into()),
        }
    }
}

/// Register A: the divider, the periodic rate, and whether an update is near.
mod a {
    pub(super) const UPDATE_IN_PROGRESS: u8 = 1 << 7;
    /// The divider for a crystal of 32,768 Hz, and 1,024 Hz.
    pub(super) const DEFAULT: u8 = 0x26;
}

/// Register B.
mod b {
    pub(super) const SET: u8 = 1 << 7;
    pub(super) const HOURS_24: u8 = 1 << 1;
    pub(super) const BINARY: u8 = 1 << 2;
}

/// The three reasons for an interrupt: at the same places in registers B (enable) and C (flag).
mod reason {
    pub(super) const PERIODIC: u8 = 1 << 6;
    pub(super) const ALARM: u8 = 1 << 5;
    pub(super) const UPDATE: u8 = 1 << 4;
    pub(super) const ALL: u8 = PERIODIC | ALARM | UPDATE;
}

/// UIP is set so long before an update (MC146818A, table 3).
const UPDATE_AHEAD: Duration = Duration::from_micros(244);
const SECOND: u64 = 1_000_000_000;

/// The clock and its memory.
///
/// After each access compare [`irq`](Self::irq) with the last level of irq 8, and ask [`poll_timeout`](Self::poll_timeout) when to
/// look again.
#[derive(Clone, Debug)]
pub struct Rtc {
    index: u8,
    /// Seconds since 1970 at `origin`.
    unix: i64,
    /// A moment at which a second began.
    origin: Instant,
    /// What the time registers show while register B's SET bit holds them.
    held: Option<Calendar>,
    alarm: [u8; 3],
    a: u8,
    b: u8,
    flags: u8,
    /// Up to when events are in `flags`.
    seen: Instant,
    ram: [u8; 128],
}

impl Rtc {
    /// A clock that shows `unix` seconds since 1970 at `now`, with zeroed memory.
    #[must_use]
    pub fn new(unix: u64, now: Instant) -> Self {
        Self {
            index: 0,
            unix: i64::try_from(unix).unwrap_or(0),
            origin: now,
            held: None,
            alarm: [0; 3],
            a: a::DEFAULT,
            b: b::HOURS_24,
            flags: 0,
            seen: now,
            ram: [0; 128],
        }
    }

    /// Tells firmware of the board: a coprocessor, no floppy drive, and memory: bytes below 4 GiB, from address zero on, and from 4 GiB on.
    #[must_use]
    pub fn with_memory(self, below_4g: u64, above_4g: u64) -> Self {
        let base_kib = (below_4g / 1024).min(640);
        let kib = |limit: u64| (below_4g.saturating_sub(1 << 20) / 1024).min(limit).to_le_bytes();
        let [base_low, base_high, ..] = base_kib.to_le_bytes();
        // Of the memory above 1 MiB: up to 64 MiB in KiB, twice.
        let [extended_low, extended_high, ..] = kib(0xffff);
        // Of that above 16 MiB, and of that above 4 GiB: in units of 64 KiB.
        let [high_low, high_high, ..] = (below_4g.saturating_sub(16 << 20) >> 16).min(0xffff).to_le_bytes();
        let [above_low, above_middle, above_high, ..] = (above_4g >> 16).min(0xff_ffff).to_le_bytes();
        // The equipment: a coprocessor.
        self.with_ram(0x14, &[0x02])
            .with_ram(0x15, &[base_low, base_high, extended_low, extended_high])
            .with_ram(0x30, &[extended_low, extended_high])
            .with_ram(0x34, &[high_low, high_high])
            .with_ram(0x5b, &[above_low, above_middle, above_high])
    }

    /// Tells firmware how many processors to wait for.
    #[must_use]
    pub fn with_cpus(self, cpus: u8) -> Self {
        self.with_ram(0x5f, &[cpus.saturating_sub(1)])
    }

    /// Sets bytes of the memory from `index` on, such as 38h and 3Dh, where SeaBIOS reads the boot order. Places of the clock's
    /// registers don't matter.
    #[must_use]
    pub fn with_ram(mut self, index: u8, bytes: &[u8]) -> Self {
        for (place, byte) in self.ram.iter_mut().skip(index.into()).zip(bytes) {
            *place = *byte;
        }
        self
    }

    /// The RESET line: interrupts are off. Time, alarm and memory have their battery.
    pub fn reset(&mut self) {
        let Self { index, unix: _, origin: _, held: _, alarm: _, a: _, b, flags, seen: _, ram: _ } = self;
        *index = 0;
        *b &= !(reason::ALL | 1 << 3);
        *flags = 0;
    }

    /// Reads `port`. The index cannot be read back: SeaBIOS reads it all the same, and takes ones for "NMIs are masked already".
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at 70h or 71h.
    pub fn read(&mut self, port: u16, out: &mut [u8], now: Instant) -> Result<(), Fault> {
        self.settle(now);
        let out = byte_mut(out)?;
        *out = match Port::decode(port)? {
            Port::Index => 0xff,
            Port::Data => match Register::decode(self.index) {
                Register::Time(field) => self.calendar(now).get(field, self.format()),
                Register::Alarm(which) => self.alarm[which],
                Register::A => self.a | self.update_in_progress(now),
                Register::B => self.b,
                Register::C => {
                    let interrupt = if self.flags & self.b & reason::ALL != 0 { 0x80 } else { 0 };
                    core::mem::take(&mut self.flags) | interrupt
                }
                Register::D => 0x80, // The battery is fine.
                Register::Ram(index) => self.ram.get(index).copied().unwrap_or(0xff),
            },
        };
        Ok(())
    }

    /// Writes `port`. Bit 7 of the index masks NMIs, of which there are none.
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at 70h or 71h.
    pub fn write(&mut self, port: u16, data: &[u8], now: Instant) -> Result<(), Fault> {
        self.settle(now);
        let value = byte(data)?;
        match Port::decode(port)? {
            Port::Index => self.index = value & 0x7f,
            Port::Data => match Register::decode(self.index) {
                Register::Time(field) => {
                    let mut calendar = self.calendar(now);
                    calendar.set(field, value, self.format());
                    match &mut self.held {
                        Some(held) => *held = calendar,
                        None => self.set_clock(calendar, now),
                    }
                }
                Register::Alarm(which) => self.alarm[which] = value,
                Register::A => self.a = value & 0x7f,
                Register::B => self.write_b(value, now),
                Register::C | Register::D => {}
                Register::Ram(index) => {
                    if let Some(place) = self.ram.get_mut(index) {
                        *place = value;
                    }
                }
            },
        }
        Ok(())
    }

    /// The level of irq 8.
    pub fn irq(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.flags & self.b & reason::ALL != 0
    }

    /// When [`irq`](Self::irq) may rise by itself; `None` while nothing is enabled that has not happened already.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.b & !self.flags;
        if self.b & self.flags & reason::ALL != 0 {
            return None;
        }
        let elapsed = (self.seen - self.origin).as_nanos() as u64;
        // An alarm is looked at every second: that is as often as it can come.
        let second = (waits & (reason::UPDATE | reason::ALARM) != 0)
            .then(|| (elapsed / SECOND + 1).saturating_mul(SECOND));
        let period = (waits & reason::PERIODIC != 0).then(|| self.period()).flatten();
        let period = period.map(|halves| {
            let next = periods(elapsed, halves) + 1;
            (next * u128::from(halves) * u128::from(SECOND)).div_ceil(32_768) as u64
        });
        let next = second.into_iter().chain(period).min()?;
        Some(self.origin + Duration::from_nanos(next))
    }

    fn format(&self) -> Format {
        Format { binary: self.b & b::BINARY != 0, hours_24: self.b & b::HOURS_24 != 0 }
    }

    /// The periodic interrupt's period in cycles of 32,768 Hz (MC146818A, table 5).
    fn period(&self) -> Option<u32> {
        match self.a & 0x0f {
            0 => None,
            // The two shortest taps give the rates of the 8th and 9th.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn seconds_at(&self, at: Instant) -> u64 {
        (at - self.origin).as_secs()
    }

    fn calendar(&self, now: Instant) -> Calendar {
        self.held
            .unwrap_or_else(|| Calendar::from_unix(self.unix.saturating_add(self.seconds_at(now) as i64)))
    }

    /// Shows `calendar` from `now` on; the seconds go on beginning when they did.
    fn set_clock(&mut self, calendar: Calendar, now: Instant) {
        self.unix = calendar.to_unix().saturating_sub(self.seconds_at(now) as i64);
    }

    fn update_in_progress(&self, now: Instant) -> u8 {
        let into = (now - self.origin).subsec_nanos();
        let near = u64::from(into) + UPDATE_AHEAD.as_nanos() as u64 >= SECOND;
        if near && self.held.is_none() { a::UPDATE_IN_PROGRESS } else { 0 }
    }

    fn write_b(&mut self, value: u8, now: Instant) {
        if value & b::SET != 0 {
            if self.held.is_none() {
                self.held = Some(self.calendar(now));
            }
            // SET clears the update interrupt's enable (MC146818A, register B).
            self.b = value & !reason::UPDATE;
        } else {
            self.b = value;
            if let Some(calendar) = self.held.take() {
                self.set_clock(calendar, now);
            }
        }
    }

    /// Notes in the flags what has happened up to `now`.
    fn settle(&mut self, now: Instant) {
        let now = now.max(self.seen);
        let (before, after) = (self.seconds_at(self.seen), self.seconds_at(now));
        if after > before && self.held.is_none() {
            self.flags |= reason::UPDATE;
            // After a day every alarm has come.
            let from = before.max(after.saturating_sub(86_400)) + 1;
            if self.flags & reason::ALARM == 0 && (from..=after).any(|second| self.alarm_at(second)) {
                self.flags |= reason::ALARM;
            }
        }
        if let Some(halves) = self.period() {
            let count = |at: Instant| periods((at - self.origin).as_nanos() as u64, halves);
            if count(now) > count(self.seen) {
                self.flags |= reason::PERIODIC;
            }
        }
        self.seen = now;
    }

    /// Alarm bytes of C0h and more match any value.
    fn alarm_at(&self, second: u64) -> bool {
        use calendar::Field;
        let calendar = Calendar::from_unix(self.unix.saturating_add(second as i64));
        let fields = [Field::Second, Field::Minute, Field::Hour];
        fields
            .iter()
            .zip(self.alarm)
            .all(|(&field, alarm)| alarm >= 0xc0 || alarm == calendar.get(field, self.format()))
    }
}

/// How many periods of `cycles` at 32,768 Hz have passed in `nanos`.
fn periods(nanos: u64, cycles: u32) -> u128 {
    u128::from(nanos) * 32_768 / u128::from(SECOND) / u128::from(cycles)
}
