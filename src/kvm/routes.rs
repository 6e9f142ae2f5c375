//! Interrupt routes: what becomes of each interrupt number that a line or an event raises.
//!
//! KVM takes the table only as a whole, so it has one owner.

use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kagero_devices::pci::Message;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::{Cap, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::numbers::Numbers;

/// Inputs of the I/O APIC. Interrupt numbers from here on are for messages.
const IO_APIC_INPUTS: u32 = 24;

/// Where the local APICs take messages (Intel SDM volume 3, 12.11.1): FEEx_xxxxh.
const LOCAL_APICS: u64 = 0xfee;

/// The owner of a machine's table of interrupt routes, and of the events that KVM waits for.
pub(super) struct Routes {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

struct Table {
    numbers: Numbers,
    messages: BTreeMap<u32, Message>,
}

impl Routes {
    /// Lines lead to the interrupt controllers; there are no messages yet.
    ///
    /// # Errors
    /// When KVM refuses.
    pub(super) fn new(vm: Arc<VmFd>) -> io::Result<Self> {
        let limit = vm.check_extension_int(Cap::IrqRouting).unsigned_abs();
        // A line has up to two entries; no message takes one that a line needs.
        let lines = entries(&BTreeMap::new()).len() as u32;
        let numbers = Numbers::new(IO_APIC_INPUTS..IO_APIC_INPUTS + limit.saturating_sub(lines));
        let routes = Routes { vm, table: Mutex::new(Table { numbers, messages: BTreeMap::new() }) };
        routes.apply(&routes.table())?;
        Ok(routes)
    }

    /// Whenever `event` rings, the guest gets `message`. Returns the interrupt's number.
    ///
    /// A message to anywhere but the local APICs, which a device would write into memory, reaches nobody.
    ///
    /// # Errors
    /// When KVM has no more routes.
    pub(super) fn connect(&self, event: BorrowedFd<'_>, message: Message) -> io::Result<u32> {
        let mut table = self.table();
        let gsi = table.numbers.take().ok_or(io::ErrorKind::StorageFull)?;
        table.messages.insert(gsi, message);
        let connected =
            self.apply(&table).and_then(|()| Ok(self.vm.register_irqfd(&event_fd(&event), gsi)?));
        if let Err(error) = connected {
            self.forget(&mut table, gsi);
            return Err(error);
        }
        Ok(gsi)
    }

    /// From now on the guest gets that `message`.
    ///
    /// # Errors
    /// When KVM refuses; then the old one stays.
    pub(super) fn redirect(&self, gsi: u32, message: Message) -> io::Result<()> {
        let mut table = self.table();
        let old = *table.messages.get(&gsi).ok_or(io::ErrorKind::NotFound)?;
        if old == message {
            return Ok(());
        }
        table.messages.insert(gsi, message);
        self.apply(&table).inspect_err(|_| {
            table.messages.insert(gsi, old);
        })
    }

    /// And now none. Numbers that are not connected are no mistake.
    pub(super) fn disconnect(&self, gsi: u32, event: BorrowedFd<'_>) {
        let mut table = self.table();
        if !table.messages.contains_key(&gsi) {
            return;
        }
        if let Err(error) = self.vm.unregister_irqfd(&event_fd(&event), gsi) {
            tracing::error!("interrupt {gsi}: KVM goes on waiting for its event: {error}");
        }
        self.forget(&mut table, gsi);
    }

    /// Whenever `trigger` rings, line `irq` rises; when the guest has served it, it falls and `resample` rings. KVM ORs what drives a line: its
    /// events, and [`Lines`](crate::irq::Lines).
    ///
    /// # Errors
    /// When there is no such line, or KVM refuses.
    pub(super) fn connect_line(
        &self,
        irq: u8,
        trigger: BorrowedFd<'_>,
        resample: BorrowedFd<'_>,
    ) -> io::Result<()> {
        if u32::from(irq) >= IO_APIC_INPUTS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (trigger, resample) = (event_fd(&trigger), event_fd(&resample));
        Ok(self.vm.register_irqfd_with_resample(&trigger, &resample, irq.into())?)
    }

    /// The end of that. KVM lets the line fall when this was its last event.
    pub(super) fn disconnect_line(&self, irq: u8, trigger: BorrowedFd<'_>) {
        if let Err(error) = self.vm.unregister_irqfd(&event_fd(&trigger), irq.into()) {
            tracing::error!("interrupt {irq}: KVM goes on waiting for its event: {error}");
        }
    }

    fn forget(&self, table: &mut Table, gsi: u32) {
        table.messages.remove(&gsi);
        table.numbers.give_back(gsi);
        if let Err(error) = self.apply(table) {
            tracing::error!("interrupt {gsi}: KVM keeps its route: {error}");
        }
    }

    fn apply(&self, table: &Table) -> io::Result<()> {
        let routing = KvmIrqRouting::from_entries(&entries(&table.messages)).map_err(io::Error::other)?;
        Ok(self.vm.set_gsi_routing(&routing)?)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All routes.
///
/// ISA interrupt N goes to input N of both 8259A and of the I/O APIC, but for the timer's, which on a PC is the I/O APIC's input 2, as the
/// firmware's tables say. KVM's default has it at input 0.
fn entries(messages: &BTreeMap<u32, Message>) -> Vec<kvm_irq_routing_entry> {
    let to = |gsi, irqchip, pin| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
        entry
    };
    let mut entries = Vec::new();
    for gsi in 0..IO_APIC_INPUTS {
        match gsi {
            0 => entries.extend([to(0, KVM_IRQCHIP_PIC_MASTER, 0), to(0, KVM_IRQCHIP_IOAPIC, 2)]),
            // The second 8259A hangs here.
            2 => {}
            1..8 => entries.extend([to(gsi, KVM_IRQCHIP_PIC_MASTER, gsi), to(gsi, KVM_IRQCHIP_IOAPIC, gsi)]),
            8..16 => {
                entries.extend([to(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8), to(gsi, KVM_IRQCHIP_IOAPIC, gsi)])
            }
            _ => entries.push(to(gsi, KVM_IRQCHIP_IOAPIC, gsi)),
        }
    }
    let to_apics = messages.iter().filter(|(_, message)| message.address >> 20 == LOCAL_APICS);
    entries.extend(to_apics.map(|(&gsi, message)| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
        entry.u.msi = kvm_irq_routing_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        entry
    }));
    entries
}

/// The same descriptor as what kvm-ioctls takes. It is borrowed: nothing is closed.
fn event_fd(event: &BorrowedFd<'_>) -> ManuallyDrop<EventFd> {
    // SAFETY: the descriptor is open as long as `event`, and this value, which lives only during a call, never closes it.
    #[allow(unsafe_code)]
    ManuallyDrop::new(unsafe { EventFd::from_raw_fd(event.as_raw_fd()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_after_the_lines_and_only_those_to_local_apics() {
        let lines = entries(&BTreeMap::new()).len();
        let to = |address| Message { address, data: 0x41 };
        let messages =
            BTreeMap::from([(24, to(0xfee0_1000)), (25, to(0x1000)), (26, to(0)), (30, to(0xfeef_f00c))]);
        let all = entries(&messages);
        let numbers: Vec<u32> = all[lines..].iter().map(|entry| entry.gsi).collect();
        assert_eq!(numbers, [24, 30]);
        assert!(all[lines..].iter().all(|entry| entry.type_ == KVM_IRQ_ROUTING_MSI));
        assert!(all[..lines].iter().all(|entry| entry.type_ == KVM_IRQ_ROUTING_IRQCHIP));
    }

    #[test]
    fn every_line_but_the_cascade_reaches_the_io_apic() {
        let inputs: Vec<u32> = (0..IO_APIC_INPUTS).filter(|gsi| *gsi != 2).collect();
        let mut lines: Vec<u32> = entries(&BTreeMap::new()).iter().map(|entry| entry.gsi).collect();
        lines.dedup();
        assert_eq!(lines, inputs);
    }
}
