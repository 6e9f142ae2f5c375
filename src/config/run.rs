//! What `kagero run` is to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::units::{Period, serde_as_text};
use super::{Disk, Faults, Size};
use crate::error::{BadValue, UserError};
use crate::passthrough::Choice;

/// One run of one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunConfig {
    /// The guest's disks, by position; at most [`MAX_DISKS`](super::MAX_DISKS).
    pub disks: Vec<Disk>,
    /// The guest's memory.
    pub memory: Size,
    /// Virtual CPUs, 1 to 16.
    pub cpus: u8,
    /// Where the guest begins.
    pub boot: Boot,
    /// Where the guest's serial port leads.
    pub console: ConsoleSink,
    /// End with success once the guest has written this to its console.
    pub expect: Option<String>,
    /// End with exit code 124 after so long.
    #[serde(serialize_with = "as_period")]
    pub timeout: Option<Duration>,
    /// Where the report goes, as JSON.
    #[serde(serialize_with = "as_some_text")]
    pub report: Option<PathBuf>,
    /// What register accesses are written down, and where.
    pub trace: Option<TraceConfig>,
    /// Where the AoE traffic goes, as a pcap file.
    #[serde(serialize_with = "as_some_text")]
    pub pcap: Option<PathBuf>,
    /// Faults injected into the links.
    pub faults: Faults,
    /// What to do while a target does not answer.
    pub on_target_loss: TargetLoss,
    /// How long to wait for the targets at the start.
    #[serde(serialize_with = "as_some_period")]
    pub attach_timeout: Duration,
    /// Whether a reset by the guest begins anew; otherwise it ends the run.
    pub reboot: bool,
    /// Where the firmware's messages on debug port 402h go.
    #[serde(serialize_with = "as_some_text")]
    pub firmware_log: Option<PathBuf>,
    /// PCI functions of this host that the guest gets.
    pub passthrough: Vec<Choice>,
    /// Whether their drivers may be changed for that, until the end of the run.
    pub bind: bool,
}

impl Default for RunConfig {
    /// A machine with 1 GiB, one CPU, the default firmware, no disk yet, and its console on the terminal.
    fn default() -> Self {
        Self {
            disks: Vec::new(),
            memory: Size::mib(1024),
            cpus: 1,
            boot: Boot::Firmware(PathBuf::from(FIRMWARE[0])),
            console: ConsoleSink::Stdio,
            expect: None,
            timeout: None,
            report: None,
            trace: None,
            pcap: None,
            faults: Faults::default(),
            on_target_loss: TargetLoss::Hold,
            attach_timeout: Duration::from_secs(10),
            reboot: true,
            firmware_log: None,
            passthrough: Vec::new(),
            bind: false,
        }
    }
}

/// Where the guest begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// A BIOS image, mapped below 4 GiB and below 1 MiB.
    Firmware(#[serde(serialize_with = "as_text")] PathBuf),
    /// A Linux kernel, loaded without firmware.
    Kernel {
        /// A bzImage, or an ELF file with a PVH entry.
        #[serde(serialize_with = "as_text")]
        image: PathBuf,
        /// Its initial RAM disk.
        #[serde(serialize_with = "as_some_text")]
        initrd: Option<PathBuf>,
        /// Its command line.
        command_line: String,
    },
}

/// Where the guest's serial port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleSink {
    /// The terminal, or what standard input and output are.
    Stdio,
    /// Output to a file, no input.
    File(PathBuf),
    /// Nowhere; `--expect` still reads it.
    None,
}

impl FromStr for ConsoleSink {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "" => Err(BadValue::not(text, "a console", "give stdio, none or the path of a file")),
            "stdio" => Ok(Self::Stdio),
            "none" => Ok(Self::None),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for ConsoleSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::None => f.write_str("none"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What register accesses are written down, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceConfig {
    /// Where to.
    pub sink: TraceSink,
    /// Which devices, as the board names them; empty for all.
    pub devices: Vec<String>,
}

/// Where a trace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceSink {
    /// Standard error, between whatever else is said there.
    Stderr,
    /// A file.
    File(PathBuf),
}

impl FromStr for TraceSink {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "" => Err(BadValue::not(text, "a file", "give a path, or - for standard error")),
            "-" => Ok(Self::Stderr),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for TraceSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What to do while a target does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetLoss {
    /// Keep the drive busy and go on asking: the guest waits, and sees no error once the target is back.
    #[default]
    Hold,
    /// Report an ATA error to the guest for a command that has had no answer for so long.
    FailAfter(Duration),
}

impl FromStr for TargetLoss {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::not(text, "a policy for target loss", "write hold, or fail-after=30s");
        if text == "hold" {
            return Ok(Self::Hold);
        }
        let after: Period = text.strip_prefix("fail-after=").ok_or_else(bad)?.parse()?;
        if after.0.is_zero() { Err(bad()) } else { Ok(Self::FailAfter(after.0)) }
    }
}

impl fmt::Display for TargetLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold => f.write_str("hold"),
            Self::FailAfter(after) => write!(f, "fail-after={}", Period(*after)),
        }
    }
}

serde_as_text! {
    ConsoleSink => "\"stdio\", \"none\" or the path of a file",
    TraceSink => "the path of a file in quotes, or \"-\" for standard error",
    TargetLoss => "\"hold\" or \"fail-after=30s\"",
}

/// Where distributions put SeaBIOS.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"];

/// The firmware used when none is named: SeaBIOS as the distribution has it.
///
/// # Errors
/// When it is in none of the usual places.
pub fn default_firmware() -> Result<PathBuf, UserError> {
    firmware_among(&FIRMWARE)
}

fn firmware_among(places: &[&str]) -> Result<PathBuf, UserError> {
    places.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned).ok_or_else(|| {
        UserError::new(
            "--firmware",
            format!("there is no SeaBIOS at {}", places.join(" or ")),
            "install the package seabios, or name a BIOS image with --firmware",
        )
    })
}

/// A path need not be UTF-8, a report has to.
fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn as_some_text<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.display().to_string()).serialize(serializer)
}

fn as_period<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(Period).serialize(serializer)
}

fn as_some_period<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    Period(*time).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_firmware_names_the_package() {
        let error = firmware_among(&["/nowhere/bios-256k.bin"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--firmware: there is no SeaBIOS at /nowhere/bios-256k.bin: \
             install the package seabios, or name a BIOS image with --firmware"
        );
    }

    #[test]
    fn target_loss() {
        assert_eq!("hold".parse(), Ok(TargetLoss::Hold));
        assert_eq!("fail-after=30s".parse(), Ok(TargetLoss::FailAfter(Duration::from_secs(30))));
        let error = |text: &str| text.parse::<TargetLoss>().unwrap_err().to_string();
        assert_eq!(error("fail"), "\"fail\" is not a policy for target loss: write hold, or fail-after=30s");
        assert_eq!(
            error("fail-after=0s"),
            "\"fail-after=0s\" is not a policy for target loss: write hold, or fail-after=30s"
        );
    }
}
