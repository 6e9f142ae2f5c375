//! A disk of the guest's machine, as it is asked for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use kagero_target::Format;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Address;
use super::keyed::{self, Keyed, truth};
use super::units;
use crate::error::BadValue;

/// The most disks a machine has: two on each of the two IDE channels.
pub const MAX_DISKS: usize = 4;

/// One disk of the machine, fully said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// What lies behind it.
    pub source: Source,
    /// Whether the guest's writes are refused; only for files, as a target elsewhere decides for itself.
    pub read_only: bool,
    /// The format of an image file; without it, one that looks like no other is raw.
    #[serde(serialize_with = "units::serialize_format", skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// 0 to 3: primary master, primary slave, secondary master, secondary slave.
    pub position: u8,
}

/// What lies behind a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image on this host, served by the built-in target over a link in memory.
    File(PathBuf),
    /// A target on the network.
    Aoe {
        /// The target's address.
        address: Address,
        /// The network interface it is reached through.
        interface: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Aoe { address, .. } => write!(f, "aoe:{address}"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A disk as the user names it: `debian.img,read-only` or `aoe:7.1,interface=eth1`, with what was left out left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOption {
    /// A path, or a target's address.
    pub source: SourceOption,
    /// `read-only`
    pub read_only: bool,
    /// `format=raw`, `qcow2` or `vhdx`
    pub format: Option<Format>,
    /// `position=0` to `3`; the lowest free one otherwise.
    pub position: Option<u8>,
    /// `interface=NAME`, in place of the run's `--interface`.
    pub interface: Option<String>,
}

/// The part of a [`DiskOption`] before the first comma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOption {
    /// Anything that does not begin with `aoe:`.
    File(PathBuf),
    /// `aoe:shelf.slot`
    Aoe(Address),
}

impl FromStr for SourceOption {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.strip_prefix("aoe:") {
            Some(address) => Ok(Self::Aoe(units::address(address)?)),
            None if text.is_empty() => {
                Err(BadValue::not(text, "a disk", "give the path of an image, or a target as aoe:7.1"))
            }
            None => Ok(Self::File(text.into())),
        }
    }
}

const PARTS: [&str; 5] = ["source", "read-only", "format", "position", "interface"];

impl Keyed for DiskOption {
    const EXPECTING: &'static str =
        "a disk: a path or \"aoe:7.1\", or a table with source, read-only, format, position, interface";

    fn empty() -> Self {
        Self {
            source: SourceOption::File(PathBuf::new()),
            read_only: false,
            format: None,
            position: None,
            interface: None,
        }
    }

    /// Options are taken off the end as long as they are known, so that a file's name may have commas.
    fn from_text(text: &str) -> Result<Self, BadValue> {
        let mut disk = Self::empty();
        let mut rest = text;
        while let Some((before, option)) = rest.rsplit_once(',') {
            match option.split_once('=') {
                None if option == "read-only" => disk.read_only = true,
                Some((key @ ("read-only" | "format" | "position" | "interface"), value)) => {
                    disk.set(key, value)?
                }
                _ => break,
            }
            rest = before;
        }
        disk.source = rest.parse()?;
        Ok(disk)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), BadValue> {
        match key {
            "source" => self.source = value.parse()?,
            "read-only" => self.read_only = truth(key, value)?,
            "format" => self.format = Some(units::format(value)?),
            "position" => {
                let position = value.parse().ok().filter(|&at| usize::from(at) < MAX_DISKS);
                self.position = Some(position.ok_or_else(|| {
                    BadValue::not(
                        value,
                        "a disk's position",
                        "0 and 1 are the primary channel's, 2 and 3 the secondary's",
                    )
                })?);
            }
            "interface" => self.interface = Some(value.to_owned()),
            _ => return Err(keyed::unknown_part(key, &PARTS)),
        }
        Ok(())
    }

    fn finish(self) -> Result<Self, BadValue> {
        if self.source == Self::empty().source {
            return Err(BadValue {
                problem: "a disk has no source".into(),
                mend: "add source = \"debian.img\" or source = \"aoe:7.1\"".into(),
            });
        }
        Ok(self)
    }
}

impl FromStr for DiskOption {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Self::from_text(text)
    }
}

impl<'de> Deserialize<'de> for DiskOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        keyed::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> SourceOption {
        SourceOption::File(path.into())
    }

    #[test]
    fn a_disk_is_a_path_or_an_address() {
        let disk: DiskOption = "debian.img".parse().unwrap();
        assert_eq!(disk, DiskOption { source: file("debian.img"), ..DiskOption::empty() });
        let disk: DiskOption = "aoe:7.1,interface=eth1,position=2".parse().unwrap();
        assert_eq!(disk.source, SourceOption::Aoe(Address { shelf: 7, slot: 1 }));
        assert_eq!((disk.interface.as_deref(), disk.position), (Some("eth1"), Some(2)));
        assert_eq!("./aoe:7.1".parse::<DiskOption>().unwrap().source, file("./aoe:7.1"));
    }

    #[test]
    fn a_path_may_have_commas() {
        let disk: DiskOption = "a,b=c,read-only,d.img,read-only".parse().unwrap();
        assert_eq!(disk.source, file("a,b=c,read-only,d.img"));
        assert!(disk.read_only);
        let disk: DiskOption = "a.qcow2,format=qcow2,read-only".parse().unwrap();
        assert_eq!((disk.source, disk.format), (file("a.qcow2"), Some(Format::Qcow2)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<DiskOption>().unwrap_err().to_string();
        assert_eq!(error(""), "\"\" is not a disk: give the path of an image, or a target as aoe:7.1");
        assert_eq!(
            error("aoe:7"),
            "\"7\" is not an AoE address: write shelf.slot, as 7.1, with a shelf of 0 to 65534 and a slot of 0 to 254"
        );
        assert_eq!(
            error("a.img,position=4"),
            "\"4\" is not a disk's position: 0 and 1 are the primary channel's, 2 and 3 the secondary's"
        );
    }
}
