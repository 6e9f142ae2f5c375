//! Bytes on their way from the guest's serial port to the terminal, a pipe or a file.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stop::Stop;

/// What may wait before the guest has to.
const CAPACITY: usize = 16 << 10;

/// How long the end of a run waits for a reader of our output that has stopped reading.
const PATIENCE: Duration = Duration::from_secs(2);

/// A queue and the thread that empties it, so that a virtual CPU does not wait for a terminal.
#[derive(Debug)]
pub struct Output {
    shared: Arc<Shared>,
    stop: Stop,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    closing: bool,
    failed: bool,
}

impl Output {
    /// An output to `to`.
    ///
    /// # Errors
    /// When its thread can't be made.
    pub fn new(mut to: impl Write + Send + 'static, stop: &Stop) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        std::thread::Builder::new().name("console-out".into()).spawn({
            let shared = shared.clone();
            move || shared.write_all(&mut to)
        })?;
        Ok(Self { shared, stop: stop.clone() })
    }

    /// Waits while a great many bytes are waiting already, as a serial line with flow control would, but not beyond the end of the run,
    /// nor when the caller `gives_up`.
    pub fn wait_for_room(&self, gives_up: impl Fn() -> bool) {
        let mut state = self.shared.state();
        while state.waiting.len() >= CAPACITY && !state.failed && !self.stop.is_requested() && !gives_up() {
            let look_again = Duration::from_millis(100);
            state =
                self.shared.changed.wait_timeout(state, look_again).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Adds bytes in their order; never waits. Who can wait has waited for room before.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.shared.state();
        if !state.failed {
            state.waiting.extend_from_slice(bytes);
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Writes what is still waiting, but does not wait for ever.
    pub fn close(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state();
        state.closing = true;
        self.shared.changed.notify_all();
        while state.writing || !(state.waiting.is_empty() || state.failed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn write_all(&self, to: &mut impl Write) {
        let mut chunk = Vec::new();
        let mut state = self.state();
        loop {
            while state.waiting.is_empty() {
                if state.closing {
                    return;
                }
                state = self.wait(state);
            }
            std::mem::swap(&mut state.waiting, &mut chunk);
            state.writing = true;
            drop(state);
            self.changed.notify_all();

            let result = to.write_all(&chunk).and_then(|()| to.flush());
            chunk.clear();
            state = self.state();
            state.writing = false;
            if let Err(error) = result {
                // Somebody has closed the pipe or filled the disk: the guest goes on all the same.
                state.failed = true;
                state.waiting.clear();
                drop(state);
                self.changed.notify_all();
                tracing::warn!("the console's output ends here: {error}");
                return;
            }
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::*;

    /// Takes a write only when the test lets it.
    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_written_before_the_end() {
        let (go, gate) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let output = Output::new(Slow(gate, written.clone()), &Stop::new().unwrap()).unwrap();
        output.push(b"Debian GNU/Linux 12 ");
        output.push(b"login: ");
        for _ in 0..2 {
            go.send(()).unwrap();
        }
        output.close();
        assert_eq!(*written.lock().unwrap(), b"Debian GNU/Linux 12 login: ");
    }

    #[test]
    fn the_end_of_the_run_releases_a_guest_that_waits_for_a_stuck_reader() {
        let (go, gate) = mpsc::channel();
        let stop = Stop::new().unwrap();
        let output = Output::new(Slow(gate, Arc::default()), &stop).unwrap();
        let guest = std::thread::spawn(move || {
            for _ in 0..5 {
                output.wait_for_room(|| false);
                output.push(&vec![b'x'; CAPACITY]);
            }
            drop(go);
        });
        stop.request(crate::stop::Exit::Quit);
        guest.join().unwrap();
    }

    #[test]
    fn who_gives_up_waits_no_longer() {
        let (go, gate) = mpsc::channel();
        let output = Output::new(Slow(gate, Arc::default()), &Stop::new().unwrap()).unwrap();
        output.push(b"x");
        while !output.shared.state().writing {
            std::thread::yield_now();
        }
        output.push(&vec![b'x'; CAPACITY]);
        let asked = std::cell::Cell::new(0);
        output.wait_for_room(|| asked.replace(asked.get() + 1) == 1);
        assert_eq!(asked.get(), 2, "it waited once");
        drop(go);
    }

    #[test]
    fn a_reader_that_has_gone_does_not_stop_the_guest() {
        let (go, gate) = mpsc::channel();
        drop(go);
        let output = Output::new(Slow(gate, Arc::default()), &Stop::new().unwrap()).unwrap();
        for _ in 0..5 {
            output.wait_for_room(|| false);
            output.push(&vec![b'x'; CAPACITY]);
        }
        output.close();
    }
}
