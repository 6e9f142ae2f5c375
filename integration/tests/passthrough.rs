//! Devices of L1 that a VMM in it passes through to a guest. `cargo xtask test` runs these one after the other, but for those
//! that it names as left out.

use kagero_images::debian;
use kagero_integration::exits::{Counter, IO, MMIO};
use kagero_integration::l1::{Job, L1};
use kagero_integration::machines;
use kagero_integration::passthrough::{
    Check, Device, Devices, Interrupts, TONE, Vmm, drivers, has_tone, lab, verdicts, with_checks, with_script,
};
use std::time::{Duration, Instant};

/// Debian's package ovmf has it.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

const SOON: Duration = Duration::from_secs(30);
const BOOT: Duration = Duration::from_secs(120);
const CHECKS: Duration = Duration::from_secs(240);

/// What [`Check::Display`] draws.
const BANDS: [(Device, [[u8; 3]; 4]); 2] = [
    (Device::Display, [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]),
    (Device::Vga, [[255, 255, 0], [0, 255, 255], [255, 0, 255], [255, 0, 0]]),
];

/// Waits for the guest's end; all checks of these stages have to be in its console, and all have to be fine.
fn expect_fine(guest: &mut Job<'_>, stages: &[&[Check]], interrupts: Interrupts) {
    let end = guest.wait(CHECKS).unwrap();
    let found = verdicts(&end.stdout);
    found.iter().for_each(|verdict| println!("{verdict}"));
    let mut checks: Vec<Check> = stages.concat();
    checks.sort_by_key(|check| check.name());
    let mut sorted: Vec<_> = found.iter().collect();
    sorted.sort_by_key(|verdict| &verdict.name);
    let same = sorted.iter().map(|verdict| &*verdict.name).eq(checks.iter().map(|check| check.name()));
    assert!(same, "not one verdict for each of {checks:?}:\n{}\n{}", end.stdout, end.stderr);
    for (verdict, check) in sorted.iter().zip(checks) {
        let way = interrupts.of(check);
        assert!(verdict.ok && verdict.details.starts_with(way), "not fine, or not by {way:?}: {verdict}");
    }
    assert_eq!(end.code, 0, "{}", end.stderr);
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
    let (devices, l1) = lab(&[vmm]).unwrap();
    with_checks(&l1, &devices, &Check::ALL).unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let before = drivers(&l1, &addresses).unwrap();
    let (mut guest, _) = vmm.start(&l1, interrupts.append(), &addresses).unwrap();
    let mut qmp = devices.qmp().unwrap();
    guest.expect("ok: display", BOOT).unwrap();
    for (device, bands) in BANDS {
        qmp.wait_for_bands(device.name(), &bands, SOON).unwrap();
    }
    expect_fine(&mut guest, &Check::ALL, interrupts);
    assert_eq!(drivers(&l1, &addresses).unwrap(), before, "every device is back with its driver");
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
    let (devices, l1) = lab(&[vmm]).unwrap();
    with_checks(&l1, &devices, &STAGES).unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let (mut guest, _) = vmm.start(&l1, "", &addresses).unwrap();
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
    let (devices, l1) = lab(&[vmm]).unwrap();
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
fn a_start_takes_at_most_half_as_long_as_qemus() {
    const STARTS: usize = 3;
    let (devices, l1) = lab(&[Vmm::Qemu, Vmm::Kagero]).unwrap();
    with_script(&l1, "").unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    // By turns, so that a busy moment of the machine meets both. Both find all devices with vfio-pci.
    Vmm::Qemu.prepare(&l1, &addresses).unwrap();
    let [qemu, kagero] = [Vmm::Qemu, Vmm::Kagero];
    let mut took = [(); STARTS].map(|()| {
        [qemu, kagero].map(|vmm| {
            let (mut guest, took) = vmm.start(&l1, "", &addresses).unwrap();
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
fn traffic_with_msix_needs_no_exit_to_user_space() {
    const PINGS: u64 = 2000;
    let (devices, l1) = lab(&[Vmm::Kagero]).unwrap();
    let script = format!(
        "modprobe e1000e; wait_for /sys/class/net/eth0; ip link set eth0 up; ip addr add 10.7.0.2/24 dev eth0
         until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 50000; done; ping -q -c 1 -w 30 10.7.0.1
         echo quiet; sleep 4; ping -A -q -c {PINGS} 10.7.0.1; sleep 4; echo over"
    );
    with_script(&l1, &script).unwrap();
    let addresses = devices.addresses(&l1, &[Device::Network]).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let counter = Counter::start(&l1).unwrap();
    let (mut guest, _) = Vmm::Kagero.start(&l1, "", &addresses).unwrap();
    guest.expect("quiet", BOOT).unwrap();
    let before = counter.read().unwrap();
    guest.expect(&format!("{PINGS} packets received"), BOOT).unwrap();
    let exits = counter.read().unwrap().since(&before);
    let count = |reason| exits.userspace.get(&reason).copied().unwrap_or(0);
    println!("{} port and {} memory accesses came to user space for {PINGS} pings", count(IO), count(MMIO));
    // What the console says, byte by byte, and what the driver does once a second.
    assert!(count(MMIO) < PINGS / 100 && count(IO) < PINGS / 2, "{:?}", exits.userspace);
}

#[test]
#[ignore = "needs the lab"]
fn debian_boots_from_a_target_with_all_devices() {
    let image = debian::Image::default();
    image.ensure().unwrap();
    let (devices, l1) = lab(&[Vmm::Kagero]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("debian.img");
    kagero_images::disk::copy(&image.output, &copy).unwrap();
    // The network card that stays: it carries the disk.
    let log = folder.path().join("target.log");
    let _target = machines::serve(devices.network(), Devices::OWN_TAP, &copy, &log).unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let run = "ip link set eth0 up; exec kagero run --disk aoe:7.1 --interface eth0 --memory 512M \
        --passthrough all --bind --report /share/run.json";
    let mut guest = l1.spawn_typed(run).unwrap();
    guest.expect("login:", CHECKS).unwrap();
    guest.input(b"root\n").unwrap();
    guest.expect("~# ", BOOT).unwrap();
    guest.input(b"udevadm settle; lspci -k; echo listed $?\n").unwrap();
    guest.expect("listed $?", SOON).unwrap();
    let said = guest.expect("listed 0", BOOT).unwrap();
    println!("{said}");
    for driver in ["e1000e", "nvme", "xhci_hcd", "ahci", "snd_hda_intel"] {
        let line = format!("Kernel driver in use: {driver}");
        assert!(said.contains(&line), "no {driver}");
    }
    assert_eq!(said.matches("Kernel driver in use: bochs-drm").count(), 2, "both displays");
    guest.input(b"systemctl poweroff\n").unwrap();
    assert_eq!(guest.wait(CHECKS).unwrap().code, 0);
}

/// Its drivers for them are its own, and it gives BARs their addresses itself. What it can't start from, it says where it is.
#[test]
#[ignore = "needs the lab"]
fn ovmf_tries_to_start_from_what_is_passed_through() {
    const DISKS: [(Device, &str); 3] =
        [(Device::Nvme, "/NVMe("), (Device::Usb, "/USB("), (Device::Cd, "/Sata(")];
    let devices = Devices::new().unwrap();
    let l1 =
        Vmm::Kagero.add_to(devices.add_to(L1::builder()).unwrap()).unwrap().file(OVMF, OVMF).start().unwrap();
    let addresses = devices.addresses(&l1, &DISKS.map(|(device, _)| device)).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let passed: String = addresses.iter().map(|address| format!(" --passthrough {address}")).collect();
    let run = format!("exec kagero run --firmware {OVMF} --disk /tmp/disk --memory 512M --bind{passed}");
    let mut guest = l1.spawn(&format!("truncate -s 16M /tmp/disk; {run}")).unwrap();
    let said = guest.expect("EFI Internal Shell", BOOT).unwrap();
    // Without what it says to the terminal.
    said.lines().filter_map(|line| line.get(line.find("BdsDxe")?..)).for_each(|line| println!("{line}"));
    for (slot, (device, path)) in (3..).zip(DISKS) {
        assert!(said.contains(&format!("PciRoot(0x0)/Pci({slot:#x},0x0){path}")), "no {device:?}: {said}");
    }
}
