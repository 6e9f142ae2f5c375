//! Processes on L0 that never outlive the test.

use crate::child::die_with_parent;
use crate::transcript::{POLL, Transcript};
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running process whose output goes to a log file. Dropping it kills it and waits for its end; it is also
/// killed when the thread that started it ends, so keep that thread.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Transcript,
}

impl Process {
    /// Starts `command` with standard output and error going to `log`. Standard input is a pipe; see [`Self::input`].
    ///
    /// # Errors
    /// The program is missing (with the mend) or can't be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = File::create(log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => anyhow!("{name}: not installed; run `cargo xtask setup`"),
            _ => anyhow::Error::new(e).context(name.clone()),
        })?;
        Ok(Process { name, child, log: Transcript::new(log) })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it writes.
    pub fn log(&mut self) -> &mut Transcript {
        &mut self.log
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// It no longer reads.
    pub fn input(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("standard input is closed")?;
        stdin
            .write_all(bytes)
            .and_then(|()| stdin.flush())
            .with_context(|| format!("typing to {}", self.name))
    }

    /// Waits until it writes `needle`; see [`Transcript::expect`].
    ///
    /// # Errors
    /// It ends before, or doesn't write it within `patience`.
    pub fn expect(&mut self, needle: &str, patience: Duration) -> Result<String> {
        let (child, name) = (&mut self.child, &self.name);
        self.log
            .expect(needle, patience, || matches!(child.try_wait(), Ok(None)))
            .with_context(|| name.clone())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `patience`; it goes on running.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {patience:?}; last: {}", self.name, self.log.last_lines());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // try_wait first: the id of a child that was waited for may belong to another process by now.
        if !self.is_running() {
            bail!("{} has ended already; last: {}", self.name, self.log.last_lines());
        }
        let pid = Pid::from_raw(self.child.id() as i32).context("process id")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// It has ended already.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
