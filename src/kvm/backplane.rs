//! Where passed-through functions meet the guest's machine, whichever machine it is: a reset makes a new one, the functions stay.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError, RwLock};

use kagero_devices::pci::Message;
use kagero_vfio::{Machine, Mapping, Route, Slot};

use super::Vm;
use super::routes::Routes;
use super::slots::Slots;

/// The machine as its functions see it: memory slots, and events that become interrupts.
///
/// Functions give back all that they have when they are reset. So that must happen before the machine is unplugged; then what they
/// hold never belongs to another machine than they think. Its lock and those below it are leaves.
#[derive(Default)]
pub struct Backplane {
    plugged: RwLock<Option<Plugged>>,
}

#[derive(Clone)]
struct Plugged {
    slots: Arc<Slots>,
    routes: Arc<Routes>,
}

impl Backplane {
    /// Without a machine: nothing can be mapped or connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This is the machine from now on.
    pub fn plug(&self, vm: &Vm) {
        let plugged = Plugged { slots: Arc::clone(&vm.slots), routes: Arc::clone(&vm.routes) };
        self.set(Some(plugged));
    }

    /// The machine goes.
    pub fn unplug(&self) {
        self.set(None);
    }

    fn set(&self, plugged: Option<Plugged>) {
        *self.plugged.write().unwrap_or_else(PoisonError::into_inner) = plugged;
    }

    /// # Errors
    /// When there is no machine.
    fn machine(&self) -> io::Result<Plugged> {
        let plugged = self.plugged.read().unwrap_or_else(PoisonError::into_inner);
        plugged.clone().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Machine for Backplane {
    fn map(&self, gpa: u64, memory: Arc<Mapping>) -> io::Result<Slot> {
        self.machine()?.slots.add_registers(gpa, memory).map(Slot)
    }

    fn unmap(&self, slot: Slot) {
        if let Ok(machine) = self.machine() {
            machine.slots.remove(slot.0);
        }
    }

    fn connect(&self, event: BorrowedFd<'_>, message: Message) -> io::Result<Route> {
        self.machine()?.routes.connect(event, message).map(Route)
    }

    fn redirect(&self, route: Route, message: Message) -> io::Result<()> {
        self.machine()?.routes.redirect(route.0, message)
    }

    fn disconnect(&self, route: Route, event: BorrowedFd<'_>) {
        if let Ok(machine) = self.machine() {
            machine.routes.disconnect(route.0, event);
        }
    }

    fn connect_line(&self, irq: u8, trigger: BorrowedFd<'_>, resample: BorrowedFd<'_>) -> io::Result<()> {
        self.machine()?.routes.connect_line(irq, trigger, resample)
    }

    fn disconnect_line(&self, irq: u8, trigger: BorrowedFd<'_>) {
        if let Ok(machine) = self.machine() {
            machine.routes.disconnect_line(irq, trigger);
        }
    }
}
