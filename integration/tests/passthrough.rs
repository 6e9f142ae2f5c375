//! Devices of L1 that a VMM in it passes through to a guest. `cargo xtask test` runs these one after the other, but for those
//! that it names as left out: Kagero takes QEMU's place when it can.

use kagero_images::tiny;
use kagero_integration::exits::{Counter, IO, MMIO};
use kagero_integration::l1::{Job, L1};
use kagero_integration::passthrough::{
    Check, Device, Devices, Interrupts, TONE, Vmm, has_tone, verdicts, with_checks, with_script,
};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const BOOT: Duration = Duration::from_secs(120);
const CHECKS: Duration = Duration::from_secs(240);

/// What [`Check::Display`] draws.
const BANDS: [(Device, [[u8; 3]; 4]); 2] = [
    (Device::Display, [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]),
    (Device::Vga, [[255, 255, 0], [0, 255, 255], [255, 0, 255], [255, 0, 0]]),
];

/// An L1 with all the devices, and with these VMMs in it.
fn lab(vmms: &[Vmm]) -> (Devices, L1) {
    let devices = Devices::new().unwrap();
    let l1 = devices.add_to(L1::builder()).unwrap();
    let l1 = vmms.iter().fold(l1, |l1, vmm| vmm.add_to(l1).unwrap()).start().unwrap();
    println!("L1 ready in {:.1} s", l1.ready_in().as_secs_f64());
    (devices, l1)
}

/// Starts the guest and waits for its first word. Returns how long that took, too.
fn start<'a>(l1: &'a L1, vmm: Vmm, append: &str, addresses: &[String]) -> (Job<'a>, Duration) {
    let begin = Instant::now();
    let mut guest = l1.spawn(&vmm.command(append, addresses)).unwrap();
    guest.expect(tiny::STARTED, BOOT).unwrap();
    let took = begin.elapsed();
    println!("{vmm:?}, {} devices: {:.1} s to the guest's init", addresses.len(), took.as_secs_f64());
    (guest, took)
}

/// Waits for the guest's end; all checks of these stages have to be in its console, and all have to be fine.
fn expect_fine(guest: &mut Job<'_>, stages: &[&[Check]], interrupts: Interrupts) {
    let end = guest.wait(CHECKS).unwrap();
    let found = verdicts(&end.stdout);
    found.iter().for_each(|verdict| println!("{verdict}"));
    for &check in stages.iter().copied().flatten() {
        let mut verdicts = found.iter().filter(|verdict| verdict.name == check.name()).peekable();
        assert!(verdicts.peek().is_some(), "{check:?}: no word\n{}\n{}", end.stdout, end.stderr);
        for verdict in verdicts {
            let way = interrupts.of(check);
            assert!(verdict.ok && verdict.details.starts_with(way), "not fine, or not by {way:?}: {verdict}");
        }
    }
    assert_eq!(end.code, 0, "{}", end.stderr);
}

/// The drivers of the devices at these addresses in L1; a dash where there is none.
fn drivers(l1: &L1, addresses: &[String]) -> Vec<String> {
    let script = format!(
        "for a in {}; do d=/sys/bus/pci/devices/$a/driver; if [ -e $d ]; then basename $(readlink $d); else echo -; fi; done",
        addresses.join(" ")
    );
    let said = l1.run(&script, SOON).unwrap().expect_success().unwrap();
    said.lines().map(str::to_owned).collect()
}

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
fn all_devices_work_with_messages() {
    all_devices_work(Vmm::Kagero, Interrupts::Messages);
}

#[test]
#[ignore = "needs the lab"]
fn all_devices_work_with_pins() {
    all_devices_work(Vmm::Kagero, Interrupts::Pins);
}

fn all_devices_work(vmm: Vmm, interrupts: Interrupts) {
    let (devices, l1) = lab(&[vmm]);
    with_checks(&l1, &devices, &Check::ALL).unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let before = drivers(&l1, &addresses);
    let (mut guest, _) = start(&l1, vmm, interrupts.append(), &addresses);
    let mut qmp = devices.qmp().unwrap();
    guest.expect("ok: display", BOOT).unwrap();
    for (device, bands) in BANDS {
        qmp.wait_for_bands(device.name(), &bands, SOON).unwrap();
    }
    expect_fine(&mut guest, &Check::ALL, interrupts);
    assert_eq!(drivers(&l1, &addresses), before, "every device is back with its driver");
    // The file of what was played is whole when L1 has ended.
    l1.power_off().unwrap();
    let seconds = has_tone(&devices.sound(), TONE).unwrap();
    println!("the tone of {TONE} Hz is {seconds:.1} s long");
    assert!(seconds >= 2.5, "{seconds} s of a tone of 3 s");
}

#[test]
#[ignore = "needs the lab"]
fn drivers_reload_and_bars_move_under_qemu() {
    drivers_reload_and_bars_move(Vmm::Qemu);
}

#[test]
#[ignore = "needs the lab"]
fn drivers_reload_and_bars_move_with_kagero() {
    drivers_reload_and_bars_move(Vmm::Kagero);
}

fn drivers_reload_and_bars_move(vmm: Vmm) {
    const SECOND: &[Check] = &[Check::Link, Check::Nvme, Check::Usb, Check::Cd, Check::Sound];
    const STAGES: [&[Check]; 4] = [&[Check::Reload], SECOND, &[Check::Config], &[Check::Link, Check::Nvme]];
    let (devices, l1) = lab(&[vmm]);
    with_checks(&l1, &devices, &STAGES).unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let (mut guest, _) = start(&l1, vmm, "", &addresses);
    expect_fine(&mut guest, &STAGES, Interrupts::Messages);
}

#[test]
#[ignore = "needs the lab"]
fn ten_reboots_under_qemu() {
    ten_reboots(Vmm::Qemu);
}

#[test]
#[ignore = "needs the lab"]
fn ten_reboots_with_kagero() {
    ten_reboots(Vmm::Kagero);
}

/// The disk that is passed through remembers how many there were.
fn ten_reboots(vmm: Vmm) {
    const SCRIPT: &str = "modprobe -a nvme e1000e; wait_for /dev/nvme0n1
        count=$(($(dd if=/dev/nvme0n1 bs=512 count=1 iflag=direct 2>/dev/null | tr -d '\\000') + 1))
        { echo $count; cat /dev/zero; } | dd of=/dev/nvme0n1 bs=512 count=1 iflag=fullblock oflag=direct conv=fsync 2>/dev/null
        ip link set eth0 up; until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 50000; done
        ip addr add 10.7.0.2/24 dev eth0; ping -q -c 1 -w 30 10.7.0.1 >/dev/null && echo \"boot $count is fine\"
        [ $count -gt 10 ] || reboot -f";
    let (devices, l1) = lab(&[vmm]);
    with_script(&l1, SCRIPT).unwrap();
    let addresses = devices.addresses(&l1, &[Device::Network, Device::Nvme]).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let command = vmm.command("", &addresses).replace(" -no-reboot", "");
    let mut guest = l1.spawn(&command).unwrap();
    let begin = Instant::now();
    for boot in 1..=11 {
        guest.expect(&format!("boot {boot} is fine"), BOOT).unwrap();
        println!("boot {boot} after {:.1} s", begin.elapsed().as_secs_f64());
    }
    assert_eq!(guest.wait(BOOT).unwrap().code, 0);
}

#[test]
#[ignore = "needs the lab"]
fn the_iommu_stops_a_device_that_writes_outside_the_guest_under_qemu() {
    the_iommu_stops_a_device(Vmm::Qemu);
}

#[test]
#[ignore = "needs the lab"]
fn the_iommu_stops_a_device_that_writes_outside_the_guest() {
    the_iommu_stops_a_device(Vmm::Kagero);
}

fn the_iommu_stops_a_device(vmm: Vmm) {
    let (devices, l1) = lab(&[vmm]);
    with_checks(&l1, &devices, &[&[Check::Dma]]).unwrap();
    let addresses = devices.addresses(&l1, &[Device::Edu]).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let (mut guest, _) = start(&l1, vmm, "mem=511M iomem=relaxed", &addresses);
    expect_fine(&mut guest, &[&[Check::Dma]], Interrupts::Messages);
    let said = l1.run("dmesg | grep DMAR | grep -i fault", SOON).unwrap();
    println!("{}", said.stdout);
    let [bus_address, fault] = [&addresses[0][5..], &format!("fault addr {:#x}", Check::OUTSIDE)];
    let faults: Vec<&str> = said.stdout.lines().filter(|line| line.contains("DMA Write")).collect();
    assert!(faults.iter().any(|line| line.contains(bus_address) && line.contains(fault)), "{said:?}");
    assert!(faults.iter().all(|line| line.contains(fault)), "what it copied inside is no fault: {said:?}");
}

#[test]
#[ignore = "needs the lab"]
fn a_device_that_vanishes_leaves_qemus_guest() {
    let (devices, l1) = lab(&[Vmm::Qemu]);
    with_script(
        &l1,
        "modprobe nvme; wait_for /dev/nvme0n1; echo there; while [ -e /dev/nvme0n1 ]; do usleep 50000; done; echo gone",
    )
    .unwrap();
    let addresses = devices.addresses(&l1, &[Device::Nvme]).unwrap();
    Vmm::Qemu.prepare(&l1, &addresses).unwrap();
    let (mut guest, _) = start(&l1, Vmm::Qemu, "", &addresses);
    guest.expect("there", BOOT).unwrap();
    devices.unplug(Device::Nvme).unwrap();
    guest.expect("gone", BOOT).unwrap();
    let end = guest.wait(BOOT).unwrap();
    assert_eq!(end.code, 0, "{}", end.stderr);
    let gone = format!("while [ -e /sys/bus/pci/devices/{} ]; do usleep 50000; done", addresses[0]);
    l1.run(&gone, SOON).unwrap().expect_success().unwrap();
}

#[test]
#[ignore = "needs the lab"]
fn a_device_that_vanishes_is_named() {
    let (devices, l1) = lab(&[Vmm::Kagero]);
    with_script(&l1, "modprobe -a nvme e1000e; wait_for /dev/nvme0n1; echo there; sleep 1000").unwrap();
    let addresses = devices.addresses(&l1, &[Device::Nvme, Device::Network]).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let before = drivers(&l1, &addresses[1..]);
    let (mut guest, _) = start(&l1, Vmm::Kagero, "", &addresses);
    guest.expect("there", BOOT).unwrap();
    devices.unplug(Device::Nvme).unwrap();
    guest.stderr().expect(&addresses[0], SOON, || true).unwrap();
    let gone = format!("while [ -e /sys/bus/pci/devices/{} ]; do usleep 50000; done", addresses[0]);
    l1.run(&gone, SOON).unwrap().expect_success().unwrap();
    if guest.exit_code().is_none() {
        guest.signal("TERM").unwrap();
    }
    println!("{}", guest.wait(SOON).unwrap().stderr);
    assert_eq!(drivers(&l1, &addresses[1..]), before, "the other device is back with its driver");
}

#[test]
#[ignore = "needs the lab"]
fn half_a_group_is_refused_by_qemu() {
    let (devices, l1) = lab(&[Vmm::Qemu]);
    with_script(&l1, "").unwrap();
    let groups = l1.run("ls -d /sys/kernel/iommu_groups/*/devices/0000:00:1c.*", SOON).unwrap();
    println!("{}", groups.stdout);
    let [one, _] = devices.pair();
    Vmm::Qemu.prepare(&l1, std::slice::from_ref(&one)).unwrap();
    let end = l1.run(&Vmm::Qemu.command("", &[one]), SOON).unwrap();
    println!("{}", end.stderr);
    assert!(end.code != 0 && end.stderr.contains("not viable"), "{end:?}");
}

#[test]
#[ignore = "needs the lab"]
fn half_a_group_is_refused_with_the_name_of_the_other_half() {
    let (devices, l1) = lab(&[Vmm::Kagero]);
    with_script(&l1, "").unwrap();
    let pair = devices.pair();
    Vmm::Kagero.prepare(&l1, &pair).unwrap();
    let before = drivers(&l1, &pair);
    let end = l1.run(&Vmm::Kagero.command("", &pair[..1]), SOON).unwrap();
    println!("{}", end.stderr);
    assert!(end.code == 2 && end.stderr.contains(&pair[1]), "{end:?}");
    assert_eq!(drivers(&l1, &pair), before, "nothing was touched");
}

#[test]
#[ignore = "needs the lab"]
fn a_start_takes_at_most_half_as_long_as_qemus() {
    const STARTS: usize = 3;
    let (devices, l1) = lab(&[Vmm::Qemu, Vmm::Kagero]);
    with_script(&l1, "").unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    // By turns, so that a busy moment of the machine meets both. Both find all devices with vfio-pci.
    Vmm::Qemu.prepare(&l1, &addresses).unwrap();
    let [qemu, kagero] = [Vmm::Qemu, Vmm::Kagero];
    let mut took = [(); STARTS].map(|()| {
        [qemu, kagero].map(|vmm| {
            let (mut guest, took) = start(&l1, vmm, "", &addresses);
            guest.wait(BOOT).unwrap();
            took
        })
    });
    let [theirs, ours] = [0, 1].map(|vmm| {
        took.sort_by_key(|pair| pair[vmm]);
        took[STARTS / 2][vmm]
    });
    assert!(ours * 2 <= theirs, "Kagero {ours:?}, QEMU {theirs:?} (the middle ones of {STARTS})");
}

#[test]
#[ignore = "needs the lab"]
fn devices_are_given_back_after_sigkill() {
    let (devices, l1) = lab(&[Vmm::Kagero]);
    with_script(&l1, "echo up; sleep 1000").unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let before = drivers(&l1, &addresses);
    let (mut guest, _) = start(&l1, Vmm::Kagero, "", &addresses);
    guest.expect("up", BOOT).unwrap();
    assert!(drivers(&l1, &addresses).iter().all(|driver| driver == "vfio-pci"));
    guest.signal("KILL").unwrap();
    assert_eq!(guest.wait(SOON).unwrap().code, 137);
    let said = l1.run("kagero devices restore", SOON).unwrap().expect_success().unwrap();
    println!("{said}");
    assert_eq!(drivers(&l1, &addresses), before);
}

#[test]
#[ignore = "needs the lab"]
fn traffic_with_msix_needs_no_exit_to_user_space() {
    const PINGS: u64 = 2000;
    let (devices, l1) = lab(&[Vmm::Kagero]);
    let script = format!(
        "modprobe e1000e; wait_for /sys/class/net/eth0; ip link set eth0 up; ip addr add 10.7.0.2/24 dev eth0
         until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 50000; done; ping -q -c 1 -w 30 10.7.0.1
         echo quiet; sleep 4; ping -A -q -c {PINGS} 10.7.0.1; sleep 4; echo over"
    );
    with_script(&l1, &script).unwrap();
    let addresses = devices.addresses(&l1, &[Device::Network]).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let counter = Counter::start(&l1).unwrap();
    let (mut guest, _) = start(&l1, Vmm::Kagero, "", &addresses);
    guest.expect("quiet", BOOT).unwrap();
    let before = counter.read().unwrap();
    guest.expect(&format!("{PINGS} packets received"), BOOT).unwrap();
    let exits = counter.read().unwrap().since(&before);
    let count = |reason| exits.userspace.get(&reason).copied().unwrap_or(0);
    println!("{} port and {} memory accesses came to user space for {PINGS} pings", count(IO), count(MMIO));
    // What the console says, byte by byte, and what the driver does once a second.
    assert!(count(MMIO) < PINGS / 100 && count(IO) < PINGS / 2, "{:?}", exits.userspace);
}
