//! `kagero target`

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::print;
use crate::config::places::control_to_ask;
use crate::config::{Address, Export, Size, grouped};
use crate::error::{BadValue, Error, UserError};
use crate::target::{ExportStatus, Listing, Statistics, ask, prometheus, show};

pub(super) const EXAMPLES: &str = "\
Examples:
  kagero target list
  kagero target add 7.3=debian.img,read-only
  kagero target resize 7.3 16G
  kagero target remove 7.3
  kagero target stats --json

Changes last as long as the server runs; what it serves at its start is said by its flags and configuration file.";

/// What is asked of a server that runs.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct TargetOptions {
    /// The server's control socket [default: /run/kagero/serve.sock]
    #[arg(long, value_name = "PATH", global = true)]
    pub control: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: TargetCommand,
}

/// What to do.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum TargetCommand {
    /// Serve more disk images
    Add {
        /// What to offer, as `kagero serve` takes it
        #[arg(value_name = "ADDRESS=IMAGE", required = true)]
        exports: Vec<ExportText>,
    },
    /// Serve disks no longer: their requests are finished, and their images are free for others
    Remove {
        /// Which ones, as 7.1
        #[arg(value_name = "ADDRESS", required = true)]
        addresses: Vec<AddressText>,
        /// Also forget what clients have set for them
        #[arg(long)]
        forget: bool,
    },
    /// Give a disk another size: the one that its file or device has now, or this one
    Resize {
        /// Which one, as 7.1
        #[arg(value_name = "ADDRESS")]
        address: AddressText,
        /// Make the disk, and the file that holds it, this large
        #[arg(value_name = "SIZE")]
        size: Option<Size>,
        /// Let it lose its end
        #[arg(long)]
        shrink: bool,
    },
    /// Say what is served, and what clients have set
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what was done
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Print Prometheus' text format
        #[arg(long, conflicts_with = "json")]
        prometheus: bool,
    },
}

/// An export as it was written: the server reads it again, and knows where its paths start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportText(String);

impl FromStr for ExportText {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        text.parse::<Export>().map(|_| ExportText(text.into()))
    }
}

/// An AoE address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressText(Address);

impl FromStr for AddressText {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        crate::config::address(text).map(AddressText)
    }
}

impl TargetOptions {
    /// Does what `kagero target` does; gives the exit code.
    pub(super) fn execute(self, verbose: u8, quiet: bool) -> Result<u8, Error> {
        crate::log::start(verbose, quiet)?;
        let socket = self.control.unwrap_or_else(control_to_ask);
        match self.command {
            TargetCommand::Add { exports } => {
                let folder = std::env::current_dir().context("the current folder")?;
                let folder = folder.to_str().ok_or_else(|| {
                    UserError::new(folder.display(), "not UTF-8 text", "go to a folder whose name is")
                })?;
                for ExportText(export) in exports {
                    let request = json!({"do": "add", "export": export, "folder": folder});
                    let added: Listing = ask(&socket, &request)?;
                    print(
                        &added.exports.iter().map(|export| show::export(export) + "\n").collect::<String>(),
                    )?;
                }
            }
            TargetCommand::Remove { addresses, forget } => {
                for AddressText(address) in addresses {
                    let request = json!({"do": "remove", "address": address.to_string(), "forget": forget});
                    ask::<Listing>(&socket, &request)?;
                    print(&format!("{address} is not served any more\n"))?;
                }
            }
            TargetCommand::Resize { address: AddressText(address), size, shrink } => {
                let request = json!({
                    "do": "resize", "address": address.to_string(), "bytes": size.map(Size::bytes), "shrink": shrink
                });
                let resized: Listing = ask(&socket, &request)?;
                let line = |export: &ExportStatus| {
                    let (address, bytes) = (&export.address, grouped(export.bytes));
                    format!(
                        "{address} has {bytes} bytes now; a client that uses it learns that when it looks again (Linux: aoe-revalidate e{address})\n"
                    )
                };
                print(&resized.exports.iter().map(line).collect::<String>())?;
            }
            TargetCommand::List { json } => {
                let listing: Listing = ask(&socket, &json!({"do": "list"}))?;
                print(&if json { pretty(&listing) } else { show::listing(&listing) })?;
            }
            TargetCommand::Stats { json, prometheus: text } => {
                let statistics: Statistics = ask(&socket, &json!({"do": "stats"}))?;
                print(&match (json, text) {
                    (true, _) => pretty(&statistics),
                    (_, true) => prometheus(&statistics),
                    _ => show::statistics(&statistics),
                })?;
            }
        }
        Ok(0)
    }
}

fn pretty(payload: &impl Serialize) -> String {
    // Strings and numbers alone can't fail.
    serde_json::to_string_pretty(payload).unwrap_or_default() + "\n"
}
