//! On made-up hosts.

mod binding;
mod choosing;
mod listing;
mod refusing;

use kagero_integration::made_up::MadeUp;

use super::*;

/// An ordinary machine: a chipset, its disk, two network cards, a graphics card with sound, an NVMe drive, USB.
fn ordinary(folder: &tempfile::TempDir) -> MadeUp {
    let host = MadeUp::new(folder.path());
    host.function("0000:00:00.0", 0x06_0000, "-", Some(0))
        .function("0000:00:01.0", 0x06_0400, "pcieport", Some(1))
        .function("0000:00:01.0/0000:01:00.0", 0x03_0000, "nouveau", Some(1))
        .function("0000:00:01.0/0000:01:00.1", 0x04_0300, "snd_hda_intel", Some(1))
        .function("0000:00:14.0", 0x0c_0330, "xhci_hcd", Some(2))
        .function("0000:00:19.0", 0x02_0000, "e1000e", Some(3))
        .function("0000:00:1c.0", 0x06_0400, "pcieport", Some(4))
        .function("0000:00:1c.0/0000:03:00.0", 0x01_0802, "nvme", Some(5))
        .function("0000:00:1c.4", 0x06_0400, "pcieport", Some(6))
        .function("0000:00:1c.4/0000:04:00.0", 0x02_0000, "igb", Some(7))
        .function("0000:00:1f.0", 0x06_0100, "lpc_ich", Some(8))
        .function("0000:00:1f.2", 0x01_0601, "ahci", Some(8))
        .function("0000:00:1f.3", 0x0c_0500, "i801_smbus", Some(8));
    host.block("pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", "8:0")
        .block("pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1", "8:1")
        .block("pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme0/nvme0n1", "259:0")
        .interface("pci0000:00/0000:00:19.0/net/eth0", true)
        .interface("pci0000:00/0000:00:1c.4/0000:04:00.0/net/eth1", true)
        .mount("8:1", "/", "ext4", "/dev/sda1");
    host.file("sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/boot_vga", "1\n");
    host
}

fn seen(host: &MadeUp) -> Host {
    Host::at(host.root())
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn choices(text: &str) -> Vec<Choice> {
    text.split(' ').map(|choice| choice.parse().unwrap()).collect()
}

/// What of a run matters here.
fn config(choice: &str, bind: bool, interface: &str) -> RunConfig {
    let target = Source::Aoe { address: "7.1".parse().unwrap(), interface: interface.into() };
    let disk = crate::config::Disk { source: target, read_only: false, format: None, position: 0 };
    RunConfig { disks: vec![disk], passthrough: choices(choice), bind, ..RunConfig::default() }
}

#[track_caller]
fn plan(host: &MadeUp, choice: &str, interface: &str) -> Plan {
    prepare(&seen(host), &config(choice, true, interface), None).unwrap()
}

/// The line that a run is refused with.
#[track_caller]
fn refusal(host: &MadeUp, choice: &str, bind: bool) -> String {
    prepare(&seen(host), &config(choice, bind, "eth1"), None).unwrap_err().to_string()
}

/// Why functions stay, by address.
fn stays(plan: &Plan) -> Vec<String> {
    plan.stay.iter().map(|(address, reason)| format!("{address} {reason}")).collect()
}

/// Which functions go, and where to.
fn goes(plan: &Plan) -> Vec<String> {
    plan.functions.iter().map(|one| format!("{} {}.{}", one.host, one.slot, one.function)).collect()
}
