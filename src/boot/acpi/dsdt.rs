//! The DSDT: the PCI bus with its interrupt routing, ISA devices that cannot be found otherwise, and how to switch off.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Equal, Field,
    FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Method, Name, OpRegion,
    OpRegionSpace, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use kagero_devices::platform::{Power, pirq_of};

use super::{OEM, OEM_REVISION, OEM_TABLE, bytes};
use crate::boot::{self, Machine, PCI_IRQS, SLOTS, Uart};

/// The four interrupt link devices and the bytes in the ISA bridge's configuration space that route them.
const LINKS: [(&str, &str); 4] = [("LNKA", "PRQA"), ("LNKB", "PRQB"), ("LNKC", "PRQC"), ("LNKD", "PRQD")];
/// PIRQ Route Control: where in configuration space, and the bit that keeps a PIRQ from the interrupt controllers.
const PIRQRC: u8 = 0x60;
const NOT_ROUTED: u8 = 0x80;
/// The ISA bridge's `_ADR`: device 1, function 0.
const ISA_BRIDGE: u32 = 1 << 16;

pub(super) fn dsdt(machine: &Machine) -> Vec<u8> {
    // Revision 2: integers have 64 bits.
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&bytes(&SleepStates));
    let links: Vec<_> = (0..LINKS.len()).map(Link).collect();
    let (processors, pci) = (Processors(machine.cpus), PciBus(machine));
    let mut system: Vec<&dyn Aml> = vec![&processors, &pci];
    system.extend(links.iter().map(|link| link as &dyn Aml));
    dsdt.append_slice(&bytes(&Scope::new(path("\\_SB_"), system)));
    dsdt.as_slice().to_vec()
}

/// Only S5: what to write to both PM1 Control registers.
struct SleepStates;

impl Aml for SleepStates {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let off = Power::SLEEP_TYPE_OFF;
        Name::new(path("_S5_"), &Package::new(vec![&off, &off, &ZERO, &ZERO])).to_aml_bytes(sink);
    }
}

/// Processor objects, the way that every ACPI version up to 6.3 has them and all guests know.
struct Processors(u8);

impl Aml for Processors {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const PROCESSOR: [u8; 2] = [0x5b, 0x83];
        for cpu in 0..self.0 {
            sink.vec(&PROCESSOR);
            sink.byte(11); // Length from here on.
            sink.vec(format!("C{cpu:03X}").as_bytes());
            sink.vec(&[cpu, 0, 0, 0, 0, 0]); // As in the MADT; no P_BLK.
        }
    }
}

struct PciBus<'a>(&'a Machine);

impl Aml for PciBus<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Device::new(
            path("PCI0"),
            vec![
                &Name::new(path("_HID"), &EISAName::new("PNP0A03")),
                &Name::new(path("_UID"), &ZERO),
                &Name::new(path("_CRS"), &Windows(self.0)),
                &Name::new(path("_PRT"), &interrupt_routes()),
                &IsaBus(self.0),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What of the address spaces belongs to the PCI bus.
struct Windows<'a>(&'a Machine);

impl Aml for Windows<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        use AddressSpaceCacheable::{Cacheable, NotCacheable};
        let boot::Windows { memory32, memory64, .. } = &self.0.windows;
        let buses = AddressSpace::<u16>::new_bus_number(0, 0xff);
        let config_ports = IO::new(0xcf8, 0xcf8, 1, 8);
        let low_ports = AddressSpace::<u16>::new_io(0, 0xcf7, None);
        let high_ports = AddressSpace::<u16>::new_io(0xd00, 0xffff, None);
        let vga = AddressSpace::<u32>::new_memory(Cacheable, true, 0xa_0000, 0xb_ffff, None);
        let low =
            AddressSpace::<u32>::new_memory(NotCacheable, true, *memory32.start(), *memory32.end(), None);
        let mut windows: Vec<&dyn Aml> = vec![&buses, &config_ports, &low_ports, &high_ports, &vga, &low];
        let high = memory64.as_ref().map(|range| {
            AddressSpace::<u64>::new_memory(Cacheable, true, *range.start(), *range.end(), None)
        });
        windows.extend(high.iter().map(|window| window as &dyn Aml));
        ResourceTemplate::new(windows).to_aml_bytes(sink);
    }
}

/// Which link device each slot's interrupt pins lead to: the same wiring that the interrupts themselves take.
fn interrupt_routes() -> PackageBuilder {
    let mut routes = PackageBuilder::new();
    for slot in 0..SLOTS {
        for pin in 0..4 {
            let address = u32::from(slot) << 16 | 0xffff; // All functions.
            let link = path(LINKS[usize::from(pirq_of(slot, pin))].0);
            routes.add_element(&Package::new(vec![&address, &pin, &link, &ZERO]));
        }
    }
    routes
}

/// The ISA bridge with its routing registers, and ISA devices. The 8042 is left out: see the FADT.
struct IsaBus<'a>(&'a Machine);

impl Aml for IsaBus<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (first, length) = (PIRQRC, LINKS.len());
        let registers = LINKS.map(|(_, register)| {
            let [a, b, c, d] = register.as_bytes() else { panic!("{register} is no name of four letters") };
            FieldEntry::Named([*a, *b, *c, *d], 8)
        });
        let pm_base = self.0.pm_base;
        let uarts: Vec<_> = (1..).zip(&self.0.uarts).map(|(index, uart)| Serial(index, *uart)).collect();

        let address = Name::new(path("_ADR"), &ISA_BRIDGE);
        let region = OpRegion::new(path("PIRQ"), OpRegionSpace::PCIConfig, &first, &length);
        let fields = Field::new(
            path("PIRQ"),
            FieldAccessType::Byte,
            FieldLockRule::NoLock,
            FieldUpdateRule::Preserve,
            registers.to_vec(),
        );
        let clock = IsaDevice {
            name: "RTC_",
            id: "PNP0B00",
            unique: 0,
            resources: &[&IO::new(0x70, 0x70, 1, 2), &isa_interrupt(8)],
        };
        let timer = IsaDevice {
            name: "TMR_",
            id: "PNP0100",
            unique: 0,
            resources: &[&IO::new(0x40, 0x40, 1, 4), &isa_interrupt(0)],
        };
        // Motherboard resources: ports that no device above claims, and that PCI devices must not get.
        let board = IsaDevice {
            name: "MBRD",
            id: "PNP0C02",
            unique: 1,
            resources: &[
                &IO::new(0x92, 0x92, 1, 1),
                &IO::new(0xb2, 0xb2, 1, 2),
                &IO::new(0x4d0, 0x4d0, 1, 2),
                &IO::new(0x510, 0x510, 1, 12),
                &IO::new(pm_base, pm_base, 1, Power::IO_SIZE as u8),
            ],
        };
        let mut children: Vec<&dyn Aml> = vec![&address, &region, &fields, &clock, &timer, &board];
        children.extend(uarts.iter().map(|uart| uart as &dyn Aml));
        Device::new(path("ISA_"), children).to_aml_bytes(sink);
    }
}

struct IsaDevice<'a> {
    name: &'a str,
    id: &'a str,
    unique: u8,
    resources: &'a [&'a dyn Aml],
}

impl Aml for IsaDevice<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Self { name, id, unique, resources } = *self;
        let resources = ResourceTemplate::new(resources.to_vec());
        Device::new(
            path(name),
            vec![
                &Name::new(path("_HID"), &EISAName::new(id)),
                &Name::new(path("_UID"), &unique),
                &Name::new(path("_CRS"), &resources),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// COM1 and on: the number and the port.
struct Serial(u8, Uart);

impl Aml for Serial {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Self(unique, Uart { port, irq }) = *self;
        let resources: &[&dyn Aml] = &[&IO::new(port, port, 1, 8), &isa_interrupt(irq)];
        IsaDevice { name: &format!("COM{unique:X}"), id: "PNP0501", unique, resources }.to_aml_bytes(sink);
    }
}

fn isa_interrupt(irq: u8) -> Interrupt {
    let (consumer, edge, active_low, shared) = (true, true, false, false);
    Interrupt::new(consumer, edge, active_low, shared, irq.into())
}

/// The interrupt link device of one PIRQ. Routing is the same with 8259s and I/O APIC, so there is no `_PIC`.
struct Link(usize);

impl Aml for Link {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (link, register) = LINKS[self.0];
        let unique = self.0 as u8 + 1;
        let register = path(&format!("\\_SB_.PCI0.ISA_.{register}"));
        let (buffer, number) = (path("BUF_"), path("IRQN"));
        // Where the one descriptor in a template has the interrupt's number.
        const NUMBER: u8 = 5;
        const NUMBER_MASK: u8 = 0x0f;
        const PRESENT: u8 = 0x0b;
        const DISABLED: u8 = 0x09;
        let off = And::new(&ZERO, &register, &NOT_ROUTED);
        Device::new(
            path(link),
            vec![
                &Name::new(path("_HID"), &EISAName::new("PNP0C0F")),
                &Name::new(path("_UID"), &unique),
                &Name::new(path("_PRS"), &ResourceTemplate::new(vec![&PirqInterrupt(&PCI_IRQS)])),
                &Method::new(
                    path("_STA"),
                    0,
                    false,
                    vec![&If::new(&off, vec![&Return::new(&DISABLED)]), &Return::new(&PRESENT)],
                ),
                &Method::new(path("_DIS"), 0, false, vec![&Or::new(&register, &register, &NOT_ROUTED)]),
                &Method::new(
                    path("_CRS"),
                    0,
                    true,
                    vec![
                        &Name::new(path("BUF_"), &ResourceTemplate::new(vec![&PirqInterrupt(&[0])])),
                        &CreateDWordField::new(&number, &buffer, &NUMBER),
                        &If::new(&Equal::new(&off, &ZERO), vec![&And::new(&number, &register, &NUMBER_MASK)]),
                        &Return::new(&buffer),
                    ],
                ),
                &Method::new(
                    path("_SRS"),
                    1,
                    true,
                    vec![&CreateDWordField::new(&number, &Arg(0), &NUMBER), &Store::new(&register, &number)],
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// An Extended Interrupt descriptor: one of these, level triggered, active high, shared (ACPI 6.5, 6.4.3.6).
struct PirqInterrupt<'a>(&'a [u8]);

impl Aml for PirqInterrupt<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const EXTENDED_INTERRUPT: u8 = 0x89;
        const SHARED: u8 = 1 << 3;
        const CONSUMER: u8 = 1 << 0;
        sink.byte(EXTENDED_INTERRUPT);
        sink.word(2 + 4 * self.0.len() as u16);
        sink.byte(SHARED | CONSUMER);
        sink.byte(self.0.len() as u8);
        for irq in self.0 {
            sink.dword(u32::from(*irq));
        }
    }
}

fn path(name: &str) -> Path {
    Path::new(name)
}
