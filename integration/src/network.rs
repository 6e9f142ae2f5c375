//! Network namespaces on L0 for test traffic: it can't leave them, and nothing of them is left behind.

use crate::child::{enter_network, new_network};
use anyhow::{Context, Result, ensure};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

/// A network namespace without a name: it lives as long as this value or a process in it, so even a killed test leaves
/// none behind. To look into one: `nsenter --net=/proc/PID/ns/net` with a process that runs in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    descriptor: Arc<OwnedFd>,
}

impl Namespace {
    /// A new namespace with nothing but a loopback interface, which is up.
    ///
    /// # Errors
    /// Not root.
    pub fn new() -> Result<Namespace> {
        let descriptor = new_network().context("making a network namespace (needs root)")?;
        let this = Namespace { descriptor: Arc::new(descriptor) };
        this.ip("link set lo up")?;
        Ok(this)
    }

    /// A tap with `mtu`, up; QEMU's end is [`crate::l1::Builder::network`].
    ///
    /// # Errors
    /// Not root, the name is taken, or the kernel has no tun driver.
    pub fn add_tap(&self, name: &str, mtu: u32) -> Result<()> {
        self.ip(&format!("tuntap add dev {name} mode tap"))?;
        self.ip(&format!("link set {name} mtu {mtu} up"))
    }

    /// Two interfaces, up, each the other's end of one cable.
    ///
    /// # Errors
    /// Not root, or a name is taken.
    pub fn add_cable(&self, one: &str, other: &str, mtu: u32) -> Result<()> {
        self.ip(&format!("link add {one} mtu {mtu} type veth peer name {other} mtu {mtu}"))?;
        self.ip(&format!("link set {one} up"))?;
        self.ip(&format!("link set {other} up"))
    }

    /// As [`Self::add_cable`], with the other end in the namespace `far`.
    ///
    /// # Errors
    /// Not root, or a name is taken.
    pub fn add_cable_to(&self, near: &str, far: &Namespace, other: &str, mtu: u32) -> Result<()> {
        let far_path = format!("/proc/{}/fd/{}", std::process::id(), far.descriptor.as_raw_fd());
        self.ip(&format!(
            "link add {near} mtu {mtu} type veth peer name {other} mtu {mtu} netns {far_path}"
        ))?;
        self.ip(&format!("link set {near} up"))?;
        far.ip(&format!("link set {other} up"))
    }

    /// Runs `ip` with these words in the namespace.
    ///
    /// # Errors
    /// What ip says.
    pub fn ip(&self, words: &str) -> Result<()> {
        let output = self.command("ip").args(words.split_whitespace()).output().context("ip")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {words}: {}", said.trim());
        Ok(())
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }

    /// Lets a command run in the namespace.
    pub fn enter(&self, command: &mut Command) {
        enter_network(command, self.descriptor.clone());
    }
}
