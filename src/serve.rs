//! Serving disk images as AoE targets.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::Context;
use kagero_aoe::link::Link;
use kagero_target::{Access, Image, Overlays, Server};

use crate::config::{ServeConfig, grouped};
use crate::error::Error;
use crate::signals;
use crate::stop::{Exit, Stop};

/// A line on standard output. A reader that has gone is no reason not to serve.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Serves until a signal ends it. Says on standard output what it serves, once it does.
///
/// # Errors
/// When an image or the interface can't be used.
pub fn serve(config: &ServeConfig) -> Result<Exit, Error> {
    // The interface first: nothing is locked or made for one that is not there.
    let mut link = kagero_link::open(&config.interface)?;
    let mut server = Server::new();
    for export in &config.exports {
        let unwritten = export.read_only || export.overlay.is_some();
        let access = if unwritten { Access::ReadOnly } else { Access::ReadWrite };
        let image = Image::open_at(&export.image, access, export.format)?;
        match &export.overlay {
            None => server.export_image(export.address, image)?,
            Some(folder) => server.export_overlays(export.address, Overlays::open(image, folder.clone())?)?,
        }
    }
    if let Some(path) = &config.pcap {
        link = link.captured(path)?;
    }
    let stop = Stop::new().context("the event for the end")?;
    signals::end_on_signals(&stop).context("signal handlers")?;

    for (export, disk) in config.exports.iter().zip(server.exports()) {
        let access = match (&export.overlay, export.read_only) {
            (Some(folder), _) => format!(", with overlays in {}", folder.display()),
            (None, true) => ", read-only".into(),
            (None, false) => String::new(),
        };
        let bytes = grouped(disk.disk().sectors.saturating_mul(512));
        say(format_args!("{} is {}, {bytes} bytes{access}", export.address, export.image));
    }
    say(format_args!("serving on {}, MTU {}", config.interface, link.mtu()));

    server.serve(std::slice::from_mut(&mut link), &stop.fd()).context("waiting for frames")?;
    let done = server.stats().counters();
    tracing::info!(
        frames = done.frames,
        bytes_read = done.bytes_read,
        bytes_written = done.bytes_written,
        errors = done.errors,
        "ended"
    );
    match stop.take() {
        Some(outcome) => outcome,
        None => Err(anyhow::anyhow!("the target stopped serving without being asked to").into()),
    }
}
