//! A sign on the terminal that something takes longer than two seconds, and how far it is.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// What is over within this time needs no word.
const SOON: Duration = Duration::from_secs(2);

/// Something is being waited for as long as this lives: a turning sign on a terminal. Elsewhere only the detailed log tells, so that
/// what goes wrong in the end is one line.
#[derive(Debug)]
pub struct Waiting {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Begins to wait for what `message` says: "waiting for aoe:7.1 on eth1".
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        tracing::debug!("{message}");
        if !stderr().is_terminal() || !tracing::enabled!(tracing::Level::INFO) {
            return Self { done: None, thread: None };
        }
        let (done, is_done) = channel();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            if is_done.recv_timeout(SOON) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner().with_message(message);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            let _ = is_done.recv();
            bar.finish_and_clear();
        });
        // Without a thread there is no word; the wait itself goes on.
        Self { done: Some(done), thread: thread.ok() }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Something whose length is known, and how far it is: a bar on a terminal once it takes longer than two seconds.
#[derive(Debug)]
pub struct Progress {
    message: String,
    begun: Instant,
    bar: Option<ProgressBar>,
    shown: bool,
}

impl Progress {
    /// Begins what `message` says: "writing into golden.img".
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        tracing::debug!("{message}");
        let shown = stderr().is_terminal() && tracing::enabled!(tracing::Level::INFO);
        Self { message, begun: Instant::now(), bar: None, shown }
    }

    /// So much of it is done. It may begin anew, with another whole.
    pub fn at(&mut self, done: u64, whole: u64) {
        if !self.shown || self.begun.elapsed() < SOON {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(whole).with_message(self.message.clone());
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent} % ({eta} left)") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_length(whole);
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
