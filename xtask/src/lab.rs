//! `cargo xtask lab`: an L1 for people.

use crate::setup;
use anyhow::{Context, Result};
use clap::Args;
use kagero_integration::l1::L1;
use kagero_integration::machines;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// People decide themselves when it is enough.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Files to put into the shared folder, /share
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Programs to put into /bin, besides kagero if it is built
    #[arg(long, value_name = "FILE")]
    program: Vec<PathBuf>,
    /// One command instead of a shell; its exit code becomes ours
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn lab(options: &Options) -> Result<ExitCode> {
    setup::setup()?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("shell");
    let mut builder = machines::with_kagero().unwrap_or_else(|_| L1::builder());
    for program in &options.program {
        builder = builder.program(program);
    }
    let chardev = format!("socket,id=shell,path={},server=on,wait=off", socket.display());
    let l1 = builder.qemu(["-chardev", &chardev, "-serial", "chardev:shell"]).start()?;
    for file in &options.file {
        let name = file.file_name().with_context(|| format!("{}: not a file", file.display()))?;
        kagero_images::disk::copy(file, &l1.share().join(name))?;
    }
    let code = if options.command.is_empty() {
        shell(&l1, &socket)?
    } else {
        {
            let mut job = l1.spawn(&format!("exec 2>&1\n{}", options.command.join(" ")))?;
            job.stream(&mut io::stdout(), A_DAY)? as u8
        }
    };
    l1.power_off()?;
    Ok(ExitCode::from(code))
}

/// A shell on L1's second serial port and on this terminal, until it ends.
fn shell(l1: &L1, socket: &std::path::Path) -> Result<u8> {
    println!(
        "L1 is ready after {:.1} s; `exit` ends it. /share is {}",
        l1.ready_in().as_secs_f64(),
        l1.share().display()
    );
    let port = UnixStream::connect(socket).context("L1's second serial port")?;
    let terminal = Raw::new()?;
    let mut job =
        l1.spawn("export TERM=vt100 HOME=/root; cd /root; exec cttyhack sh -l </dev/ttyS1 >/dev/ttyS1 2>&1")?;
    let (mut from_l1, mut to_l1) = (port.try_clone()?, port);
    std::thread::spawn(move || io::copy(&mut from_l1, &mut Unbuffered(io::stdout())));
    std::thread::spawn(move || {
        let mut byte = [0];
        while io::stdin().read(&mut byte).is_ok_and(|count| count == 1) && to_l1.write_all(&byte).is_ok() {}
    });
    let code = job.stream(&mut io::sink(), A_DAY)?;
    // What is still on its way through the serial port.
    std::thread::sleep(Duration::from_millis(100));
    drop(terminal);
    println!();
    Ok(code as u8)
}

struct Unbuffered<W>(W);

impl<W: Write> Write for Unbuffered<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.0.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The terminal in raw mode, until it is dropped. Nothing where standard input is no terminal.
struct Raw(Option<Termios>);

impl Raw {
    fn new() -> Result<Raw> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(Raw(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
