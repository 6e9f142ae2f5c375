//! What an L1 is given, and starting it.

use super::L1;
use super::control::Control;
use crate::folder::Folder;
use crate::network::Namespace;
use crate::process::Process;
use crate::retry;
use crate::transcript::Transcript;
use anyhow::{Context, Result, bail, ensure};
use kagero_images::initramfs::Initramfs;
use kagero_images::kernel::Kernel;
use kagero_images::tiny::WAIT_FOR;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Loaded in every L1. The agent's ways (virtio, 9p), KVM, the network card, and what finds file systems.
const MODULES: [&str; 10] = [
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "9pnet_virtio",
    "9p",
    "kvm_amd",
    "e1000e",
    "tun",
    "crc32c_generic",
    "ext4",
];

/// `modprobe` finds these too, for tests that want them.
const MORE_MODULES: [&str; 6] = ["vfio_pci", "vfio_iommu_type1", "aer_inject", "aoe", "veth", "loop"];

/// An L1 took 3 to 5 s on an idle machine; one in fifty stalls for ever.
const START_PATIENCE: Duration = Duration::from_secs(60);
const START_TRIES: u32 = 3;

/// What an L1 can be given before it starts. Made by [`L1::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    cpus: u32,
    memory_mib: u32,
    programs: Vec<PathBuf>,
    files: Vec<(String, PathBuf)>,
    disks: Vec<PathBuf>,
    network: Option<(Namespace, String, u32)>,
    devices: Vec<String>,
    kernel_parameters: Vec<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            cpus: 2,
            memory_mib: 4096,
            programs: Vec::new(),
            files: Vec::new(),
            disks: Vec::new(),
            network: None,
            devices: Vec::new(),
            kernel_parameters: Vec::new(),
        }
    }
}

impl Builder {
    /// Processors; two unless told.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Memory in MiB; 4096 unless told.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Copies a program of L0, with the shared libraries that it needs, into L1's memory as `/bin/NAME`.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.programs.push(path.into());
        self
    }

    /// Copies a file of L0 into L1's memory at an absolute path, such as a firmware image.
    pub fn file(mut self, at: &str, from: impl Into<PathBuf>) -> Self {
        self.files.push((at.trim_start_matches('/').to_owned(), from.into()));
        self
    }

    /// A raw disk image as the next of /dev/vda, /dev/vdb, ... in L1. L1 writes to the file itself.
    pub fn disk(mut self, image: impl Into<PathBuf>) -> Self {
        self.disks.push(image.into());
        self
    }

    /// An e1000e network card, `eth0` in L1, on a tap in a namespace of L0 (see [`Namespace::add_tap`]); it is up with `mtu`.
    pub fn network(mut self, namespace: &Namespace, tap: &str, mtu: u32) -> Self {
        self.network = Some((namespace.clone(), tap.to_owned(), mtu));
        self
    }

    /// More QEMU arguments, such as `-device nvme,...` for a device to pass through.
    pub fn qemu<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.devices.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// One more word for L1's kernel command line.
    pub fn kernel_parameter(mut self, word: &str) -> Self {
        self.kernel_parameters.push(word.to_owned());
        self
    }

    /// Starts the L1 and waits until it takes commands. One that stalls is killed and tried again; that is printed and
    /// counted in [`L1::retries`].
    ///
    /// # Errors
    /// Something it needs is missing (named, with the mend), or three starts in a row stalled.
    pub fn start(&self) -> Result<L1> {
        let kernel = Kernel::fetch()?;
        for retries in 0..START_TRIES {
            match self.try_start(&kernel, retries)? {
                Ok(l1) => return Ok(l1),
                Err(stall) => retry::count("L1's start", retries + 1, &stall),
            }
        }
        bail!("L1 did not start in {START_TRIES} tries of {START_PATIENCE:?}")
    }

    /// The outer error is ours or the machine's; the inner one is a stall, worth another try.
    fn try_start(&self, kernel: &Kernel, retries: u32) -> Result<Result<L1>> {
        let folder = Folder::new("l1")?;
        let dir = folder.path();
        fs::create_dir(dir.join("share"))?;
        self.initramfs(kernel)?.write(&dir.join("l1.cpio"))?;
        let listener = Control::listen(&dir.join("control"))?;
        let started = Instant::now();
        let mut qemu = Process::start(self.command(kernel, dir)?, &dir.join("qemu.log"))?;
        let control = match Control::accept(&listener, || qemu.is_running()) {
            Ok(control) => control,
            Err(e) => return Err(e.context(format!("QEMU: {}", qemu.log().last_lines()))),
        };
        if let Err(stall) = control.wait_ready(START_PATIENCE) {
            let console = Transcript::new(dir.join("console.log"));
            return Ok(Err(stall.context(format!("console: {}", console.last_lines()))));
        }
        let ready_in = started.elapsed();
        let l1 = L1 { qemu, control, folder, ready_in, retries, next_job: AtomicU32::new(1) };
        if self.network.is_some() {
            l1.run("wait_for_carrier eth0", Duration::from_secs(30))?.expect_success()?;
        }
        Ok(Ok(l1))
    }

    fn initramfs(&self, kernel: &Kernel) -> Result<Initramfs> {
        let mut initramfs = Initramfs::new()?;
        initramfs.modules(kernel, &[&MODULES[..], &MORE_MODULES].concat())?;
        initramfs.init(include_str!("init.sh"));
        initramfs.script("bin/wait_for", WAIT_FOR);
        initramfs.script("bin/wait_for_carrier", WAIT_FOR_CARRIER);
        for program in &self.programs {
            initramfs.program(program)?;
        }
        for (at, from) in &self.files {
            initramfs.file(at, from);
        }
        Ok(initramfs)
    }

    fn command(&self, kernel: &Kernel, dir: &Path) -> Result<Command> {
        let mut qemu = Command::new("qemu-system-x86_64");
        if let Some((namespace, ..)) = &self.network {
            namespace.enter(&mut qemu);
        }
        // A modern AMD processor in software. intel-iommu, since amd-iommu's interrupt remapping panics or goes silent.
        qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,svm=on,erms=off,fsrm=off"]);
        qemu.args(["-device", "intel-iommu,intremap=on", "-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.args(["-smp", &self.cpus.to_string(), "-m", &self.memory_mib.to_string()]);
        qemu.arg("-kernel").arg(kernel.vmlinux()).arg("-initrd").arg(dir.join("l1.cpio"));
        qemu.args(["-append", &self.command_line()]);
        let here = dir.to_str().context("the path of target/ is not UTF-8")?;
        ensure!(!here.contains(','), "{here}: QEMU takes no comma in a path");
        qemu.args([
            "-chardev",
            &format!("file,id=console,path={here}/console.log"),
            "-serial",
            "chardev:console",
        ]);
        qemu.args(["-virtfs", &format!("local,path={here}/share,mount_tag=share,security_model=none")]);
        qemu.args(["-chardev", &format!("socket,id=control,path={here}/control")]);
        qemu.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=control"]);
        for (number, disk) in self.disks.iter().enumerate() {
            let path =
                disk.to_str().with_context(|| format!("{}: not UTF-8", disk.display()))?.replace(',', ",,");
            ensure!(disk.exists(), "{path}: no such disk image");
            qemu.args(["-drive", &format!("file={path},format=raw,if=none,id=disk{number}")]);
            qemu.args(["-device", &format!("virtio-blk-pci,drive=disk{number}")]);
        }
        if let Some((_, tap, _)) = &self.network {
            qemu.args(["-netdev", &format!("tap,id=lan,ifname={tap},script=no,downscript=no")]);
            qemu.args(["-device", "e1000e,netdev=lan,mac=52:54:00:00:00:01"]);
        }
        qemu.args(&self.devices);
        Ok(qemu)
    }

    fn command_line(&self) -> String {
        // tsc=reliable: with two processors the kernel otherwise gives the TSC up in the middle of a test.
        let fixed = "console=ttyS0 quiet panic=-1 intel_iommu=on mitigations=off nokaslr tsc=reliable";
        let mut words = vec![fixed.to_owned()];
        // Words without a dot that the kernel doesn't know become init's environment.
        if let Some((_, _, mtu)) = &self.network {
            words.push(format!("lab_mtu={mtu}"));
        }
        words.extend(self.kernel_parameters.iter().cloned());
        words.join(" ")
    }
}

const WAIT_FOR_CARRIER: &str = r#"#!/bin/sh
until [ "$(cat /sys/class/net/$1/carrier 2>/dev/null)" = 1 ]; do usleep 20000; done
"#;
