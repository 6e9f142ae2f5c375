//! Serving disk images as AoE targets.

mod links;

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kagero_aoe::link::Link;
use kagero_target::{Access, Image, Location, Overlays, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;

use crate::config::places::usual_state;
use crate::config::{Export, Place, ServeConfig, grouped};
use crate::confine::{self, User};
use crate::error::{Error, UserError};
use crate::signals;
use crate::stop::Stop;
use crate::target::{ControlPlane, Daemon};

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
/// Before that it gives up what serving doesn't need, for the whole process, which must have no other thread yet: see [`confine`].
///
/// # Errors
/// When an image, an interface or the user can't be used.
pub fn serve(config: &ServeConfig) -> Result<(), Error> {
    let user = config.user.as_deref().map(User::named).transpose()?;
    // The interfaces first: nothing is locked or made for one that is not there.
    let mut shares = links::open(config)?;
    more_descriptors();
    let mut server = Server::new();
    let state = keep_settings(&mut server, &config.state)?;
    // A connection to an NBD server has threads, and is made again when it breaks: by whoever we are then.
    let (local, remote): (Vec<_>, Vec<_>) =
        config.exports.iter().partition(|export| export.image.path().is_some());
    for disk in local {
        export(&server, config, disk)?;
    }
    let control = ControlPlane::open(config, user.as_ref())?;
    confine::give_up_rights(user.as_ref())?;
    let overlays = config.exports.iter().filter_map(|export| export.overlay.as_deref());
    for folder in overlays.chain(state.as_deref()) {
        confine::may_make_files(folder, user.as_ref())?;
    }
    for disk in remote {
        export(&server, config, disk)?;
    }
    if let Some(path) = &config.pcap {
        shares = links::captured(shares, path)?;
    }
    let stop = Stop::new().context("the event for the end")?;
    signals::end_on_signals(&stop).context("signal handlers")?;
    confine::filter(config.seccomp)?;
    let server = Arc::new(server);
    let control = control.start(Daemon { server: Arc::clone(&server), config: config.clone(), user })?;

    for export in &config.exports {
        let disk = server.exports().into_iter().find(|disk| disk.address == export.address);
        let bytes = grouped(disk.map_or(0, |disk| disk.disk.sectors.saturating_mul(512)));
        let Export { address, image, .. } = export;
        say(format_args!("{address} is {image}, {bytes} bytes{}", terms(export)));
    }
    let threads = match shares.len() {
        1 => String::new(),
        many => format!(", {many} threads"),
    };
    for (number, link) in &shares[0] {
        let name = &config.interfaces[*number];
        say(format_args!("serving on {name}, MTU {}{threads}", link.mtu()));
    }
    notify(NotifyState::Ready);

    let served = server.serve_shared(&mut shares, &stop.fd()).context("waiting for frames");
    notify(NotifyState::Stopping);
    control.end();
    let done = server.counters();
    let closed = close(server);
    tracing::info!(
        frames = done.frames,
        bytes_read = done.bytes_read,
        bytes_written = done.bytes_written,
        errors = done.errors,
        "ended"
    );
    served?;
    closed?;
    match stop.take() {
        Some(outcome) => outcome.map(|_| ()),
        None => Err(anyhow!("the target stopped serving without being asked to").into()),
    }
}

/// Every client's overlay has a file of its own: as many as we may have open.
fn more_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Serves one more disk.
pub(crate) fn export(server: &Server, config: &ServeConfig, export: &Export) -> Result<(), Error> {
    let admission = export.admission(&config.interfaces)?;
    let unwritten = export.read_only || export.overlay.is_some();
    let access = if unwritten { Access::ReadOnly } else { Access::ReadWrite };
    let image = match &export.image {
        Location::File(path) if export.direct => Image::open_direct(path, access, export.format)?,
        location => {
            can_be_found(location, confine::is_filtered())?;
            Image::open_at(location, access, export.format)?
        }
    };
    match &export.overlay {
        None => server.export_image_to(admission, export.address, image)?,
        Some(folder) => {
            let overlays = Overlays::open(image, folder.clone())?;
            server.export_overlays_to(admission, export.address, overlays)?;
        }
    }
    Ok(())
}

/// Lets what clients set survive the server; the folder where it does. The usual one is done without where another server has it.
fn keep_settings(server: &mut Server, place: &Place) -> Result<Option<PathBuf>, Error> {
    let (folder, is_usual) = match place {
        Place::None => (None, false),
        Place::At(folder) => (Some(folder.clone()), false),
        Place::Usual => (usual_state(), true),
    };
    let Some(folder) = folder else { return Ok(None) };
    match server.keep_settings(&folder) {
        Ok(()) => Ok(Some(folder)),
        Err(error) if is_usual => {
            tracing::warn!("{error}; until then what clients set will not survive a restart");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts everything on the medium and closes it, unless that takes too long.
fn close(server: Arc<Server>) -> Result<(), Error> {
    let (tell, closed) = channel();
    let close = move || {
        let flushed = server.flush();
        // Closing an overlay writes to it once more.
        drop(server);
        let _ = tell.send(flushed);
    };
    std::thread::Builder::new().name("last flush".into()).spawn(close).context("the last flush")?;
    match closed.recv_timeout(LAST_FLUSH) {
        Ok(result) => Ok(result?),
        Err(_) => Err(anyhow!(
            "the last flush took longer than {} s: what was written is still on its way to the medium",
            LAST_FLUSH.as_secs()
        )
        .into()),
    }
}

/// A lookup of a host's name loads libraries and asks the kernel about networks, for which the filter would end the process.
fn can_be_found(location: &Location, filtered: bool) -> Result<(), UserError> {
    match location {
        Location::Nbd(uri) if filtered && uri.names_host() => {
            let problem = "a server that serves already can't look up a host's name";
            Err(UserError::new(uri, problem, "give the host's IP address"))
        }
        _ => Ok(()),
    }
}

/// What is said of an export after its size.
fn terms(export: &Export) -> String {
    let access = match (&export.overlay, export.read_only) {
        (Some(folder), _) => format!(", with overlays in {}", folder.display()),
        (None, true) => ", read-only".into(),
        (None, false) => String::new(),
    };
    let stations = match export.allow.len() {
        0 => String::new(),
        1 => ", for 1 station".into(),
        many => format!(", for {many} stations"),
    };
    let interfaces = match &export.interfaces[..] {
        [] => String::new(),
        some => format!(", on {}", some.join(" and ")),
    };
    access + &stations + &interfaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_before_the_filter_only() {
        let check = |text: &str, filtered| can_be_found(&text.parse().unwrap(), filtered);
        assert_eq!(
            check("nbd://storage/a", true).unwrap_err().to_string(),
            "nbd://storage/a: a server that serves already can't look up a host's name: give the host's IP address"
        );
        assert_eq!(check("nbd://storage/a", false), Ok(()));
        for text in ["nbd://192.0.2.1/a", "nbd://[2001:db8::1]/a", "nbd+unix:///?socket=a", "storage"] {
            assert_eq!(check(text, true), Ok(()));
        }
    }

    #[test]
    fn the_terms_of_an_export() {
        let terms = |text: &str| terms(&text.parse().unwrap());
        assert_eq!(terms("7.1=a"), "");
        assert_eq!(terms("7.1=a,read-only,allow=02:00:00:00:00:01"), ", read-only, for 1 station");
        assert_eq!(
            terms("7.1=a,overlay=b,allow=02:00:00:00:00:01+02:00:00:00:00:02,interface=eth1"),
            ", with overlays in b, for 2 stations, on eth1"
        );
    }
}
