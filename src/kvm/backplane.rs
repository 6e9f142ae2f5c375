//! Where passed-through functions meet the guest's machine, whichever machine it is: a reset makes a new one, the functions stay.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};

use kagero_devices::pci::Message;
use kagero_vfio::{Machine, Mapping, Route, Slot};
use kvm_bindings::{
    KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::{DeviceFd, VmFd};

use super::Vm;
use super::routes::Routes;
use super::slots::Slots;

/// The machine as its functions see it: memory slots, and events that become interrupts.
///
/// Functions give back all that they have when they are reset. So that must happen before the machine is unplugged; then what they
/// hold never belongs to another machine than they think. Its lock and those below it are leaves.
#[derive(Default)]
pub struct Backplane {
    files: Vec<OwnedFd>,
    plugged: RwLock<Option<Plugged>>,
}

#[derive(Clone)]
struct Plugged {
    slots: Arc<Slots>,
    routes: Arc<Routes>,
    _vfio: Option<Arc<DeviceFd>>,
}

impl Backplane {
    /// Without a machine: nothing can be mapped or connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for functions of these VFIO groups (or VFIO devices, where there are no groups), of which each machine is told.
    #[must_use]
    pub fn with_files(files: Vec<OwnedFd>) -> Self {
        Backplane { files, ..Self::default() }
    }

    /// This is the machine from now on.
    pub fn plug(&self, vm: &Vm) {
        let vfio = match self.tell(&vm.fd) {
            Ok(vfio) => vfio.map(Arc::new),
            Err(error) => {
                // On hosts where DMA can go around caches, and does for these functions, the guest's memory types don't count then.
                tracing::warn!("KVM does not take note of what is passed through: {error}");
                None
            }
        };
        let plugged = Plugged { slots: Arc::clone(&vm.slots), routes: Arc::clone(&vm.routes), _vfio: vfio };
        self.set(Some(plugged));
    }

    /// The machine goes.
    pub fn unplug(&self) {
        self.set(None);
    }

    /// KVM's own VFIO device: with it KVM knows whether DMA may go around caches (Documentation/virt/kvm/devices/vfio.rst).
    fn tell(&self, vm: &VmFd) -> io::Result<Option<DeviceFd>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let mut wanted = kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, ..Default::default() };
        let vfio = vm.create_device(&mut wanted)?;
        for file in &self.files {
            let file = file.as_raw_fd();
            vfio.set_device_attr(&kvm_device_attr {
                group: KVM_DEV_VFIO_FILE,
                attr: KVM_DEV_VFIO_FILE_ADD.into(),
                addr: &raw const file as u64,
                ..Default::default()
            })?;
        }
        Ok(Some(vfio))
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
