//! `kagero serve`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use crate::config::{Export, Listen, Place, ServeConfig};
use crate::confine::Seccomp;
use crate::error::{Error, UserError};

pub(super) const EXAMPLES: &str = "\
Examples:
  kagero serve --interface eth1 7.1=debian.img
  kagero serve --interface eth1 7.1=debian.img 7.2=rescue.img,read-only
  kagero serve --interface eth1 7.1=golden.img,overlay=/var/lib/kagero
  kagero serve --interface eth1 7.3=debian.qcow2,format=qcow2,read-only
  kagero serve --interface eth1 7.4=windows.vhdx,format=vhdx,overlay=/var/lib/kagero
  kagero serve --interface eth1 7.4=nbd://storage/debian '7.5=nbd+unix:///?socket=/run/nbd.sock'
  kagero serve --interface eth1 7.4=a.img,allow=02:00:00:00:00:01+02:00:00:00:00:02
  kagero serve --interface eth1 --interface eth2 7.1=debian.img 7.5=b.img,interface=eth2
  kagero serve --config targets.toml --user kagero
  kagero target list                               what does it serve?

Ctrl-C or SIGTERM end it: requests under way are finished, and what was written is on the medium.";

/// What flags and configuration files say of a server.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeOptions {
    /// What to offer: SHELF.SLOT=IMAGE, a path or an NBD server's export as nbd://HOST/NAME, with ,read-only to refuse
    /// writes, ,direct to go past the page cache, ,format=qcow2 or vhdx for such an image, ,overlay=DIR to keep each
    /// client's writes in a file of its own there, ,allow=MAC+MAC for these stations only, ,interface=NAME for this
    /// interface only
    #[arg(value_name = "ADDRESS=IMAGE")]
    #[serde(rename = "export", deserialize_with = "super::run::one_or_more")]
    pub exports: Vec<Export>,
    /// A network interface, or more of them
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "super::run::one_or_more")]
    pub interface: Vec<String>,
    /// Serve with so many threads, 64 at most [default: half as many as there are processors, at most 4]
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
    /// Become this user once everything is open
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Read options from a TOML file (keys: interface, export, threads, user, pcap, state, control, metrics, seccomp); flags win
    ///
    /// Relative paths in the file start at the file's folder.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Write the AoE traffic as a pcap file
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Keep what clients set (configuration strings, mask lists, reservations) in this folder, or nowhere with "none"
    /// [default: /var/lib/kagero, where it is there]
    #[arg(long, value_name = "DIR")]
    pub state: Option<Place>,
    /// The control socket, for `kagero target`, or "none" [default: /run/kagero/serve.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<Place>,
    /// Tell metrics in Prometheus' text format at http://ADDRESS:PORT/metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<Listen>,
    /// What becomes of system calls that serving doesn't need: on ends the process, log tells the kernel's log, off
    /// allows all [default: on]
    #[arg(long, value_name = "MODE", value_enum)]
    pub seccomp: Option<Seccomp>,

    #[arg(skip)]
    verbose: Option<u8>,
    #[arg(skip)]
    quiet: Option<bool>,
}

impl ServeOptions {
    /// Does what `kagero serve` does; gives the exit code.
    pub(super) fn execute(self, verbose: u8, quiet: bool) -> Result<u8, Error> {
        let options = self.with_file()?;
        crate::log::start(
            verbose.max(options.verbose.unwrap_or(0)),
            quiet || options.quiet.unwrap_or(false),
        )?;
        let config = options.into_config()?;
        config.check()?;
        crate::serve::serve(&config).map(|()| 0)
    }

    /// Adds what the configuration file says, where flags say nothing.
    ///
    /// # Errors
    /// When the file can't be read or understood.
    pub fn with_file(self) -> Result<Self, UserError> {
        let Some(path) = &self.config else { return Ok(self) };
        let mut file: Self = super::load(path, "serve")?;
        if let Some(folder) = path.parent() {
            file.exports.iter_mut().for_each(|export| export.start_at(folder));
            file.pcap = file.pcap.map(|path| folder.join(path));
            file.state = file.state.map(|place| place.starting_at(folder));
            file.control = file.control.map(|place| place.starting_at(folder));
        }
        Ok(Self {
            exports: if self.exports.is_empty() { file.exports } else { self.exports },
            interface: if self.interface.is_empty() { file.interface } else { self.interface },
            threads: self.threads.or(file.threads),
            user: self.user.or(file.user),
            config: self.config,
            pcap: self.pcap.or(file.pcap),
            state: self.state.or(file.state),
            control: self.control.or(file.control),
            metrics: self.metrics.or(file.metrics),
            seccomp: self.seccomp.or(file.seccomp),
            verbose: file.verbose,
            quiet: file.quiet,
        })
    }

    /// Fills in what was left open.
    ///
    /// # Errors
    /// When there is no interface.
    pub fn into_config(self) -> Result<ServeConfig, UserError> {
        if self.interface.is_empty() {
            return Err(no_interface("serve"));
        }
        Ok(ServeConfig {
            interfaces: self.interface,
            exports: self.exports,
            pcap: self.pcap,
            state: self.state.unwrap_or_default(),
            control: self.control.unwrap_or_default(),
            metrics: self.metrics,
            threads: self.threads,
            user: self.user,
            seccomp: self.seccomp.unwrap_or_default(),
        })
    }
}

pub(super) fn no_interface(command: &str) -> UserError {
    UserError::new(
        "--interface",
        format!("`kagero {command}` needs to know the network"),
        "add --interface NAME; `ip -brief link` lists the interfaces",
    )
}
