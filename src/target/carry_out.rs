//! The server's side: requests are carried out by a thread beside those that serve, and metrics told by another, so that they can be had while a
//! request takes its time.

use std::fs::DirBuilder;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context;
use kagero_target::{Server, Stop};
use serde::Serialize;

use super::doors::{Door, Listener, Said, listen};
use super::protocol::{Complaint, ExportStatus, Listing, Reply, Request, Statistics};
use super::socket::{self, Named, give};
use super::{LONGEST_LINE, http, prometheus};
use crate::config::places::usual_control;
use crate::config::{Address, Export, Listen, Place, ServeConfig};
use crate::confine::{User, may_make_files};
use crate::error::{Error, UserError};

/// How long the end waits for a request that is being carried out.
const LAST_REQUEST: Duration = Duration::from_secs(10);

/// The server that requests are about, and how it was started.
pub(crate) struct Daemon {
    pub(crate) server: Arc<Server>,
    pub(crate) config: ServeConfig,
    /// Who it has become.
    pub(crate) user: Option<User>,
}

/// Where a server can be talked to, open, while nobody listens there yet.
pub(crate) struct ControlPlane {
    control: Option<(std::os::unix::net::UnixListener, Named)>,
    metrics: Option<TcpListener>,
}

/// Somebody listens, while this lives.
pub(crate) struct Listening {
    stop: Stop,
    /// Disconnected when all have ended.
    ended: Receiver<()>,
    /// The name goes when this is dropped, also if the thread still works.
    _named: Option<Named>,
}

impl ControlPlane {
    /// Opens the control socket, which is to be `user`'s if there is one, and the metrics' port.
    ///
    /// # Errors
    /// When a place that was named can't be used; the usual place is done without, with a warning.
    pub(crate) fn open(config: &ServeConfig, user: Option<&User>) -> Result<Self, Error> {
        let control = match &config.control {
            Place::None => None,
            Place::At(path) => Some(socket::open(path, user)?),
            Place::Usual => usual_control().and_then(|path| {
                make_folder(&path, user);
                let warn = |error: &Error| {
                    tracing::warn!("{error}; until then `kagero target` can't reach this server");
                };
                socket::open(&path, user).inspect_err(warn).ok()
            }),
        };
        let metrics = config.metrics.map(|Listen(address)| {
            let bound = TcpListener::bind(address);
            bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener)).map_err(|error| {
                let problem = format!("can't listen on {address}: {error}");
                UserError::new("--metrics", problem, "give another address or port")
            })
        });
        Ok(ControlPlane { control, metrics: metrics.transpose()? })
    }

    /// Listens at each place in a thread of its own.
    ///
    /// # Errors
    /// When there is no thread or file descriptor left.
    pub(crate) fn start(self, daemon: Daemon) -> Result<Listening, Error> {
        let server = Arc::clone(&daemon.server);
        let mut doors = Vec::new();
        let mut name = None;
        if let Some((listener, named)) = self.control {
            name = Some(named);
            let speak = move |asked: &mut Vec<u8>, ended| line(asked, ended, &daemon);
            doors.push(("control", Door { listener: Listener::Unix(listener), speak: Box::new(speak) }));
        }
        if let Some(listener) = self.metrics {
            let page = move || prometheus(&statistics(&server));
            let speak = move |asked: &mut Vec<u8>, _| http::answer(asked, &page);
            doors.push(("metrics", Door { listener: Listener::Tcp(listener), speak: Box::new(speak) }));
        }
        let stop = Stop::new().context("the control thread's end")?;
        let (tell, ended) = channel();
        for (what, mut door) in doors {
            let until = stop.try_clone().context("the control thread's end")?;
            let tell = tell.clone();
            let run = move || {
                if let Err(error) = listen(&mut door, until.as_fd()) {
                    tracing::error!(%error, "{what} has ended; disks are served on");
                }
                // The server first: who waits may want to be the last who has it.
                drop(door);
                drop(tell);
            };
            std::thread::Builder::new().name(what.into()).spawn(run).context("the control thread")?;
        }
        Ok(Listening { stop, ended, _named: name })
    }
}

impl Listening {
    /// Listens no longer. A request that is being carried out is waited for, if that takes no longer than a few seconds.
    pub(crate) fn end(self) {
        self.stop.stop();
        let _ = self.ended.recv_timeout(LAST_REQUEST);
    }
}

/// The folder of a usual place. What goes wrong is said of the socket in it.
fn make_folder(socket: &Path, user: Option<&User>) {
    if let Some(folder) = socket.parent()
        && DirBuilder::new().mode(0o755).create(folder).is_ok()
    {
        let _ = give(folder, user);
    }
}

/// Answers the first line.
fn line(asked: &mut Vec<u8>, ended: bool, daemon: &Daemon) -> Option<Said> {
    let end = asked.iter().position(|byte| *byte == b'\n');
    let length = match end {
        Some(end) => end + 1,
        // Who sends one line and no line break, and waits.
        None if ended && !asked.is_empty() => asked.len(),
        None => 0,
    };
    if end.unwrap_or(asked.len()) > LONGEST_LINE {
        let error = UserError::new("control request", "longer than 64 KiB", "send one JSON object a line");
        return Some(Said { bytes: said::<()>(Err(error.into())), last: true });
    }
    if length == 0 {
        return None;
    }
    let request: Vec<u8> = asked.drain(..length).collect();
    let request = request.trim_ascii();
    let bytes = if request.is_empty() { Vec::new() } else { answer(request, daemon) };
    Some(Said { bytes, last: false })
}

fn answer(request: &[u8], daemon: &Daemon) -> Vec<u8> {
    let request = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => {
            let error = UserError::new("control request", error, "docs/control.md has them all");
            return said::<()>(Err(error.into()));
        }
    };
    let server = &daemon.server;
    match request {
        Request::Add { export, folder } => said(add(daemon, export, folder)),
        Request::Remove { address, forget } => said(remove(server, address, forget)),
        Request::Resize { address, bytes, shrink } => said(resize(server, address, bytes, shrink)),
        Request::List {} => said(Ok(listing(server, None))),
        Request::Stats {} => said(Ok(statistics(server))),
    }
}

fn said<T: Serialize>(result: Result<T, Error>) -> Vec<u8> {
    let reply = match result {
        Ok(payload) => Reply::Ok(payload),
        Err(error) => Reply::Error(Complaint::from(&error)),
    };
    // Strings and numbers alone can't fail.
    let mut line = serde_json::to_vec(&reply).unwrap_or_default();
    line.push(b'\n');
    line
}

fn add(daemon: &Daemon, mut export: Export, folder: Option<PathBuf>) -> Result<Listing, Error> {
    let Daemon { server, config, user } = daemon;
    if let Some(folder) = folder {
        export.start_at(&folder);
    }
    if let Some(path) = export.paths().find(|path| path.is_relative()) {
        let mend = "give the whole path, or the folder where it starts";
        return Err(UserError::new(path.display(), "a relative path", mend).into());
    }
    if let Some(other) = server.exports().iter().find(|status| status.address == export.address) {
        let problem = format!("{} is served there already", ExportStatus::from(other).image);
        return Err(
            UserError::new(export.address, problem, "remove it first, or give another address").into()
        );
    }
    export.check()?;
    if let Some(folder) = export.overlay.as_deref().filter(|folder| folder.is_dir()) {
        may_make_files(folder, user.as_ref())?;
    }
    crate::serve::export(server, config, &export)?;
    tracing::info!(disk = %export.address, image = %export.image, "added");
    Ok(listing(server, Some(export.address)))
}

fn remove(server: &Server, address: Address, forget: bool) -> Result<Listing, Error> {
    server.remove(address)?;
    tracing::info!(disk = %address, "removed");
    if forget {
        server.forget_settings(address)?;
    }
    Ok(Listing::default())
}

fn resize(server: &Server, address: Address, bytes: Option<u64>, shrink: bool) -> Result<Listing, Error> {
    let bytes = server.resize(address, bytes, shrink)?;
    tracing::info!(disk = %address, bytes, "resized");
    Ok(listing(server, Some(address)))
}

fn listing(server: &Server, only: Option<Address>) -> Listing {
    let exports = server.exports();
    let wanted = exports.iter().filter(|status| only.is_none_or(|address| address == status.address));
    Listing { exports: wanted.map(ExportStatus::from).collect() }
}

fn statistics(server: &Server) -> Statistics {
    Statistics::new(&server.exports(), server.counters())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use serde_json::{Value, json};

    use super::*;

    fn daemon() -> Daemon {
        let config = ServeConfig {
            interfaces: vec!["lo".into()],
            threads: None,
            user: None,
            seccomp: crate::confine::Seccomp::Off,
            exports: Vec::new(),
            pcap: None,
            state: Place::None,
            control: Place::None,
            metrics: None,
        };
        Daemon { server: Arc::new(Server::new()), config, user: None }
    }

    /// Asks as a client would; the reply.
    fn ask(daemon: &Daemon, request: &Value) -> Value {
        let mut asked = format!("{request}\n{{").into_bytes();
        let said = line(&mut asked, false, daemon).unwrap();
        assert_eq!((&*asked, said.last), (&b"{"[..], false));
        serde_json::from_slice(&said.bytes).unwrap()
    }

    #[test]
    fn disks_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        File::create(path("a.img")).unwrap().set_len(1 << 20).unwrap();
        let daemon = daemon();
        let nothing = json!({"ok": {"exports": []}});
        assert_eq!(ask(&daemon, &json!({"do": "list"})), nothing);

        let added = ask(&daemon, &json!({"do": "add", "export": "7.1=a.img", "folder": folder.path()}));
        let export = json!({
            "address": "7.1", "image": path("a.img"), "bytes": 1 << 20, "mode": "read-write", "overlay": null,
            "serial": "KAGERO-00007-001", "settings": {"config": "", "mask": [], "reserved": []},
        });
        assert_eq!(added, json!({"ok": {"exports": [export]}}));
        let table = json!({"address": "7.1", "image": path("b.img"), "read-only": true});
        let error = ask(&daemon, &json!({"do": "add", "export": table}));
        assert!(
            error["error"]["line"].as_str().unwrap().contains("a.img is served there already"),
            "{error}"
        );
        let grown = ask(&daemon, &json!({"do": "resize", "address": "7.1", "bytes": 2 << 20}));
        assert_eq!(grown["ok"]["exports"][0]["bytes"], 2 << 20);
        let refused = ask(&daemon, &json!({"do": "resize", "address": "7.1", "bytes": 1 << 20}));
        assert_eq!(refused["error"]["code"], 2);
        let stats = ask(&daemon, &json!({"do": "stats"}));
        assert_eq!(stats["ok"]["exports"][0]["bytes"], 2 << 20);
        assert_eq!(ask(&daemon, &json!({"do": "remove", "address": "7.1"})), nothing);
        assert_eq!(ask(&daemon, &json!({"do": "remove", "address": "7.1"}))["error"]["code"], 2);
    }

    #[test]
    fn a_line_is_waited_for_as_far_as_it_goes() {
        let daemon = daemon();
        let say = |asked: &[u8], ended| line(&mut asked.to_vec(), ended, &daemon);
        assert!(say(b"", false).is_none() && say(b"", true).is_none());
        assert!(say(br#"{"do":"list"}"#, false).is_none());
        assert!(!say(br#"{"do":"list"}"#, true).unwrap().last);
        assert!(say(&[b' '; LONGEST_LINE], false).is_none());
        assert!(say(&[b' '; LONGEST_LINE + 1], false).unwrap().last);
        assert!(say(b" \r\n", false).unwrap().bytes.is_empty());
    }
}
