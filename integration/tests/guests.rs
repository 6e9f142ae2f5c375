//! Operating systems as Kagero's guests, in the lab. `cargo xtask test` runs these one after the other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kagero_images::kernel::Kernel;
use kagero_images::{debian, disk, tiny};
use kagero_integration::exits::Counter;
use kagero_integration::l1::{Job, L1};
use kagero_integration::machines::{self, TwoMachines};
use kagero_integration::report::Report;

const SOON: Duration = Duration::from_secs(30);
const BOOT: Duration = Duration::from_secs(240);

/// What an unreliable network does to frames, in both directions.
const FAULTS: &str = "--fault loss=5%,duplicate=1%,reorder=2%";

/// Kagero with a serial console on its standard output.
fn kagero(arguments: &str) -> String {
    format!("exec kagero run {arguments} --report /share/run.json")
}

/// The guest of seconds, running `script`; `programs` of this machine go with it. Kernel and initramfs lie in `share`.
fn tiny_guest(share: &Path, script: &str, programs: &[&str]) {
    let kernel = Kernel::fetch().unwrap();
    let mut guest = tiny::guest(&kernel, script).unwrap();
    for program in programs {
        guest.program(Path::new(program)).unwrap();
    }
    guest.write(&share.join("tiny.cpio")).unwrap();
    fs::copy(kernel.vmlinux(), share.join("vmlinux")).unwrap();
}

/// Arguments that boot it.
fn boots_tiny(append: &str) -> String {
    format!(
        "--kernel /share/vmlinux --initrd /share/tiny.cpio --append 'console=ttyS0 quiet {append}' --memory 512M"
    )
}

fn report(l1: &L1) -> Report {
    Report::read(&l1.share().join("run.json")).unwrap()
}

/// What nobody may see in a guest's console: the disk failed, or seemed to.
fn assert_no_disk_error(said: &str) {
    for bad in
        ["I/O error", "failed command", "exception Emask", "EXT4-fs error", "Remounting filesystem read-only"]
    {
        assert!(!said.contains(bad), "the guest says {bad:?}:\n{said}");
    }
}

/// Logs in on the guest's serial console and runs a command that ends with a line `mark` of its own.
fn log_in_and_run(guest: &mut Job<'_>, command: &str, mark: &str) -> String {
    guest.input(b"root\n").unwrap();
    guest.expect("~# ", BOOT).unwrap();
    guest.input(format!("{command}; echo {mark} $?\n").as_bytes()).unwrap();
    // First its echo, then what it says.
    guest.expect(mark, SOON).unwrap();
    guest.expect(&format!("{mark} 0"), BOOT).unwrap()
}

#[test]
#[ignore = "needs the lab"]
fn debian_boots_from_a_target_on_another_machine() {
    let image = debian::Image::default();
    image.ensure().unwrap();
    let machines = TwoMachines::start(&image.output, 1500).unwrap();
    let run = kagero("--disk aoe:7.1 --interface eth0 --cpus 2 --memory 512M --expect login: --timeout 220s");
    machines.l1.run(&run, BOOT).unwrap().expect_success().unwrap();
    let report = report(&machines.l1);
    println!("{}", report.phase_table());
    assert_eq!(report.get("/end/how"), "expected");
    println!("frames {}, resent {}", report.get("/disks/0/frames_sent"), report.get("/disks/0/resends"));
    for phase in ["target found", "firmware", "boot loader", "disk driver", "login"] {
        assert!(report.phases().iter().any(|(name, _)| name == phase), "no {phase}");
    }
}

#[test]
#[ignore = "needs the lab"]
fn debian_boots_from_an_image_writes_to_it_and_powers_off_cleanly() {
    let image = debian::Image::default();
    image.ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("debian.img");
    disk::copy(&image.output, &copy).unwrap();
    // L1 sees the image as a disk of its own; reading it through the shared folder would take as long as the boot.
    let l1 = machines::with_kagero().unwrap().disk(&copy).start().unwrap();
    let mut guest = l1.spawn_typed(&kagero("--disk /dev/vda --cpus 2 --memory 512M")).unwrap();
    guest.expect("login:", BOOT).unwrap();
    let said = log_in_and_run(
        &mut guest,
        "test $(nproc) = 2 && seq 100000 >/root/numbers && sync && dmesg",
        "wrote",
    );
    assert_no_disk_error(&said);
    guest.input(b"systemctl poweroff\n").unwrap();
    assert_eq!(guest.wait(BOOT).unwrap().code, 0, "a guest that powers off ends Kagero with success");
    let report = report(&l1);
    println!("{}", report.phase_table());
    assert_eq!(report.get("/end/how"), "power-off");
    disk::check_ext4(&copy).unwrap();
    let numbers = disk::read_file(&copy, "/root/numbers").unwrap();
    assert!(numbers.ends_with(b"99999\n100000\n"));
}

#[test]
#[ignore = "needs the lab"]
fn the_target_dies_in_the_middle_of_a_boot_and_comes_back() {
    let image = debian::Image::default();
    image.ensure().unwrap();
    let TwoMachines { l1, mut target } = TwoMachines::start(&image.output, 1500).unwrap();
    let run = kagero("-v --disk aoe:7.1 --interface eth0 --cpus 2 --memory 512M");
    let mut guest = l1.spawn_typed(&run).unwrap();
    guest.stderr().expect("reached disk driver", BOOT, || true).unwrap();
    // The kernel has begun to read its root file system.
    std::thread::sleep(Duration::from_secs(3));
    target.kill().unwrap();
    guest.stderr().expect("the target has not answered", SOON, || true).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    assert!(!guest.stdout().text().contains("login:"), "the target died too late for this test");
    target.restart().unwrap();
    guest.stderr().expect("the target is back", SOON, || true).unwrap();
    guest.expect("login:", BOOT).unwrap();
    let said = log_in_and_run(&mut guest, "dmesg", "looked");
    assert_no_disk_error(&said);
    guest.input(b"systemctl poweroff\n").unwrap();
    assert_eq!(guest.wait(BOOT).unwrap().code, 0);
    let report = report(&l1);
    println!("{}", report.phase_table());
    println!("losses {}, frames resent {}", report.get("/disks/0/losses"), report.get("/disks/0/resends"));
    assert_eq!(report.get("/disks/0/losses"), 1);
    disk::check_ext4(target.image()).unwrap();
}

#[test]
#[ignore = "needs the lab"]
fn a_guest_outlives_an_outage_longer_than_its_own_patience() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let TwoMachines { l1, mut target } = TwoMachines::start(&image, 9000).unwrap();
    // Linux gives a command 30 s; here 4, and the target is away for 10.
    let script = "wait_for /dev/sda; echo 4 >/sys/block/sda/device/timeout
        head -c 8000000 /dev/urandom >/data
        echo begin; usleep 500000
        dd if=/data of=/dev/sda bs=64k oflag=direct && dd if=/dev/sda bs=64k count=123 iflag=direct | head -c 8000000 | cmp - /data && echo same";
    tiny_guest(&l1.share(), script, &[]);
    let run = kagero(&format!("--disk aoe:7.1 --interface eth0 {}", boots_tiny("")));
    let mut guest = l1.spawn(&run).unwrap();
    guest.expect("begin", BOOT).unwrap();
    target.kill().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    target.restart().unwrap();
    let said = guest.expect("same", BOOT).unwrap();
    assert!(!said.contains("I/O error"), "{said}");
    assert_eq!(guest.wait(BOOT).unwrap().code, 0);
    let report = report(&l1);
    println!("losses {}, frames resent {}", report.get("/disks/0/losses"), report.get("/disks/0/resends"));
}

#[test]
#[ignore = "needs the lab"]
fn data_is_whole_over_a_bad_network_by_dma() {
    let l1 = machines::with_kagero().unwrap().start().unwrap();
    let image = l1.share().join("disk.img");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let script = "wait_for /dev/sda; mkdir -p /tmp
        set -o pipefail; fio --name=verify --filename=/dev/sda --rw=randrw --bsrange=512-128k --blocksize_unaligned=0 --size=32m --io_size=24m \
            --direct=1 --ioengine=sync --thread --verify=crc32c --verify_fatal=1 --verify_dump=0 --randseed=7 --minimal | cut -c1-60
        echo fio=$?";
    tiny_guest(&l1.share(), script, &["/usr/bin/fio"]);
    let run = kagero(&format!("{FAULTS} --disk /share/disk.img {}", boots_tiny("")));
    let said = l1.run(&run, BOOT).unwrap().expect_success().unwrap();
    assert!(said.contains("fio=0") && !said.contains("verify:"), "{said}");
    assert_no_disk_error(&said);
    let report = report(&l1);
    assert_bad_network(&report);
    let (commands, accesses) = (report.get("/disks/0/commands"), report.get("/accesses/ide-bus-master"));
    assert!(accesses.as_u64() > commands.as_u64().map(|count| 8 * count), "every command by DMA");
}

#[test]
#[ignore = "needs the lab"]
fn data_is_whole_over_a_bad_network_by_pio() {
    let l1 = machines::with_kagero().unwrap().start().unwrap();
    let image = l1.share().join("disk.img");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    // KVM emulates `rep outsl` word by word, an exit each: so not much is written.
    let script = "wait_for /dev/sda; head -c 262144 /dev/urandom >/data
        dd if=/data of=/dev/sda bs=4k seek=48 oflag=direct conv=fsync
        for read in 'bs=4k skip=48 count=64' 'bs=64k skip=3 count=4'; do
            dd if=/dev/sda $read iflag=direct | cmp - /data || exit 9
        done
        ";
    tiny_guest(&l1.share(), script, &[]);
    let run = kagero(&format!("{FAULTS} --disk /share/disk.img {}", boots_tiny("libata.dma=0")));
    let said = l1.run(&run, BOOT).unwrap().expect_success().unwrap();
    assert!(said.contains(&format!("{}0", tiny::DONE)), "{said}");
    assert_no_disk_error(&said);
    let report = report(&l1);
    assert_bad_network(&report);
    let accesses = report.get("/accesses/ide-command").as_u64().unwrap();
    assert!(accesses > 262_144 / 4, "every word went through the data port: {accesses}");
}

/// The faults did happen: otherwise nothing was shown.
fn assert_bad_network(report: &Report) {
    let count = |pointer: &str| report.get(pointer).as_u64().unwrap_or(0);
    let (sent, resent) = (count("/disks/0/frames_sent"), count("/disks/0/resends"));
    println!("{sent} frames sent, {resent} of them again, {} duplicates", count("/disks/0/duplicates"));
    assert!(resent * 100 > sent * 3, "5 % are lost in each direction");
}

#[test]
#[ignore = "needs the lab"]
fn what_was_synced_survives_the_vmm() {
    let l1 = machines::with_kagero().unwrap().start().unwrap();
    let image = l1.share().join("disk.img");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tiny_guest(&l1.share(), WRITES_AND_SYNCS, &[]);
    let mut guest = l1.spawn(&kagero(&format!("--disk /share/disk.img {}", boots_tiny("")))).unwrap();
    guest.expect("synced", BOOT).unwrap();
    guest.signal("KILL").unwrap();
    assert_eq!(guest.wait(SOON).unwrap().code, 137);
    assert_synced(&image);
}

#[test]
#[ignore = "needs the lab"]
fn what_was_synced_survives_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let TwoMachines { l1, mut target } = TwoMachines::start(&image, 1500).unwrap();
    tiny_guest(&l1.share(), WRITES_AND_SYNCS, &[]);
    let run = kagero(&format!("--disk aoe:7.1 --interface eth0 {}", boots_tiny("")));
    let mut guest = l1.spawn(&run).unwrap();
    guest.expect("synced", BOOT).unwrap();
    target.kill().unwrap();
    assert_synced(target.image());
    guest.signal("KILL").unwrap();
}

/// 2 MB at 1 MiB, through the page cache, and then a sync.
const WRITES_AND_SYNCS: &str = "wait_for /dev/sda; seq -w 999999 | head -c 2000000 >/data
    dd if=/data of=/dev/sda bs=4k seek=256 conv=fsync && echo synced; sleep 1000";

fn assert_synced(image: &Path) {
    let disk = fs::read(image).unwrap();
    let expected: Vec<u8> =
        (1..).flat_map(|n: u32| format!("{n:06}\n").into_bytes()).take(2_000_000).collect();
    assert!(disk[1 << 20..][..expected.len()] == expected[..], "what was synced is in the image");
}

#[test]
#[ignore = "needs the lab"]
fn a_4k_dma_read_exits_no_more_often_than_in_qemu() {
    const READS: u64 = 100;
    /// QEMU 7.2 with KVM and the same driver.
    const QEMU: u64 = 26;
    let l1 = machines::with_kagero().unwrap().start().unwrap();
    let image = l1.share().join("disk.img");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let script = format!(
        "wait_for /dev/sda; dd if=/dev/sda of=/dev/null bs=4k count=10 iflag=direct 2>/dev/null
         echo quiet; sleep 4; dd if=/dev/sda of=/dev/null bs=4k skip=100 count={READS} iflag=direct 2>/dev/null; sleep 4; echo over"
    );
    tiny_guest(&l1.share(), &script, &[]);
    let counter = Counter::start(&l1).unwrap();
    let mut guest = l1.spawn(&kagero(&format!("--disk /share/disk.img {}", boots_tiny("")))).unwrap();
    guest.expect("quiet", BOOT).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let before = counter.read().unwrap();
    // It reads now, and is done before it says so.
    std::thread::sleep(Duration::from_secs(5));
    let exits = counter.read().unwrap().since(&before);
    guest.expect("over", BOOT).unwrap();
    let user: u64 = exits.userspace.get(&kagero_integration::exits::IO).copied().unwrap_or(0);
    println!("{user} exits to user space for {READS} reads: {} each", user as f64 / READS as f64);
    println!("accesses of 1F7h: {}, of 1F2h: {}", exits.port(0x1f7), exits.port(0x1f2));
    assert_eq!(exits.port(0x1f2), READS, "all reads are in the count, and nothing else");
    assert!(user > 0 && user <= QEMU * READS, "{user} exits for {READS} reads; QEMU has {QEMU} for each");
}
