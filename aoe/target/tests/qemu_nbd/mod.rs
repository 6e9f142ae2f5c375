//! QEMU's NBD server.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kagero_target::{Access, Error, Image, NbdRefusal, NbdUri};

/// No server takes longer to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ports that are tried.
const PORTS: usize = 5;

/// `qemu-nbd` that serves a raw image as the export `disk`. Dropped, it ends.
pub(crate) struct QemuNbd {
    child: Child,
    image: PathBuf,
    place: Vec<String>,
    uri: NbdUri,
}

impl QemuNbd {
    /// On the socket `nbd.sock` beside the image.
    pub(crate) fn on_socket(image: &Path) -> Self {
        let socket = image.with_file_name("nbd.sock");
        let uri = format!("nbd+unix:///disk?socket={}", socket.display());
        Self::start(image, vec!["--socket".into(), socket.display().to_string()], &uri)
            .expect("qemu-nbd has ended")
    }

    /// On a port of this machine that was free a moment ago. If somebody else has taken it since, on another one.
    pub(crate) fn on_port(image: &Path) -> Self {
        let on_some_port = || {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let place = ["--bind", "127.0.0.1", "--port", &port.to_string()].map(Into::into);
            Self::start(image, place.into(), &format!("nbd://127.0.0.1:{port}/disk"))
        };
        std::iter::repeat_with(on_some_port).take(PORTS).flatten().next().expect("qemu-nbd has ended")
    }

    /// None when it has ended.
    fn start(image: &Path, place: Vec<String>, uri: &str) -> Option<Self> {
        let child = spawn(image, &place);
        let mut server = QemuNbd { child, image: image.into(), place, uri: uri.parse().unwrap() };
        server.answers().then_some(server)
    }

    pub(crate) fn uri(&self) -> &NbdUri {
        &self.uri
    }

    pub(crate) fn open(&self, access: Access) -> Image {
        Image::open_nbd(&self.uri, access).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Kills it with SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, once it has ended.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.image, &self.place);
    }

    /// Waits until it answers.
    pub(crate) fn wait(&mut self) {
        assert!(self.answers(), "qemu-nbd has ended");
    }

    /// Waits until it answers, or has ended.
    fn answers(&mut self) -> bool {
        let begin = Instant::now();
        // It breaks off when another test has just forked: the socket that found the port lives on in the child until that executes qemu-nbd,
        // which takes a while when it has to be read from a disk first.
        while let Err(Error::Nbd { why: NbdRefusal::Unreachable(_) | NbdRefusal::Broken(_), .. }) =
            Image::open_nbd(&self.uri, Access::ReadOnly)
        {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(begin.elapsed() < PATIENCE, "qemu-nbd does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(image: &Path, place: &[String]) -> Child {
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--shared=9", "--format=raw", "--discard=unmap", "--export-name=disk"]);
    match command.args(place).arg(image).stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("no qemu-nbd: `cargo xtask setup` installs it, or the package qemu-utils has it")
        }
        Err(error) => panic!("qemu-nbd: {error}"),
    }
}
