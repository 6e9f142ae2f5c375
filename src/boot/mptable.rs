//! The MP table (MultiProcessor Specification 1.4), for guests that start without firmware and without ACPI.

use kagero_devices::platform::pirq_of;

use super::{IO_APIC, IO_APIC_ID, LEVEL_HIGH, LOCAL_APIC, Machine, SLOTS, TIMER_INPUT, checksum};

/// Both local APIC and I/O APIC call themselves so.
const APIC_VERSION: u8 = 0x14;
const PCI_BUS: u8 = 0;
const ISA_BUS: u8 = 1;
const FLOATING_POINTER: usize = 16;
const HEADER: usize = 44;

/// Types of entries.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC_ENTRY: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// Types of interrupts.
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;

/// The floating pointer structure and behind it the configuration table, to lie in guest memory from `gpa` on.
///
/// Operating systems look for the pointer at multiples of 16: in the last KiB of memory below 640 KiB, and from F0000h to FFFFFh.
///
/// # Panics
/// When `gpa` is not a multiple of 16 below 1 MiB.
#[must_use]
pub fn mp_table(machine: &Machine, gpa: u32) -> Vec<u8> {
    assert!(gpa.is_multiple_of(16) && gpa < 1 << 20, "no guest looks for an MP table at {gpa:#x}");
    let mut pointer = Vec::with_capacity(FLOATING_POINTER);
    pointer.extend_from_slice(b"_MP_");
    pointer.extend_from_slice(&(gpa + FLOATING_POINTER as u32).to_le_bytes());
    pointer.extend_from_slice(&[1, 4, 0]); // Length in 16 bytes, version 1.4, checksum
    pointer.resize(FLOATING_POINTER, 0); // No default configuration, no IMCR: virtual wire mode.
    pointer[10] = checksum(&pointer);
    pointer.extend(configuration(machine));
    pointer
}

fn configuration(machine: &Machine) -> Vec<u8> {
    let mut entries = Entries::default();
    for cpu in 0..machine.cpus {
        entries.processor(cpu);
    }
    entries.add(&[&[BUS, PCI_BUS], b"PCI   "]);
    entries.add(&[&[BUS, ISA_BUS], b"ISA   "]);
    entries.add(&[&[IO_APIC_ENTRY, IO_APIC_ID, APIC_VERSION, 1], &IO_APIC.to_le_bytes()]);
    for slot in 0..SLOTS {
        for pin in 0..4 {
            let irq = machine.pirqs[usize::from(pirq_of(slot, pin))];
            entries.io_interrupt(LEVEL_HIGH, PCI_BUS, slot << 2 | pin, irq);
        }
    }
    // Interrupt 2 is the second 8259's.
    for irq in (0..16).filter(|irq| *irq != 2 && !machine.pirqs.contains(irq)) {
        let input = if irq == 0 { TIMER_INPUT } else { irq };
        entries.io_interrupt(0, ISA_BUS, irq, input);
    }
    for (kind, lint) in [(EXTERNAL, 0), (NMI, 1)] {
        const ALL: u8 = 0xff;
        entries.add(&[&[LOCAL_INTERRUPT, kind, 0, 0, ISA_BUS, 0, ALL, lint]]);
    }
    entries.into_table()
}

#[derive(Default)]
struct Entries {
    count: u16,
    bytes: Vec<u8>,
}

impl Entries {
    fn add(&mut self, fields: &[&[u8]]) {
        self.count += 1;
        self.bytes.extend(fields.concat());
    }

    fn processor(&mut self, id: u8) {
        const ENABLED: u8 = 1 << 0;
        const BOOTS: u8 = 1 << 1;
        // A family 6 processor with FPU and local APIC; guests ask CPUID for more.
        const SIGNATURE: u32 = 0x600;
        const FEATURES: u32 = 1 << 9 | 1;
        let flags = if id == 0 { ENABLED | BOOTS } else { ENABLED };
        self.add(&[
            &[PROCESSOR, id, APIC_VERSION, flags],
            &SIGNATURE.to_le_bytes(),
            &FEATURES.to_le_bytes(),
            &[0; 8],
        ]);
    }

    fn io_interrupt(&mut self, flags: u16, bus: u8, source: u8, input: u8) {
        self.add(&[&[IO_INTERRUPT, VECTORED], &flags.to_le_bytes(), &[bus, source, IO_APIC_ID, input]]);
    }

    fn into_table(self) -> Vec<u8> {
        let length = (HEADER + self.bytes.len()) as u16;
        let mut table = Vec::with_capacity(length.into());
        table.extend_from_slice(b"PCMP");
        table.extend_from_slice(&length.to_le_bytes());
        table.extend_from_slice(&[4, 0]); // Version 1.4, checksum
        table.extend_from_slice(b"KAGERO  KAGERO PC   ");
        table.extend_from_slice(&[0; 6]); // No OEM table
        table.extend_from_slice(&self.count.to_le_bytes());
        table.extend_from_slice(&LOCAL_APIC.to_le_bytes());
        table.resize(HEADER, 0); // No extended table
        table.extend(self.bytes);
        table[7] = checksum(&table);
        table
    }
}
