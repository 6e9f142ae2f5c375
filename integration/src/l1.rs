//! L1: the emulated machine in which Kagero runs.
//!
//! L0 and L1 share a folder over 9p, and L0 sends commands to a small agent in L1 over a virtio port. Programs in L1 write
//! their output straight into the shared folder, so L0 can watch it grow, and it is still there when L1 has died.

mod builder;
mod control;

pub use builder::Builder;

use crate::folder::Folder;
use crate::process::Process;
use crate::transcript::{POLL, Transcript};
use anyhow::{Context, Result, bail, ensure};
use control::Control;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The shared folder as L1 sees it.
pub const SHARE: &str = "/share";

/// A running L1. Dropping it kills its QEMU.
#[derive(Debug)]
pub struct L1 {
    qemu: Process,
    control: Control,
    folder: Folder,
    ready_in: Duration,
    retries: u32,
    next_job: AtomicU32,
}

/// How a command in L1 ended and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 128 and the signal's number when it was killed.
    pub code: i32,
    /// Standard output; what is not UTF-8 is replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl L1 {
    /// What an L1 can be given before it starts.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The shared folder as L0 sees it; in L1 it is [`SHARE`].
    pub fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    /// How long it took from starting QEMU to the agent's first word.
    pub fn ready_in(&self) -> Duration {
        self.ready_in
    }

    /// How many L1s stalled at their start before this one.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The serial console of L1: its kernel's messages.
    pub fn console(&mut self) -> &mut Transcript {
        self.qemu.log()
    }

    /// QEMU's process id on L0.
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// Whether it still lives.
    ///
    /// # Errors
    /// It died; the error holds its console's last lines.
    pub fn check(&self) -> Result<()> {
        ensure!(self.control.is_connected(), "L1 died; {}", self.last_words());
        Ok(())
    }

    /// Runs a shell script in L1 to its end.
    ///
    /// # Errors
    /// L1 died, or the script still runs after `patience`; then it is killed. That it fails is no error here: see
    /// [`Output::code`] and [`Output::success`].
    pub fn run(&self, script: &str, patience: Duration) -> Result<Output> {
        self.start(script, false)?.wait(patience)
    }

    /// Starts a shell script in L1 and leaves it running.
    ///
    /// # Errors
    /// L1 died.
    pub fn spawn(&self, script: &str) -> Result<Job<'_>> {
        self.start(script, false)
    }

    /// As [`Self::spawn`], with a standard input for [`Job::input`].
    ///
    /// # Errors
    /// L1 died.
    pub fn spawn_typed(&self, script: &str) -> Result<Job<'_>> {
        self.start(script, true)
    }

    /// Powers L1 off, and waits for QEMU's end.
    ///
    /// # Errors
    /// It does not end within 20 s, or QEMU fails.
    pub fn power_off(mut self) -> Result<()> {
        self.control.send("off")?;
        let status = self.qemu.wait(Duration::from_secs(20)).context("power-off of L1")?;
        if !status.success() {
            bail!("QEMU ended with {status}: {}", self.qemu.log().last_lines());
        }
        Ok(())
    }

    fn start(&self, script: &str, typed: bool) -> Result<Job<'_>> {
        let number = self.next_job.fetch_add(1, Ordering::Relaxed);
        let folder = self.share().join(format!("jobs/{number}"));
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        fs::write(folder.join("script"), script)?;
        for log in ["stdout", "stderr"] {
            fs::write(folder.join(log), "")?;
        }
        self.control.send(&format!("start {number} {}", if typed { "typed" } else { "" }))?;
        let pid = self.control.wait(Duration::from_secs(20), |jobs| jobs.get(&number)?.pid);
        let pid = pid.with_context(|| format!("starting job {number} in L1"))?;
        let (stdout, stderr) =
            (Transcript::new(folder.join("stdout")), Transcript::new(folder.join("stderr")));
        Ok(Job { l1: self, number, pid, stdout, stderr })
    }
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// The standard output of a script that had to succeed.
    ///
    /// # Errors
    /// It failed; the error says how.
    pub fn expect_success(self) -> Result<String> {
        if self.code != 0 {
            let said = format!("{}\n{}", self.stdout, self.stderr);
            bail!("exit code {}: {}", self.code, kagero_images::command::last_lines(&said, 8));
        }
        Ok(self.stdout)
    }
}

/// A script that was started in L1. Dropping it leaves it running.
#[derive(Debug)]
pub struct Job<'a> {
    l1: &'a L1,
    number: u32,
    pid: u32,
    stdout: Transcript,
    stderr: Transcript,
}

impl Job<'_> {
    /// The shell's process id in L1, which is also its process group's and its session's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it writes to standard output.
    pub fn stdout(&mut self) -> &mut Transcript {
        &mut self.stdout
    }

    /// What it writes to standard error.
    pub fn stderr(&mut self) -> &mut Transcript {
        &mut self.stderr
    }

    /// The exit code, when it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        self.l1.control.peek(|jobs| jobs.get(&self.number)?.code)
    }

    /// Waits until it writes `needle` to standard output; see [`Transcript::expect`].
    ///
    /// # Errors
    /// It or L1 ends before, or doesn't write it within `patience`.
    pub fn expect(&mut self, needle: &str, patience: Duration) -> Result<String> {
        let (control, number) = (&self.l1.control, self.number);
        let alive = || control.is_connected() && control.peek(|jobs| jobs.get(&number)?.code).is_none();
        let stderr = &self.stderr;
        self.stdout
            .expect(needle, patience, alive)
            .with_context(|| format!("stderr: {}", stderr.last_lines()))
    }

    /// Writes to the standard input of a job from [`L1::spawn_typed`].
    ///
    /// # Errors
    /// L1 died.
    pub fn input(&self, bytes: &[u8]) -> Result<()> {
        // Well below what the agent's shell takes in a line, and a pipe takes at once.
        bytes.chunks(1024).try_for_each(|chunk| {
            self.l1.control.send(&format!("type {} {}", self.number, control::base64(chunk)))
        })
    }

    /// Copies what it writes to standard output to `out` as it comes, until it ends. Returns the exit code.
    ///
    /// # Errors
    /// L1 died, it still runs after `patience` (then it is killed), or `out` can't be written to.
    pub fn stream(&mut self, out: &mut impl Write, patience: Duration) -> Result<i32> {
        let deadline = Instant::now() + patience;
        loop {
            // Asked before the look, so that its last words are copied too.
            let ended = self.exit_code();
            out.write_all(&self.stdout.rest())?;
            out.flush()?;
            match ended {
                Some(code) => return Ok(code),
                None if Instant::now() > deadline => {
                    return self.wait(Duration::ZERO).map(|output| output.code);
                }
                None => self.l1.check()?,
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal, such as "KILL", to the script and all that it started.
    ///
    /// # Errors
    /// L1 died, or there is nothing to signal any more.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let kill = self.l1.run(&format!("kill -{signal} -{}", self.pid), Duration::from_secs(20))?;
        kill.expect_success().map(drop).with_context(|| format!("signalling job {}", self.number))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// L1 died, or it still runs after `patience`; then it is killed.
    pub fn wait(&mut self, patience: Duration) -> Result<Output> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(code) = self.exit_code() {
                return Ok(Output { code, stdout: self.stdout.text(), stderr: self.stderr.text() });
            }
            let last =
                || format!("stdout: {}; stderr: {}", self.stdout.last_lines(), self.stderr.last_lines());
            if !self.l1.control.is_connected() {
                bail!("L1 died while it ran job {}; {}; {}", self.number, last(), self.l1.last_words());
            }
            if Instant::now() > deadline {
                let said = last();
                let _ = self.signal("KILL");
                bail!("job {} in L1 still ran after {patience:?}; {said}", self.number);
            }
            std::thread::sleep(POLL);
        }
    }
}

impl L1 {
    fn last_words(&self) -> String {
        format!("its console: {}", Transcript::new(self.folder.path().join("console.log")).last_lines())
    }
}
