//! Requests and answers on the control socket: one JSON object a line.

use std::path::Path;

use kagero_target::{Counters, Status, StoredSettings};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{Address, Export};
use crate::error::Error;

/// What a client asks.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Serve one more disk.
    Add {
        /// As on the command line of `kagero serve`, or a table as in its configuration file.
        export: Export,
        /// Where its relative paths start; without it there must be none.
        folder: Option<std::path::PathBuf>,
    },
    /// Serve a disk no longer.
    Remove {
        /// Which one.
        #[serde(deserialize_with = "address")]
        address: Address,
        /// Also forget what its clients have set.
        #[serde(default)]
        forget: bool,
    },
    /// Give a disk another size.
    Resize {
        /// Which one.
        #[serde(deserialize_with = "address")]
        address: Address,
        /// How large; without it, as large as its file or block device is now.
        bytes: Option<u64>,
        /// Whether it may lose its end.
        #[serde(default)]
        shrink: bool,
    },
    /// Say what is served.
    List {},
    /// Say what was done.
    Stats {},
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// What comes back.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T> {
    /// It was done.
    Ok(T),
    /// It was not.
    Error(Complaint),
}

/// Why something was not done.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// One line for people.
    pub line: String,
    /// The exit code that goes with it: 2 when it is for whoever asked to mend.
    pub code: u8,
}

impl From<&Error> for Complaint {
    fn from(error: &Error) -> Self {
        Complaint { line: error.to_string(), code: error.exit_code() }
    }
}

/// The disks that a request was about.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of their addresses.
    pub exports: Vec<ExportStatus>,
}

/// One disk as it is now.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportStatus {
    /// `shelf.slot`
    pub address: String,
    /// The image.
    pub image: String,
    /// Its size.
    pub bytes: u64,
    /// `read-write`, `read-only` or `overlay`.
    pub mode: String,
    /// The folder of the clients' overlays.
    pub overlay: Option<String>,
    /// Its serial number.
    pub serial: String,
    /// What clients have set.
    pub settings: StoredSettings,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// For each disk that is served.
    pub exports: Vec<ExportWork>,
    /// For these, and for those that were removed.
    pub total: Work,
    /// Frames received, for us or not.
    pub frames: u64,
    /// Answers that found no room in the transmit buffers; the client asks again.
    pub unsent: u64,
}

/// What was done for one disk.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportWork {
    /// `shelf.slot`
    pub address: String,
    /// Its size.
    pub bytes: u64,
    /// What was done.
    #[serde(flatten)]
    pub work: Work,
}

/// Requests that were carried out.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Requests that read.
    pub reads: u64,
    /// Requests that wrote.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes sent to clients.
    pub bytes_read: u64,
    /// Bytes taken from clients.
    pub bytes_written: u64,
    /// Requests that failed.
    pub errors: u64,
}

impl From<&Status> for ExportStatus {
    fn from(status: &Status) -> Self {
        let mode = match (status.read_only, &status.overlays) {
            (_, Some(_)) => "overlay",
            (true, None) => "read-only",
            (false, None) => "read-write",
        };
        ExportStatus {
            address: status.address.to_string(),
            image: path(&status.image),
            bytes: bytes(status),
            mode: mode.into(),
            overlay: status.overlays.as_deref().map(path),
            serial: status.disk.serial.clone(),
            settings: StoredSettings::from(&status.settings),
        }
    }
}

impl Statistics {
    pub(super) fn new(exports: &[Status], total: Counters) -> Self {
        let exports = exports.iter().map(|status| ExportWork {
            address: status.address.to_string(),
            bytes: bytes(status),
            work: Work::from(status.counters),
        });
        let Counters { frames, unsent, .. } = total;
        Statistics { exports: exports.collect(), total: total.into(), frames, unsent }
    }
}

impl From<Counters> for Work {
    fn from(counters: Counters) -> Self {
        let Counters { reads, writes, flushes, bytes_read, bytes_written, errors, .. } = counters;
        Work { reads, writes, flushes, bytes_read, bytes_written, errors }
    }
}

/// As it can be used from anywhere.
fn path(path: &Path) -> String {
    let absolute = std::path::absolute(path).ok().filter(|path| path.exists());
    absolute.as_deref().unwrap_or(path).display().to_string()
}

fn bytes(status: &Status) -> u64 {
    status.disk.sectors.saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of the documentation.
    fn page() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/control.md");
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_documentation_s_examples_are_such() {
        let page = page();
        let lines: Vec<_> = page.lines().filter(|line| line.starts_with('{')).collect();
        let [list, listing, add, error] = lines[..] else { panic!("{lines:?}") };
        assert_eq!(serde_json::from_str::<Request>(list).unwrap(), Request::List {});
        let Reply::Ok(listing) = serde_json::from_str::<Reply<Listing>>(listing).unwrap() else { panic!() };
        assert_eq!(listing.exports[0].settings.reserved, ["02:00:00:00:00:01"]);
        let Request::Add { export, folder: None } = serde_json::from_str(add).unwrap() else { panic!() };
        assert_eq!(export.image.path(), Some(Path::new("b.img")));
        let Reply::Error(error) = serde_json::from_str::<Reply<()>>(error).unwrap() else { panic!() };
        assert_eq!(error.code, 2);
    }

    #[test]
    fn the_documentation_names_every_field_and_metric() {
        let statistics = Statistics { exports: vec![ExportWork::default()], ..Statistics::default() };
        let value = serde_json::to_value(&statistics).unwrap();
        let fields = [&value, &value["exports"][0], &value["total"]];
        let mut names: Vec<_> =
            fields.iter().flat_map(|fields| fields.as_object().unwrap().keys().cloned()).collect();
        let metrics = super::super::prometheus(&statistics);
        let typed = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        names.extend(typed.map(str::to_owned));
        let page = page();
        let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty() && names.len() > 20, "{missing:?}");
    }
}
