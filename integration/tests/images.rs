//! The guest images are ordinary ones: they run in plain QEMU. `cargo xtask test` runs these.

use kagero_images::kernel::Kernel;
use kagero_images::{debian, disk, tiny};
use kagero_integration::boot_sector::BootSector;
use kagero_integration::qemu;
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs the lab"]
fn a_boot_sector_reads_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    let boot = |lba, expected: &[u8]| {
        let sector =
            BootSector::new().print("starting\n").expect_sector(lba, expected).print("read it\n").build();
        let mut disk = sector.unwrap().to_vec();
        disk.resize(1 << 20, 0);
        disk[512 * 77..][..7].copy_from_slice(b"shimmer");
        fs::write(&image, disk).unwrap();
        let mut pc = qemu::pc(Some(&image), &[], &folder.path().join("log")).unwrap();
        pc.expect("starting\n", SOON).unwrap();
        pc.expect("read it\n", Duration::from_secs(3))
    };
    boot(77, b"shimmer").unwrap();
    boot(78, b"shimmer").expect_err("that sector holds zeros");
}

#[test]
#[ignore = "needs the lab"]
fn a_tiny_guest_runs_its_script_with_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::fetch().unwrap();
    let (initramfs, image) = (folder.path().join("tiny.cpio"), folder.path().join("disk.img"));
    tiny::guest(&kernel, "wait_for /dev/sda && head -c 7 /dev/sda && echo && exit 3")
        .unwrap()
        .write(&initramfs)
        .unwrap();
    let mut disk = b"shimmer".to_vec();
    disk.resize(1 << 20, 0);
    fs::write(&image, disk).unwrap();
    let (bzimage, initrd) = (kernel.bzimage(), initramfs.to_str().unwrap());
    println!("initramfs of {} KiB", fs::metadata(&initramfs).unwrap().len() >> 10);
    let arguments =
        ["-kernel", bzimage.to_str().unwrap(), "-initrd", initrd, "-append", "console=ttyS0 quiet"];
    let mut pc = qemu::pc(Some(&image), &arguments, &folder.path().join("log")).unwrap();
    pc.expect("shimmer\r\n", SOON).unwrap();
    pc.expect(&format!("{}3", tiny::DONE), SOON).unwrap();
    assert!(pc.wait(SOON).unwrap().success());
}

#[test]
#[ignore = "needs the lab"]
fn debian_boots_in_plain_qemu() {
    let image = debian::Image::default();
    let built = Instant::now();
    if image.ensure().unwrap() {
        println!("image built in {:.0} s", built.elapsed().as_secs_f64());
    }
    disk::check_ext4(&image.output).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut pc = qemu::pc(Some(&image.output), &[], &folder.path().join("log")).unwrap();
    for phase in ["Loading Debian", "login:"] {
        pc.expect(phase, 3 * SOON).unwrap();
        println!("{phase} after {:.1} s", started.elapsed().as_secs_f64());
    }
    pc.input(b"root\n").unwrap();
    pc.expect("# ", SOON).unwrap();
    pc.input(b"systemctl is-system-running --wait; fio --version; hdparm -V\n").unwrap();
    pc.expect("running\r\n", 2 * SOON).unwrap();
    pc.expect("fio-3", SOON).unwrap();
    pc.expect("hdparm v9", SOON).unwrap();
    pc.input(b"systemctl poweroff\n").unwrap();
    assert!(pc.wait(2 * SOON).unwrap().success());
}
