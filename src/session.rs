//! What surrounds the machine during a run: its console, its report, its trace, and the ways it may end.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;

use crate::config::RunConfig;
use crate::console::{Attached, Console};
use crate::error::{Error, UserError};
use crate::report::Recorder;
use crate::stop::{Exit, Stop};
use crate::trace::Trace;

/// Handles for the machine; each may be cloned to any thread.
#[derive(Debug)]
pub struct Session {
    /// Ends the run, and tells when somebody else has.
    pub stop: Stop,
    /// Keeps the report.
    pub recorder: Recorder,
    /// The other end of the serial port.
    pub console: Console,
    /// Where register accesses are written down.
    pub trace: Trace,
    /// Where the firmware's messages go.
    pub firmware_log: Option<File>,
}

impl Session {
    /// Makes every file that `config` asks for around the machine, but for the report, which is made at the end.
    ///
    /// # Errors
    /// When a file can't be made.
    pub fn open(config: &RunConfig, stop: Stop, recorder: Recorder) -> Result<Self, Error> {
        let console = Console::open(&config.console, config.expect.as_deref(), &stop, &recorder)?;
        let trace = config.trace.as_ref().map_or_else(|| Ok(Trace::off()), Trace::open)?;
        let firmware_log = config.firmware_log.as_ref().map(create).transpose()?;
        Ok(Self { stop, recorder, console, trace, firmware_log })
    }

    /// Lends the terminal to the guest, when the console is on it; call it when the machine starts, and keep the result while it runs.
    ///
    /// # Errors
    /// When the terminal's modes can't be set.
    pub fn attach(&self, config: &RunConfig) -> Result<Option<Attached>, Error> {
        match config.console {
            crate::config::ConsoleSink::Stdio => {
                Ok(Some(self.console.attach_stdin().context("standard input as the guest's console")?))
            }
            crate::config::ConsoleSink::File(_) | crate::config::ConsoleSink::None => Ok(None),
        }
    }

    /// The run is over: writes out the console and the trace, and the report where it was asked for. The report is there
    /// whatever the `outcome`.
    ///
    /// # Errors
    /// The outcome's own, or that the report could not be written.
    pub fn finish(&self, config: &RunConfig, outcome: Result<Exit, Error>) -> Result<Exit, Error> {
        self.console.close();
        crate::console::terminal::restore();
        self.trace.flush();
        let report = self.recorder.finish(&outcome);
        if tracing::enabled!(tracing::Level::INFO) {
            crate::log::say(report.table());
        }
        let saved = config.report.as_ref().map_or(Ok(()), |path| {
            report.save(path).with_context(|| format!("{}: can't write the report", path.display()))
        });
        match (outcome, saved) {
            (Ok(exit), Ok(())) => Ok(exit),
            (Err(error), Ok(())) => Err(error),
            (Ok(_), Err(error)) => Err(Error::Failure(error)),
            (Err(first), Err(second)) => {
                tracing::error!("{second:#}");
                Err(first)
            }
        }
    }
}

fn create(path: &PathBuf) -> Result<File, UserError> {
    File::create(path).map_err(|error| {
        let problem = format!("can't write the firmware's messages: {error}");
        UserError::new(path.display(), problem, "check the folder's mode")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConsoleSink;

    fn open(config: &RunConfig) -> Session {
        Session::open(config, Stop::new().unwrap(), Recorder::new(config)).unwrap()
    }

    fn config(console: ConsoleSink) -> RunConfig {
        RunConfig { console, expect: Some("login:".into()), ..RunConfig::default() }
    }

    #[test]
    fn what_was_expected_ends_the_run_across_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (log, report) = (folder.path().join("console.log"), folder.path().join("run.json"));
        let config = RunConfig { report: Some(report.clone()), ..config(ConsoleSink::File(log.clone())) };
        let session = open(&config);
        session.console.write(b"Debian GNU/Linux 12 lo");
        assert!(!session.stop.is_requested());
        session.console.write(b"gin: ");
        let outcome = session.stop.take().unwrap();
        assert_eq!(session.finish(&config, outcome).unwrap(), Exit::Expected);

        assert_eq!(std::fs::read(log).unwrap(), b"Debian GNU/Linux 12 login: ");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        assert_eq!(report["end"]["how"], "expected");
        assert_eq!(report["console"]["bytes_out"], 27);
        let names: Vec<_> = report["phases"].as_array().unwrap().iter().map(|phase| &phase["name"]).collect();
        assert_eq!(names, ["login", "expected text"]);
    }

    #[test]
    fn the_report_is_written_also_when_the_run_failed() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("run.json");
        let config = RunConfig { report: Some(report.clone()), ..config(ConsoleSink::None) };
        let session = open(&config);
        let error = session.finish(&config, Err(anyhow::anyhow!("KVM_RUN failed").into())).unwrap_err();
        assert_eq!(error.to_string(), "KVM_RUN failed");
        assert!(std::fs::read_to_string(report).unwrap().contains("KVM_RUN failed"));
    }
}
