//! The line to the agent in L1.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the agent has said about a job.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub(super) pid: Option<u32>,
    pub(super) code: Option<i32>,
}

pub(super) type Jobs = HashMap<u32, Job>;

#[derive(Debug, Default)]
struct State {
    ready: bool,
    closed: bool,
    jobs: Jobs,
}

/// A connection to the agent; a thread reads what it says.
#[derive(Debug)]
pub(super) struct Control {
    stream: Mutex<UnixStream>,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Control {
    /// Where QEMU is to connect its virtio port.
    pub(super) fn listen(path: &Path) -> Result<UnixListener> {
        let listener = UnixListener::bind(path).with_context(|| format!("{}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Waits for QEMU to connect; `alive` says whether it still runs.
    pub(super) fn accept(listener: &UnixListener, mut alive: impl FnMut() -> bool) -> Result<Control> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(e).context("control port");
                }
                Err(_) if !alive() => bail!("QEMU ended at once"),
                Err(_) if Instant::now() > deadline => bail!("QEMU did not open its control port"),
                Err(_) => std::thread::sleep(crate::transcript::POLL),
            }
        };
        stream.set_nonblocking(false)?;
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (reader, of_reader) = (BufReader::new(stream.try_clone()?), shared.clone());
        std::thread::spawn(move || listen_to_agent(reader, &of_reader));
        Ok(Control { stream: Mutex::new(stream), shared })
    }

    /// Waits for the agent's first word.
    pub(super) fn wait_ready(&self, patience: Duration) -> Result<()> {
        self.wait_state(patience, |state| state.ready.then_some(())).context("L1 is not ready")
    }

    /// Sends one line.
    pub(super) fn send(&self, line: &str) -> Result<()> {
        let mut stream = lock(&self.stream);
        stream.write_all(format!("{line}\n").as_bytes()).context("L1 is gone")
    }

    /// Whether QEMU still holds its end.
    pub(super) fn is_connected(&self) -> bool {
        !lock(&self.shared.0).closed
    }

    /// Looks at the jobs.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&Jobs) -> Option<T>) -> Option<T> {
        look(&lock(&self.shared.0).jobs)
    }

    /// Waits until `look` finds something among the jobs.
    pub(super) fn wait<T>(&self, patience: Duration, look: impl Fn(&Jobs) -> Option<T>) -> Result<T> {
        self.wait_state(patience, |state| look(&state.jobs))
    }

    fn wait_state<T>(&self, patience: Duration, look: impl Fn(&State) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.shared.0);
        loop {
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            if state.closed {
                bail!("L1 is gone");
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("no answer within {patience:?}");
            };
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen_to_agent(reader: BufReader<UnixStream>, shared: &(Mutex<State>, Condvar)) {
    for line in reader.lines().map_while(Result::ok) {
        hear(&line, &mut lock(&shared.0));
        shared.1.notify_all();
    }
    lock(&shared.0).closed = true;
    shared.1.notify_all();
}

fn hear(line: &str, state: &mut State) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["ready"] => state.ready = true,
        ["started", job, pid] => {
            if let (Ok(job), Ok(pid)) = (job.parse(), pid.parse()) {
                state.jobs.entry(job).or_default().pid = Some(pid);
            }
        }
        ["exit", job, code] => {
            if let (Ok(job), Ok(code)) = (job.parse(), code.parse()) {
                state.jobs.entry(job).or_default().code = Some(code);
            }
        }
        _ => eprintln!("lab: the agent in L1 says: {line}"),
    }
}

/// RFC 4648, section 4.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("root\n", "cm9vdAo="),
        ];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn the_agent_is_understood() {
        let mut state = State::default();
        for line in ["ready", "started 3 77", "exit 3 137", "exit x y"] {
            hear(line, &mut state);
        }
        assert!(state.ready);
        assert_eq!((state.jobs[&3].pid, state.jobs[&3].code), (Some(77), Some(137)));
    }
}
