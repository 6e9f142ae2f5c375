//! The servers that are compared, each at the far end of a cable of its own.

use anyhow::{Context, Result};
use kagero_integration::network::Namespace;
use kagero_integration::process::Process;
use serde::Serialize;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::load::address;

/// How long kagero has to open its images.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vblade,
    Kagero,
    /// Answers with zeros: the ceiling.
    Null,
}

/// How the images are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Cached,
    /// Past the page cache.
    Direct,
    /// Each client's writes go to a file in this folder.
    Overlays(PathBuf),
}

/// What the servers of a group have in common.
pub(crate) struct Bed<'a> {
    /// Where the load generators run.
    pub(crate) client: Namespace,
    /// Where the servers run.
    pub(crate) network: Namespace,
    pub(crate) mtu: u32,
    /// Kagero's program.
    pub(crate) kagero: &'a Path,
    /// For what they say.
    pub(crate) logs: &'a Path,
}

/// Started servers; they end when this is dropped.
pub(crate) struct Server {
    processes: Vec<Process>,
}

/// What a server keeps in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Resident {
    /// Now (VmRSS).
    pub(crate) now: u64,
    /// At most so far (VmHWM).
    pub(crate) peak: u64,
}

impl Server {
    /// Lays a cable for it and serves the images there. The load generator's end of the cable is [`client_interface`].
    pub(crate) fn start(
        kind: Kind,
        name: &str,
        images: &[PathBuf],
        access: &Access,
        bed: &Bed<'_>,
    ) -> Result<Server> {
        let interface = format!("s-{name}");
        bed.client.add_cable_to(&client_interface(name), &bed.network, &interface, bed.mtu)?;
        let start = |index: usize, program: &Path, arguments: Vec<OsString>| {
            let mut command = bed.network.command(program);
            command.args(arguments);
            Process::start(command, &bed.logs.join(format!("{name}-{index}.log")))
        };
        let numbered = images.iter().enumerate();
        let processes = match kind {
            Kind::Kagero => {
                // Nothing of the machine's own server.
                let words = ["serve", "--control", "none", "--state", "none", "--interface"];
                let mut arguments: Vec<OsString> = words.map(Into::into).into();
                arguments.push(interface.into());
                arguments.extend(numbered.map(|(index, image)| kagero_export(index, image, access)));
                let mut process = start(0, bed.kagero, arguments)?;
                process.expect("serving on", PATIENCE)?;
                vec![process]
            }
            Kind::Vblade => {
                let serve = |(index, image): (usize, &PathBuf)| {
                    let at = address(index);
                    // Room for as many requests as our largest window; its own 16 would drop some.
                    let mut arguments: Vec<OsString> = vec!["-b".into(), "64".into()];
                    arguments.extend((*access == Access::Direct).then(|| "-d".into()));
                    arguments.extend([at.shelf.to_string().into(), at.slot.to_string().into()]);
                    arguments.extend([interface.clone().into(), image.into()]);
                    start(index, Path::new("vblade"), arguments)
                };
                numbered.map(serve).collect::<Result<_>>()?
            }
            Kind::Null => {
                let program = std::env::current_exe().context("our own program")?;
                vec![start(0, &program, vec!["null".into(), "--interface".into(), interface.into()])?]
            }
        };
        Ok(Server { processes })
    }

    /// What it last said, if a process of it has ended.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        let ended =
            self.processes.iter_mut().find_map(|process| (!process.is_running()).then_some(process))?;
        Some(ended.log().last_lines())
    }

    /// Processor seconds used so far, of all its processes.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.processes.iter().map(|process| cpu_seconds(process.pid())).sum()
    }

    /// The memory of all its processes. What they share is counted for each.
    pub(crate) fn resident(&self) -> Result<Resident> {
        let mut all = Resident { now: 0, peak: 0 };
        for process in &self.processes {
            let path = format!("/proc/{}/status", process.pid());
            let text = fs::read_to_string(&path).with_context(|| path.clone())?;
            let of = |key| field(&text, key).with_context(|| format!("{path}: no {key}"));
            all.now += of("VmRSS:")?;
            all.peak += of("VmHWM:")?;
        }
        Ok(all)
    }
}

/// The load generator's end of the cable to the server of this name.
pub(crate) fn client_interface(name: &str) -> String {
    format!("c-{name}")
}

fn kagero_export(index: usize, image: &Path, access: &Access) -> OsString {
    let mut export = OsString::from(format!("{}=", address(index)));
    export.push(image);
    match access {
        Access::Cached => {}
        Access::Direct => export.push(",direct"),
        Access::Overlays(folder) => {
            export.push(",overlay=");
            export.push(folder);
        }
    }
    export
}

/// Bytes, of a line of /proc/PID/status such as `VmRSS:     1234 kB`.
fn field(status: &str, key: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The processor time of a process. From its threads' schedstat, which counts nanoseconds; /proc/PID/stat counts hundredths of a
/// second, too coarse for short runs.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("a server has ended")? {
        let path = thread?.path().join("schedstat");
        // A thread that has just ended is no error.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanoseconds += first.with_context(|| format!("{}: no number", path.display()))?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_say_how_they_are_read() {
        let image = Path::new("a.img");
        assert_eq!(kagero_export(0, image, &Access::Cached), "7.0=a.img");
        assert_eq!(kagero_export(1, image, &Access::Direct), "7.1=a.img,direct");
        assert_eq!(kagero_export(2, image, &Access::Overlays("o".into())), "7.2=a.img,overlay=o");
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "VmHWM:")), (Some(1_024_000), Some(2_048_000)));
        assert_eq!(field(status, "VmSwap:"), None);
    }
}
