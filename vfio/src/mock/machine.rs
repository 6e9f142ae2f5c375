//! A guest's machine that notes what it is asked for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use kagero_devices::pci::{Message, ROM};

use super::{Bench, Event, Mapped};
use crate::{Interrupt, Machine, Mapping, Route, Slot};

pub(super) struct MockMachine(pub(super) Bench);

impl Machine for MockMachine {
    fn map(&self, gpa: u64, memory: Arc<Mapping>) -> io::Result<Slot> {
        let mut state = self.0.state();
        state.call()?;
        // Of other hardware's memory it is not known.
        let known = state.areas.get(&memory.address()).copied().unwrap_or_default();
        let (bar, start) = if memory.is_read_only() { (ROM, 0) } else { known };
        let length = memory.length();
        let overlaps = |other: &Mapped| gpa < other.gpa + other.length && other.gpa < gpa + length;
        if state.slots.values().any(overlaps) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // The addresses that a CPU has.
        if gpa >> 46 != 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let slot = state.next;
        state.next += 1;
        state.slots.insert(slot, Mapped { gpa, length, bar, start });
        state.note(format!("map BAR {bar} + {start:#x} at {gpa:#x}"));
        Ok(Slot(slot))
    }

    fn unmap(&self, slot: Slot) {
        let mut state = self.0.state();
        match state.slots.remove(&slot.0) {
            Some(Mapped { gpa, .. }) => state.note(format!("unmap {gpa:#x}")),
            None => drop(state.mistake("unmapped what is not mapped")),
        }
    }

    fn connect(&self, event: BorrowedFd<'_>, message: Message) -> io::Result<Route> {
        let mut state = self.0.state();
        state.call()?;
        let event = Event::new(event)?;
        if state.routes.values().any(|(other, _)| other.fd == event.fd) {
            return Err(state.mistake("connected an event twice"));
        }
        // As KVM does.
        if event.take() {
            state.received.push(message);
        }
        let route = state.next;
        state.next += 1;
        state.note(format!("connect {:#x}", message.data));
        state.routes.insert(route, (event, message));
        Ok(Route(route))
    }

    fn redirect(&self, route: Route, message: Message) -> io::Result<()> {
        let mut state = self.0.state();
        state.call()?;
        let Some((_, now)) = state.routes.get_mut(&route.0) else {
            return Err(state.mistake("redirected what is not connected"));
        };
        let before = std::mem::replace(now, message);
        state.note(format!("redirect {:#x} to {:#x}", before.data, message.data));
        Ok(())
    }

    fn disconnect(&self, route: Route, event: BorrowedFd<'_>) {
        let mut state = self.0.state();
        match state.routes.remove(&route.0) {
            Some((was, message)) if was.fd == event.as_raw_fd() => {
                state.note(format!("disconnect {:#x}", message.data));
            }
            _ => drop(state.mistake("disconnected what is not connected")),
        }
    }

    fn connect_line(&self, irq: u8, trigger: BorrowedFd<'_>, resample: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.0.state();
        state.call()?;
        state.note(format!("connect line {irq}"));
        if state.mode == Some(Interrupt::Intx) && !state.line_masked {
            drop(state.mistake("connected a line that was not masked"));
        }
        let events = (Event::new(trigger)?, Event::new(resample)?);
        if state.lines.insert(irq, events).is_some() {
            return Err(state.mistake("connected a line twice"));
        }
        Ok(())
    }

    fn disconnect_line(&self, irq: u8, trigger: BorrowedFd<'_>) {
        let mut state = self.0.state();
        match state.lines.remove(&irq) {
            Some((was, _)) if was.fd == trigger.as_raw_fd() => state.note(format!("disconnect line {irq}")),
            _ => drop(state.mistake("disconnected a line that is not connected")),
        }
    }
}
