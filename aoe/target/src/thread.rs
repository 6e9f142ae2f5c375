//! A server in a thread of its own, for a target inside another program.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use kagero_aoe::link::Link;

use crate::{Counters, Server, Stats, Stop};

/// A server that runs in a thread. Dropped, it ends, with every request that it has received answered.
#[derive(Debug)]
pub struct Running {
    stop: Stop,
    stats: Arc<Stats>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Starts to serve these links.
    ///
    /// # Errors
    /// When there is no thread or file descriptor left.
    pub fn start<L>(mut server: Server, mut links: Vec<L>) -> io::Result<Self>
    where
        L: Link + AsFd + Send + 'static,
    {
        let stop = Stop::new()?;
        let stats = server.stats();
        let until = stop.try_clone()?;
        let thread = std::thread::Builder::new()
            .name("aoe-target".into())
            .spawn(move || server.serve(&mut links, &until))?;
        Ok(Running { stop, stats, thread: Some(thread) })
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.stats.counters()
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
        if let Err(error) = self.end() {
            tracing::error!(%error, "the target has ended");
        }
    }
}
