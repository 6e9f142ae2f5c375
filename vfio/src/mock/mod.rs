//! Hardware and a machine that exist in memory only.
//!
//! They behave as the kernel does where it is strict, write down what is asked of them and in which order, and fail when told to.

mod function;
mod hardware;
mod machine;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kagero_devices::pci::Message;

use crate::{Hardware, Interrupt, Machine};

pub use function::Spec;

/// An event that somebody else has too.
#[derive(Debug)]
struct Event {
    /// By what the other one calls it, it is known again.
    fd: RawFd,
    copy: OwnedFd,
}

impl Event {
    fn new(event: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Event { fd: event.as_raw_fd(), copy: event.try_clone_to_owned()? })
    }

    /// Whether it has rung; it is reset then.
    fn take(&self) -> bool {
        rustix::io::read(&self.copy, &mut [0; 8]).is_ok()
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.copy, &1u64.to_ne_bytes());
    }
}

/// Memory that the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapped {
    /// Where.
    pub gpa: u64,
    /// Bytes.
    pub length: u64,
    /// What: a BAR, or the ROM as BAR 6,
    pub bar: u8,
    /// and how far into it.
    pub start: u64,
}

#[derive(Debug, Default)]
struct State {
    journal: Vec<String>,
    mistakes: Vec<String>,
    /// Calls until one fails, and whether all fail from then on.
    fails: Option<(u32, bool)>,
    // The hardware's.
    areas: BTreeMap<u64, (u8, u64)>,
    mode: Option<Interrupt>,
    enabled: u32,
    rings: BTreeMap<(Interrupt, u32), Event>,
    unmasked_by: Option<Event>,
    line_masked: bool,
    // The machine's.
    slots: BTreeMap<u32, Mapped>,
    routes: BTreeMap<u32, (Event, Message)>,
    /// What rings it, and what it rings when the guest has served it.
    lines: BTreeMap<u8, (Event, Event)>,
    next: u32,
    received: Vec<Message>,
}

impl State {
    fn note(&mut self, line: String) {
        self.journal.push(line);
    }

    fn mistake(&mut self, line: impl Into<String>) -> io::Error {
        self.mistakes.push(line.into());
        io::ErrorKind::InvalidInput.into()
    }

    /// The end of a call that may fail.
    fn call(&mut self) -> io::Result<()> {
        match &mut self.fails {
            Some((0, for_good)) => {
                if !*for_good {
                    self.fails = None;
                }
                Err(rustix::io::Errno::NODEV.into())
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Where mocks stand, and what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Bench(Arc<Mutex<State>>);

impl Bench {
    /// Without hardware yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A function like this. There is one on a bench.
    #[must_use]
    pub fn hardware(&self, spec: Spec) -> Box<dyn Hardware> {
        Box::new(hardware::MockHardware::new(spec, self.clone()))
    }

    /// The guest's machine.
    #[must_use]
    pub fn machine(&self) -> Arc<dyn Machine> {
        Arc::new(machine::MockMachine(self.clone()))
    }

    /// What happened since the last time, a line each.
    #[must_use]
    pub fn take_journal(&self) -> Vec<String> {
        std::mem::take(&mut self.state().journal)
    }

    /// What the kernel would not have allowed, or a guest not have survived.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        self.state().mistakes.clone()
    }

    /// After so many more calls one fails, and when `for_good` all after it: the function is gone.
    pub fn fail_after(&self, calls: u32, for_good: bool) {
        self.state().fails = Some((calls, for_good));
    }

    /// All calls work again.
    pub fn mend(&self) {
        self.state().fails = None;
    }

    /// What the guest finds without an exit, by address.
    #[must_use]
    pub fn mapped(&self) -> Vec<Mapped> {
        let mut mapped: Vec<_> = self.state().slots.values().copied().collect();
        mapped.sort_unstable();
        mapped
    }

    /// The vectors of a kind that ring an event.
    #[must_use]
    pub fn ringing(&self, kind: Interrupt) -> Vec<u32> {
        self.state().rings.keys().filter(|(of, _)| *of == kind).map(|&(_, vector)| vector).collect()
    }

    /// The messages that are connected.
    #[must_use]
    pub fn connected(&self) -> Vec<Message> {
        self.state().routes.values().map(|&(_, message)| message).collect()
    }

    /// The line that the pin is connected to.
    #[must_use]
    pub fn line(&self) -> Option<u8> {
        self.state().lines.keys().next().copied()
    }

    /// The hardware raises an interrupt; whether it could.
    pub fn raise(&self, kind: Interrupt, vector: u32) -> bool {
        let mut state = self.state();
        let Some(event) = state.rings.get(&(kind, vector)) else { return false };
        event.ring();
        let fd = event.fd;
        let heard = state.routes.values().find(|(route, _)| route.fd == fd);
        if let Some(message) = heard.filter(|(event, _)| event.take()).map(|&(_, message)| message) {
            state.received.push(message);
        }
        true
    }

    /// The messages that the guest got since the last time.
    #[must_use]
    pub fn take_received(&self) -> Vec<Message> {
        let mut state = self.state();
        // Other hardware than the mock rings its events without a word to us.
        let rung: Vec<_> =
            state.routes.values().filter(|(event, _)| event.take()).map(|route| route.1).collect();
        state.received.extend(rung);
        std::mem::take(&mut state.received)
    }

    /// Whether the pin has rung since the last time. The guest serves it then, so that it may ring again.
    #[must_use]
    pub fn serve_line(&self) -> bool {
        let state = self.state();
        let mut rung = state.lines.values().filter(|(trigger, _)| trigger.take());
        rung.next().inspect(|(_, resample)| resample.ring()).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
