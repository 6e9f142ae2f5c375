//! The virtual machine as KVM knows it: memory slots, in-kernel interrupt controllers and timer, CPUs in their reset state.

mod backplane;
mod numbers;
mod routes;
mod slots;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES,
    KVM_PIT_SPEAKER_DUMMY, kvm_irqchip, kvm_pit_config,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;

pub use self::backplane::Backplane;
use self::routes::Routes;
use self::slots::Slots;
use crate::error::UserError;
use crate::memory::GuestRam;

/// KVM's own pages in guest memory, for Intel's real mode: below the largest firmware, inside the PCI hole.
pub const RESERVED: Range<u64> = 0xfeff_c000..0xff00_0000;
/// One page of them.
const IDENTITY_MAP: u64 = RESERVED.start;
/// The other three.
const TSS: usize = 0xfeff_d000;

/// What KVM must be able to do; all of it is older than Linux 4.0.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::Irqchip, "an in-kernel interrupt controller"),
    (Cap::Pit2, "an in-kernel timer"),
    (Cap::UserMemory, "memory slots"),
    (Cap::ReadonlyMem, "read-only memory slots"),
    (Cap::ExtCpuid, "CPUID tables"),
    (Cap::ImmediateExit, "immediate exits"),
    (Cap::IrqRouting, "interrupt routes"),
    (Cap::Irqfd, "events that raise interrupts"),
    (Cap::IrqfdResample, "events for interrupt lines that are shared"),
];

/// Why there is no virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No `/dev/kvm`.
    #[error("not there")]
    Missing,
    /// No right to open it.
    #[error("permission denied")]
    Permission,
    /// It can't be opened for another reason.
    #[error("can't be opened ({0})")]
    Open(kvm_ioctls::Error),
    /// Something that isn't KVM, or is older than everything we know.
    #[error("has API version {0}, not 12")]
    Version(i32),
    /// An old or cut-down KVM.
    #[error("lacks {0}")]
    Capability(&'static str),
    /// A call failed that only fails when the host is short of something.
    #[error("can't {0} ({1})")]
    Call(&'static str, kvm_ioctls::Error),
    /// The same for what passed-through functions use as well.
    #[error("can't {0} ({1})")]
    Io(&'static str, io::Error),
}

impl Error {
    /// The line for the user, with the mend.
    pub fn to_user_error(&self) -> UserError {
        let mend = match self {
            Error::Missing => {
                "load kvm_amd or kvm_intel, or enable virtualization in this machine's firmware set-up"
            }
            Error::Permission => "run as root or join the group kvm",
            Error::Open(_) | Error::Call(..) | Error::Io(..) => "look into the kernel's log",
            Error::Version(_) | Error::Capability(_) => "use a Linux kernel from 4.12 on",
        };
        UserError::new("/dev/kvm", self, mend)
    }
}

/// A virtual machine without devices.
pub struct Vm {
    fd: Arc<VmFd>,
    cpuid: CpuId,
    slots: Arc<Slots>,
    routes: Arc<Routes>,
}

impl Vm {
    /// Opens KVM and makes a machine with `ram`, PIC, IOAPIC and PIT.
    ///
    /// # Errors
    /// One line for people: see [`enum@Error`].
    pub fn new(ram: &GuestRam) -> Result<Self, Error> {
        let kvm = open()?;
        let fd = Arc::new(kvm.create_vm().map_err(|e| Error::Call("create a machine", e))?);
        fd.set_identity_map_address(IDENTITY_MAP).map_err(|e| Error::Call("place the identity map", e))?;
        fd.set_tss_address(TSS).map_err(|e| Error::Call("place the TSS", e))?;
        fd.create_irq_chip().map_err(|e| Error::Call("create the interrupt controllers", e))?;
        // The dummy speaker makes port 61h, with its timer output bit, the kernel's business.
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(|e| Error::Call("create the timer", e))?;
        let routes = Routes::new(Arc::clone(&fd)).map_err(|e| Error::Io("route interrupts", e))?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|e| Error::Call("read CPUID", e))?;
        let slots = Slots::new(Arc::clone(&fd));
        slots.add_ram(ram).map_err(|e| Error::Io("map memory", e))?;
        Ok(Vm { fd, cpuid, slots: Arc::new(slots), routes: Arc::new(routes) })
    }

    /// Maps `rom`'s regions read-only at their addresses.
    ///
    /// # Errors
    /// When KVM refuses the slot.
    pub fn map_rom(&self, rom: GuestMemoryMmap) -> Result<(), Error> {
        self.slots.add_rom(rom).map_err(|e| Error::Io("map memory", e))
    }

    /// Has the 8259A take these interrupts by level, as PCI's are: what firmware writes to ports 4D0h and 4D1h.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn trigger_by_level(&self, irqs: &[u8]) -> Result<(), Error> {
        let mask = irqs.iter().fold(0u16, |mask, irq| mask | 1 << (irq & 15));
        for (chip_id, elcr) in
            [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE].into_iter().zip(mask.to_le_bytes())
        {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            self.fd.get_irqchip(&mut chip).map_err(|e| Error::Call("read an interrupt controller", e))?;
            chip.chip.pic.elcr = elcr;
            self.fd.set_irqchip(&chip).map_err(|e| Error::Call("set an interrupt controller", e))?;
        }
        Ok(())
    }

    /// The machine's file descriptor.
    pub fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// Writes to `count` ports from `first` on need no exit of their own: KVM keeps them until the next one.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn coalesce(&self, first: u16, count: u16) -> Result<(), Error> {
        let ports = IoEventAddress::Pio(first.into());
        match self.fd.register_coalesced_mmio(ports, count.into()) {
            // Before Linux 4.20 every write exits: slower, and all the same otherwise.
            Err(error) if error.errno() == libc::EINVAL => Ok(()),
            result => result.map_err(|e| Error::Call("coalesce writes", e)),
        }
    }

    /// Makes CPU `id` of `count` in its reset state: CPU 0 starts at the reset vector, the others wait for it.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn create_cpu(&self, id: u8, count: u8) -> Result<VcpuFd, Error> {
        let mut cpu = self.fd.create_vcpu(u64::from(id)).map_err(|e| Error::Call("create a CPU", e))?;
        cpu.map_coalesced_mmio_ring().map_err(|e| Error::Call("map the ring of coalesced writes", e))?;
        let cpuid = crate::cpuid::for_cpu(&self.cpuid, id, count);
        cpu.set_cpuid2(&cpuid).map_err(|e| Error::Call("set CPUID", e))?;
        Ok(cpu)
    }
}

/// Says whether this host can run a guest at all; nothing is made. Returns the bits of the guest's physical addresses.
///
/// # Errors
/// What is the matter with `/dev/kvm`.
pub fn check() -> Result<u8, Error> {
    let cpuid =
        open()?.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|e| Error::Call("read CPUID", e))?;
    Ok(crate::cpuid::address_bits(&cpuid))
}

fn open() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::Missing,
        libc::EACCES | libc::EPERM => Error::Permission,
        _ => Error::Open(error),
    })?;
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION as i32 {
        return Err(Error::Version(version));
    }
    match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, what)) => Err(Error::Capability(what)),
        None => Ok(kvm),
    }
}
