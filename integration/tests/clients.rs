//! Clients of others on `kagero serve`: the Linux aoe driver and iPXE. `cargo xtask test` runs these one after the other.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use kagero_images::command::{command, output, run, text};
use kagero_integration::l1::L1;
use kagero_integration::machines::{self, TwoMachines};
use kagero_integration::network::Namespace;
use kagero_integration::{guest, qemu};

const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(240);

/// How long an interface is down: long enough for the driver to ask several times, far less than the 180 s after which it gives up.
const OUTAGE: Duration = Duration::from_secs(5);

/// 48 MB in blocks of all sizes with 16 requests in flight, each block with a checksum that is verified.
const LOAD: &str = "fio --name=load --filename=/mnt/load --size=48m --rw=randwrite --bsrange=4k-64k --blocksize_unaligned=0 \
    --direct=1 --ioengine=libaio --iodepth=16 --thread --verify=crc32c --verify_fatal=1 --verify_dump=0 --randseed=7 --minimal";

/// Attaches, makes a file system, and works with it while the interface goes down and up, first here and then there.
fn linux_driver(mtu: u32) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(192 << 20).unwrap();
    let l1 = ["/usr/bin/fio", "/usr/sbin/mkfs.ext4", "/usr/sbin/e2fsck"]
        .into_iter()
        .fold(L1::builder(), |l1, program| l1.program(program));
    let TwoMachines { l1, mut target } = TwoMachines::start_with(l1, &image, mtu).unwrap();
    let attached = "modprobe -a crc32c_generic ext4 && modprobe aoe aoe_iflist=eth0 && wait_for /dev/etherd/e7.1 && blockdev --getsize64 /dev/etherd/e7.1 &&
        mkfs.ext4 -q /dev/etherd/e7.1 && mkdir -p /mnt && mount -t ext4 /dev/etherd/e7.1 /mnt && cat /sys/block/etherd!e7.1/payload";
    let said = l1.run(attached, SOON).unwrap().expect_success().unwrap();
    // What the server said that it takes, and whole blocks of the driver.
    let payload = if mtu == 1500 { 1024 } else { 8704 };
    assert_eq!(said, format!("{}\n{payload}\n", 192 << 20));

    let mut load = l1.spawn(&format!("set -o pipefail; {LOAD} | cut -c1-60")).unwrap();
    // Its outage is one: nothing comes.
    let nothing_comes = || {
        let before = target.bytes_received().unwrap();
        std::thread::sleep(OUTAGE);
        assert_eq!(target.bytes_received().unwrap(), before);
    };
    for outage in ["client", "server"] {
        target.wait_for_bytes(4 << 20, SOON).unwrap();
        assert_eq!(load.exit_code(), None, "the {outage}'s outage is in the middle of the load");
        if outage == "client" {
            l1.run("ip link set eth0 down", SOON).unwrap().expect_success().unwrap();
            nothing_comes();
            l1.run("ip link set eth0 up", SOON).unwrap().expect_success().unwrap();
        } else {
            target.set_interface(false).unwrap();
            nothing_comes();
            target.set_interface(true).unwrap();
        }
        assert_eq!(load.exit_code(), None, "it outlives the {outage}'s outage");
    }
    println!("{}", load.wait(LONG).unwrap().expect_success().unwrap().trim());

    let left = "set -e; seq 200000 >/mnt/numbers; md5sum </mnt/load; umount /mnt; e2fsck -fn /dev/etherd/e7.1 >&2; dmesg >&2";
    // Once in a while the driver, whose timer has learned of the outages, sends nothing for a minute, though all that it asked for was answered.
    let left = l1.run(left, LONG).unwrap();
    let (digest, log) = (left.clone().expect_success().unwrap(), left.stderr);
    for bad in ["I/O error", "EXT4-fs error"] {
        assert!(!log.contains(bad), "L1 says {bad:?}:\n{log}");
    }
    l1.power_off().unwrap();
    target.stop().unwrap();
    run(command(["e2fsck", "-fn"]).arg(target.image())).unwrap();
    let file =
        |name: &str| output(command(["debugfs", "-R", &format!("cat {name}")]).arg(target.image())).unwrap();
    assert!(file("/numbers").ends_with(b"\n199999\n200000\n"));
    let load = folder.path().join("load");
    fs::write(&load, file("/load")).unwrap();
    assert_eq!(md5(&load), digest.split(' ').next().unwrap(), "what fio wrote is in the image");
}

fn md5(file: &Path) -> String {
    text(command(["md5sum"]).arg(file)).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
#[ignore = "needs the lab"]
fn the_linux_driver_outlives_interfaces_that_go_down() {
    linux_driver(1500);
}

#[test]
#[ignore = "needs the lab"]
fn the_linux_driver_outlives_interfaces_that_go_down_with_jumbo_frames() {
    linux_driver(9000);
}

/// iPXE boots a disk with its `sanboot`, and the guest on it reads and writes through iPXE's INT 13h.
#[test]
#[ignore = "needs the lab"]
fn ipxe_boots_a_disk() {
    /// 64 MiB: with less than one of its cylinders, iPXE's disk has no sectors for the BIOS' older functions.
    const SECTORS: u32 = 131_072;
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    let mut disk: Vec<u8> =
        (0..SECTORS).flat_map(|sector| [&sector.to_le_bytes()[..], &[0; 508]].concat()).collect();
    let boot = guest::boot_sectors("sectors", &[("LAST", SECTORS - 1)], folder.path()).unwrap();
    disk[..boot.len()].copy_from_slice(&boot);
    fs::write(&image, &disk).unwrap();

    let network = Namespace::new().unwrap();
    network.add_tap("tap0", 1500).unwrap();
    let script = "#!ipxe\nifopen net1\nsanboot aoe:e7.1\n";
    let mut pc = qemu::pc_with_ipxe(&network, "tap0", script, &folder.path().join("pc.log")).unwrap();
    // It has the tap open.
    pc.expect("SeaBIOS", SOON).unwrap();
    let mut target = machines::serve(&network, "tap0", &image, &folder.path().join("target.log")).unwrap();
    pc.expect("booted\n", SOON).unwrap();
    assert!(pc.wait(SOON).unwrap().success(), "it switches itself off");
    let said = String::from_utf8(pc.log().rest()).unwrap();
    let runs = [(77, 1), (1000, 2), (4095, 17), (20_000, 127), (SECTORS - 1, 1)];
    let mut expected: String =
        runs.iter().map(|(sector, count)| format!("read {sector:08x}+{count:08x}\n")).collect();
    expected.push_str("written 00007530+00000009\ndone\n");
    assert_eq!(said, expected);
    target.kill().unwrap();

    for sector in 30_000..30_009u32 {
        disk[sector as usize * 512..][..512].copy_from_slice(&sector.to_le_bytes().repeat(128));
    }
    assert!(fs::read(&image).unwrap() == disk, "what the guest wrote, and nothing else, is in the image");
}
