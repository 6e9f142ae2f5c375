//! `kagero discover`

use clap::Args;

use crate::config::{DiscoverConfig, Period};
use crate::error::Error;

pub(super) const EXAMPLES: &str = "\
Examples:
  kagero discover --interface eth1
  kagero discover --interface eth1 --timeout 5s --json

Exit codes: 0 targets were found; 1 none was found.";

/// What flags say of a search for targets.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoverOptions {
    /// The network interface
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// How long to collect answers [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Period>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl DiscoverOptions {
    /// Does what `kagero discover` does; gives the exit code.
    pub(super) fn execute(self, verbose: u8, quiet: bool) -> Result<u8, Error> {
        crate::log::start(verbose, quiet)?;
        let config = DiscoverConfig {
            interface: self.interface.ok_or_else(|| super::serve::no_interface("discover"))?,
            timeout: self.timeout.map_or(std::time::Duration::from_secs(2), |time| time.0),
            json: self.json,
        };
        config.check()?;
        let found = crate::discover::discover(&config)?;
        let text = if config.json { found.json() } else { found.table() };
        super::print(&text)?;
        Ok(u8::from(found.targets.is_empty()))
    }
}
