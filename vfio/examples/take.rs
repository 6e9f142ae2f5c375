//! Takes functions over with VFIO, does with each what a guest's driver does, and gives them back: `take [container|iommufd] 0000:03:00.0 ...`
//!
//! It needs no guest and no KVM: the machine is the mock. For a look at what a host's VFIO lets us do, and at new hardware. The functions must
//! be bound to vfio-pci.
#![allow(unsafe_code)]

use std::error::Error;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Instant;

use kagero_vfio::mock::Bench;
use kagero_vfio::{Choice, Function, Hardware, Interrupt, Iommu, Ram, Region};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

const RAM: usize = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let choice = match names.first().map(String::as_str) {
        Some("container") => Choice::Container,
        Some("iommufd") => Choice::Iommufd,
        _ => Choice::Best,
    };
    names.retain(|name| name.contains(':'));
    let iommu = Arc::new(Iommu::new(choice)?);
    let devices: Vec<_> = names.iter().map(|name| iommu.open(name)).collect::<Result<_, _>>()?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: new memory, which nobody else uses and which stays until the process ends.
    let host = unsafe { mmap_anonymous(null_mut(), RAM, access, MapFlags::PRIVATE) }? as u64;
    let ram = [(0, 0, 0xa_0000), (1 << 32, 0x10_0000, RAM as u64 - 0x10_0000)];
    let ram = ram.map(|(gpa, at, length)| Ram { gpa, host: host + at, length });
    let start = Instant::now();
    // SAFETY: as above.
    unsafe { iommu.map(&ram) }?;
    println!("{iommu:?}: memory mapped in {:?}, {} files for KVM", start.elapsed(), iommu.files()?.len());
    for device in devices {
        let start = Instant::now();
        take(device)?;
        println!("  in {:?}", start.elapsed());
    }
    Ok(())
}

fn take(device: impl Hardware + 'static) -> Result<(), Box<dyn Error>> {
    println!("{}:", device.name());
    let kinds = [Interrupt::Intx, Interrupt::Msi, Interrupt::MsiX, Interrupt::Error, Interrupt::Request];
    println!("  vectors {:?}, grows {}", kinds.map(|kind| (kind, device.vectors(kind))), device.grows());
    println!("  ROM {:#x}, configuration {:#x}", device.size(Region::Rom), device.size(Region::Config));
    println!("  reset of the whole bus: {:?}", device.reset_bus());
    let bench = Bench::new();
    let mut function = Function::new(Box::new(device), bench.machine(), true, false)?;
    for bar in 0..6 {
        function.write_config(0x10 + 4 * bar, &(0xe000_0000 + (u32::from(bar) << 24)).to_le_bytes());
    }
    // The halves of 64-bit BARs have no addresses of their own.
    for bar in 0..5 {
        if matches!(function.bar(bar), Some(kagero_devices::pci::Bar::Memory64 { .. })) {
            function.write_config(0x14 + 4 * u16::from(bar), &1u32.to_le_bytes());
        }
        if matches!(function.bar(bar), Some(kagero_devices::pci::Bar::Io { .. })) {
            function.write_config(0x10 + 4 * u16::from(bar), &0xc000u32.to_le_bytes());
        }
    }
    function.write_config(0x30, &0xef00_0001u32.to_le_bytes());
    function.write_config(4, &[7, 0]);
    for decode in function.decodes() {
        let mut first = [0; 4];
        function.read(decode.region, 0, &mut first);
        println!("  {decode:x?} begins with {first:02x?}");
    }
    println!("  mapped {:x?}", bench.mapped());
    let pin = function.pin();
    function.route_line(Some(11));
    println!("  pin {pin:?} on line {:?}", bench.line());
    function.route_line(Some(10));
    for (kind, control) in capabilities(&mut function) {
        messages(&mut function, &bench, kind, control);
    }
    function.reset();
    println!("  after a reset: line {:?}, decodes {:?}", bench.line(), function.decodes());
    while let Some(error) = function.take_error() {
        println!("  ERROR {error}");
    }
    println!("  {:?}", bench.mistakes());
    Ok(())
}

/// MSI and MSI-X, with where their control words are.
fn capabilities(function: &mut Function) -> Vec<(u8, u16)> {
    let mut byte = |at: u16| {
        let mut out = [0];
        function.read_config(at, &mut out);
        out[0]
    };
    let (mut at, mut found) = (byte(0x34), Vec::new());
    while at != 0 && found.len() < 48 {
        found.push((byte(at.into()), u16::from(at) + 2));
        at = byte(u16::from(at) + 1);
    }
    println!("  capabilities {found:02x?}");
    found.retain(|(id, _)| [0x05, 0x11].contains(id));
    found
}

fn messages(function: &mut Function, bench: &Bench, id: u8, control: u16) {
    let mut place = [0; 4];
    function.read_config(control + 2, &mut place);
    let place = u32::from_le_bytes(place);
    let (region, table) = (Region::Bar(place as u8 & 7), u64::from(place & !7));
    // Enabled with everything masked; then two vectors.
    let enable: u16 = if id == 0x05 { 0x11 } else { 0x8000 };
    function.write_config(control, &enable.to_le_bytes());
    if id == 0x11 {
        for vector in 0..2 {
            function.write(region, table + 16 * vector + 12, &[0; 4]);
        }
    }
    println!("  capability {id:02x}: {} messages connected", bench.connected().len());
    function.write_config(control, &[0, 0]);
}
