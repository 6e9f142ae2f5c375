//! Answers as people read them.

use std::fmt::Write as _;

use kagero_target::{ConfigString, StoredSettings};

use super::protocol::{ExportStatus, ExportWork, Listing, Statistics, Work};
use crate::config::grouped;

/// One disk in one line, as `kagero serve` says it.
#[must_use]
pub fn export(export: &ExportStatus) -> String {
    let ExportStatus { address, image, bytes, mode, overlay, .. } = export;
    let access = match overlay {
        Some(folder) => format!(", with overlays in {}", printable(folder)),
        None if mode == "read-only" => ", read-only".into(),
        None => String::new(),
    };
    format!("{address} is {}, {} bytes{access}", printable(image), grouped(*bytes))
}

/// A table of disks; under each what clients have set for it.
#[must_use]
pub fn listing(listing: &Listing) -> String {
    if listing.exports.is_empty() {
        return "nothing is served\n".into();
    }
    let mut out = String::new();
    let mut line = |address: &str, bytes: &str, mode: &str, image: &str| {
        let _ = writeln!(out, "{address:<10} {bytes:>20}  {mode:<10}  {image}");
    };
    line("address", "bytes", "mode", "image");
    for export in &listing.exports {
        let ExportStatus { address, image, bytes, mode, overlay, serial: _, settings } = export;
        line(address, &grouped(*bytes), mode, &printable(image));
        let overlay = overlay.as_ref().map(|folder| format!("overlays in {}", printable(folder)));
        for set in overlay.into_iter().chain(set(settings)) {
            line("", "", "", &format!("  {set}"));
        }
    }
    out
}

/// What clients have set, one line each.
fn set(settings: &StoredSettings) -> impl Iterator<Item = String> {
    let StoredSettings { config, mask, reserved } = settings;
    let config = match config {
        ConfigString::Text(text) if text.is_empty() => None,
        ConfigString::Text(text) => Some(format!("configuration string \"{}\"", text.escape_debug())),
        ConfigString::Bytes(bytes) => Some(format!("configuration string \"{}\"", bytes.escape_ascii())),
    };
    let stations = |what: &str, stations: &[String]| {
        (!stations.is_empty()).then(|| format!("{what} {}", stations.join(", ")))
    };
    [config, stations("only for", mask), stations("reserved by", reserved)].into_iter().flatten()
}

/// A table of what was done.
#[must_use]
pub fn statistics(statistics: &Statistics) -> String {
    let Statistics { exports, total, frames, unsent } = statistics;
    let mut out = String::new();
    let mut line = |name: &str, cells: [String; 6]| {
        let [reads, bytes_read, writes, bytes_written, flushes, errors] = cells;
        let _ = writeln!(
            out,
            "{name:<10} {reads:>15} {bytes_read:>22} {writes:>15} {bytes_written:>22} {flushes:>11} {errors:>8}"
        );
    };
    line(
        "address",
        ["reads", "bytes read", "writes", "bytes written", "flushes", "errors"].map(str::to_owned),
    );
    let rows = exports.iter().map(|ExportWork { address, work, .. }| (&**address, work));
    for (name, work) in rows.chain([("total", total)]) {
        let Work { reads, writes, flushes, bytes_read, bytes_written, errors } = *work;
        line(name, [reads, bytes_read, writes, bytes_written, flushes, errors].map(grouped));
    }
    let _ = writeln!(out, "{} frames received, {} answers without room", grouped(*frames), grouped(*unsent));
    out
}

/// A name that may have anything in it, on one line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let export = ExportStatus {
            address: "7.1".into(),
            image: "/srv/a\n.img".into(),
            bytes: 1 << 20,
            mode: "overlay".into(),
            overlay: Some("/srv/overlays".into()),
            serial: "KAGERO-00007-001".into(),
            settings: StoredSettings {
                config: ConfigString::Text("rack \"7\"".into()),
                mask: vec!["02:00:00:00:00:01".into(), "02:00:00:00:00:02".into()],
                reserved: vec![],
            },
        };
        assert_eq!(
            super::export(&export),
            "7.1 is /srv/a\u{fffd}.img, 1,048,576 bytes, with overlays in /srv/overlays"
        );
        assert_eq!(
            listing(&Listing { exports: vec![export] }),
            "address                   bytes  mode        image\n\
             7.1                   1,048,576  overlay     /srv/a\u{fffd}.img\n                                               overlays in /srv/overlays\n                                               configuration string \"rack \\\"7\\\"\"\n                                               only for 02:00:00:00:00:01, 02:00:00:00:00:02\n"
        );
        let work = Work { reads: 1_000, bytes_read: 4_096_000, ..Work::default() };
        let export = ExportWork { address: "7.1".into(), bytes: 0, work };
        let table = statistics(&Statistics { exports: vec![export], ..Statistics::default() });
        assert_eq!(
            table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
            ["7.1", "1,000", "4,096,000", "0", "0", "0", "0"]
        );
        assert_eq!(table.lines().count(), 4);
    }
}
