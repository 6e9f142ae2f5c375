//! The devices of L1 that pass through, and their other ends on L0.

use super::screen::Qmp;
use crate::folder::Folder;
use crate::l1::{Builder, L1};
use crate::network::Namespace;
use anyhow::{Context, Result, ensure};
use kagero_images::command::{command, run, text};
use serde_json::json;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Where the card that passes through ends.
const TAP: &str = "tap1";
/// L0's address at that end, which the guest pings.
const ADDRESS: &str = "10.7.0.1/24";

const DISK_BYTES: u64 = 64 << 20;

/// One of the devices that pass through. Each sits behind a PCI Express root port of its own, and so has an IOMMU group of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// e1000e, on a tap in a namespace of L0.
    Network,
    /// An NVMe disk of 64 MiB.
    Nvme,
    /// xHCI with a storage stick of 64 MiB.
    Usb,
    /// AHCI with a CD in an ATAPI drive.
    Cd,
    /// HD Audio that plays into a file on L0.
    Sound,
    /// bochs-display.
    Display,
    /// Standard VGA.
    Vga,
    /// QEMU's device for teaching: nothing but a DMA engine that copies from and to where it is told.
    Edu,
}

impl Device {
    /// All seven that people have.
    pub const ALL: [Device; 7] =
        [Device::Network, Device::Nvme, Device::Usb, Device::Cd, Device::Sound, Device::Display, Device::Vga];

    /// Its name in QEMU's arguments and QMP.
    pub fn name(self) -> &'static str {
        match self {
            Device::Network => "network",
            Device::Nvme => "nvme",
            Device::Usb => "usb",
            Device::Cd => "cd",
            Device::Sound => "sound",
            Device::Display => "display",
            Device::Vga => "vga",
            Device::Edu => "edu",
        }
    }

    /// The slot of its root port on L1's bus 0.
    fn slot(self) -> usize {
        0x10 + self as usize
    }
}

/// Two functions of one slot, which share an IOMMU group. L1's virtio driver has both.
const PAIR_SLOT: usize = 0x1c;

/// What the devices of an L1 are made of on L0: images, a network, a file that sound is played into.
#[derive(Debug)]
pub struct Devices {
    folder: Folder,
    network: Namespace,
}

impl Devices {
    /// The tap of L1's own network card `eth0`, which stays in L1: what carries a disk.
    pub const OWN_TAP: &str = "tap0";

    /// Makes the images and the network.
    ///
    /// # Errors
    /// Not root, the disk is full, or genisoimage is not installed.
    pub fn new() -> Result<Devices> {
        let this = Devices { folder: Folder::new("devices")?, network: Namespace::new()? };
        this.network.add_tap(Self::OWN_TAP, 1500)?;
        this.network.add_tap(TAP, 1500)?;
        this.network.ip(&format!("addr add {ADDRESS} dev {TAP}"))?;
        for disk in ["nvme", "usb"] {
            File::create(this.path(disk))?.set_len(DISK_BYTES)?;
        }
        this.make_cd()?;
        Ok(this)
    }

    /// Adds them all to an L1: the seven, [`Device::Edu`] and the pair.
    ///
    /// # Errors
    /// The path of `target/` is none that QEMU takes.
    pub fn add_to(&self, l1: Builder) -> Result<Builder> {
        let folder = self.folder.path().to_str().context("the path of target/ is not UTF-8")?;
        ensure!(!folder.contains(','), "{folder}: QEMU takes no comma in a path");
        let mut words = vec!["-qmp".into(), format!("unix:{folder}/qmp,server=on,wait=off")];
        for device in Device::ALL.into_iter().chain([Device::Edu]) {
            let port = format!(
                "pcie-root-port,id=port-{0},addr={1:#x},chassis={1},slot={1}",
                device.name(),
                device.slot()
            );
            words.extend(["-device".into(), port]);
            words.extend(arguments(device, folder));
        }
        for function in 0..2 {
            let half = format!("virtio-rng-pci,addr={PAIR_SLOT:#x}.{function},multifunction=on");
            words.extend(["-device".into(), half]);
        }
        Ok(l1.network(&self.network, Self::OWN_TAP, 1500).qemu(words))
    }

    /// The addresses in L1 of some of the devices, such as `0000:01:00.0`.
    ///
    /// # Errors
    /// L1 died, or has no such device.
    pub fn addresses(&self, l1: &L1, devices: &[Device]) -> Result<Vec<String>> {
        let folder =
            |device: &Device| format!("/sys/bus/pci/devices/0000:00:{:02x}.0/0000:*:00.0", device.slot());
        let list = devices.iter().map(folder).collect::<Vec<_>>().join(" ");
        let said = l1.run(&format!("for d in {list}; do [ -d $d ] && basename $d; done"), PATIENCE)?;
        let found: Vec<String> = said.expect_success()?.lines().map(str::to_owned).collect();
        ensure!(found.len() == devices.len(), "L1 has {found:?} for {devices:?}");
        Ok(found)
    }

    /// The addresses in L1 of the two functions that share a group.
    pub fn pair(&self) -> [String; 2] {
        [0, 1].map(|function| format!("0000:00:{PAIR_SLOT:02x}.{function}"))
    }

    /// The checksums of the CD's files, as `sha256sum -c` reads them.
    pub fn cd_checksums(&self) -> PathBuf {
        self.path("cd.sha256")
    }

    /// What the sound card played: a WAV file, whole when L1 has ended.
    pub fn sound(&self) -> PathBuf {
        self.path("sound")
    }

    /// The control port of L1's QEMU.
    ///
    /// # Errors
    /// L1 doesn't run.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.path("qmp"))
    }

    /// Pulls a device out of L1, as hot-plug does: L1 is asked, and gives it up when whoever has it lets go.
    ///
    /// # Errors
    /// L1 doesn't run.
    pub fn unplug(&self, device: Device) -> Result<()> {
        self.qmp()?.execute("device_del", &json!({ "id": device.name() })).map(drop)
    }

    /// The network in which L1's taps are.
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Files of one byte, of one sector and of many, in folders too.
    fn make_cd(&self) -> Result<()> {
        let files = self.path("cd.files");
        fs::create_dir_all(files.join("folder"))?;
        fs::write(files.join("byte"), "1")?;
        fs::write(files.join("sector"), noise(2048))?;
        fs::write(files.join("folder/noise"), noise((2 << 20) + 77))?;
        run(command(["genisoimage", "-quiet", "-r", "-V", "KAGERO", "-o"]).args([&self.path("cd"), &files]))
            .context("making a CD; run `cargo xtask setup`")?;
        let sums = text(command(["sha256sum", "byte", "sector", "folder/noise"]).current_dir(&files))?;
        fs::write(self.cd_checksums(), sums.trim_end()).context("the CD's checksums")
    }
}

/// QEMU's words for one device and what is behind it.
fn arguments(device: Device, folder: &str) -> Vec<String> {
    let name = device.name();
    let backed = |what: &str| vec!["-device".into(), format!("{what},bus=port-{name},id={name}")];
    let drive = format!("file={folder}/{name},format=raw,if=none,id={name}-drive");
    let behind = |device: &str| vec!["-device".into(), device.into()];
    match device {
        Device::Network => [
            vec!["-netdev".into(), format!("tap,id={name}-tap,ifname={TAP},script=no,downscript=no")],
            backed(&format!("e1000e,netdev={name}-tap,mac=52:54:00:00:07:02")),
        ]
        .concat(),
        Device::Nvme => {
            [vec!["-drive".into(), drive], backed(&format!("nvme,drive={name}-drive,serial=7"))].concat()
        }
        Device::Usb => [
            backed("qemu-xhci"),
            vec!["-drive".into(), drive],
            behind(&format!("usb-storage,bus={name}.0,drive={name}-drive")),
        ]
        .concat(),
        Device::Cd => [
            backed("ich9-ahci"),
            vec!["-drive".into(), format!("{drive},media=cdrom,readonly=on")],
            behind(&format!("ide-cd,bus={name}.0,drive={name}-drive")),
        ]
        .concat(),
        // Without a mixer: nobody in the guest would turn the volume up.
        Device::Sound => [
            vec!["-audiodev".into(), format!("wav,id={name}-file,path={folder}/{name}")],
            backed("intel-hda"),
            behind(&format!("hda-output,bus={name}.0,audiodev={name}-file,mixer=off")),
        ]
        .concat(),
        Device::Display => backed("bochs-display"),
        Device::Vga => backed("VGA"),
        // Its engine reaches 28 bits unless told.
        Device::Edu => backed("edu,dma_mask=0xffffffff"),
    }
}

/// Bytes without a pattern, always the same (Knuth's MMIX generator).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
