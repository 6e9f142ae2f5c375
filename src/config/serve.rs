//! What `kagero serve` and `kagero discover` are to do.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use kagero_aoe::wire::MacAddress;
use kagero_target::Format;
use serde::{Deserialize, Deserializer, Serialize};

use super::keyed::{self, Keyed, truth};
use super::units;
use super::{Address, Listen, Place, admission};
use crate::confine::Seccomp;
use crate::error::BadValue;

/// One server: images offered as AoE targets on networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServeConfig {
    /// The network interfaces.
    pub interfaces: Vec<String>,
    /// What is offered, each at an address of its own.
    pub exports: Vec<Export>,
    /// Where the AoE traffic goes, as a pcap file.
    pub pcap: Option<PathBuf>,
    /// Where what clients set is kept, a folder.
    pub state: Place,
    /// The control socket.
    pub control: Place,
    /// Where metrics can be fetched by HTTP.
    pub metrics: Option<Listen>,
    /// Who the process becomes once all is open.
    pub user: Option<String>,
    /// What becomes of system calls that serving doesn't need.
    pub seccomp: Seccomp,
}

/// An image offered as a target, written `7.1=debian.img` or `7.1=debian.qcow2,format=qcow2,read-only`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Export {
    /// The target's address.
    #[serde(serialize_with = "as_text")]
    pub address: Address,
    /// A disk image, or a block device.
    pub image: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether it is read and written past the page cache.
    pub direct: bool,
    /// Where each client's writes go, to an overlay of its own, instead of to the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<PathBuf>,
    /// The image's format; without it, one that looks like no other is raw.
    #[serde(serialize_with = "units::serialize_format", skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The stations that get an answer; every station when there is none.
    #[serde(serialize_with = "as_texts", skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<MacAddress>,
    /// Where it is offered; on every interface that is served when there is none.
    #[serde(rename = "interface", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// One search for targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiscoverConfig {
    /// The network interface.
    pub interface: String,
    /// How long to collect answers.
    pub timeout: Duration,
    /// Whether to print JSON in place of a table.
    pub json: bool,
}

impl Export {
    /// Lets relative paths start at `folder`.
    pub fn start_at(&mut self, folder: &Path) {
        for path in [Some(&mut self.image), self.overlay.as_mut()].into_iter().flatten() {
            *path = folder.join(&path);
        }
    }

    /// Every file or folder that it names.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(self.image.as_path()), self.overlay.as_deref()].into_iter().flatten()
    }
}

const PARTS: [&str; 8] =
    ["address", "image", "read-only", "direct", "format", "overlay", "allow", "interface"];

impl Keyed for Export {
    const EXPECTING: &'static str = "an export, as \"7.1=debian.img\", or a table with address, image, read-only, direct, format, overlay, allow, \
         interface";

    const LISTS: &'static [&'static str] = &["allow", "interface"];

    /// With an address that can't be given.
    fn empty() -> Self {
        Self {
            address: Address::BROADCAST,
            image: PathBuf::new(),
            read_only: false,
            direct: false,
            overlay: None,
            format: None,
            allow: Vec::new(),
            interfaces: Vec::new(),
        }
    }

    fn from_text(text: &str) -> Result<Self, BadValue> {
        let (address, image) = text
            .split_once('=')
            .ok_or_else(|| BadValue::not(text, "an export", "write address=image, as 7.1=debian.img"))?;
        let mut export = Self { address: units::address(address)?, ..Self::empty() };
        let mut rest = image;
        // Off the end as long as they are known, so that a file's name may have commas.
        while let Some((before, option)) = rest.rsplit_once(',') {
            match option.split_once('=') {
                None if option == "read-only" => export.read_only = true,
                None if option == "direct" => export.direct = true,
                Some((
                    key @ ("read-only" | "direct" | "format" | "overlay" | "allow" | "interface"),
                    value,
                )) => {
                    export.set(key, value)?;
                }
                _ => break,
            }
            rest = before;
        }
        export.image = rest.into();
        export.finish()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), BadValue> {
        match key {
            "address" => self.address = units::address(value)?,
            "image" => self.image = value.into(),
            "read-only" => self.read_only = truth(key, value)?,
            "direct" => self.direct = truth(key, value)?,
            "overlay" => self.overlay = Some(value.into()),
            "format" => self.format = Some(units::format(value)?),
            "allow" => admission::allow(&mut self.allow, value)?,
            "interface" => admission::interface(&mut self.interfaces, value)?,
            _ => return Err(keyed::unknown_part(key, &PARTS)),
        }
        Ok(())
    }

    fn finish(self) -> Result<Self, BadValue> {
        if self.address == Address::BROADCAST || self.image.as_os_str().is_empty() {
            return Err(BadValue {
                problem: "an export lacks its address or its image".into(),
                mend: "write both, as 7.1=debian.img".into(),
            });
        }
        if self.read_only && self.overlay.is_some() {
            return Err(BadValue {
                problem: "read-only refuses the writes that overlay= is for".into(),
                mend: "leave one out; the image below overlays is never written to".into(),
            });
        }
        Ok(self)
    }
}

fn as_text<S: serde::Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

fn as_texts<S: serde::Serializer>(stations: &[MacAddress], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(stations.iter().map(ToString::to_string))
}

impl FromStr for Export {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Self::from_text(text)
    }
}

impl<'de> Deserialize<'de> for Export {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        keyed::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports() {
        let export: Export = "7.1=a=b.img,read-only".parse().unwrap();
        assert_eq!(export.address, Address { shelf: 7, slot: 1 });
        assert_eq!(export.image, PathBuf::from("a=b.img"));
        assert!(export.read_only);

        let export: Export = "7.1=a,b.qcow2,format=qcow2,read-only".parse().unwrap();
        assert_eq!((export.image, export.format), (PathBuf::from("a,b.qcow2"), Some(Format::Qcow2)));
        assert!(export.read_only);

        let export: Export = "7.1=a.img,direct".parse().unwrap();
        assert!(export.direct && !export.read_only);

        let export: Export = "7.1=a.img,overlay=some/where".parse().unwrap();
        assert_eq!((export.image, export.overlay), ("a.img".into(), Some("some/where".into())));

        let error = |text: &str| text.parse::<Export>().unwrap_err().to_string();
        assert_eq!(
            error("debian.img"),
            "\"debian.img\" is not an export: write address=image, as 7.1=debian.img"
        );
        assert_eq!(error("7.1=a,format=vmdk"), "\"vmdk\" is not an image format: known are raw, qcow2, vhdx");
        assert!(error("7.1=a.img,read-only,overlay=b").starts_with("read-only refuses the writes"));
        assert_eq!(error("7.1="), "an export lacks its address or its image: write both, as 7.1=debian.img");
    }
}
