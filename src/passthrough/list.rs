//! What `kagero devices` shows.

use std::fmt::Write as _;

use serde::Serialize;

use super::host::Host;
use super::plan::would_stay;
use super::{Carried, Function, Needs, able, function};

/// Every PCI function of this host, and whether it could go to a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// By address.
    pub devices: Vec<Device>,
    /// What the host lacks, if it lacks something: then none can go.
    pub missing: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// `0000:03:00.0`
    pub address: String,
    /// What it is, in words.
    pub what: String,
    /// Base class, sub-class and programming interface, as six hexadecimal digits.
    pub class: String,
    /// The maker's number and the device's, as `8086:10d3`.
    pub id: String,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// How it can be reset alone; empty when it can't.
    pub resets: Vec<String>,
    /// Whether the host's console is on it.
    pub console: bool,
    /// The physical function, of a virtual one.
    pub physical_function: Option<String>,
    /// What hangs on it.
    pub carries: Vec<Carried>,
    /// Whether `kagero run --passthrough all --bind` would take it.
    pub goes: bool,
    /// If not, why.
    pub stays: Option<String>,
}

/// Looks at the host. What AoE would be carried by is the caller's to say.
pub(super) fn list(host: &Host, needs: &Needs) -> Listing {
    let here = function::functions(host, needs);
    let devices = here.iter().map(|one| device(one, &here)).collect();
    Listing { devices, missing: able::check(host, true).err().map(|error| error.to_string()) }
}

fn device(one: &Function, here: &[Function]) -> Device {
    let stays = would_stay(one, here).map(|reason| reason.to_string());
    Device {
        address: one.address.to_string(),
        what: one.class.name().to_owned(),
        class: format!("{:06x}", one.class.0),
        id: format!("{:04x}:{:04x}", one.vendor, one.device),
        driver: one.driver.clone(),
        group: one.group,
        resets: one.resets.clone(),
        console: one.console,
        physical_function: one.physical.map(|address| address.to_string()),
        carries: one.carries.clone(),
        goes: stays.is_none(),
        stays,
    }
}

impl Listing {
    /// As a JSON document, an object with the list `devices`.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and numbers alone can't fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        if self.devices.is_empty() {
            return "this host has no PCI functions\n".into();
        }
        let head =
            ["address", "what", "id", "driver", "group", "reset", "goes to a guest?"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(self.devices.iter().map(Device::row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut out = String::new();
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        if let Some(missing) = &self.missing {
            let _ = writeln!(out, "\nfor now nothing can go: {missing}");
        }
        out
    }
}

impl Device {
    fn row(&self) -> [String; 7] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        // What goes all the same, and whoever gives it away should know.
        let mut notes: Vec<_> = self.carries.iter().map(ToString::to_string).collect();
        if self.console {
            notes.push("the host's console is on it".into());
        }
        if let Some(function) = &self.physical_function {
            notes.push(format!("virtual function of {function}"));
        }
        let goes = match &self.stays {
            Some(reason) => format!("no: {reason}"),
            None if notes.is_empty() => "yes".into(),
            None => format!("yes; {}", notes.join(", ")),
        };
        [
            self.address.clone(),
            self.what.clone(),
            self.id.clone(),
            or_none(self.driver.clone()),
            or_none(self.group.map(|group| group.to_string())),
            or_none(self.resets.first().cloned()),
            goes,
        ]
    }
}
