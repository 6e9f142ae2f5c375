//! `cargo xtask image`.

use crate::setup;
use anyhow::{Context, Result};
use clap::Subcommand;
use kagero_images::debian::Image;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Subcommand)]
pub(crate) enum Kind {
    /// An ordinary Debian 12 that boots from GRUB; root logs in without a password
    Debian {
        /// Where the image goes [default: target/lab/images/debian.img, which the tests use]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The disk's size in MiB
        #[arg(long, value_name = "MIB", default_value_t = 2048)]
        size: u64,
        /// Build even if it is there and its recipe is the same, for Debian's newest packages
        #[arg(long)]
        rebuild: bool,
    },
}

pub(crate) fn image(kind: &Kind) -> Result<()> {
    setup::setup()?;
    match kind {
        Kind::Debian { output, size, rebuild } => {
            let size = size.checked_mul(1 << 20).context("--size is too large")?;
            let output = output.clone().unwrap_or_else(|| Image::default().output);
            let image = Image { output, size };
            debian(&image, *rebuild)
        }
    }
}

/// Builds it if necessary and says so.
pub(crate) fn debian(image: &Image, rebuild: bool) -> Result<()> {
    let started = Instant::now();
    println!("making {} (about a minute when it is new)", image.output.display());
    let built = if rebuild { image.build().map(|()| true) } else { image.ensure() }?;
    let used = std::fs::metadata(&image.output)?.blocks() * 512;
    let how = if built {
        format!("built in {:.0} s", started.elapsed().as_secs_f64())
    } else {
        "up to date".into()
    };
    println!("{}: {how}, {} MiB of {} MiB used", image.output.display(), used >> 20, image.size >> 20);
    Ok(())
}
