//! Statistics in Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write as _};

use super::protocol::{ExportWork, Statistics, Work};

/// A page with every metric, for whoever scrapes it.
#[must_use]
pub fn prometheus(statistics: &Statistics) -> String {
    let mut page = Page(String::new());
    page.metric("kagero_build_info", "gauge", "The version that runs.");
    page.sample("kagero_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);

    let per_export: [Series; 7] = [
        ("size_bytes", "gauge", "Size of the disk.", |export| export.bytes),
        ("reads_total", "counter", "Read requests carried out.", |export| export.work.reads),
        ("read_bytes_total", "counter", "Bytes read by clients.", |export| export.work.bytes_read),
        ("writes_total", "counter", "Write requests carried out.", |export| export.work.writes),
        ("written_bytes_total", "counter", "Bytes written by clients.", |export| export.work.bytes_written),
        ("flushes_total", "counter", "Flushes carried out.", |export| export.work.flushes),
        ("errors_total", "counter", "Reads, writes and flushes that failed.", |export| export.work.errors),
    ];
    for (name, kind, help, value) in per_export {
        let name = format!("kagero_target_{name}");
        page.metric(&name, kind, help);
        for export in &statistics.exports {
            page.sample(&name, &[("export", &export.address)], value(export));
        }
    }

    // Sums that do not shrink when a disk is removed.
    let Statistics { exports: _, total: Work { reads, writes, flushes, errors, .. }, frames, unsent } =
        statistics;
    for (name, help, value) in [
        ("frames_received_total", "Frames received, for this target or not.", *frames),
        (
            "requests_total",
            "Reads, writes and flushes, those of removed disks included.",
            reads + writes + flushes,
        ),
        ("error_answers_total", "Requests of any kind that were answered with an error.", *errors),
        ("unsent_answers_total", "Answers that found no room in the transmit buffers.", *unsent),
    ] {
        let name = format!("kagero_target_{name}");
        page.metric(&name, "counter", help);
        page.sample(&name, &[], value);
    }
    page.0
}

/// A metric that every disk has: name, type, help, value.
type Series = (&'static str, &'static str, &'static str, fn(&ExportWork) -> u64);

struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// A label's value may have anything in it; backslash, quote and line feed are written with a backslash.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As strict as the format's description: each metric once, with its help, its type, and its samples in one piece; names of the allowed
    /// letters; labels quoted and escaped; numbers; no series twice. Gives the names.
    fn check(page: &str) -> Vec<&str> {
        let is_name = |text: &str, more: &str| {
            let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || more.contains(c);
            text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
        };
        let (mut names, mut series) = (Vec::new(), std::collections::BTreeSet::new());
        assert!(page.ends_with('\n') && !page.contains('\r'));
        let mut lines = page[..page.len() - 1].split('\n').peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line.strip_prefix("# HELP ").expect(line).split_once(' ').unwrap();
            assert!(is_name(name, ":") && !names.contains(&name) && help.ends_with('.'), "{line}");
            names.push(name);
            let typed = lines.next().unwrap();
            let kind = typed.strip_prefix(&format!("# TYPE {name} ")).expect(typed);
            assert!(if name.ends_with("_total") { kind == "counter" } else { kind == "gauge" }, "{typed}");
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let (of, value) = sample.rsplit_once(' ').unwrap();
                assert!(value.parse::<u64>().is_ok() && series.insert(of), "{sample}");
                let labels = of.strip_prefix(name).expect(sample);
                let Some(labels) = labels.strip_prefix('{') else {
                    assert_eq!(labels, "", "{sample}");
                    continue;
                };
                for label in labels.strip_suffix('}').expect(sample).split(',') {
                    let (label, value) = label.split_once('=').unwrap();
                    let value =
                        value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(sample);
                    let bare = ["\\\\", "\\\"", "\\n"].iter().fold(value.to_owned(), |v, e| v.replace(e, ""));
                    assert!(is_name(label, "") && !bare.contains(['"', '\\']), "{sample}");
                }
            }
        }
        names
    }

    #[test]
    fn pages_are_what_the_format_says() {
        let work = Work { reads: 1, writes: 2, flushes: 3, bytes_read: 512, bytes_written: 1024, errors: 0 };
        let export = |address: &str| ExportWork {
            address: address.into(),
            bytes: 4096,
            work: Work { reads: 1, writes: 2, flushes: 3, bytes_read: 512, bytes_written: 1024, errors: 0 },
        };
        let exports = vec![export("7.1"), export("65534.254"), export("\\\"\n")];
        let page = prometheus(&Statistics { exports, total: work, frames: 9, unsent: u64::MAX });
        assert!(page.contains("\nkagero_target_written_bytes_total{export=\"7.1\"} 1024\n"), "{page}");
        assert!(page.contains("\nkagero_target_frames_received_total 9\n"), "{page}");
        assert_eq!(check(&page).len(), 12);
        // Without disks, too.
        assert_eq!(check(&prometheus(&Statistics::default())).len(), 12);
    }

    #[test]
    fn labels_may_hold_anything() {
        let mut page = Page(String::new());
        page.sample("a", &[("b", "1\\2\"3\n4"), ("c", "d")], 5);
        assert_eq!(page.0, "a{b=\"1\\\\2\\\"3\\n4\",c=\"d\"} 5\n");
    }
}
