//! L1s with Kagero in them: alone, and with its target on L0 as the second machine.

use crate::folder::Folder;
use crate::l1::{Builder, L1};
use crate::network::Namespace;
use crate::process::Process;
use crate::transcript::{POLL, Transcript};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The firmware of Debian's package seabios; it is at the same place in L1.
pub const FIRMWARE: &str = "/usr/share/seabios/bios-256k.bin";

/// The target's address in [`TwoMachines`].
pub const TARGET: &str = "7.1";

const TAP: &str = "tap0";

/// The Kagero that is tested: the release build, or what the environment variable `KAGERO` names.
///
/// # Errors
/// It is not there.
pub fn kagero() -> Result<PathBuf> {
    let built = || kagero_images::cache_dir().join("../release/kagero");
    let path = std::env::var_os("KAGERO").map_or_else(built, PathBuf::from);
    ensure!(path.is_file(), "{}: not there; run `cargo build --release`", path.display());
    Ok(path)
}

/// An L1 that will have Kagero as `kagero` and the firmware where Kagero looks for it.
///
/// # Errors
/// Kagero is not built, or the package seabios is not installed.
pub fn with_kagero() -> Result<Builder> {
    ensure!(Path::new(FIRMWARE).is_file(), "{FIRMWARE}: not installed; run `cargo xtask setup`");
    Ok(L1::builder().program(kagero()?).file(FIRMWARE, FIRMWARE))
}

/// Kagero in an L1, and on L0 a target that it reaches over a network card and a tap.
///
/// In L1: `kagero run --disk aoe:7.1 --interface eth0`.
#[derive(Debug)]
pub struct TwoMachines {
    /// The machine where Kagero runs the guest.
    pub l1: L1,
    /// The other machine.
    pub target: Target,
}

/// The target on L0, `kagero serve`, in a network namespace of its own.
#[derive(Debug)]
pub struct Target {
    process: Process,
    network: Namespace,
    image: PathBuf,
    folder: Folder,
}

impl TwoMachines {
    /// Starts both with a network of `mtu`. The target serves a copy of `image`, which [`Target::image`] names.
    ///
    /// # Errors
    /// One of them doesn't start.
    pub fn start(image: &Path, mtu: u32) -> Result<TwoMachines> {
        Self::start_with(with_kagero()?, image, mtu)
    }

    /// As [`Self::start`], with an L1 that is given more, or less.
    ///
    /// # Errors
    /// One of them doesn't start.
    pub fn start_with(l1: Builder, image: &Path, mtu: u32) -> Result<TwoMachines> {
        let folder = Folder::new("target")?;
        let copy = folder.path().join("disk.img");
        kagero_images::disk::copy(image, &copy)?;
        let network = Namespace::new()?;
        network.add_tap(TAP, mtu)?;
        // First the machine: a tap has no carrier, and counts as down, until someone has it open.
        let l1 = l1.network(&network, TAP, mtu).start()?;
        let process = serve(&network, TAP, &copy, &folder.path().join("target.log"))?;
        Ok(TwoMachines { l1, target: Target { process, network, image: copy, folder } })
    }
}

impl Target {
    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It has ended already.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// It doesn't start.
    pub fn restart(&mut self) -> Result<()> {
        self.process = serve(&self.network, TAP, &self.image, &self.folder.path().join("target.log"))?;
        Ok(())
    }

    /// The image that it serves.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// What it writes.
    pub fn log(&mut self) -> &mut Transcript {
        self.process.log()
    }

    /// Sets its network interface up or down.
    ///
    /// # Errors
    /// What ip says.
    pub fn set_interface(&self, up: bool) -> Result<()> {
        self.network.ip(&format!("link set {TAP} {}", if up { "up" } else { "down" }))
    }

    /// Bytes that have come to its network interface so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn bytes_received(&self) -> Result<u64> {
        // What a process sees of the network is that of its own namespace.
        let path = format!("/proc/{}/net/dev", self.process.pid());
        let devices = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let count = devices.lines().find_map(|line| line.trim().strip_prefix(TAP)?.strip_prefix(':'));
        let count = count.and_then(|counts| counts.split_whitespace().next()?.parse().ok());
        count.with_context(|| format!("{path}: no {TAP}"))
    }

    /// Waits until so many more bytes have come to its network interface.
    ///
    /// # Errors
    /// They don't within `patience`, or it has ended.
    pub fn wait_for_bytes(&self, more: u64, patience: Duration) -> Result<()> {
        let (deadline, from) = (Instant::now() + patience, self.bytes_received()?);
        while self.bytes_received()? < from + more {
            ensure!(Instant::now() < deadline, "{more} bytes did not come within {patience:?}");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// It doesn't end, or with a failure.
    pub fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(Duration::from_secs(10))?;
        // As a shell says it of who ended by this signal.
        ensure!(
            status.code() == Some(128 + 15),
            "the target ended with {status}: {}",
            self.log().last_lines()
        );
        Ok(())
    }
}

/// Starts `kagero serve` in `network`, with `image` as [`TARGET`] on `interface`, and waits until it serves.
///
/// # Errors
/// It is not built, or doesn't start.
pub fn serve(network: &Namespace, interface: &str, image: &Path, log: &Path) -> Result<Process> {
    let mut command = network.command(kagero()?);
    let mut export = std::ffi::OsString::from(format!("{TARGET}="));
    export.push(image);
    command.args(["serve", "--control", "none", "--state", "none", "--interface", interface]).arg(export);
    let mut target = Process::start(command, log)?;
    target.expect("serving", Duration::from_secs(10)).context("starting the target on L0")?;
    Ok(target)
}
