//! A function that notes what is asked of it, and is as strict as VFIO is.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use kagero_devices::pci::{Bar, command, register};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;

use super::{Bench, Event, Spec, State};
use crate::{Hardware, Interrupt, Mapping, Region, Rung};

#[derive(Debug)]
pub(super) struct MockHardware {
    spec: Spec,
    config: Mutex<Vec<u8>>,
    bench: Bench,
}

impl MockHardware {
    pub(super) fn new(spec: Spec, bench: Bench) -> Self {
        MockHardware { config: Mutex::new(spec.config.clone()), spec, bench }
    }

    /// Linux arms messages as `vfio_pci_set_msi_trigger` does.
    fn ring_messages(
        &self,
        state: &mut State,
        kind: Interrupt,
        (first, events): (u32, &[Option<BorrowedFd<'_>>]),
    ) -> io::Result<Rung> {
        let end = first + events.len() as u32;
        if end > self.vectors(kind) {
            return Err(state.mistake(format!("{kind:?} has no vector {}", end - 1)));
        }
        if state.mode != Some(kind) {
            if kind == Interrupt::Msi && end > self.spec.msi_limit {
                return Ok(Rung::AtMost(self.spec.msi_limit));
            }
            state.enabled = end;
            state.mode = Some(kind);
        } else if end > state.enabled && !(kind == Interrupt::MsiX && self.spec.grows) {
            return Err(state.mistake(format!("{kind:?} can't grow to vector {}", end - 1)));
        }
        for (vector, event) in (first..).zip(events) {
            state.rings.remove(&(kind, vector));
            if let Some(event) = event {
                state.rings.insert((kind, vector), Event::new(*event)?);
            }
        }
        Ok(Rung::All)
    }
}

impl Hardware for MockHardware {
    fn name(&self) -> &str {
        "0000:03:00.0"
    }

    fn size(&self, region: Region) -> u64 {
        match region {
            Region::Config => self.spec.config.len() as u64,
            Region::Bar(bar) => self.bar(bar).map_or(0, Bar::size),
            Region::Rom => self.spec.rom,
        }
    }

    fn bar(&self, index: u8) -> Option<Bar> {
        *self.spec.bars.get(usize::from(index))?
    }

    fn read(&self, region: Region, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0xff);
        let mut state = self.bench.state();
        state.call()?;
        if offset + out.len() as u64 > self.size(region) {
            return Err(state.mistake(format!("{region:?} has no register {offset:#x}")));
        }
        if region != Region::Config {
            state.note(format!("read {region:?} {offset:#x}"));
            out.fill(0x5a);
            return Ok(());
        }
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        out.copy_from_slice(&config[offset as usize..][..out.len()]);
        Ok(())
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.bench.state();
        state.call()?;
        if offset + data.len() as u64 > self.size(region) {
            return Err(state.mistake(format!("{region:?} has no register {offset:#x}")));
        }
        state.note(format!("write {region:?} {offset:#x} {data:02x?}"));
        if region == Region::Config {
            let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
            config[offset as usize..][..data.len()].copy_from_slice(data);
            let on = u16::from(config[usize::from(register::COMMAND)]) & command::MEMORY != 0;
            if !on && !state.slots.is_empty() {
                drop(state.mistake("took mapped registers away from under the guest"));
            }
        }
        Ok(())
    }

    fn areas(&self, bar: u8) -> Vec<Range<u64>> {
        self.spec.areas.iter().filter(|(of, _)| *of == bar).map(|(_, area)| area.clone()).collect()
    }

    fn map(&self, bar: u8, area: Range<u64>) -> io::Result<Mapping> {
        let mut state = self.bench.state();
        state.call()?;
        let file = memfd_create("registers", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, area.end)?;
        let mapping = Mapping::new(&file, area.start, area.end - area.start)?;
        state.areas.insert(mapping.address(), (bar, area.start));
        Ok(mapping)
    }

    fn vectors(&self, kind: Interrupt) -> u32 {
        match kind {
            Interrupt::Intx => self.spec.intx.into(),
            Interrupt::Msi => self.spec.msi,
            Interrupt::MsiX => self.spec.msix,
            Interrupt::Error | Interrupt::Request => 1,
        }
    }

    fn grows(&self) -> bool {
        self.spec.grows
    }

    fn ring(&self, kind: Interrupt, first: u32, events: &[Option<BorrowedFd<'_>>]) -> io::Result<Rung> {
        let mut state = self.bench.state();
        state.call()?;
        let which: String = events.iter().map(|event| if event.is_some() { '*' } else { '-' }).collect();
        state.note(format!("ring {kind:?} {first} {which}"));
        match kind {
            Interrupt::Error | Interrupt::Request => Ok(Rung::All),
            _ if state.mode.is_some_and(|mode| mode != kind) => {
                Err(state.mistake(format!("{kind:?} while another kind is on")))
            }
            Interrupt::Intx => {
                let [Some(event)] = events else { return Err(state.mistake("the pin is one")) };
                state.mode = Some(kind);
                state.line_masked = false;
                state.rings.insert((kind, 0), Event::new(*event)?);
                Ok(Rung::All)
            }
            Interrupt::Msi | Interrupt::MsiX => self.ring_messages(&mut state, kind, (first, events)),
        }
    }

    fn silence(&self, kind: Interrupt) -> io::Result<()> {
        let mut state = self.bench.state();
        state.call()?;
        state.note(format!("silence {kind:?}"));
        if state.mode != Some(kind) {
            return Err(state.mistake(format!("silenced {kind:?}, which is not on")));
        }
        state.mode = None;
        state.rings.clear();
        state.unmasked_by = None;
        Ok(())
    }

    fn mask_line(&self, masked: bool) -> io::Result<()> {
        let mut state = self.bench.state();
        state.call()?;
        state.note(format!("{} line", if masked { "mask" } else { "unmask" }));
        if state.mode != Some(Interrupt::Intx) {
            return Err(state.mistake("masked a line that is not on"));
        }
        state.line_masked = masked;
        Ok(())
    }

    fn unmask_line_on(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.bench.state();
        state.call()?;
        state.note("unmask line on event".to_owned());
        if state.unmasked_by.is_some() {
            // As the kernel says it.
            return Err(Errno::BUSY.into());
        }
        let resamples = state.lines.values().any(|(_, resample)| resample.fd == event.as_raw_fd());
        state.unmasked_by = Some(Event::new(event)?);
        if resamples { Ok(()) } else { Err(state.mistake("an event that no line resamples")) }
    }

    fn reset(&self) -> io::Result<()> {
        let mut state = self.bench.state();
        state.call()?;
        if !self.spec.reset {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.note("reset".to_owned());
        Ok(())
    }

    fn reset_bus(&self) -> io::Result<()> {
        let mut state = self.bench.state();
        state.call()?;
        if !self.spec.bus_reset {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.note("reset bus".to_owned());
        Ok(())
    }
}
