//! Sockets that are listened on, each by one thread: who connects asks, and is answered in order.
//!
//! Nobody can hold up the others: no connection is waited for, what one may send and be sent is bounded, and when a door has too many the
//! one that was quiet the longest makes room.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, poll};

/// Connections through one door.
const MOST: usize = 16;

/// Where one can connect.
pub(super) enum Listener {
    /// To this machine's processes.
    Unix(UnixListener),
    /// To a network.
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Listener::Unix(listener) => Stream::Unix(listener.accept()?.0),
            Listener::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
        };
        stream.set_nonblocking()?;
        Ok(stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_nonblocking(true),
            Stream::Tcp(stream) => stream.set_nonblocking(true),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// What is said to a client.
pub(super) struct Said {
    /// The answer.
    pub(super) bytes: Vec<u8>,
    /// Nothing comes after it.
    pub(super) last: bool,
}

/// Takes one request off the front of what a client has sent and answers it; `None` as long as that is less than one. `ended` says that
/// nothing will follow. What is kept unanswered is bounded by this, too.
pub(super) type Speak = Box<dyn FnMut(&mut Vec<u8>, bool) -> Option<Said> + Send>;

/// A socket with what is said there.
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) speak: Speak,
}

/// One client.
struct Visitor {
    stream: Stream,
    /// Sent by it, and not yet answered.
    asked: Vec<u8>,
    /// For it, and not yet sent.
    said: Vec<u8>,
    /// It will ask no more, or is not to.
    ended: bool,
    /// When it was last heard, counted in events.
    heard: u64,
}

/// Listens until `stop` is readable.
pub(super) fn listen(door: &mut Door, stop: BorrowedFd<'_>) -> io::Result<()> {
    let mut visitors: Vec<Visitor> = Vec::new();
    let mut events = 0;
    loop {
        let wanted = |visitor: &Visitor| {
            if visitor.said.is_empty() { PollFlags::IN } else { PollFlags::OUT }
        };
        let mut fds =
            vec![PollFd::from_borrowed_fd(stop, PollFlags::IN), PollFd::new(&door.listener, PollFlags::IN)];
        fds.extend(visitors.iter().map(|v| PollFd::from_borrowed_fd(v.stream.fd(), wanted(v))));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let [stopped, knocked, of_visitors @ ..] = &*ready else { return Ok(()) };
        if *stopped {
            return Ok(());
        }
        let mut turns = of_visitors.iter();
        visitors.retain_mut(|visitor| {
            if !turns.next().is_some_and(|ready| *ready) {
                return true;
            }
            events += 1;
            visitor.heard = events;
            visitor.go_on(&mut door.speak).unwrap_or(false)
        });
        if !knocked {
            continue;
        }
        match door.listener.accept() {
            Ok(stream) => {
                events += 1;
                make_room(&mut visitors);
                visitors.push(Visitor { stream, asked: vec![], said: vec![], ended: false, heard: events });
            }
            // It has gone again.
            Err(error) if is_passing(&error) || error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                // Out of descriptors, most likely: somebody has to go before anybody can come.
                visitors.pop();
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

/// Lets the client that was quiet the longest go if there are as many as there may be.
fn make_room(visitors: &mut Vec<Visitor>) {
    if visitors.len() >= MOST
        && let Some((quiet, _)) = visitors.iter().enumerate().min_by_key(|(_, visitor)| visitor.heard)
    {
        visitors.remove(quiet);
    }
}

impl Visitor {
    /// Reads, answers and writes as far as that goes without waiting; false when all is said.
    fn go_on(&mut self, speak: &mut Speak) -> io::Result<bool> {
        if self.said.is_empty() {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.asked.extend_from_slice(&buffer[..count]),
                Err(error) if is_passing(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        loop {
            while !self.said.is_empty() {
                match self.stream.write(&self.said) {
                    Ok(count) => drop(self.said.drain(..count)),
                    Err(error) if is_passing(&error) => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
            match speak(&mut self.asked, self.ended) {
                Some(said) => {
                    self.said = said.bytes;
                    if said.last {
                        self.asked.clear();
                        self.ended = true;
                    }
                }
                None => return Ok(!self.ended),
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
