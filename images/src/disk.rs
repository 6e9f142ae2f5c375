//! Disk images as plain files: partition table, file system and boot loader without loop devices or mounts.

use crate::command::{command, run};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

/// Where the only partition starts, in bytes: the usual 1 MiB, which leaves room for GRUB's core image.
pub const PARTITION_OFFSET: u64 = 1 << 20;

const SECTOR: u64 = 512;

/// Makes `image` an MBR disk of `size` bytes with one active Linux partition that holds an ext4 with the contents of
/// `tree`. `uuid` is the file system's.
///
/// # Errors
/// The tree doesn't fit, the disk is full, or a tool is missing.
pub fn ext4_disk(image: &Path, size: u64, tree: &Path, uuid: &str) -> Result<()> {
    ensure!(
        size > 2 * PARTITION_OFFSET,
        "{}: a disk of {size} bytes has no room for a partition",
        image.display()
    );
    let file = File::create(image).with_context(|| format!("{}", image.display()))?;
    file.set_len(size)?;
    let mut sfdisk =
        command(["sfdisk", "--quiet"]).arg(image).stdin(Stdio::piped()).spawn().context("sfdisk")?;
    let table = format!("label: dos\nstart={}, type=83, bootable\n", PARTITION_OFFSET / SECTOR);
    sfdisk.stdin.take().context("sfdisk's input")?.write_all(table.as_bytes())?;
    ensure!(sfdisk.wait()?.success(), "sfdisk failed on {}", image.display());
    // Metadata in place, not initialised later by the guest's kernel: the guest's first boot writes less.
    let extended = format!("offset={PARTITION_OFFSET},lazy_itable_init=0,lazy_journal_init=0");
    let blocks = format!("{}k", (size - PARTITION_OFFSET) / 1024);
    run(command(["mkfs.ext4", "-q", "-F", "-m", "0", "-U", uuid, "-E", &extended, "-d"])
        .arg(tree)
        .arg(image)
        .arg(blocks))
    .context("a larger --size may help")
}

/// Puts GRUB's boot sector and core image (already with its modules) into the gap before the first partition.
///
/// # Errors
/// The core image is too large for the gap, or the files can't be read or written.
pub fn install_grub(image: &Path, boot_img: &Path, core_img: &Path) -> Result<()> {
    let boot = fs::read(boot_img).with_context(|| format!("{}", boot_img.display()))?;
    let core = fs::read(core_img).with_context(|| format!("{}", core_img.display()))?;
    ensure!(
        core.len() as u64 <= PARTITION_OFFSET - SECTOR,
        "GRUB's core image does not fit before the partition"
    );
    ensure!(boot.len() as u64 == SECTOR, "{}: not a boot sector", boot_img.display());
    let disk = OpenOptions::new().write(true).open(image).with_context(|| format!("{}", image.display()))?;
    // The code before the partition table, and the signature; boot.img looks for the core in sector 1 as it is.
    disk.write_all_at(&boot[..440], 0)?;
    disk.write_all_at(&boot[510..], 510)?;
    disk.write_all_at(&core, SECTOR)?;
    Ok(())
}

/// Checks the image's file system without changing it, as `e2fsck -fn` does.
///
/// # Errors
/// The file system is not clean; the error holds what e2fsck said.
pub fn check_ext4(image: &Path) -> Result<()> {
    let partition = format!("{}?offset={PARTITION_OFFSET}", image.display());
    run(command(["e2fsck", "-fn", &partition]).env("LC_ALL", "C"))
}

/// Copies an image and keeps its holes, sharing blocks where the file system can.
///
/// # Errors
/// The disk is full, or there is no such image.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    run(command(["cp", "--sparse=always", "--reflink=auto"]).arg(from).arg(to))
}

/// Writes one file of this machine into the image's file system.
///
/// # Errors
/// debugfs fails, or says so.
pub fn read_file(image: &Path, path: &str) -> Result<Vec<u8>> {
    let partition = format!("{}?offset={PARTITION_OFFSET}", image.display());
    crate::command::output(&mut command(["debugfs", "-R", &format!("cat {path}"), &partition]))
}
