use std::fs;

use super::*;
use crate::config::Size;

#[test]
fn a_host_that_is_not_up_to_it_is_told_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    let off = "interrupt remapping is off: a guest could send the host any interrupt: enable it in the firmware set-up, \
               or, if you trust the guest, load vfio_iommu_type1 with allow_unsafe_interrupts=1";
    host.file(
        "proc/interrupts",
        "  CPU0\n  0: 40 IO-APIC 2-edge timer\n 24: 0 PCI-MSI-0000:00:1c.0 0-edge pcieport\n",
    );
    assert_eq!(refusal(&host, "03:00.0", true), format!("--passthrough: {off}"));
    host.file("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
    assert_eq!(goes(&plan(&host, "03:00.0", "eth1")), ["0000:03:00.0 3.0"]);

    fs::remove_dir_all(host.path("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let line = "vfio-pci: the kernel's driver is not loaded: `modprobe vfio-pci`";
    assert_eq!(refusal(&host, "03:00.0", true), line);
    assert_eq!(refusal(&host, "all", false), line);

    fs::remove_dir_all(host.path("sys/kernel/iommu_groups")).unwrap();
    fs::create_dir(host.path("sys/kernel/iommu_groups")).unwrap();
    assert_eq!(
        refusal(&host, "03:00.0", true),
        "--passthrough: this host has no IOMMU, or doesn't use it: enable VT-d or AMD-Vi in its firmware set-up, \
         and boot with intel_iommu=on on the kernel's command line"
    );
    fs::remove_dir_all(host.path("sys/bus/pci/devices")).unwrap();
    assert_eq!(refusal(&host, "03:00.0", true), "--passthrough: this host has no PCI: leave it out");
}

#[test]
fn guest_memory_must_fit_into_the_limit_for_locked_memory() {
    let folder = tempfile::tempdir().unwrap();
    let host = seen(&ordinary(&folder));
    let config = RunConfig { memory: Size::mib(2048), ..config("03:00.0", true, "eth1") };
    assert_eq!(
        prepare(&host, &config, Some(8 << 20)).unwrap_err().to_string(),
        "--memory: hardware needs all 2G of it locked, and the limit for locked memory is 8,192 KiB: \
         `ulimit -l 2097152`, LimitMEMLOCK=2G in a systemd unit, or run as root"
    );
    assert!(prepare(&host, &config, Some(2 << 30)).is_ok());
}

#[test]
fn a_function_that_can_not_go_is_refused_with_the_mend() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    host.function("0000:00:1b.0", 0x04_0300, "snd_hda_intel", None);
    host.function("0000:00:1d.0/0000:08:00.0", 0x01_0802, "-", Some(20));
    for (choice, bind, line) in [
        (
            "05:00.0",
            true,
            "0000:05:00.0: this host has no such PCI function: `kagero devices` lists what is here",
        ),
        ("00:1c.0", true, "0000:00:1c.0: PCI bridge: name the functions behind it"),
        ("00:1b.0", true, "0000:00:1b.0: has no IOMMU group: it can't go to a guest safely; name another"),
        (
            "04:00.0",
            true,
            "0000:04:00.0: carries AoE (eth1): reach the disks through another interface, or leave it to the host",
        ),
        (
            "00:1f.3",
            true,
            "0000:00:1f.3: shares IOMMU group 8 with 0000:00:1f.0 (ISA bridge), 0000:00:1f.2 (carries / (sda1)): \
             the whole group has to go: free those too, or put the card into another slot",
        ),
        (
            "03:00.0",
            false,
            "0000:03:00.0: has the driver nvme, not vfio-pci: add --bind, which gives it back at the end",
        ),
        (
            "08:00.0",
            false,
            "0000:08:00.0: has no driver, vfio-pci neither: add --bind, which gives it back at the end",
        ),
        ("all", false, "--passthrough: nothing of this host can go to the guest: add --bind"),
    ] {
        assert_eq!(refusal(&host, choice, bind), line);
    }
    host.file("sys/kernel/iommu_groups/5/name", "vfio-noiommu\n");
    assert_eq!(
        refusal(&host, "03:00.0", true),
        "0000:03:00.0: has no IOMMU group: it can't go to a guest safely; name another"
    );
    // One of two is with VFIO already.
    fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0/driver")).unwrap();
    host.link("sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/driver", "sys/bus/pci/drivers/vfio-pci");
    assert_eq!(
        refusal(&host, "01:00.0", false),
        "0000:01:00.0: shares IOMMU group 1 with 0000:01:00.1 (driver snd_hda_intel): add --bind, which takes them along"
    );
}

#[test]
fn what_another_process_has_open_is_refused_with_its_name() {
    for file in ["/dev/vfio/21", "/dev/vfio/devices/vfio3"] {
        let folder = tempfile::tempdir().unwrap();
        let host = ordinary(&folder);
        host.function("0000:00:1d.0/0000:08:00.0", 0x02_0000, "vfio-pci", Some(21)).function(
            "0000:00:1d.0/0000:08:00.1",
            0x02_0000,
            "vfio-pci",
            Some(21),
        );
        host.file("sys/devices/pci0000:00/0000:00:1d.0/0000:08:00.0/vfio-dev/vfio3/dev", "511:3");
        host.file("dev/vfio/21", "");
        host.file("proc/4711/comm", "qemu-system-x86\n");
        fs::create_dir(host.path("proc/4711/fd")).unwrap();
        assert_eq!(goes(&plan(&host, "08:00.1", "eth1")), ["0000:08:00.1 3.0"]);
        std::os::unix::fs::symlink(file, host.path("proc/4711/fd/12")).unwrap();
        let line = "in use by qemu-system-x86 (process 4711)";
        assert_eq!(refusal(&host, "08:00.1", true), format!("0000:08:00.1: {line}: end that first"));
        assert!(stays(&plan(&host, "all", "eth1")).contains(&format!("0000:08:00.0 {line}")));
    }
}
