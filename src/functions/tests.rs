use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use kagero_integration::{guest, smoke};
use kagero_vfio::Machine as _;

use super::toy::{DEVICE, Toy, VENDOR};
use super::*;
use crate::boot::firmware::Firmware;
use crate::boot::kernel::Kernel;
use crate::boot::{Windows, resources};
use crate::config::{ConsoleSink, RunConfig};
use crate::console::Console;
use crate::control::Ending;
use crate::kvm::{Backplane, Vm};
use crate::machine::{self, Boot, Machine, Plan};
use crate::memory::GuestRam;
use crate::report::Recorder;
use crate::stop::Stop;
use crate::storage::Storage;
use crate::trace::Trace;

const GIB: u64 = 1 << 30;

fn at(slot: u8, function: u8) -> Address {
    Address { slot, function }
}

/// Toys that are in no machine.
fn toys(addresses: &[Address]) -> Result<Functions, Misplaced> {
    let toy =
        |address: &Address| (*address, Box::new(Toy::new(Arc::new(Backplane::new()))) as Box<dyn Slotted>);
    Functions::new(addresses.iter().map(toy).collect())
}

fn read32(functions: &Functions, address: Address, offset: u16) -> u32 {
    let mut value = [0; 4];
    functions.read_config(address, offset, &mut value);
    u32::from_le_bytes(value)
}

fn write32(functions: &Functions, address: Address, offset: u16, value: u32) {
    functions.write_config(address, offset, &value.to_le_bytes());
}

#[test]
fn functions_have_places_of_their_own_where_guests_look() {
    let refused = |addresses: &[Address]| toys(addresses).err();
    assert_eq!(refused(&[at(3, 0), at(31, 0), at(31, 7)]), None);
    assert_eq!(refused(&[at(2, 0)]), Some(Misplaced::Nowhere(at(2, 0))));
    assert_eq!(refused(&[at(3, 0), at(3, 8)]), Some(Misplaced::Nowhere(at(3, 8))));
    assert_eq!(refused(&[at(32, 0)]), Some(Misplaced::Nowhere(at(32, 0))));
    assert_eq!(refused(&[at(4, 0), at(3, 0), at(4, 0)]), Some(Misplaced::Twice(at(4, 0))));
    assert_eq!(refused(&[at(3, 0), at(4, 1)]), Some(Misplaced::Headless(at(4, 1))));
}

#[test]
fn addresses_follow_the_bars_and_a_reset_takes_them_back() {
    let functions = toys(&[at(3, 0), at(4, 0)]).unwrap();
    let toy = at(4, 0);
    assert_eq!(read32(&functions, toy, 0), u32::from(DEVICE) << 16 | u32::from(VENDOR));
    assert_eq!(read32(&functions, at(5, 0), 0), u32::MAX);
    write32(&functions, toy, 0x10, 0xe000_0000);
    assert_eq!(functions.find(Space::Memory, 0xe000_0000, 4), None);
    write32(&functions, toy, 4, 3);
    let found = functions.find(Space::Memory, 0xe000_0010, 4).unwrap();
    assert_eq!(functions.describe(found), "04.0/bar0+10");
    functions.write(found, 4, &[1, 2, 3, 4]);
    let mut strings = [0; 8];
    functions.read(found, 4, &mut strings);
    assert_eq!(strings, [1, 2, 3, 4, 1, 2, 3, 4]);
    functions.reset();
    assert_eq!(functions.find(Space::Memory, 0xe000_0010, 4), None);
    assert_eq!(functions.take_accesses().collect::<Vec<_>>(), [("pci-03.0", 0, 0), ("pci-04.0", 1, 1)]);
    assert_eq!(functions.take_accesses().last(), Some(("pci-04.0", 0, 0)));
}

#[test]
fn without_firmware_bars_get_addresses_and_pins_their_interrupts() {
    let backplane = Arc::new(Backplane::new());
    let toy = |size: u64, prefetchable: bool| -> Box<dyn Slotted> {
        Box::new(Toy::new(Arc::clone(&backplane) as Arc<_>).with_large_bar(size, prefetchable))
    };
    let functions = Functions::new(vec![
        (at(3, 0), toy(32 << 20, false)),
        (at(3, 1), toy(GIB, false)),
        (at(6, 0), toy(16 * GIB, true)),
        (at(7, 0), toy(1 << 45, true)),
    ])
    .unwrap();
    let windows = Windows::new(3 * GIB, 5 * GIB, 40);
    resources::assign(&functions, &windows, [10, 10, 11, 11]);
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for address in [at(3, 0), at(3, 1), at(6, 0), at(7, 0)] {
        let [registers, ports, memory, memory_high, large, large_high] =
            [0, 1, 2, 3, 4, 5].map(|bar| u64::from(read32(&functions, address, 0x10 + 4 * bar)));
        assert!(windows.memory32.contains(&(registers as u32)), "{address}: {registers:#x}");
        assert!(windows.ports.contains(&(ports as u16 & !3)), "{address}: {ports:#x}");
        taken.push((registers, 4096));
        // Prefetchable: above 4 GiB.
        let memory = memory_high << 32 | memory & !15;
        assert!(windows.memory64.as_ref().unwrap().contains(&memory), "{address}: {memory:#x}");
        taken.push((memory, 64 << 10));
        let large = large_high << 32 | large & !15;
        match address {
            Address { slot: 3, function: 0 } => taken.push((large, 32 << 20)),
            Address { slot: 3, .. } => taken.push((large, GIB)),
            Address { slot: 6, .. } => taken.push((large, 16 * GIB)),
            _ => assert_eq!(large, 0, "there is no room for it"),
        }
        assert_eq!(read32(&functions, address, 4) & 0xffff, 0, "nothing is enabled");
    }
    taken.sort_unstable();
    assert!(taken.iter().all(|(base, size)| *base != 0 && base % size == 0), "{taken:x?}");
    assert!(taken.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{taken:x?}");
    assert!(taken.iter().any(|(base, size)| *size == 32 << 20 && *base < 4 * GIB), "{taken:x?}");
    assert!(taken.iter().any(|(base, size)| *size == GIB && *base > 4 * GIB), "{taken:x?}");
    // Slot 3, pin A: PIRQC. Slots 6 and 7: PIRQB and C.
    let line = |address| read32(&functions, address, 0x3c) & 0xff;
    assert_eq!([line(at(3, 0)), line(at(3, 1)), line(at(6, 0)), line(at(7, 0))], [11, 11, 10, 11]);
}

/// A machine with functions and without disks.
struct Rig {
    plan: Plan,
    stop: Stop,
    folder: tempfile::TempDir,
}

impl Rig {
    /// `None` where KVM runs no guest, or there is no firmware.
    fn new(
        memory: u64,
        boot: impl FnOnce(&std::path::Path) -> Option<Boot>,
        expect: Option<&str>,
    ) -> Option<Rig> {
        if let Err(error) = smoke::run(3) {
            eprintln!("skipped: no guest runs on /dev/kvm: {error:#}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let boot = boot(folder.path())?;
        let ram = GuestRam::new(memory).unwrap();
        let stop = Stop::new().unwrap();
        stop.after(Duration::from_secs(60)).unwrap();
        let recorder = Recorder::new(&RunConfig::default());
        let log = ConsoleSink::File(folder.path().join("console.log"));
        let bits = crate::kvm::check().unwrap();
        let plan = Plan {
            facts: machine::facts(2, &ram, bits, true),
            boot,
            storage: Arc::new(Storage::new(Vec::new(), Vec::new(), ram.clone()).unwrap()),
            functions: Arc::new(Functions::none()),
            backplane: Arc::new(Backplane::new()),
            vfio: Vec::new(),
            console: Console::open(&log, expect, &stop, &recorder).unwrap(),
            trace: Trace::off(),
            recorder,
            firmware_log: Some(File::create(folder.path().join("firmware.log")).unwrap()),
            ram,
        };
        Some(Rig { plan, stop, folder })
    }

    fn toy(&self) -> Toy {
        let log = self.folder.path().join("firmware.log");
        let length = move || log.metadata().unwrap().len() as u32;
        Toy::new(Arc::clone(&self.plan.backplane) as Arc<_>).observing(length)
    }

    fn put(&mut self, functions: Vec<(Address, Toy)>) {
        let functions = functions.into_iter().map(|(address, toy)| (address, Box::new(toy) as Box<_>));
        self.plan.functions = Arc::new(Functions::new(functions.collect()).unwrap());
    }

    /// Runs the machine to its end; `look` before it is gone.
    fn run(&self, look: impl FnOnce(&Functions)) -> Ending {
        let machine = Machine::start(&self.plan, None).unwrap_or_else(|error| panic!("{error}"));
        let ending = machine.wait(&self.plan.console, &self.stop).unwrap();
        look(&self.plan.functions);
        drop(machine.stop());
        ending
    }

    fn said(&self) -> String {
        self.plan.console.close();
        std::fs::read_to_string(self.folder.path().join("console.log")).unwrap()
    }
}

/// Notes where its line leads.
struct Wire(Arc<Mutex<Vec<Option<u8>>>>);

impl Slotted for Wire {
    fn name(&self) -> String {
        "wire".into()
    }

    fn read_config(&mut self, _: u16, _: &mut [u8]) {}
    fn write_config(&mut self, _: u16, _: &[u8]) -> bool {
        false
    }
    fn decodes(&self) -> Vec<Decode> {
        Vec::new()
    }
    fn read(&mut self, _: Region, _: u64, _: &mut [u8]) {}
    fn write(&mut self, _: Region, _: u64, _: &[u8]) {}
    fn pin(&self) -> Option<u8> {
        Some(3)
    }
    fn route_line(&mut self, irq: Option<u8>) {
        self.0.lock().unwrap().push(irq);
    }
    fn reset(&mut self) {}
}

#[test]
fn a_line_hears_only_of_changes_of_its_own_route() {
    let heard = Arc::default();
    // Slot 4, pin D: PIRQC.
    let functions = Functions::new(vec![(at(4, 0), Box::new(Wire(Arc::clone(&heard))))]).unwrap();
    functions.route(|| [Some(10), Some(11), None, Some(5)]);
    functions.route(|| [None, None, Some(9), None]);
    functions.route(|| [Some(3), None, Some(9), None]);
    functions.route(|| [Some(3), None, Some(5), None]);
    functions.reset();
    functions.reset();
    assert_eq!(*heard.lock().unwrap(), [Some(9), Some(5), None]);
}

fn driver(folder: &std::path::Path) -> Option<Boot> {
    let image = guest::firmware("functions", &[], folder).unwrap();
    Some(Boot::Firmware(Firmware::open(&image).unwrap()))
}

fn kernel(folder: &std::path::Path) -> Option<Boot> {
    let image = guest::kernel("kernel", &[], folder).unwrap();
    Some(Boot::Kernel(Kernel { image, initrd: None, append: String::new() }))
}

#[test]
fn a_guest_drives_a_function_in_two_lives_of_the_machine() {
    let Some(mut rig) = Rig::new(64 << 20, driver, None) else { return };
    // Slot 5, so that pin A is PIRQA.
    rig.put(vec![(at(5, 0), rig.toy())]);
    for life in 0..2 {
        let mut decoded = false;
        let ending = rig.run(|functions| decoded = functions.find(Space::Memory, 0xe000_0000, 4).is_some());
        assert_eq!((ending, decoded), (Ending::PowerOff, true), "life {life}");
        let functions = &rig.plan.functions;
        assert_eq!(functions.find(Space::Memory, 0xe000_0000, 4), None, "it was reset");
        assert_eq!(read32(functions, at(5, 0), 0x10), 0);
        // The log is counted from its beginning.
        rig.plan.firmware_log = Some(File::create(rig.folder.path().join("firmware.log")).unwrap());
    }
    assert_eq!(rig.said(), "slot 00000005\nall is well\n".repeat(2));
    let (name, reads, writes) = rig.plan.functions.take_accesses().next().unwrap();
    assert!(name == "pci-05.0" && reads > 20 && writes > 10, "{reads} reads, {writes} writes");
}

#[test]
fn a_kernel_that_is_booted_directly_finds_what_firmware_would_have_set_up() {
    let Some(mut rig) = Rig::new(64 << 20, kernel, None) else { return };
    rig.put(vec![(at(3, 0), rig.toy()), (at(9, 0), rig.toy().with_large_bar(GIB, false))]);
    // After a reset too.
    for _ in 0..2 {
        assert_eq!(rig.run(|_| ()), Ending::PowerOff);
    }
    // BARs 0 to 5, the Command register's I/O, memory and master bits off, and the pins' interrupts: PIRQC and PIRQA.
    let life = "\
        slot 00000003 80000000 0000c001 4000000c 00000001 00000000 00000000 00000000 0000010b\n\
        slot 00000009 80001000 0000c011 4001000c 00000001 00000004 00000001 00000000 0000010a\n\
        levels 00000c00\nmemory type 00000806\n";
    assert_eq!(rig.said(), life.repeat(2));
}

/// SeaBIOS' choice for each BAR of three functions, when a BAR of 64 bits asks for `large`.
fn seabios(memory: u64, large: u64) -> Option<(Windows, Vec<u64>)> {
    let seabios = |_: &std::path::Path| {
        let path =
            crate::config::default_firmware().inspect_err(|error| eprintln!("skipped: {error}")).ok()?;
        Some(Boot::Firmware(Firmware::open(&path).unwrap()))
    };
    let mut rig = Rig::new(memory, seabios, Some("No bootable device"))?;
    rig.put(vec![
        (at(3, 0), rig.toy().with_large_bar(8 << 20, true)),
        (at(3, 1), rig.toy().with_large_bar(16 << 20, false)),
        (at(31, 0), rig.toy().with_large_bar(large, true)),
    ]);
    let windows = rig.plan.facts.windows.clone();
    let mut places = Vec::new();
    let ending = rig.run(|functions| {
        for address in functions.addresses() {
            let bar = |index: u16| u64::from(read32(functions, address, 0x10 + 4 * index)) & !3;
            let [registers, ports, memory, large] =
                [bar(0), bar(1), bar(3) << 32 | bar(2) & !15, bar(5) << 32 | bar(4) & !15];
            assert!(windows.ports.contains(&(ports as u16)), "{address}: {ports:#x}");
            // Pin A of both slots: PIRQC.
            assert_eq!(read32(functions, address, 0x3c) & 0xff, 11, "{address}");
            assert!(functions.find(Space::Memory, registers, 4).is_some(), "{address} decodes");
            places.extend([registers, memory, large]);
        }
    });
    assert_eq!(ending, Ending::Asked, "{}", rig.said());
    Some((windows, places))
}

#[test]
fn seabios_puts_all_bars_into_the_lower_window_when_they_fit() {
    let Some((windows, places)) = seabios(64 << 20, 32 << 20) else { return };
    let low = windows.memory32;
    assert!(places.iter().all(|place| low.contains(&(*place as u32)) && *place < 4 * GIB), "{places:x?}");
}

#[test]
fn seabios_puts_large_bars_into_the_upper_window() {
    // With memory above 4 GiB it leaves room for the BARs' alignment, even on a CPU with few address bits.
    let Some((windows, places)) = seabios(3 * GIB + (64 << 20), 8 * GIB) else { return };
    let high = windows.memory64.unwrap();
    for place in &places {
        assert!(windows.memory32.contains(&(*place as u32)) || high.contains(place), "{places:x?}");
    }
    let large = places.last().unwrap();
    assert!(high.contains(large) && high.contains(&(large + 8 * GIB - 1)), "{places:x?}");
}

#[test]
fn slots_and_routes_come_and_go_on_several_threads() {
    if smoke::run(3).is_err() {
        return eprintln!("skipped: no guest runs on /dev/kvm");
    }
    let ram = GuestRam::new(64 << 20).unwrap();
    let vm = Vm::new(&ram).unwrap();
    let backplane = Backplane::new();
    let page = || {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        Arc::new(kagero_vfio::Mapping::new(&file, 0, 4096).unwrap())
    };
    assert!(backplane.map(0xe000_0000, page()).is_err(), "there is no machine");
    backplane.plug(&vm);
    let event = || rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..4u64 {
            let backplane = &backplane;
            threads.spawn(move || {
                use std::os::fd::AsFd;
                let (memory, rings) = (page(), event());
                let gpa = 0xe000_0000 + 0x1000 * thread;
                let message = |vector| kagero_devices::pci::Message { address: 0xfee0_0000, data: vector };
                for round in 0..100 {
                    let slot = backplane.map(gpa, Arc::clone(&memory)).unwrap();
                    assert!(backplane.map(gpa, Arc::clone(&memory)).is_err(), "something is there");
                    let route = backplane.connect(rings.as_fd(), message(0x40)).unwrap();
                    // Four slots for RAM, ROM and others, and four threads; numbers from 24 on.
                    assert!(slot.0 < 16 && (24..28).contains(&route.0), "{round}: {slot:?}, {route:?}");
                    backplane.redirect(route, message(0x41)).unwrap();
                    backplane.disconnect(route, rings.as_fd());
                    backplane.unmap(slot);
                }
                assert_eq!(Arc::strong_count(&memory), 1, "nobody keeps it");
            });
        }
    });
    // RAM and the chipset's addresses are not for BARs.
    assert!(backplane.map(0x10_0000, page()).is_err());
    assert!(backplane.map(0xfec0_0000, page()).is_err());
    let held = page();
    backplane.map(0x1_0000_0000, Arc::clone(&held)).unwrap();
    assert_eq!(Arc::strong_count(&held), 2, "the machine keeps it");
    backplane.unplug();
    assert!(backplane.map(0xe000_0000, page()).is_err());
    drop(vm);
    assert_eq!(Arc::strong_count(&held), 1, "and with the machine it goes");
}
