//! Devices of L1 that a VMM in it passes through to a guest. `cargo xtask test` runs these one after the other.

use kagero_images::tiny;
use kagero_integration::l1::L1;
use kagero_integration::passthrough::{Device, Devices, Guest, Interrupts, TONE, Vmm, has_tone, verdicts};
use std::time::{Duration, Instant};

const BOOT: Duration = Duration::from_secs(120);
const CHECKS: Duration = Duration::from_secs(240);

/// What the guest draws on the two displays.
const BANDS: [(Device, [[u8; 3]; 4]); 2] = [
    (Device::Display, [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]),
    (Device::Vga, [[255, 255, 0], [0, 255, 255], [255, 0, 255], [255, 0, 0]]),
];

#[test]
#[ignore = "needs the lab"]
fn all_devices_work_under_qemu_with_messages() {
    all_devices_work(Vmm::Qemu, Interrupts::Messages);
}

#[test]
#[ignore = "needs the lab"]
fn all_devices_work_under_qemu_with_pins() {
    all_devices_work(Vmm::Qemu, Interrupts::Pins);
}

#[test]
#[ignore = "needs the lab"]
fn all_devices_work_under_kagero_with_messages() {
    all_devices_work(Vmm::Kagero, Interrupts::Messages);
}

#[test]
#[ignore = "needs the lab"]
fn all_devices_work_under_kagero_with_pins() {
    all_devices_work(Vmm::Kagero, Interrupts::Pins);
}

fn all_devices_work(vmm: Vmm, interrupts: Interrupts) {
    let devices = Devices::new().unwrap();
    let l1 = vmm.add_to(devices.add_to(L1::builder()).unwrap()).unwrap().start().unwrap();
    println!("L1 ready in {:.1} s", l1.ready_in().as_secs_f64());
    let checks = Guest::with_checks(&l1, &devices, &Device::ALL).unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let start = Instant::now();
    let mut guest = l1.spawn(&vmm.command(interrupts.append(), &addresses)).unwrap();
    guest.expect(tiny::STARTED, BOOT).unwrap();
    println!("{vmm:?}: {:.1} s to the guest's init", start.elapsed().as_secs_f64());
    let mut qmp = devices.qmp().unwrap();
    let drawn = guest.expect("display drawn", BOOT);
    println!("{:.1} s: drawn", start.elapsed().as_secs_f64());
    let seen: Vec<_> = BANDS
        .iter()
        .map(|(device, bands)| qmp.wait_for_bands(device.name(), bands, Duration::from_secs(10)))
        .collect();
    let end = guest.wait(CHECKS).unwrap();
    println!("{:.1} s: end with {}", start.elapsed().as_secs_f64(), end.code);
    let found = verdicts(&end.stdout);
    for verdict in &found {
        println!("{} {} {}", if verdict.ok { "ok" } else { "failed" }, verdict.name, verdict.details);
    }
    drawn.unwrap();
    seen.into_iter().collect::<Result<(), _>>().unwrap();
    let names: Vec<&str> = found.iter().map(|verdict| &*verdict.name).collect();
    assert_eq!(names, checks, "{}\n{}", end.stdout, end.stderr);
    for verdict in &found {
        assert!(verdict.ok, "{}: {}", verdict.name, verdict.details);
        let way = interrupts.of(&verdict.name);
        assert!(verdict.details.starts_with(way), "{} doesn't interrupt by {way}: {}", verdict.name, verdict.details);
    }
    assert_eq!(end.code, 0);
    // The file of what was played is whole when L1 has ended.
    l1.power_off().unwrap();
    let seconds = has_tone(&devices.sound(), TONE).unwrap();
    println!("the tone of {TONE} Hz is {seconds:.1} s long");
    assert!(seconds >= 2.0, "{seconds} s of a tone of 3 s");
}

#[test]
#[ignore = "needs the lab"]
fn start_probe() {
    let devices = Devices::new().unwrap();
    let l1 = devices.add_to(L1::builder()).unwrap();
    let l1 = Vmm::Qemu.add_to(l1).unwrap().start().unwrap();
    Guest::without_checks(&l1).unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    Vmm::Qemu.prepare(&l1, &addresses).unwrap();
    let said = l1.run("for d in /sys/bus/pci/devices/0000:0[1-7]*; do echo $d $(cat $d/vendor $d/device $d/class $d/reset_method) group $(basename $(readlink $d/iommu_group)); done", BOOT).unwrap();
    println!("{} {}", said.stdout, said.stderr);
    let mut list = vec![("none".to_string(), vec![]), ("all".into(), addresses.clone())];
    list.extend(addresses.iter().map(|address| (address.clone(), vec![address.clone()])));
    list.push(("all".into(), addresses.clone()));
    for (what, addresses) in list {
        let start = Instant::now();
        let mut guest = l1.spawn(&Vmm::Qemu.command("", &addresses)).unwrap();
        guest.expect(tiny::STARTED, BOOT).unwrap();
        println!("{what}: {:.1} s to the guest's init", start.elapsed().as_secs_f64());
        guest.wait(BOOT).unwrap();
        println!("{what}: {:.1} s to the end", start.elapsed().as_secs_f64());
    }
}
