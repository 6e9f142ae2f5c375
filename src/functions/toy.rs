//! A function for tests: registers, ports, memory that is mapped into the guest, and an interrupt. `integration/guests/functions.S` is its driver.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use kagero_devices::pci::{Bar, ConfigSpace, Identity, Message, register};
use kagero_vfio::{Machine, Mapping, Region, Route, Slot};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{read, write};

use super::{Decode, Slotted, Space};

pub(crate) const VENDOR: u16 = 0x1234;
pub(crate) const DEVICE: u16 = 0x4b61;
const MEMORY: u64 = 64 << 10;
/// The register that tells what [`Toy::observing`] sees; as it is read, not before.
const OBSERVED: u64 = 0x20;
/// The register that takes the data of a message, which is sent at once; with 0 it goes nowhere.
const MESSAGE: u64 = 0x30;

pub(crate) struct Toy {
    config: ConfigSpace,
    machine: Arc<dyn Machine>,
    registers: Vec<u8>,
    ports: [u8; 16],
    memory: Arc<Mapping>,
    mapped: Option<Slot>,
    line: Line,
    irq: Option<u8>,
    message: OwnedFd,
    route: Option<Route>,
    observe: Box<dyn Fn() -> u32 + Send>,
}

impl Toy {
    /// BAR 0 is registers, BAR 1 ports, of which the first is the interrupt's level, and BAR 2 memory.
    pub(crate) fn new(machine: Arc<dyn Machine>) -> Self {
        let file = memfd_create("toy", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        let identity = Identity { vendor: VENDOR, device: DEVICE, class: 0xff_00_00, revision: 0 };
        let config = ConfigSpace::new(identity)
            .with_multifunction()
            .with_value(register::INTERRUPT_PIN, &[1])
            .with_bar(0, Bar::Memory32 { size: 4096, prefetchable: false })
            .with_bar(1, Bar::Io { size: 16 })
            .with_bar(2, Bar::Memory64 { size: MEMORY, prefetchable: true });
        Toy {
            config,
            machine,
            registers: vec![0; 4096],
            ports: [0; 16],
            memory: Arc::new(Mapping::new(&file, 0, MEMORY).unwrap()),
            mapped: None,
            line: Line::new(),
            irq: None,
            message: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            route: None,
            observe: Box::new(|| 0),
        }
    }

    /// BAR 4 asks for so much memory, anywhere.
    pub(crate) fn with_large_bar(mut self, size: u64, prefetchable: bool) -> Self {
        self.config = self.config.with_bar(4, Bar::Memory64 { size, prefetchable });
        self
    }

    pub(crate) fn observing(mut self, observe: impl Fn() -> u32 + Send + 'static) -> Self {
        self.observe = Box::new(observe);
        self
    }

    fn send(&mut self, data: u32) {
        let address = if data == 0 { 0 } else { 0xfee0_0000 };
        let message = Message { address, data };
        match self.route {
            Some(route) => self.machine.redirect(route, message).unwrap(),
            None => self.route = Some(self.machine.connect(self.message.as_fd(), message).unwrap()),
        }
        ring(&self.message);
    }

    fn register(&mut self, region: Region, offset: u64, length: usize) -> Option<&mut [u8]> {
        let registers: &mut [u8] = match region {
            Region::Bar(0) => &mut self.registers,
            Region::Bar(1) => &mut self.ports,
            _ => return None,
        };
        registers.get_mut(offset as usize..)?.get_mut(..length)
    }
}

impl Slotted for Toy {
    fn name(&self) -> String {
        "toy".into()
    }

    fn read_config(&mut self, offset: u16, out: &mut [u8]) {
        self.config.read(offset as u8, out);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) -> bool {
        let mut changed = false;
        for change in self.config.write(offset as u8, data) {
            changed = true;
            if change.bar == 2 {
                if let Some(slot) = self.mapped.take() {
                    self.machine.unmap(slot);
                }
                let memory = Arc::clone(&self.memory);
                self.mapped = change.to.and_then(|gpa| self.machine.map(gpa, memory).ok());
            }
        }
        changed
    }

    fn bar(&self, index: u8) -> Option<Bar> {
        self.config.bar(index)
    }

    fn decodes(&self) -> Vec<Decode> {
        let bars = (0..6).filter_map(|bar| Some((bar, self.config.bar(bar)?, self.config.decoded(bar)?)));
        let decode = |(bar, kind, first): (u8, Bar, u64)| {
            let space = if matches!(kind, Bar::Io { .. }) { Space::Io } else { Space::Memory };
            Decode { space, first, length: kind.size(), region: Region::Bar(bar) }
        };
        bars.map(decode).collect()
    }

    fn read(&mut self, region: Region, offset: u64, out: &mut [u8]) {
        if (region, offset) == (Region::Bar(0), OBSERVED) {
            let observed = (self.observe)().to_le_bytes();
            self.registers[OBSERVED as usize..][..4].copy_from_slice(&observed);
        }
        match self.register(region, offset, out.len()) {
            Some(register) => out.copy_from_slice(register),
            None => out.fill(0x5a),
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        if let Some(register) = self.register(region, offset, data.len()) {
            register.copy_from_slice(data);
        }
        if (region, offset) == (Region::Bar(1), 0) {
            self.line.set(data[0] != 0);
        }
        if let (Region::Bar(0), MESSAGE, [vector, ..]) = (region, offset, data) {
            self.send(u32::from(*vector));
        }
    }

    fn pin(&self) -> Option<u8> {
        self.config.byte(register::INTERRUPT_PIN).checked_sub(1)
    }

    fn route_line(&mut self, irq: Option<u8>) {
        let Line { trigger, resample, state, .. } = &self.line;
        if let Some(old) = self.irq.take() {
            self.machine.disconnect_line(old, trigger.as_fd());
        }
        if let Some(irq) = irq {
            self.machine.connect_line(irq, trigger.as_fd(), resample.as_fd()).unwrap();
            self.irq = Some(irq);
            if lock(state).level {
                ring(trigger);
            }
        }
    }

    fn reset(&mut self) {
        if let Some(slot) = self.mapped.take() {
            self.machine.unmap(slot);
        }
        if let Some(route) = self.route.take() {
            self.machine.disconnect(route, self.message.as_fd());
        }
        self.line.set(false);
        for _moved in self.config.reset() {}
    }
}

/// An interrupt line that rings again when it was served and is still raised.
struct Line {
    trigger: Arc<OwnedFd>,
    resample: Arc<OwnedFd>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    level: bool,
    ended: bool,
}

impl Line {
    fn new() -> Self {
        let event = || Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let (trigger, resample, state) = (event(), event(), Arc::<Mutex<State>>::default());
        let served = {
            let (trigger, resample, state) =
                (Arc::clone(&trigger), Arc::clone(&resample), Arc::clone(&state));
            move || {
                loop {
                    read(&resample, &mut [0; 8]).unwrap();
                    match *lock(&state) {
                        State { ended: true, .. } => return,
                        State { level: true, .. } => ring(&trigger),
                        State { .. } => {}
                    }
                }
            }
        };
        Line { trigger, resample, state, thread: Some(std::thread::spawn(served)) }
    }

    fn set(&self, level: bool) {
        let mut state = lock(&self.state);
        if level && !state.level {
            ring(&self.trigger);
        }
        state.level = level;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.state).ended = true;
        ring(&self.resample);
        self.thread.take().map(JoinHandle::join);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

fn ring(event: &OwnedFd) {
    write(event, &1u64.to_ne_bytes()).unwrap();
}
