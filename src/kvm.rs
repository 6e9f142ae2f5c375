//! The virtual machine as KVM knows it: memory slots, in-kernel interrupt controllers and timer, CPUs in their reset state.

use std::ops::Range;
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

use crate::error::UserError;
use crate::memory::GuestRam;

/// KVM's own pages in guest memory, for Intel's real mode: below the largest firmware, inside the PCI hole.
pub const RESERVED: Range<u64> = 0xfeff_c000..0xff00_0000;
/// One page of them.
const IDENTITY_MAP: u64 = RESERVED.start;
/// The other three.
const TSS: usize = 0xfeff_d000;

/// Inputs of the I/O APIC.
const IO_APIC_INPUTS: u32 = 24;

/// What KVM must be able to do; all of it is older than Linux 4.0.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::Irqchip, "an in-kernel interrupt controller"),
    (Cap::Pit2, "an in-kernel timer"),
    (Cap::UserMemory, "memory slots"),
    (Cap::ReadonlyMem, "read-only memory slots"),
    (Cap::ExtCpuid, "CPUID tables"),
    (Cap::ImmediateExit, "immediate exits"),
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
}

impl Error {
    /// The line for the user, with the mend.
    pub fn to_user_error(&self) -> UserError {
        let mend = match self {
            Error::Missing => {
                "load kvm_amd or kvm_intel, or enable virtualization in this machine's firmware set-up"
            }
            Error::Permission => "run as root or join the group kvm",
            Error::Open(_) | Error::Call(..) => "look into the kernel's log",
            Error::Version(_) | Error::Capability(_) => "use a Linux kernel from 4.12 on",
        };
        UserError::new("/dev/kvm", self, mend)
    }
}

/// A virtual machine without devices.
pub struct Vm {
    fd: Arc<VmFd>,
    cpuid: CpuId,
    slots: u32,
    // KVM's slots point into these mappings.
    _ram: GuestRam,
    roms: Vec<GuestMemoryMmap>,
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
        route_interrupts(&fd)?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|e| Error::Call("read CPUID", e))?;
        let mut vm = Vm { fd, cpuid, slots: 0, _ram: ram.clone(), roms: Vec::new() };
        for (gpa, host, size) in ram.slots() {
            vm.map(gpa, host, size, 0)?;
        }
        Ok(vm)
    }

    /// Maps `rom`'s regions read-only at their addresses.
    ///
    /// # Errors
    /// When KVM refuses the slot.
    pub fn map_rom(&mut self, rom: GuestMemoryMmap) -> Result<(), Error> {
        use vm_memory::{GuestMemoryRegion, MemoryRegionAddress};
        for region in rom.iter() {
            let host = region.get_host_address(MemoryRegionAddress(0)).map_or(0, |p| p as u64);
            self.map(region.start_addr().0, host, region.len(), KVM_MEM_READONLY)?;
        }
        self.roms.push(rom);
        Ok(())
    }

    fn map(&mut self, guest_phys_addr: u64, host: u64, memory_size: u64, flags: u32) -> Result<(), Error> {
        let slot = self.slots;
        let region =
            kvm_userspace_memory_region { slot, flags, guest_phys_addr, memory_size, userspace_addr: host };
        // SAFETY: `host` is the start of a mapping of `memory_size` bytes that this struct owns and that outlives the machine's
        // file descriptor: the CPUs, which hold it too, are gone before `Vm` is dropped (see `Machine`).
        #[allow(unsafe_code)]
        unsafe { self.fd.set_user_memory_region(region) }.map_err(|e| Error::Call("map memory", e))?;
        self.slots += 1;
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

/// ISA interrupt N goes to input N of both 8259A and of the I/O APIC, but for the timer's, which on a PC is the I/O APIC's input 2, as the
/// firmware's tables say. KVM's default has it at input 0.
fn route_interrupts(vm: &VmFd) -> Result<(), Error> {
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
    let routing = KvmIrqRouting::from_entries(&entries)
        .map_err(|_| Error::Call("route interrupts", kvm_ioctls::Error::new(libc::E2BIG)))?;
    vm.set_gsi_routing(&routing).map_err(|e| Error::Call("route interrupts", e))
}

/// Says whether this host can run a guest at all; nothing is made.
///
/// # Errors
/// What is the matter with `/dev/kvm`.
pub fn check() -> Result<(), Error> {
    open().map(drop)
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
