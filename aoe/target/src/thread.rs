//! A server in a thread of its own, for a target inside another program.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use kagero_link::ServerLink;

use crate::{Counters, Server, Stop};

/// A server that runs in a thread. Dropped, it ends, with every request that it has received answered.
#[derive(Debug)]
pub struct Running {
    stop: Stop,
    server: Arc<Server>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Starts to serve these links. Should that ever end without having been asked to, the log says so at once.
    ///
    /// # Errors
    /// When there is no thread or file descriptor left.
    pub fn start<L>(server: Server, links: Vec<L>) -> io::Result<Self>
    where
        L: ServerLink + AsFd + Send + 'static,
    {
        Self::start_watched(server, links, |error| tracing::error!(%error, "the target has ended"))
    }

    /// As [`start`](Self::start), but tells `ended` instead of the log, in the server's thread.
    ///
    /// # Errors
    /// When there is no thread or file descriptor left.
    pub fn start_watched<L>(
        server: Server,
        mut links: Vec<L>,
        ended: impl FnOnce(&io::Error) + Send + 'static,
    ) -> io::Result<Self>
    where
        L: ServerLink + AsFd + Send + 'static,
    {
        let stop = Stop::new()?;
        let server = Arc::new(server);
        let shared = Arc::clone(&server);
        let until = stop.try_clone()?;
        let thread = std::thread::Builder::new().name("aoe-target".into()).spawn(move || {
            // What a panic leaves is not looked at any more.
            let serve = AssertUnwindSafe(|| shared.serve(&mut links, &until));
            let result = catch_unwind(serve).unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
            result.inspect_err(ended)
        })?;
        Ok(Running { stop, server, thread: Some(thread) })
    }

    /// The server, for changes while it runs.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.server.counters()
    }

    /// Ends it.
    ///
    /// # Errors
    /// What ended it before, if anything did.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.stop.stop();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the target's thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error was told when it happened.
        let _ = self.end();
    }
}
