//! Functions in machines: on /dev/kvm, or skipped where that runs no guest.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use kagero_devices::pci::Message;
use kagero_integration::{guest, smoke};
use kagero_vfio::{Machine as _, Mapping};
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::boot::firmware::Firmware;
use crate::boot::kernel::Kernel;
use crate::config::{ConsoleSink, RunConfig};
use crate::console::Console;
use crate::control::Ending;
use crate::kvm::Vm;
use crate::machine::{self, Boot, Machine, Plan};
use crate::memory::GuestRam;
use crate::report::Recorder;
use crate::stop::Stop;
use crate::storage::Storage;
use crate::trace::Trace;

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

/// BARs of several functions move over one another, RAM and the chipset, from several threads, while others look for them, and lines are
/// routed. Who holds a function's lock and who wants it next must not hinder one another, and nothing may be left behind.
#[test]
fn threads_move_bars_over_each_other() {
    if smoke::run(3).is_err() {
        return eprintln!("skipped: no guest runs on /dev/kvm");
    }
    let ram = GuestRam::new(64 << 20).unwrap();
    let vm = Vm::new(&ram).unwrap();
    let backplane = Arc::new(Backplane::new());
    backplane.plug(&vm);
    let toy = || Box::new(Toy::new(Arc::clone(&backplane) as Arc<_>)) as Box<dyn Slotted>;
    let addresses = [at(3, 0), at(3, 1), at(4, 0)];
    let functions = Functions::new(addresses.map(|address| (address, toy())).into()).unwrap();
    const BASES: [u32; 6] = [0xe000_0000, 0xe000_1000, 0xe001_0000, 0x10_0000, 0xfec0_0000, 0xffff_0000];
    std::thread::scope(|threads| {
        for thread in 0..4u32 {
            let functions = &functions;
            threads.spawn(move || {
                let mut random = (thread + 1).wrapping_mul(0x9e37_79b9);
                for _ in 0..1500 {
                    // Xorshift.
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    let pick = |shift: u32, count: usize| (random >> shift) as usize % count;
                    let (address, base) = (addresses[pick(4, 3)], BASES[pick(8, 6)]);
                    match pick(16, 8) {
                        0 => write32(functions, address, 0x10, base),
                        1 => write32(functions, address, 0x14, base >> 8 & 0xfff0),
                        2 | 3 => write32(functions, address, 0x18, base),
                        4 => write32(functions, address, 0x04, random >> 20 & 7),
                        5 => functions.route(|| {
                            [None, Some(10), Some(11), Some(5)].map(|irq| irq.filter(|_| random & 1 == 0))
                        }),
                        6 if random >> 24 == 0 => functions.reset(),
                        _ => {
                            let found = functions.find(Space::Memory, base.into(), 4);
                            let mut out = [0; 4];
                            found.iter().for_each(|found| functions.read(*found, 4, &mut out));
                        }
                    }
                }
            });
        }
    });
    functions.reset();
    for base in BASES {
        assert_eq!(functions.find(Space::Memory, base.into(), 1), None, "{base:#x}");
    }
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x2_0000).unwrap();
    let all = Arc::new(Mapping::new(&file, 0, 0x2_0000).unwrap());
    let slot = backplane.map(0xe000_0000, all).expect("everything was unmapped");
    // RAM has two of KVM's slots.
    assert_eq!(slot.0, 2, "all numbers came back");
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
        Arc::new(Mapping::new(&file, 0, 4096).unwrap())
    };
    assert!(backplane.map(0xe000_0000, page()).is_err(), "there is no machine");
    backplane.plug(&vm);
    let event = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..4u64 {
            let backplane = &backplane;
            threads.spawn(move || {
                let (memory, rings) = (page(), event());
                let gpa = 0xe000_0000 + 0x1000 * thread;
                let message = |vector| Message { address: 0xfee0_0000, data: vector };
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
