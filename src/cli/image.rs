//! `kagero image`

use std::io::{ErrorKind, Write as _, stdout};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::config::NamedImage;
use crate::error::Error;
use crate::image;

pub(super) const EXAMPLES: &str = "\
Examples:
  kagero image info golden.img
  kagero image info overlays/02:00:00:00:00:01.overlay --json
  kagero image commit overlays/02:00:00:00:00:01.overlay --base golden.img
  kagero image rebase overlays/02:00:00:00:00:01.overlay --base newer.img --from golden.img

Overlays are what `kagero serve` makes with overlay=DIRECTORY. End the server before commit and rebase.";

/// What is to be done with an image or overlay.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum ImageCommand {
    /// Tell what an image file is: format, size, what lies below it
    Info {
        /// A disk image or an overlay; it may be in use
        #[arg(value_name = "FILE")]
        image: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write what an overlay holds into its base, and remove the overlay
    ///
    /// Interrupted, it can be done again; until then the overlay can't be served.
    Commit {
        /// The overlay
        #[arg(value_name = "OVERLAY")]
        overlay: PathBuf,
        /// Its base, a raw image
        #[arg(long, value_name = "IMAGE")]
        base: NamedImage,
        /// Do it even though other overlays in the folder are over this base, and will mean nothing
        #[arg(long)]
        force: bool,
    },
    /// Put an overlay over another base; its client sees the same disk as before
    ///
    /// What differs between the bases is copied into the overlay, and what is the same in overlay and new base is dropped.
    Rebase {
        /// The overlay
        #[arg(value_name = "OVERLAY")]
        overlay: PathBuf,
        /// The new base; ,format=qcow2 for such an image
        #[arg(long, value_name = "IMAGE")]
        base: NamedImage,
        /// The base that it was made over [default: where that was]
        #[arg(long, value_name = "IMAGE")]
        from: Option<NamedImage>,
        /// Believe that the disk in the new base is the same: it only moved, or was copied
        #[arg(long = "unsafe", conflicts_with = "from")]
        same: bool,
    },
}

impl ImageOptions {
    /// Does what `kagero image` does; gives the exit code.
    pub(super) fn execute(self, verbose: u8, quiet: bool) -> Result<u8, Error> {
        crate::log::start(verbose, quiet)?;
        let text = match self.command {
            ImageCommand::Info { image, json } => {
                let description = image::describe(&image)?;
                if json { description.json() } else { description.text() }
            }
            ImageCommand::Commit { overlay, base, force } => image::commit(&overlay, &base, force)?,
            ImageCommand::Rebase { overlay, base, from, same } => {
                image::rebase(&overlay, &base, from.as_ref(), same)?
            }
        };
        match stdout().write_all(text.as_bytes()) {
            // A reader that has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.context("standard output")?,
        }
        Ok(0)
    }
}
