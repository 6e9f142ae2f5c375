//! What `kagero serve` and `kagero discover` are to do.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use kagero_aoe::wire::MacAddress;
use kagero_target::{Format, Location};
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
    /// Threads that serve; by default half as many as there are processors, at most 4.
    pub threads: Option<NonZeroUsize>,
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
    /// A disk image, a block device, or an NBD server's export.
    #[serde(serialize_with = "as_text")]
    pub image: Location,
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
        self.image.start_at(folder);
        self.overlay = self.overlay.as_ref().map(|path| folder.join(path));
    }

    /// Every file or folder that it names.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [self.image.path(), self.overlay.as_deref()].into_iter().flatten()
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
            image: Location::File(PathBuf::new()),
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
        export.image = units::location(rest)?;
        export.finish()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), BadValue> {
        match key {
            "address" => self.address = units::address(value)?,
            "image" => self.image = units::location(value)?,
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
        if self.address == Address::BROADCAST || self.image == Self::empty().image {
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
        if matches!(self.image, Location::Nbd(_)) && self.format.is_some_and(|format| format != Format::Raw) {
            return Err(BadValue {
                problem: "an NBD export has its format on the server's side".into(),
                mend: "leave format= out, and name it there, as in `qemu-nbd --format=qcow2`".into(),
            });
        }
        if matches!(self.image, Location::Nbd(_)) && self.direct {
            return Err(BadValue {
                problem: "an NBD export is past this machine's page cache anyway".into(),
                mend: "leave direct out, and say it there, as in `qemu-nbd --cache=none`".into(),
            });
        }
        Ok(self)
    }
}

fn as_text<T: fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
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
        let file = |path: &str| Location::File(path.into());
        let export: Export = "7.1=a=b.img,read-only".parse().unwrap();
        assert_eq!(export.address, Address { shelf: 7, slot: 1 });
        assert_eq!(export.image, file("a=b.img"));
        assert!(export.read_only);

        let export: Export = "7.1=a,b.qcow2,format=qcow2,read-only".parse().unwrap();
        assert_eq!((export.image, export.format), (file("a,b.qcow2"), Some(Format::Qcow2)));
        assert!(export.read_only);

        let export: Export = "7.1=a.img,direct".parse().unwrap();
        assert!(export.direct && !export.read_only);

        let export: Export = "7.1=a.img,overlay=some/where".parse().unwrap();
        assert_eq!((export.image, export.overlay), (file("a.img"), Some("some/where".into())));

        let export: Export = "7.1=nbd+unix:///a,b?socket=/run/x.sock,read-only".parse().unwrap();
        assert_eq!(export.image.to_string(), "nbd+unix:///a,b?socket=/run/x.sock");
        assert!(export.read_only && matches!(export.image, Location::Nbd(_)));
        let export: Export = "7.1=./nbd://host/name".parse().unwrap();
        assert_eq!(export.image, file("./nbd://host/name"));

        let error = |text: &str| text.parse::<Export>().unwrap_err().to_string();
        assert_eq!(
            error("debian.img"),
            "\"debian.img\" is not an export: write address=image, as 7.1=debian.img"
        );
        assert_eq!(error("7.1=a,format=vmdk"), "\"vmdk\" is not an image format: known are raw, qcow2, vhdx");
        assert!(error("7.1=a.img,read-only,overlay=b").starts_with("read-only refuses the writes"));
        assert!(
            error("7.1=nbd://a/b,format=qcow2")
                .starts_with("an NBD export has its format on the server's side: ")
        );
        assert_eq!(
            error("7.1=nbd://a/b,direct"),
            "an NBD export is past this machine's page cache anyway: \
             leave direct out, and say it there, as in `qemu-nbd --cache=none`"
        );
        assert!(
            error("7.1=nbds://a/b").starts_with("\"nbds://a/b\" is not an NBD export: TLS is not there: ")
        );
        assert_eq!(
            error("7.1=nbd:///b"),
            "\"nbd:///b\" is not an NBD export: it lacks the host: write nbd://HOST:PORT/NAME"
        );
        assert_eq!(error("7.1="), "an export lacks its address or its image: write both, as 7.1=debian.img");
    }
}
