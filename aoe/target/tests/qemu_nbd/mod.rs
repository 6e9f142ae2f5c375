//! QEMU's NBD server.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kagero_target::{Access, Error, Image, NbdRefusal, NbdUri};
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

/// No server takes longer to start.
const PATIENCE: Duration = Duration::from_secs(30);

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
    }

    /// On a port of this machine that was free a moment ago.
    pub(crate) fn on_port(image: &Path) -> Self {
        let port = free_port();
        let place = ["--bind", "127.0.0.1", "--port", &port.to_string()].map(Into::into);
        Self::start(image, place.into(), &format!("nbd://127.0.0.1:{port}/disk"))
    }

    fn start(image: &Path, place: Vec<String>, uri: &str) -> Self {
        let child = spawn(image, &place);
        let mut server = QemuNbd { child, image: image.into(), place, uri: uri.parse().unwrap() };
        server.wait();
        server
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

    /// Waits until somebody answers.
    pub(crate) fn wait(&mut self) {
        let begin = Instant::now();
        while let Err(Error::Nbd { why: NbdRefusal::Unreachable(_), .. }) =
            Image::open_nbd(&self.uri, Access::ReadOnly)
        {
            assert_eq!(self.child.try_wait().unwrap(), None, "qemu-nbd has ended");
            assert!(begin.elapsed() < PATIENCE, "qemu-nbd does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The socket that finds it does not listen, and lets others have its address: when another test forks just now, it lives on in the child until
/// that executes its program, which takes a while with a cold cache. Connections to it would be taken for the server's.
fn free_port() -> u16 {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    SocketAddrV4::try_from(getsockname(&socket).unwrap()).unwrap().port()
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
