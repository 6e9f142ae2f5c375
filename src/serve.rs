//! Serving disk images as AoE targets.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kagero_aoe::link::Link;
use kagero_target::{Access, Image, Overlays, Server};
use sd_notify::NotifyState;

use crate::config::places::usual_state;
use crate::config::{Export, Place, ServeConfig, grouped};
use crate::error::Error;
use crate::signals;
use crate::stop::Stop;
use crate::target::ControlPlane;

/// How long the last flush of all disks may take. The kernel goes on writing what it has, whoever ends.
const LAST_FLUSH: Duration = Duration::from_secs(60);

/// A line on standard output. A reader that has gone is no reason not to serve.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Tells systemd, if it wants to know.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

/// Serves until a signal ends it. Says on standard output what it serves, once it does.
///
/// # Errors
/// When an image or the interface can't be used.
pub fn serve(config: &ServeConfig) -> Result<(), Error> {
    // The interface first: nothing is locked or made for one that is not there.
    let mut link = kagero_link::open(&config.interface)?;
    let mut server = Server::new();
    keep_settings(&mut server, &config.state)?;
    for disk in &config.exports {
        export(&server, config, disk)?;
    }
    let control = ControlPlane::open(config)?;
    if let Some(path) = &config.pcap {
        link = link.captured(path)?;
    }
    let stop = Stop::new().context("the event for the end")?;
    signals::end_on_signals(&stop).context("signal handlers")?;
    let server = Arc::new(server);
    let control = control.start(&server, config)?;

    for (export, disk) in config.exports.iter().zip(server.exports()) {
        let access = match (&export.overlay, export.read_only) {
            (Some(folder), _) => format!(", with overlays in {}", folder.display()),
            (None, true) => ", read-only".into(),
            (None, false) => String::new(),
        };
        let bytes = grouped(disk.disk.sectors.saturating_mul(512));
        say(format_args!("{} is {}, {bytes} bytes{access}", export.address, export.image.display()));
    }
    say(format_args!("serving on {}, MTU {}", config.interface, link.mtu()));
    notify(NotifyState::Ready);

    let served = server.serve(std::slice::from_mut(&mut link), &stop.fd()).context("waiting for frames");
    notify(NotifyState::Stopping);
    control.end();
    let flushed = flush(&server);
    let done = server.counters();
    tracing::info!(
        frames = done.frames,
        bytes_read = done.bytes_read,
        bytes_written = done.bytes_written,
        errors = done.errors,
        "ended"
    );
    served?;
    flushed?;
    match stop.take() {
        Some(outcome) => outcome.map(|_| ()),
        None => Err(anyhow!("the target stopped serving without being asked to").into()),
    }
}

/// Serves one more disk.
pub(crate) fn export(server: &Server, _config: &ServeConfig, export: &Export) -> Result<(), Error> {
    let unwritten = export.read_only || export.overlay.is_some();
    let access = if unwritten { Access::ReadOnly } else { Access::ReadWrite };
    let image = Image::open_as(&export.image, access, export.format)?;
    match &export.overlay {
        None => server.export_image(export.address, image)?,
        Some(folder) => server.export_overlays(export.address, Overlays::open(image, folder.clone())?)?,
    }
    Ok(())
}

/// Lets what clients set survive the server. The usual folder is done without where another server has it.
fn keep_settings(server: &mut Server, place: &Place) -> Result<(), Error> {
    match place {
        Place::None => {}
        Place::At(folder) => server.keep_settings(folder)?,
        Place::Usual => {
            if let Some(Err(error)) = usual_state().map(|folder| server.keep_settings(&folder)) {
                tracing::warn!("{error}; until then what clients set will not survive a restart");
            }
        }
    }
    Ok(())
}

/// Puts everything on the medium, unless that takes too long.
fn flush(server: &Arc<Server>) -> Result<(), Error> {
    let (tell, flushed) = channel();
    let server = Arc::clone(server);
    let flush = move || drop(tell.send(server.flush()));
    std::thread::Builder::new().name("last flush".into()).spawn(flush).context("the last flush")?;
    match flushed.recv_timeout(LAST_FLUSH) {
        Ok(result) => Ok(result?),
        Err(_) => Err(anyhow!(
            "the last flush took longer than {} s: what was written is still on its way to the medium",
            LAST_FLUSH.as_secs()
        )
        .into()),
    }
}
