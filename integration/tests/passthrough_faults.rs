//! Passthrough when something is wrong: devices that reach too far, share a group or vanish, and a VMM that is killed.
//! `cargo xtask test` runs these one after the other, but for those that it leaves out.

use kagero_integration::passthrough::{Check, Device, Vmm, drivers, lab, verdicts, with_checks, with_script};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const BOOT: Duration = Duration::from_secs(120);

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
    let (devices, l1) = lab(&[vmm]).unwrap();
    with_checks(&l1, &devices, &[&[Check::Dma]]).unwrap();
    let addresses = devices.addresses(&l1, &[Device::Edu]).unwrap();
    vmm.prepare(&l1, &addresses).unwrap();
    let (mut guest, _) = vmm.start(&l1, "mem=511M iomem=relaxed", &addresses).unwrap();
    let end = guest.wait(BOOT).unwrap();
    let found = verdicts(&end.stdout);
    assert!(end.code == 0 && found.len() == 1 && found[0].ok, "{found:?}, {end:?}");
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
    let (devices, l1) = lab(&[Vmm::Qemu]).unwrap();
    with_script(
        &l1,
        "modprobe nvme; wait_for /dev/nvme0n1; echo there; while [ -e /dev/nvme0n1 ]; do usleep 50000; done; echo gone",
    )
    .unwrap();
    let addresses = devices.addresses(&l1, &[Device::Nvme]).unwrap();
    Vmm::Qemu.prepare(&l1, &addresses).unwrap();
    let (mut guest, _) = Vmm::Qemu.start(&l1, "", &addresses).unwrap();
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
    let (devices, l1) = lab(&[Vmm::Kagero]).unwrap();
    with_script(&l1, "modprobe -a nvme e1000e; wait_for /dev/nvme0n1; echo there; sleep 1000").unwrap();
    let addresses = devices.addresses(&l1, &[Device::Nvme, Device::Network]).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let before = drivers(&l1, &addresses[1..]).unwrap();
    let (mut guest, _) = Vmm::Kagero.start(&l1, "", &addresses).unwrap();
    guest.expect("there", BOOT).unwrap();
    devices.unplug(Device::Nvme).unwrap();
    guest.stderr().expect(&addresses[0], SOON, || true).unwrap();
    let gone = format!("while [ -e /sys/bus/pci/devices/{} ]; do usleep 50000; done", addresses[0]);
    l1.run(&gone, SOON).unwrap().expect_success().unwrap();
    if guest.exit_code().is_none() {
        guest.signal("TERM").unwrap();
    }
    println!("{}", guest.wait(SOON).unwrap().stderr);
    assert_eq!(drivers(&l1, &addresses[1..]).unwrap(), before, "the other device is back with its driver");
}

#[test]
#[ignore = "needs the lab"]
fn a_device_that_fails_is_named() {
    let (devices, l1) = lab(&[Vmm::Kagero]).unwrap();
    with_script(&l1, "modprobe -a nvme e1000e; wait_for /sys/class/net/eth0; echo there; sleep 1000")
        .unwrap();
    let addresses = devices.addresses(&l1, &[Device::Network, Device::Nvme]).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let before = drivers(&l1, &addresses).unwrap();
    let (mut guest, _) = Vmm::Kagero.start(&l1, "", &addresses).unwrap();
    guest.expect("there", BOOT).unwrap();
    // As the kernel's root port driver would hear of it (PCI Express 6.2.7): bus, device and function, then Uncorrectable Error Status with
    // Malformed TLP, which is fatal, and five words that are of no interest.
    let bus = &addresses[0][5..7];
    let report = format!(
        "modprobe aer_inject && wait_for /dev/aer_inject && {{ printf '\\x{bus}\\0\\0\\0\\0\\0\\4\\0'; head -c 20 /dev/zero; }} |
            dd of=/dev/aer_inject bs=28 iflag=fullblock"
    );
    l1.run(&report, SOON).unwrap().expect_success().unwrap();
    let end = guest.wait(SOON).unwrap();
    println!("{}", end.stderr);
    let line = format!("kagero: {}: the hardware reports an error that it can't correct", addresses[0]);
    assert!(end.code == 1 && end.stderr.contains(&line), "{end:?}");
    assert_eq!(drivers(&l1, &addresses).unwrap(), before, "both are back with their drivers");
}

#[test]
#[ignore = "needs the lab"]
fn half_a_group_is_refused_by_qemu() {
    let (devices, l1) = lab(&[Vmm::Qemu]).unwrap();
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
    let (devices, l1) = lab(&[Vmm::Kagero]).unwrap();
    with_script(&l1, "").unwrap();
    let pair = devices.pair();
    Vmm::Kagero.prepare(&l1, &pair).unwrap();
    let before = drivers(&l1, &pair).unwrap();
    let end = l1.run(&Vmm::Kagero.command("", &pair[..1]), SOON).unwrap();
    println!("{}", end.stderr);
    assert!(end.code == 2 && end.stderr.contains(&pair[1]), "{end:?}");
    assert_eq!(drivers(&l1, &pair).unwrap(), before, "nothing was touched");
}

#[test]
#[ignore = "needs the lab"]
fn devices_are_given_back_after_sigkill() {
    let (devices, l1) = lab(&[Vmm::Kagero]).unwrap();
    with_script(&l1, "echo up; sleep 1000").unwrap();
    let addresses = devices.addresses(&l1, &Device::ALL).unwrap();
    Vmm::Kagero.prepare(&l1, &addresses).unwrap();
    let before = drivers(&l1, &addresses).unwrap();
    let (mut guest, _) = Vmm::Kagero.start(&l1, "", &addresses).unwrap();
    guest.expect("up", BOOT).unwrap();
    assert!(drivers(&l1, &addresses).unwrap().iter().all(|driver| driver == "vfio-pci"));
    guest.signal("KILL").unwrap();
    assert_eq!(guest.wait(SOON).unwrap().code, 137);
    let said = l1.run("kagero devices restore", SOON).unwrap().expect_success().unwrap();
    println!("{said}");
    assert_eq!(drivers(&l1, &addresses).unwrap(), before);
}
