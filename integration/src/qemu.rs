//! Guests in plain QEMU, in software: to show that an image is an ordinary one, and to tell a guest's fault from Kagero's.

use crate::process::Process;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// A PC (i440FX, PIIX3) with SeaBIOS and its IDE disk, two processors and 1 GiB of memory. The serial console is the process's
/// input and output; `disk` is not written to. More arguments may be given, such as `-kernel`.
///
/// # Errors
/// QEMU is not installed, or a path can't be told to it.
pub fn pc(disk: Option<&Path>, arguments: &[&str], log: &Path) -> Result<Process> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "pc", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-nodefaults"]);
    qemu.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
    if let Some(disk) = disk {
        let path =
            disk.to_str().with_context(|| format!("{}: not UTF-8", disk.display()))?.replace(',', ",,");
        qemu.args(["-drive", &format!("file={path},format=raw,if=ide,snapshot=on")]);
    }
    qemu.args(arguments);
    Process::start(qemu, log)
}
