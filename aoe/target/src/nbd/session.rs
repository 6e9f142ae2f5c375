//! A server that may go away and return.
//!
//! Whoever has a request waits here until a connection answers it: one that broke is followed by another, and the request is sent again.
//! That is no harm, since NBD's reads, writes, trims and flushes may be done twice.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Connection, Peer, Replies};
use super::negotiate::Terms;
use super::refusal::NbdRefusal;
use super::reply::Failure;
use super::unflushed::{Entry, Unflushed};
use super::uri::NbdUri;
use super::wire::{Command, ESHUTDOWN, Request};

/// How long things take when the server is away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long requests wait for it.
    pub(super) patience: Duration,
    /// The time before the first attempt to reconnect, doubled with each until the longest.
    pub(super) first_delay: Duration,
    pub(super) longest_delay: Duration,
}

impl Pace {
    /// Requests wait for less than the 180 s after which Linux' aoe driver gives a disk up for good. The first attempt is not made at once,
    /// since a server that lives on may still be busy with what it received on the old connection.
    pub(super) const USUAL: Self = Self {
        patience: Duration::from_secs(120),
        first_delay: Duration::from_millis(100),
        longest_delay: Duration::from_secs(2),
    };
}

/// A connection that lives so long is no part of the trouble before it.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// An export, whatever becomes of its connections.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) uri: NbdUri,
    peer: Peer,
    /// As agreed on at the start; later connections must offer no less.
    pub(super) terms: Terms,
    pace: Pace,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    line: Line,
    unflushed: Unflushed,
    /// What was answered as written is lost.
    lossy: bool,
}

#[derive(Debug)]
enum Line {
    Up(Arc<Connection>),
    Down(Instant),
    /// Nobody needs it any more.
    Closed,
}

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server says so.
    Failure(Failure),
    /// There is no server, and patience is over.
    Away,
}

impl Session {
    /// Connects, and starts the thread that brings replies and reconnects. It ends after [`close`](Self::close).
    pub(super) fn start(uri: &NbdUri, write: bool, pace: Pace) -> Result<Arc<Self>, NbdRefusal> {
        let peer = Peer::find(&uri.server).map_err(NbdRefusal::Unreachable)?;
        let (connection, replies) = Connection::open(&peer, &uri.name)?;
        let terms = connection.terms.clone();
        if write && terms.read_only {
            return Err(NbdRefusal::ReadOnly);
        }
        if write && !terms.flush && !terms.durable_writes {
            return Err(NbdRefusal::NoFlush);
        }
        let connection = Arc::new(connection);
        let line = Line::Up(Arc::clone(&connection));
        let state = Mutex::new(State { line, unflushed: Unflushed::default(), lossy: false });
        let session =
            Arc::new(Session { uri: uri.clone(), peer, terms, pace, state, changed: Condvar::new() });
        let thread = Arc::clone(&session);
        std::thread::Builder::new().name("nbd".into()).spawn(move || thread.run(connection, replies))?;
        Ok(session)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something that was answered as written is lost.
    pub(super) fn is_lossy(&self) -> bool {
        self.state().lossy
    }

    /// Remembers that something that was answered as written is, or may be, lost.
    pub(super) fn set_lossy(&self) {
        self.state().lossy = true;
    }

    /// Has a request done, with `data` if it is a write; gives the data of a read.
    pub(super) fn perform(&self, request: Request, data: &[u8]) -> Result<Vec<u8>, Trouble> {
        let (mut broken, mut waiting_since) = (None, None);
        loop {
            let (connection, mark) = self.connection(broken.as_ref(), waiting_since)?;
            match connection.call(request, data) {
                Some(Ok(done)) if self.settle(&connection, request, data, mark) => return Ok(done),
                Some(Err(failure)) if failure.error != ESHUTDOWN => return Err(Trouble::Failure(failure)),
                Some(Err(_)) => connection.close(),
                Some(Ok(_)) | None => {}
            }
            waiting_since.get_or_insert_with(Instant::now);
            broken = Some(connection);
        }
    }

    /// Waits for a connection other than the broken one. Gives what is unflushed at that moment too.
    fn connection(
        &self,
        broken: Option<&Arc<Connection>>,
        waiting_since: Option<Instant>,
    ) -> Result<(Arc<Connection>, u64), Trouble> {
        let mut state = self.state();
        loop {
            let since = match &state.line {
                Line::Closed => return Err(Trouble::Away),
                Line::Down(since) => waiting_since.map_or(*since, |waiting| waiting.min(*since)),
                // Its thread will see in a moment that it is broken.
                Line::Up(connection) if broken.is_some_and(|broken| Arc::ptr_eq(broken, connection)) => {
                    waiting_since.unwrap_or_else(Instant::now)
                }
                // A request that breaks one connection after another ends too.
                Line::Up(_) if waiting_since.is_some_and(|since| since.elapsed() >= self.pace.patience) => {
                    return Err(Trouble::Away);
                }
                Line::Up(connection) => return Ok((Arc::clone(connection), state.unflushed.next())),
            };
            let Some(rest) = self.pace.patience.checked_sub(since.elapsed()).filter(|rest| !rest.is_zero())
            else {
                return Err(Trouble::Away);
            };
            state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes what an answered request means for the data. False when the answer counts for nothing, because its connection, and perhaps the
    /// server with all that it had not flushed, went away meanwhile.
    fn settle(&self, connection: &Arc<Connection>, request: Request, data: &[u8], mark: u64) -> bool {
        if !self.terms.flush || request.command == Command::Read {
            return true;
        }
        let mut state = self.state();
        match (&state.line, request.command) {
            // Those below the mark were answered before this flush was sent.
            (_, Command::Flush) => state.unflushed.flushed(mark),
            (Line::Up(now), _) if Arc::ptr_eq(now, connection) => state.unflushed.push(request, data),
            _ => return false,
        }
        true
    }

    /// Whether so much is unflushed that a flush is due.
    pub(super) fn has_enough(&self) -> bool {
        self.state().unflushed.is_enough()
    }

    /// Ends it.
    pub(super) fn close(&self) {
        let before = std::mem::replace(&mut self.state().line, Line::Closed);
        self.changed.notify_all();
        if let Line::Up(connection) = before {
            connection.say_goodbye();
        }
    }

    /// Brings replies, and connects again whenever the connection breaks.
    fn run(&self, mut connection: Arc<Connection>, mut replies: Replies) {
        let mut delay = self.pace.first_delay;
        loop {
            let began = Instant::now();
            let error = connection.receive_all(&mut replies);
            if began.elapsed() > LONG_ENOUGH {
                delay = self.pace.first_delay;
            }
            let lost = {
                let mut state = self.state();
                if matches!(state.line, Line::Closed) {
                    return;
                }
                state.line = Line::Down(Instant::now());
                state.unflushed.take()
            };
            self.changed.notify_all();
            let (patience, unflushed) = (self.pace.patience, lost.len());
            tracing::warn!(
                "NBD export {}: the connection is lost ({error}); requests wait {patience:?} for the server, {unflushed} unflushed writes are kept",
                self.uri
            );
            match self.reconnect(lost, &mut delay) {
                Some(new) => (connection, replies) = new,
                None => return,
            }
        }
    }

    /// Tries until the server is back, with everything that it may have lost. `None` when nobody needs it any more.
    fn reconnect(&self, lost: VecDeque<Entry>, delay: &mut Duration) -> Option<(Arc<Connection>, Replies)> {
        let (began, mut said) = (Instant::now(), String::new());
        loop {
            if !self.pause(*delay) {
                return None;
            }
            *delay = (*delay * 2).min(self.pace.longest_delay);
            match self.come_back(&lost) {
                Ok((connection, replies)) => {
                    let connection = Arc::new(connection);
                    let mut state = self.state();
                    if matches!(state.line, Line::Closed) {
                        return None;
                    }
                    state.line = Line::Up(Arc::clone(&connection));
                    drop(state);
                    self.changed.notify_all();
                    tracing::warn!(
                        "NBD export {}: the server is back after {:.1} s; {} unflushed writes were written again",
                        self.uri,
                        began.elapsed().as_secs_f32(),
                        lost.len()
                    );
                    return Some((connection, replies));
                }
                // That it is away was said.
                Err(NbdRefusal::Unreachable(_) | NbdRefusal::Broken(_)) => {}
                Err(refusal) => {
                    let text = refusal.to_string();
                    if text != said {
                        tracing::error!("NBD export {}: {text}", self.uri);
                        said = text;
                    }
                }
            }
        }
    }

    /// Waits, unless nobody needs the session any more.
    fn pause(&self, delay: Duration) -> bool {
        let open = |state: &mut State| !matches!(state.line, Line::Closed);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.state(), delay, open)
            .unwrap_or_else(PoisonError::into_inner);
        open(&mut state)
    }

    /// Connects again, and brings the server to where it was: it may have lost what it had not flushed.
    fn come_back(&self, lost: &VecDeque<Entry>) -> Result<(Connection, Replies), NbdRefusal> {
        let (connection, mut replies) = Connection::open(&self.peer, &self.uri.name)?;
        if let Some(what) = self.terms.difference(&connection.terms) {
            connection.say_goodbye();
            return Err(NbdRefusal::Changed(what));
        }
        // One after another: a later write may lie over an earlier one.
        for Entry { request, data } in lost {
            self.repeat(&connection, &mut replies, *request, data)?;
        }
        if !lost.is_empty() {
            self.repeat(&connection, &mut replies, Request::bare(Command::Flush), &[])?;
        }
        Ok((connection, replies))
    }

    fn repeat(
        &self,
        connection: &Connection,
        replies: &mut Replies,
        request: Request,
        data: &[u8],
    ) -> io::Result<()> {
        match connection.call_alone(replies, request, data)? {
            Err(failure) if failure.error == ESHUTDOWN => Err(io::ErrorKind::ConnectionAborted.into()),
            Err(failure) if request.command != Command::Trim => {
                tracing::error!(
                    "NBD export {}: a write that was answered before the connection was lost can't be done again (error {}); no flush will succeed until the export is opened anew",
                    self.uri,
                    failure.error
                );
                self.set_lossy();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
