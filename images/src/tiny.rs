//! A guest of seconds: the kernel's initramfs with busybox and the drivers for a PC's disks, which runs one
//! script and powers off.

use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use anyhow::Result;

/// What the tiny guest needs to see its disks and their file systems.
const MODULES: [&str; 7] = ["ata_piix", "ata_generic", "ahci", "sd_mod", "sr_mod", "crc32c_generic", "ext4"];

/// The first line of the guest's first process: the kernel is there, no driver is loaded yet.
pub const STARTED: &str = "tiny guest: init";

/// Prints this, and the script's exit code, as its last line but the kernel's own.
pub const DONE: &str = "tiny guest: script ended with ";

/// An initramfs that runs `script` with busybox's shell on the console and powers off. It begins with [`STARTED`] and ends with
/// [`DONE`] and the script's exit code. It finds `/proc`, `/sys`, `/dev` mounted and the ATA drivers loaded, and it can wait
/// for a disk with `wait_for /dev/sda`. More can be put in before it is written.
///
/// # Errors
/// As [`Initramfs::new`] and [`Initramfs::modules`].
pub fn guest(kernel: &Kernel, script: &str) -> Result<Initramfs> {
    let mut initramfs = Initramfs::new()?;
    initramfs.modules(kernel, &MODULES)?;
    initramfs.init(&format!(
        r#"#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
echo "{STARTED}"
modprobe -a {modules}
sh /script
code=$?
sync
echo "{DONE}$code"
poweroff -f
"#,
        modules = MODULES.join(" "),
    ));
    initramfs.script("bin/wait_for", WAIT_FOR);
    initramfs.script("script", script);
    Ok(initramfs)
}

/// Waits up to 30 s for a file to appear.
pub const WAIT_FOR: &str = r#"#!/bin/sh
n=0
while [ ! -e "$1" ]; do
    n=$((n + 1))
    [ $n -lt 600 ] || { echo "$1 does not appear" >&2; exit 1; }
    usleep 50000
done
"#;
