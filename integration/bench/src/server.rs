//! The servers that are compared, each at the far end of a cable of its own.

use anyhow::{Context, Result};
use kagero_integration::network::Namespace;
use kagero_integration::process::Process;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::load::address;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Vblade,
    Kagero,
    /// Answers with zeros: the ceiling.
    Null,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Vblade => "vblade",
            Kind::Kagero => "kagero",
            Kind::Null => "null",
        }
    }

    /// The load generator's end of the cable.
    pub(crate) fn client_interface(self) -> String {
        format!("c-{}", self.name())
    }

    fn interface(self) -> String {
        format!("s-{}", self.name())
    }

    /// Whether it can read past the page cache.
    pub(crate) fn has_direct(self) -> bool {
        matches!(self, Kind::Vblade)
    }
}

/// What the servers of a group have in common.
pub(crate) struct Bed<'a> {
    /// Where the load generator runs.
    pub(crate) client: Namespace,
    /// Where the servers run.
    pub(crate) network: Namespace,
    pub(crate) mtu: u32,
    pub(crate) images: Vec<PathBuf>,
    /// Past the page cache.
    pub(crate) direct: bool,
    /// Kagero's program.
    pub(crate) kagero: &'a Path,
    /// For what they say.
    pub(crate) logs: &'a Path,
}

/// Started servers; they end when this is dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    processes: Vec<Process>,
}

impl Server {
    /// Lays a cable for it and serves the images there.
    pub(crate) fn start(kind: Kind, bed: &Bed<'_>) -> Result<Server> {
        bed.client.add_cable_to(&kind.client_interface(), &bed.network, &kind.interface(), bed.mtu)?;
        let start = |index: usize, program: &Path, arguments: Vec<OsString>| {
            let mut command = bed.network.command(program);
            command.args(arguments);
            Process::start(command, &bed.logs.join(format!("{}-{index}.log", kind.name())))
        };
        let images = bed.images.iter().enumerate();
        let processes = match kind {
            Kind::Kagero => {
                let mut arguments = vec!["serve".into(), "--interface".into(), kind.interface().into()];
                arguments.extend(images.map(|(index, image)| {
                    let mut export = OsString::from(format!("{}=", address(index)));
                    export.push(image);
                    export
                }));
                vec![start(0, bed.kagero, arguments)?]
            }
            Kind::Vblade => {
                let serve = |(index, image): (usize, &PathBuf)| {
                    let at = address(index);
                    // Room for as many requests as our largest window; its own 16 would drop some.
                    let mut arguments: Vec<OsString> = vec!["-b".into(), "64".into()];
                    arguments.extend(bed.direct.then(|| "-d".into()));
                    arguments.extend([at.shelf.to_string().into(), at.slot.to_string().into()]);
                    arguments.extend([kind.interface().into(), image.into()]);
                    start(index, Path::new("vblade"), arguments)
                };
                images.map(serve).collect::<Result<_>>()?
            }
            Kind::Null => {
                let program = std::env::current_exe().context("our own program")?;
                vec![start(0, &program, vec!["null".into(), "--interface".into(), kind.interface().into()])?]
            }
        };
        Ok(Server { kind, processes })
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
}

/// The processor time of a process. From its threads' schedstat, which counts nanoseconds; /proc/PID/stat counts hundredths of a
/// second, too coarse for short runs.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("a server has ended")? {
        let path = thread?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanoseconds += first.with_context(|| format!("{}: no number", path.display()))?;
    }
    Ok(nanoseconds as f64 / 1e9)
}
