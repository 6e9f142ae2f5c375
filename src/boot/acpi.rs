//! The ACPI tables: RSDP, RSDT and XSDT, FADT, FACS, DSDT and MADT.
//!
//! They are built once, with offsets in place of addresses, and a list of steps that makes them fit the place where they end
//! up. Firmware takes the steps as a script through fw_cfg ([`Tables::files`]); without firmware we take them ([`Tables::at`]).

mod dsdt;
mod loader;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::sdt::Sdt;

use super::{IO_APIC, IO_APIC_ID, LEVEL_HIGH, LOCAL_APIC, Machine, PCI_IRQS, SCI, TIMER_INPUT, checksum};

const OEM: [u8; 6] = *b"KAGERO";
const OEM_TABLE: [u8; 8] = *b"KAGEROPC";
const OEM_REVISION: u32 = 1;

/// The reset register and what resets through it.
const RESET_PORT: u16 = 0xcf9;
const RESET_VALUE: u8 = 0x06;
/// Where the clock has its century (FADT CENTURY).
const CENTURY: u8 = 0x32;

/// Offsets of fields in tables.
mod field {
    pub(super) const CHECKSUM: usize = 9;
    pub(super) const FADT_FACS: usize = 36;
    pub(super) const FADT_DSDT: usize = 40;
    pub(super) const FIRST_ENTRY: usize = 36;
    pub(super) const RSDP_CHECKSUM: usize = 8;
    pub(super) const RSDP_RSDT: usize = 16;
    pub(super) const RSDP_XSDT: usize = 24;
    pub(super) const RSDP_EXTENDED_CHECKSUM: usize = 32;
}

/// Bytes of the RSDP, and of its part that ACPI 1.0 knows.
const RSDP: usize = 36;
const RSDP_1: usize = 20;
/// The FACS wants it (ACPI 6.5, 5.2.10), the others don't mind.
const ALIGNMENT: usize = 64;

/// One of the two parts that are placed on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Tables,
    Rsdp,
}

/// Something left to do when addresses are known, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The `size` bytes at `at` hold an offset: add the address of [`Part::Tables`].
    Pointer { part: Part, at: usize, size: usize },
    /// The byte at `at`, now zero, makes `len` bytes from `start` on add up to zero.
    Checksum { part: Part, start: usize, len: usize, at: usize },
}

/// The tables, before anyone knows their addresses.
#[derive(Clone, Debug)]
pub struct Tables {
    tables: Vec<u8>,
    rsdp: Vec<u8>,
    steps: Vec<Step>,
}

impl Tables {
    /// Describes `machine`.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        let mut new = Self { tables: Vec::new(), rsdp: Vec::new(), steps: Vec::new() };
        let facs = new.add(&bytes(&FACS::new()));
        let dsdt = new.add(&dsdt::dsdt(machine));
        let fadt = new.add(&fadt(machine, facs, dsdt));
        new.pointer(Part::Tables, fadt + field::FADT_FACS, 4);
        new.pointer(Part::Tables, fadt + field::FADT_DSDT, 4);
        new.table_checksum(fadt);
        let madt = new.add(&madt(machine));
        let rsdt = new.root(b"RSDT", 4, &[fadt, madt]);
        let xsdt = new.root(b"XSDT", 8, &[fadt, madt]);
        new.add_rsdp(rsdt, xsdt);
        new
    }

    /// The files that firmware makes the tables from: `etc/acpi/tables`, `etc/acpi/rsdp` and the script `etc/table-loader`.
    #[must_use]
    pub fn files(&self) -> [(&'static str, Vec<u8>); 3] {
        [
            (loader::TABLES, self.tables.clone()),
            (loader::RSDP, self.rsdp.clone()),
            (loader::SCRIPT, loader::script(&self.steps)),
        ]
    }

    /// The tables as they are to lie in guest memory from `gpa` on. The RSDP comes first.
    ///
    /// Without firmware, operating systems look for the RSDP at multiples of 16 from E0000h to FFFFFh, unless the boot
    /// protocol hands them its address.
    ///
    /// # Panics
    /// When `gpa` is not a multiple of 64 or the tables would reach past 4 GiB.
    #[must_use]
    pub fn at(&self, gpa: u32) -> Vec<u8> {
        assert!(gpa.is_multiple_of(ALIGNMENT as u32), "ACPI tables at {gpa:#x}, which is no multiple of 64");
        let Self { mut tables, mut rsdp, steps } = self.clone();
        let len = ALIGNMENT + tables.len();
        assert!(gpa.checked_add(len as u32).is_some(), "ACPI tables at {gpa:#x} reach past 4 GiB");
        let base = u64::from(gpa) + ALIGNMENT as u64;
        for step in steps {
            let (Step::Pointer { part, .. } | Step::Checksum { part, .. }) = step;
            let bytes = match part {
                Part::Tables => &mut tables,
                Part::Rsdp => &mut rsdp,
            };
            match step {
                Step::Pointer { at, size, .. } => {
                    let mut pointer = [0; 8];
                    pointer[..size].copy_from_slice(&bytes[at..at + size]);
                    let pointer = u64::from_le_bytes(pointer) + base;
                    bytes[at..at + size].copy_from_slice(&pointer.to_le_bytes()[..size]);
                }
                Step::Checksum { start, len, at, .. } => bytes[at] = checksum(&bytes[start..start + len]),
            }
        }
        rsdp.resize(ALIGNMENT, 0);
        rsdp.extend(tables);
        rsdp
    }

    /// Adds a table and returns its offset.
    fn add(&mut self, table: &[u8]) -> usize {
        self.tables.resize(self.tables.len().next_multiple_of(ALIGNMENT), 0);
        let offset = self.tables.len();
        self.tables.extend_from_slice(table);
        offset
    }

    fn pointer(&mut self, part: Part, at: usize, size: usize) {
        self.steps.push(Step::Pointer { part, at, size });
    }

    /// Leaves the checksum of the last table, at `start`, until its pointers are right.
    fn table_checksum(&mut self, start: usize) {
        let at = start + field::CHECKSUM;
        self.tables[at] = 0;
        self.steps.push(Step::Checksum { part: Part::Tables, start, len: self.tables.len() - start, at });
    }

    /// Adds a root table whose entries are pointers of `size` bytes. Guests older than ACPI 2.0 know only that of 4 bytes.
    fn root(&mut self, signature: &[u8; 4], size: usize, entries: &[usize]) -> usize {
        let mut table = Sdt::new(*signature, field::FIRST_ENTRY as u32, 1, OEM, OEM_TABLE, OEM_REVISION);
        for entry in entries {
            table.append_slice(&(*entry as u64).to_le_bytes()[..size]);
        }
        let start = self.add(table.as_slice());
        for index in 0..entries.len() {
            self.pointer(Part::Tables, start + field::FIRST_ENTRY + index * size, size);
        }
        self.table_checksum(start);
        start
    }

    fn add_rsdp(&mut self, rsdt: usize, xsdt: usize) {
        let rsdp = &mut self.rsdp;
        rsdp.extend_from_slice(b"RSD PTR \0");
        rsdp.extend_from_slice(&OEM);
        rsdp.push(2); // Revision
        rsdp.extend_from_slice(&(rsdt as u32).to_le_bytes());
        rsdp.extend_from_slice(&(RSDP as u32).to_le_bytes());
        rsdp.extend_from_slice(&(xsdt as u64).to_le_bytes());
        rsdp.resize(RSDP, 0);
        self.pointer(Part::Rsdp, field::RSDP_RSDT, 4);
        self.pointer(Part::Rsdp, field::RSDP_XSDT, 8);
        for (len, at) in [(RSDP_1, field::RSDP_CHECKSUM), (RSDP, field::RSDP_EXTENDED_CHECKSUM)] {
            self.steps.push(Step::Checksum { part: Part::Rsdp, start: 0, len, at });
        }
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// The machine is always in ACPI mode (SMI_CMD is zero), with the fixed registers at its PM base and a fixed power button.
fn fadt(machine: &Machine, facs: usize, dsdt: usize) -> Vec<u8> {
    /// IAPC_BOOT_ARCH: there are ISA devices. No 8042 is reported, so that nobody waits for a keyboard.
    const LEGACY_DEVICES: u16 = 1 << 0;
    const VGA_NOT_PRESENT: u16 = 1 << 2;
    /// No C2 or C3: latencies above 100 and 1000 us say so.
    const NOT_SUPPORTED: u16 = 0xfff;

    let (events, control, timer) = (machine.pm_base, machine.pm_base + 4, machine.pm_base + 8);
    // ACPI 2.0 says the same again, in wider fields.
    let ports =
        |first: u16, bits: u8, access| GAS::new(AddressSpace::SystemIo, bits, 0, access, first.into());
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Desktop)
        .firmware_ctrl_32(facs as u32)
        .dsdt_32(dsdt as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton) // None, or not a fixed one.
        .flag(Flags::FixRtc) // The clock doesn't wake the machine.
        .flag(Flags::ResetRegSup);
    fadt.sci_int = u16::from(SCI).into();
    fadt.pm1a_evt_blk = u32::from(events).into();
    fadt.x_pm1a_evt_blk = ports(events, 32, AccessSize::WordAccess);
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(control).into();
    fadt.x_pm1a_cnt_blk = ports(control, 16, AccessSize::WordAccess);
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(timer).into();
    fadt.x_pm_tmr_blk = ports(timer, 32, AccessSize::DwordAccess);
    fadt.pm_tmr_len = 4;
    fadt.p_lvl2_lat = NOT_SUPPORTED.into();
    fadt.p_lvl3_lat = NOT_SUPPORTED.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | if machine.vga { 0 } else { VGA_NOT_PRESENT }).into();
    fadt.reset_reg = ports(RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    bytes(&fadt.finalize())
}

/// Local APICs, the I/O APIC, and where interrupts differ from ISA's habits.
fn madt(machine: &Machine) -> Vec<u8> {
    /// There are 8259s too.
    const PCAT_COMPAT: u32 = 1;
    const INTERRUPT_OVERRIDE: u8 = 2;
    const LOCAL_APIC_NMI: u8 = 4;
    const ALL_PROCESSORS: u8 = 0xff;
    const ISA_BUS: u8 = 0;

    let mut madt = Sdt::new(*b"APIC", 44, 3, OEM, OEM_TABLE, OEM_REVISION);
    madt.write_u32(36, LOCAL_APIC);
    madt.write_u32(40, PCAT_COMPAT);
    for cpu in 0..machine.cpus {
        madt.append_slice(&bytes(&ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled)));
    }
    madt.append_slice(&bytes(&IoApic::new(IO_APIC_ID, IO_APIC, 0)));
    let timer = (0, TIMER_INPUT, 0);
    let levels = PCI_IRQS.into_iter().chain([SCI]).map(|irq| (irq, irq, LEVEL_HIGH));
    for (irq, input, flags) in [timer].into_iter().chain(levels) {
        madt.append_slice(&[INTERRUPT_OVERRIDE, 10, ISA_BUS, irq]);
        madt.append_slice(&u32::from(input).to_le_bytes());
        madt.append_slice(&flags.to_le_bytes());
    }
    // NMI at each processor's LINT1, with the bus's polarity and trigger.
    madt.append_slice(&[LOCAL_APIC_NMI, 6, ALL_PROCESSORS, 0, 0, 1]);
    madt.as_slice().to_vec()
}
