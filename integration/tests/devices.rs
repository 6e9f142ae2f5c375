//! The host's side of passthrough, on a real kernel with an IOMMU: what `kagero devices` sees, drivers that go and come back.

use kagero_integration::l1::L1;
use kagero_integration::machines::with_kagero;
use kagero_integration::network::Namespace;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Drivers of all functions, and who is said to be the only one for them.
const STATE: &str =
    "cd /sys/bus/pci/devices; for d in *; do echo $d $(readlink $d/driver) $(cat $d/driver_override); done";

fn run(l1: &L1, command: &str) -> String {
    l1.run(command, SOON).unwrap().expect_success().unwrap()
}

/// The line of a table that begins with this.
#[track_caller]
fn line<'a>(table: &'a str, begin: &str) -> &'a str {
    table.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin} in {table}"))
}

#[test]
#[ignore = "needs the lab"]
fn drivers_go_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let disk = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0; 16 << 20]).unwrap();
        path
    };
    let (mounted, swap, held, drive) = (disk("mounted"), disk("swap"), disk("held"), disk("nvme"));
    for (program, disk) in [("mkfs.ext4", &mounted), ("mkswap", &swap), ("mkfs.ext4", &held)] {
        assert!(Command::new(program).arg(disk).output().unwrap().status.success(), "{program}");
    }
    let network = Namespace::new().unwrap();
    network.add_tap("tap0", 1500).unwrap();
    let port = |n| format!("pcie-root-port,id=port{n},chassis={n},slot={n},addr={:x}", 0x10 + n);
    let l1 = with_kagero()
        .unwrap()
        .disk(mounted)
        .disk(swap)
        .disk(held)
        .network(&network, "tap0", 1500)
        .qemu(["-device", &port(1), "-device", "e1000e,bus=port1"])
        .qemu(["-device", &port(2), "-device", "nvme,serial=kagero,drive=drive,bus=port2"])
        .qemu(["-drive", &format!("file={},format=raw,if=none,id=drive", drive.display())])
        .qemu(["-device", "e1000e,addr=1d.0,multifunction=on", "-device", "qemu-xhci,addr=1d.1"])
        .start()
        .unwrap();

    let table = run(&l1, "kagero devices");
    assert!(
        table.ends_with(
            "for now nothing can go: vfio-pci: the kernel's driver is not loaded: `modprobe vfio-pci`\n"
        ),
        "{table}"
    );
    run(
        &l1,
        "modprobe -a vfio_pci vfio_iommu_type1 crc32c_generic ext4; for disk in vda vdb vdc; do wait_for /dev/$disk; done; mkdir -p /mnt && mount /dev/vda /mnt && swapon /dev/vdb",
    );
    // Mounted where this process doesn't see it.
    let mut elsewhere =
        l1.spawn("unshare -m sh -c 'mount /dev/vdc /mnt && echo mounted && sleep 1000'").unwrap();
    elsewhere.expect("mounted\n", SOON).unwrap();
    let table = run(&l1, "kagero devices --interface eth0");
    println!("{table}");
    assert!(!table.contains("for now nothing can go"));
    let card = |name: &str| {
        run(&l1, &format!("basename $(readlink -f /sys/class/net/{name}/device)")).trim().to_owned()
    };
    let disk = |name: &str| {
        run(&l1, &format!("basename $(readlink -f /sys/class/block/{name}/device/..)")).trim().to_owned()
    };
    assert!(line(&table, &card("eth0")).ends_with("no: carries AoE (eth0)"));
    assert!(line(&table, &disk("vda")).ends_with("no: carries /mnt (vda)"));
    assert!(line(&table, &disk("vdb")).ends_with("no: carries swap (vdb)"));
    assert!(line(&table, &disk("vdc")).ends_with("no: carries vdc, which is in use"));
    assert!(line(&table, "0000:01:00.0").contains("e1000e"));
    assert!(line(&table, "0000:01:00.0").contains("yes"));
    // What carries the lab's own files and commands: the emulated IOMMU doesn't see what it does.
    for function in ["0000:00:01.0", "0000:00:02.0"] {
        assert!(
            line(&table, function).ends_with("no: is a virtio device whose DMA goes past the IOMMU"),
            "{table}"
        );
    }
    let nvme = line(&table, "0000:02:00.0");
    assert!(nvme.contains("NVMe controller") && nvme.contains("  -  ") && nvme.ends_with("  yes"), "{nvme}");

    // A disk that nobody serves: the run ends when all has been taken, and gives all back.
    let before = run(&l1, STATE);
    let started = "kagero run --interface eth0 --disk aoe:9.9 --attach-timeout 1s --memory 64M";
    let said = l1.run(&format!("{started} --passthrough all --bind"), SOON).unwrap();
    println!("{}", said.stderr);
    assert_eq!(said.code, 2);
    for function in ["0000:01:00.0: back with e1000e", "0000:02:00.0: back without a driver, as before"] {
        assert!(said.stderr.contains(function), "{}", said.stderr);
    }
    assert!(said.stderr.contains(&format!("{} stays: carries AoE (eth0)", card("eth0"))), "{}", said.stderr);
    assert_eq!(run(&l1, STATE), before);
    assert_eq!(run(&l1, "kagero devices restore"), "nothing to put back\n");

    // One alone.
    let said = l1.run(&format!("{started} --passthrough 00:1d.0 --bind"), SOON).unwrap();
    assert!(said.stderr.contains("0000:00:1d.0: back with e1000e"), "{}", said.stderr);
    assert_eq!(run(&l1, STATE), before);

    // As a run that was killed leaves it.
    run(
        &l1,
        "d=0000:01:00.0; cd /sys/bus/pci/devices/$d
         echo \"{\\\"function\\\":\\\"$d\\\",\\\"driver\\\":\\\"e1000e\\\",\\\"only\\\":null}\" >/run/kagero-devices/4711-0.journal
         echo vfio-pci >driver_override; echo $d >driver/unbind; echo $d >/sys/bus/pci/drivers_probe",
    );
    assert!(line(&run(&l1, STATE), "0000:01:00.0").ends_with("vfio-pci vfio-pci"));
    // While somebody has it, it would take for ever.
    let group = run(&l1, "basename $(readlink /sys/bus/pci/devices/0000:01:00.0/iommu_group)");
    let said = l1.run(
        &format!(
            "exec 9<>/dev/vfio/{}; kagero devices restore; echo $?; {started} --passthrough 01:00.0",
            group.trim()
        ),
        SOON,
    );
    let said = said.unwrap();
    assert!(
        said.stdout.starts_with("0000:01:00.0: in use by ") && said.stdout.ends_with("left as it is\n1\n"),
        "{}",
        said.stdout
    );
    assert!(said.stderr.contains("kagero: 0000:01:00.0: in use by "), "{}", said.stderr);
    assert_eq!(run(&l1, "kagero devices restore"), "0000:01:00.0: back with e1000e\n");
    assert_eq!(run(&l1, STATE), before);
    l1.power_off().unwrap();
}
