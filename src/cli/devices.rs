//! `kagero devices`

use clap::{Args, Subcommand};

use crate::error::Error;
use crate::passthrough::{self, Host};

pub(super) const EXAMPLES: &str = "\
Examples:
  kagero devices
  kagero devices --interface eth1 --json
  kagero devices restore

A run with --passthrough 03:00.0 gives the guest a device from this list. Exit codes of restore: 0 all is back, or nothing
was to be put back; 1 something could not be.";

/// What flags say of this host's PCI functions.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevicesOptions {
    #[command(subcommand)]
    command: Option<DevicesCommand>,
    /// An interface through which disks are to be reached: what carries it stays; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub interface: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum DevicesCommand {
    /// Give back to their drivers what a run that was killed has left with vfio-pci
    Restore,
}

impl DevicesOptions {
    /// Does what `kagero devices` does; gives the exit code.
    pub(super) fn execute(self, verbose: u8, quiet: bool) -> Result<u8, Error> {
        crate::log::start(verbose, quiet)?;
        let host = Host::here();
        if let Some(DevicesCommand::Restore) = self.command {
            let restored = passthrough::restore(&host)?;
            super::print(&restored.text)?;
            return Ok(u8::from(!restored.complete));
        }
        let listing = passthrough::list(&host, self.interface);
        super::print(&if self.json { listing.json() } else { listing.table() })?;
        Ok(0)
    }
}
