//! Passthrough that can't be: each time one line that says why, and every driver where it was.
//! `cargo xtask test` runs these one after the other.

use kagero_integration::l1::{Builder, L1};
use kagero_integration::passthrough::{Device, Devices, Vmm, drivers, with_script};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(120);

/// An L1 with all the devices, of which the network card is about to go to a guest, and how it is called there.
struct Lab {
    l1: L1,
    _devices: Devices,
    card: [String; 1],
}

impl Lab {
    fn new(build: impl Fn(Builder) -> Builder) -> Self {
        let devices = Devices::new().unwrap();
        let l1 = Vmm::Kagero.add_to(devices.add_to(L1::builder()).unwrap()).unwrap();
        let l1 = build(l1).start().unwrap();
        with_script(&l1, "echo up; sleep 1000").unwrap();
        let card = devices.addresses(&l1, &[Device::Network]).unwrap().try_into().unwrap();
        Lab { l1, _devices: devices, card }
    }

    fn run(&self, script: &str) -> String {
        self.l1.run(script, SOON).unwrap().expect_success().unwrap()
    }

    fn command(&self) -> String {
        Vmm::Kagero.command("", &self.card)
    }

    /// Kagero refuses, run with these words before its command, in this one line. Nothing has changed.
    #[track_caller]
    fn refuses(&self, before: &str, line: &str) {
        let drivers_before = drivers(&self.l1, &self.card).unwrap();
        let end =
            self.l1.run(&self.command().replace("exec kagero", &format!("{before} kagero")), SOON).unwrap();
        println!("{}", end.stderr.trim_end());
        assert_eq!((end.code, end.stderr.trim_end()), (2, &*format!("kagero: {line}")), "{}", end.stdout);
        assert_eq!(drivers(&self.l1, &self.card).unwrap(), drivers_before);
    }
}

#[test]
#[ignore = "needs the lab"]
fn what_is_missing_or_taken_is_named() {
    let lab = Lab::new(|l1| l1.program("/usr/bin/setpriv"));
    let [card] = &lab.card;
    lab.refuses("exec", "vfio-pci: the kernel's driver is not loaded: `modprobe vfio-pci`");
    lab.run("modprobe -a vfio_pci vfio_iommu_type1");
    lab.refuses(
        "ulimit -l 65536; exec /bin/setpriv --bounding-set -ipc_lock",
        "--memory: hardware needs all 512M of it locked, and the limit for locked memory is 65,536 KiB: \
         `ulimit -l 524288`, LimitMEMLOCK=512M in a systemd unit, or run as root",
    );
    // The soft limit is no hindrance. The guest of this run has what the next one asks for.
    let patient = lab
        .command()
        .replace("exec", "ulimit -l 1048576; ulimit -S -l 65536; exec /bin/setpriv --bounding-set -ipc_lock");
    let mut guest = lab.l1.spawn(&patient).unwrap();
    guest.expect("up", BOOT).unwrap();
    lab.refuses("exec", &format!("{card}: in use by kagero (process {}): end that first", guest.pid()));
    guest.signal("TERM").unwrap();
    guest.wait(SOON).unwrap();
    assert_eq!(drivers(&lab.l1, &lab.card).unwrap(), ["e1000e"]);
}

#[test]
#[ignore = "needs the lab"]
fn without_interrupt_remapping_the_guest_has_to_be_trusted() {
    let lab = Lab::new(|l1| l1.kernel_parameter("intremap=off"));
    lab.run("modprobe -a vfio_pci vfio_iommu_type1");
    lab.refuses(
        "exec",
        "--passthrough: interrupt remapping is off: a guest could send the host any interrupt: enable it in the \
         firmware set-up, or, if you trust the guest, load vfio_iommu_type1 with allow_unsafe_interrupts=1",
    );
    lab.run("echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    let mut guest = lab.l1.spawn(&lab.command()).unwrap();
    guest.expect("up", BOOT).unwrap();
}

#[test]
#[ignore = "needs the lab"]
fn without_an_iommu_nothing_goes() {
    let lab = Lab::new(|l1| l1.kernel_parameter("intel_iommu=off"));
    lab.run("modprobe -a vfio_pci vfio_iommu_type1");
    lab.refuses(
        "exec",
        "--passthrough: this host has no IOMMU, or doesn't use it: enable VT-d or AMD-Vi in its firmware set-up, \
         and boot with intel_iommu=on on the kernel's command line",
    );
}
