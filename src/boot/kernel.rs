//! Direct kernel boot, for developers: no firmware, no boot loader.
//!
//! A bzImage starts by the 32-bit Linux boot protocol, an ELF kernel by PVH. Both begin in flat 32-bit protected mode and differ in
//! the register that points to what the kernel is told.

use std::fmt::Display;
use std::fs::File;
use std::path::PathBuf;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress};

use super::Machine;
use super::acpi::Tables;
use super::mptable::mp_table;
use crate::error::UserError;
use crate::memory::{GuestRam, PCI_HOLE};

/// What a developer gave.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A bzImage, or an ELF kernel with a PVH entry.
    pub image: PathBuf,
    /// An initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The command line.
    pub append: String,
}

/// How CPU 0 starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    rip: u64,
    /// Linux' boot protocol: the address of `boot_params`.
    rsi: u64,
    /// PVH: the address of `hvm_start_info`.
    rbx: u64,
}

const GDT: u64 = 0x500;
const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x6100;
const MEMORY_MAP: u64 = 0x6200;
const BOOT_PARAMS: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;
/// The longest command line: where x86's COMMAND_LINE_SIZE ends, with its zero byte.
const COMMAND_LINE_MAX: usize = 2048;
/// The extended BIOS data area's usual place.
const EBDA: u64 = 0x9_fc00;
/// The BIOS area: ACPI tables lie here, and in its upper half the MP table.
const BIOS_AREA: u64 = 0xe_0000;
const MP_TABLE: u64 = 0xf_0000;
const HIGH_MEMORY: u64 = 0x10_0000;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const PVH_MAGIC: u32 = 0x336e_c578;

impl Kernel {
    /// Loads everything into `ram`, with tables that tell of `machine`, and says where CPU 0 starts.
    ///
    /// # Errors
    /// What is wrong with the kernel, its initrd or its command line.
    pub fn load(&self, ram: &GuestRam, machine: &Machine) -> Result<Entry, UserError> {
        if self.append.len() >= COMMAND_LINE_MAX {
            let problem = format!("{} bytes are too many", self.append.len());
            return Err(UserError::new(
                "--append",
                problem,
                format!("shorten it to {}", COMMAND_LINE_MAX - 1),
            ));
        }
        let outside = |_: String| too_small(ram);
        let rsdp = BIOS_AREA;
        let tables = [
            (BIOS_AREA, Tables::new(machine).at(BIOS_AREA as u32)),
            (MP_TABLE, mp_table(machine, MP_TABLE as u32)),
        ];
        for (gpa, table) in tables {
            ram.mapping().write_slice(&table, GuestAddress(gpa)).map_err(|_| too_small(ram))?;
        }
        let mut line = self.append.clone().into_bytes();
        line.push(0);
        ram.mapping().write_slice(&line, GuestAddress(COMMAND_LINE)).map_err(|_| too_small(ram))?;

        let bad = |problem: &dyn Display, mend: &str| UserError::new(self.image.display(), problem, mend);
        let mut file = File::open(&self.image).map_err(|e| bad(&e, "name a kernel"))?;
        let high = Some(GuestAddress(HIGH_MEMORY));
        if let Ok(loaded) = BzImage::load(ram.mapping(), None, &mut file, high) {
            let header = loaded.setup_header.unwrap_or_default();
            let limit = u64::from(header.initrd_addr_max);
            let initrd = self.load_initrd(ram, loaded.kernel_end, limit)?;
            linux_boot(ram, header, initrd, rsdp).map_err(outside)?;
            return Ok(Entry { rip: loaded.kernel_load.0, rsi: BOOT_PARAMS, rbx: 0 });
        }
        let loaded = Elf::load(ram.mapping(), None, &mut file, high).map_err(|e| {
            bad(&format!("neither a bzImage nor an ELF kernel that fits ({e})"), "name a kernel")
        })?;
        let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
            return Err(bad(&"an ELF file without a PVH entry", "build with CONFIG_PVH or use the bzImage"));
        };
        let initrd = self.load_initrd(ram, loaded.kernel_end, u64::from(u32::MAX))?;
        pvh_boot(ram, initrd, rsdp).map_err(outside)?;
        Ok(Entry { rip: entry.0, rsi: 0, rbx: START_INFO })
    }

    /// Loads the initial RAM disk as high as it may lie; returns address and size.
    fn load_initrd(
        &self,
        ram: &GuestRam,
        kernel_end: u64,
        limit: u64,
    ) -> Result<Option<(u64, u64)>, UserError> {
        let Some(path) = &self.initrd else { return Ok(None) };
        let data = std::fs::read(path).map_err(|e| UserError::new(path.display(), e, "name an initrd"))?;
        let size = data.len() as u64;
        let too_large = || {
            let problem = format!("{size} bytes don't fit beside the kernel");
            UserError::new(path.display(), problem, "give the guest more --memory")
        };
        let end = ram.low_end().min(limit.saturating_add(1)) & !0xfff;
        let start = end.checked_sub(size).map(|at| at & !0xfff).filter(|at| *at >= kernel_end);
        let start = start.ok_or_else(too_large)?;
        ram.mapping().write_slice(&data, GuestAddress(start)).map_err(|_| too_large())?;
        Ok(Some((start, size)))
    }
}

fn too_small(ram: &GuestRam) -> UserError {
    UserError::new(
        "--memory",
        format!("{} bytes are too few for a kernel", ram.size()),
        "give the guest more",
    )
}

/// (start, size, type) of everything a kernel must know of.
fn memory_map(ram: &GuestRam) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, EBDA, E820_RAM),
        (EBDA, 0xa_0000 - EBDA, E820_RESERVED),
        (BIOS_AREA, HIGH_MEMORY - BIOS_AREA, E820_RESERVED),
        (HIGH_MEMORY, ram.low_end() - HIGH_MEMORY, E820_RAM),
    ];
    if ram.above_4g() > 0 {
        map.push((PCI_HOLE.end, ram.above_4g(), E820_RAM));
    }
    map
}

/// Documentation/arch/x86/boot.rst, "32-bit Boot Protocol".
fn linux_boot(
    ram: &GuestRam,
    header: setup_header,
    initrd: Option<(u64, u64)>,
    rsdp: u64,
) -> Result<(), String> {
    let mut params = boot_params { hdr: header, ..Default::default() };
    // "Undefined" boot loader, as for all without a number of their own.
    params.hdr.type_of_loader = 0xff;
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    if let Some((start, size)) = initrd {
        params.hdr.ramdisk_image = start as u32;
        params.hdr.ramdisk_size = size as u32;
    }
    params.acpi_rsdp_addr = rsdp;
    let map = memory_map(ram);
    for (slot, &(addr, size, type_)) in params.e820_table.iter_mut().zip(&map) {
        *slot = boot_e820_entry { addr, size, r#type: type_ };
    }
    params.e820_entries = map.len() as u8;
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(BOOT_PARAMS)),
        ram.mapping(),
    )
    .map_err(|e| e.to_string())
}

/// Xen's PVH boot ABI, docs/misc/pvh.
fn pvh_boot(ram: &GuestRam, initrd: Option<(u64, u64)>, rsdp: u64) -> Result<(), String> {
    let map: Vec<_> = memory_map(ram)
        .into_iter()
        .map(|(addr, size, type_)| hvm_memmap_table_entry { addr, size, type_, reserved: 0 })
        .collect();
    let info = hvm_start_info {
        magic: PVH_MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: MODULES,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: rsdp,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(START_INFO));
    params.set_sections(&map, GuestAddress(MEMORY_MAP));
    if let Some((paddr, size)) = initrd {
        let module = hvm_modlist_entry { paddr, size, ..Default::default() };
        params.set_modules(&[module], GuestAddress(MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, ram.mapping()).map_err(|e| e.to_string())
}

impl Entry {
    /// Puts CPU 0 there: flat 32-bit protected mode, paging and interrupts off.
    ///
    /// # Errors
    /// When KVM refuses the registers.
    pub fn apply(self, ram: &GuestRam, cpu: &VcpuFd) -> Result<(), String> {
        let gdt: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
        for (at, entry) in (GDT..).step_by(8).zip(gdt) {
            ram.mapping().write_obj(entry, GuestAddress(at)).map_err(|e| e.to_string())?;
        }
        let mut sregs = cpu.get_sregs().map_err(|e| e.to_string())?;
        flat_protected_mode(&mut sregs);
        cpu.set_sregs(&sregs).map_err(|e| e.to_string())?;
        let Entry { rip, rsi, rbx } = self;
        let regs = kvm_regs { rip, rsi, rbx, rflags: 2, ..Default::default() };
        cpu.set_regs(&regs).map_err(|e| e.to_string())
    }
}

/// Has `cpu` cache all memory unless its page tables say otherwise, as firmware does with the MTRRs (Intel SDM volume 3, 12.11.2.1).
///
/// KVM heeds that when a passed-through function's DMA goes around caches; and Linux doesn't use its page tables' types without MTRRs.
///
/// # Errors
/// When KVM refuses the register.
pub fn cache_memory(cpu: &VcpuFd) -> Result<(), String> {
    const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
    const ENABLED: u64 = 1 << 11;
    const WRITE_BACK: u64 = 6;
    let data = ENABLED | WRITE_BACK;
    let register = kvm_msr_entry { index: MTRR_DEFAULT_TYPE, data, ..Default::default() };
    let registers = Msrs::from_entries(&[register]).map_err(|e| format!("{e:?}"))?;
    match cpu.set_msrs(&registers) {
        Ok(1) => Ok(()),
        Ok(_) => Err("KVM knows no MTRRs".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn flat_protected_mode(sregs: &mut kvm_sregs) {
    // __BOOT_CS and __BOOT_DS of the boot protocol.
    let segment = |selector, type_| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = segment(0x10, 0xb);
    let data = segment(0x18, 3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 31;
    // PE, and ET which is always one.
    sregs.cr0 = 0x11;
    sregs.cr4 = 0;
    sregs.efer = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_covers_ram_and_no_hole() {
        let ram = GuestRam::new(64 << 20).unwrap();
        let map = memory_map(&ram);
        assert_eq!(map[0], (0, EBDA, E820_RAM));
        assert_eq!(map.last(), Some(&(HIGH_MEMORY, 63 << 20, E820_RAM)));
    }

    #[test]
    fn what_is_no_kernel_gets_a_line_that_names_it() {
        let ram = GuestRam::new(64 << 20).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0u8; 4096]).unwrap();
        let machine = Machine {
            cpus: 1,
            pm_base: 0x600,
            pirqs: [10, 10, 11, 11],
            windows: crate::boot::Windows::new(ram.low_end(), ram.end(), 40),
            uarts: Vec::new(),
            vga: false,
        };
        let kernel = Kernel { image: file.path().into(), initrd: None, append: String::new() };
        let line = kernel.load(&ram, &machine).unwrap_err().to_string();
        assert!(line.contains(&file.path().display().to_string()) && line.contains("bzImage"), "{line}");
    }
}
