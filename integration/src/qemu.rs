//! Guests in plain QEMU, in software: to show that an image is an ordinary one, and to tell a guest's fault from Kagero's.

use crate::network::Namespace;
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
    start(Command::new("qemu-system-x86_64"), disk, arguments, log)
}

/// As [`pc`] without a disk: one that boots from the network, with iPXE in its network cards. The first gets an address and `script`,
/// which is iPXE's, from QEMU itself; the second, `net1` in the script, is on `tap` in `network`. What firmware and iPXE say comes on the
/// serial console too.
///
/// # Errors
/// As [`pc`], and when there is no room for the script beside the `log`.
pub fn pc_with_ipxe(network: &Namespace, tap: &str, script: &str, log: &Path) -> Result<Process> {
    let folder = log.with_extension("tftp");
    std::fs::create_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    std::fs::write(folder.join("boot.ipxe"), script)?;
    let folder =
        folder.to_str().with_context(|| format!("{}: not UTF-8", folder.display()))?.replace(',', ",,");
    let boots = format!("user,id=boot,restrict=on,tftp={folder},bootfile=boot.ipxe");
    let lan = format!("tap,id=lan,ifname={tap},script=no,downscript=no");
    let arguments = ["-machine", "graphics=off", "-netdev", &boots, "-netdev", &lan];
    // The ROM in the first card drives both.
    let cards = ["virtio-net-pci,netdev=boot,bootindex=0", "virtio-net-pci,netdev=lan,rombar=0"];
    let arguments: Vec<&str> =
        arguments.into_iter().chain(cards.into_iter().flat_map(|card| ["-device", card])).collect();
    start(network.command("qemu-system-x86_64"), None, &arguments, log)
}

fn start(mut qemu: Command, disk: Option<&Path>, arguments: &[&str], log: &Path) -> Result<Process> {
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
