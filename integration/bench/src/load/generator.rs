//! The load generator as its parent sees it.

use anyhow::{Context, Result, bail};
use kagero_integration::network::Namespace;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::{Outcome, Slice};

/// What a load generator reads from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) exports: usize,
    /// Of each export.
    pub(crate) sectors: u64,
    pub(crate) stations: usize,
    /// Frames that every second station writes before it reads.
    pub(crate) writes: u64,
}

/// A load generator's process. It ends when this is dropped, or when we end and its standard input with us.
pub(crate) struct Generator {
    child: Child,
    // Closed before the wait for its end, in `drop`.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Generator {
    /// Starts one in the namespace; it looks for its disks, and then waits.
    pub(crate) fn start(client: &Namespace, interface: &str, shape: Shape) -> Result<Self> {
        let mut command = client.command(std::env::current_exe().context("our own program")?);
        command.args(["load", "--interface", interface]);
        let numbers = [
            ("--exports", shape.exports as u64),
            ("--sectors", shape.sectors),
            ("--stations", shape.stations as u64),
            ("--writes", shape.writes),
        ];
        for (flag, number) in numbers {
            command.arg(flag).arg(number.to_string());
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().context("the load generator")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the load generator's output")?);
        Ok(Generator { child, input, output })
    }

    /// Has it read for a while.
    pub(crate) fn read(&mut self, slice: Slice) -> Result<Outcome> {
        let mut ask = || -> Option<String> {
            writeln!(self.input.as_mut()?, "{}", serde_json::to_string(&slice).ok()?).ok()?;
            let mut line = String::new();
            self.output.read_line(&mut line).ok().filter(|length| *length > 0)?;
            Some(line)
        };
        match ask() {
            Some(line) => serde_json::from_str(&line).context("the load generator's outcome"),
            None => {
                let mut why = String::new();
                if let Some(mut said) = self.child.stderr.take() {
                    said.read_to_string(&mut why)?;
                }
                bail!("{}", why.trim());
            }
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
