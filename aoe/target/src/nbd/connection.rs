//! One connection to a server, with many requests in flight.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt;

use super::negotiate::{Terms, negotiate};
use super::refusal::NbdRefusal;
use super::reply::{Answer, Waiting};
use super::uri::ServerAddress;
use super::wire::{Command, Request};

/// How long one address may take to connect, and a server to say each word of the negotiation.
const CONNECT: Duration = Duration::from_secs(5);

/// A server's host that stays silent is asked after 10 s whether it is there, and given up at 25 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
/// So is one that does not acknowledge what it is sent, in milliseconds.
const UNACKNOWLEDGED: u32 = 25_000;

/// Where to connect to. A host's name is looked up once, at the start: later, a server that gave up its rights may not be able to.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

impl Peer {
    pub(super) fn find(server: &ServerAddress) -> io::Result<Self> {
        Ok(match server {
            ServerAddress::Tcp { host, port } => {
                Self::Tcp((host.as_str(), *port).to_socket_addrs()?.collect())
            }
            ServerAddress::Unix(path) => Self::Unix(path.clone()),
        })
    }
}

/// A stream of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(server: &Peer) -> io::Result<Self> {
        match server {
            Peer::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Peer::Tcp(addresses) => {
                let mut failed = io::ErrorKind::NotFound.into();
                for address in addresses {
                    match TcpStream::connect_timeout(address, CONNECT) {
                        Ok(stream) => return Self::tuned(stream),
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
        }
    }

    fn tuned(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED)?;
        Ok(Self::Tcp(stream))
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    /// How long reads and writes may take.
    fn limit(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(time).and(stream.set_write_timeout(time)),
            Self::Unix(stream) => stream.set_read_timeout(time).and(stream.set_write_timeout(time)),
        }
    }

    fn shutdown(&self) {
        // Fails when it is down already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match *self {
            Stream::Tcp(stream) => (&*stream).read(out),
            Stream::Unix(stream) => (&*stream).read(out),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(data)])
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {
            Stream::Tcp(stream) => (&*stream).write_vectored(data),
            Stream::Unix(stream) => (&*stream).write_vectored(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (&*self).read(out)
    }
}

/// The half of a connection that requests go out on, from any thread.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// Whoever holds it may send a whole request.
    sending: Mutex<()>,
    waiting: Waiting,
    pub(super) terms: Terms,
}

/// The half that replies come in on; one thread's.
#[derive(Debug)]
pub(super) struct Replies(BufReader<Stream>);

impl Connection {
    /// Connects, and opens the export.
    pub(super) fn open(peer: &Peer, name: &str) -> Result<(Self, Replies), NbdRefusal> {
        let stream = Stream::connect(peer).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => NbdRefusal::Forbidden(error),
            _ => NbdRefusal::Unreachable(error),
        })?;
        stream.limit(Some(CONNECT))?;
        let terms = negotiate(&mut &stream, name)?;
        stream.limit(None)?;
        let replies = Replies(BufReader::with_capacity(64 << 10, stream.try_clone()?));
        let connection = Connection { stream, sending: Mutex::new(()), waiting: Waiting::default(), terms };
        Ok((connection, replies))
    }

    /// Sends a request, with the data if it is a write, and waits for its answer. `None` when the connection broke before it came.
    pub(super) fn call(&self, request: Request, data: &[u8]) -> Option<Answer> {
        let (cookie, answer) = self.waiting.begin(request)?;
        if self.send(&request.encode(cookie), data).is_err() {
            // Half a request may be on the way.
            self.close();
            return None;
        }
        answer.recv().ok()
    }

    /// As [`call`](Self::call), while this is the only request and nobody else looks for replies.
    pub(super) fn call_alone(
        &self,
        replies: &mut Replies,
        request: Request,
        data: &[u8],
    ) -> io::Result<Answer> {
        let (cookie, answer) = self.waiting.begin(request).ok_or(io::ErrorKind::NotConnected)?;
        self.send(&request.encode(cookie), data)?;
        loop {
            self.waiting.receive(&mut replies.0, self.terms.structured)?;
            if let Ok(answer) = answer.try_recv() {
                return Ok(answer);
            }
        }
    }

    fn send(&self, head: &[u8], data: &[u8]) -> io::Result<()> {
        let _alone = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stream = &self.stream;
        let parts = [IoSlice::new(head), IoSlice::new(data)];
        let sent = loop {
            match stream.write_vectored(&parts) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        stream.write_all(head.get(sent..).unwrap_or_default())?;
        stream.write_all(data.get(sent.saturating_sub(head.len())..).unwrap_or_default())
    }

    /// Brings replies to those who wait for them, until the connection breaks; says why it did.
    pub(super) fn receive_all(&self, replies: &mut Replies) -> io::Error {
        loop {
            if let Err(error) = self.waiting.receive(&mut replies.0, self.terms.structured) {
                self.close();
                return error;
            }
        }
    }

    /// Breaks it, also for those who wait.
    pub(super) fn close(&self) {
        self.stream.shutdown();
        self.waiting.close();
    }

    /// Tells the server that this was all.
    pub(super) fn say_goodbye(&self) {
        // A server that has gone need not be told.
        let _ = self.send(&Request::bare(Command::Disconnect).encode(0), &[]);
        self.close();
    }
}
