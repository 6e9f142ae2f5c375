//! A folder with a guest and its disk, and Kagero to run them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kagero_integration::process::Process;
use kagero_integration::{guest, smoke};
use serde_json::Value;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Sectors of a [`Lab::disk`].
const SECTORS: u32 = 16_384;

pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: Value,
}

impl Lab {
    /// `None` where KVM runs no guest; that is said and counted.
    pub(crate) fn new() -> Option<Lab> {
        static KVM: OnceLock<Result<(), String>> = OnceLock::new();
        static SKIPPED: AtomicU32 = AtomicU32::new(0);
        let works = || match smoke::run(3) {
            Ok(3) => Ok(()),
            Ok(other) => Err(format!("of 3 writes {other} arrived")),
            Err(error) => Err(format!("{error:#}")),
        };
        if let Err(why) = KVM.get_or_init(works) {
            let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
            say(&format!("skipped ({count} so far): no guest runs on /dev/kvm: {why}\n"));
            return None;
        }
        Some(Lab { folder: tempfile::tempdir().unwrap() })
    }

    /// As [`new`](Self::new), for guests that need SeaBIOS too.
    pub(crate) fn with_bios() -> Option<Lab> {
        let lab = Lab::new()?;
        if let Err(error) = kagero::config::default_firmware() {
            say(&format!("skipped: {error}\n"));
            return None;
        }
        Some(lab)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Assembles a guest that is its own firmware.
    pub(crate) fn firmware(&self, name: &str, symbols: &[(&str, u32)]) -> PathBuf {
        guest::firmware(name, symbols, self.folder.path()).unwrap()
    }

    /// Assembles a guest that the BIOS loads.
    pub(crate) fn boot_sectors(&self, name: &str) -> Vec<u8> {
        guest::boot_sectors(name, &[], self.folder.path()).unwrap()
    }

    /// A disk of 8 MiB, whose sector n begins with the number n, and whose second halves of sectors begin with 100h.
    pub(crate) fn disk(&self) -> PathBuf {
        let path = self.path("disk.img");
        let sector = |number: u32| {
            let mut sector = [0; 512];
            sector[..4].copy_from_slice(&number.to_le_bytes());
            sector[256..258].copy_from_slice(&[0, 1]);
            sector
        };
        fs::write(&path, (0..SECTORS).flat_map(sector).collect::<Vec<u8>>()).unwrap();
        path
    }

    /// `kagero run` with this disk and a report. Nothing runs for more than a minute.
    pub(crate) fn run(&self, disk: &Path, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kagero"));
        command.args(["run", "--quiet", "--disk"]).arg(disk).arg("--report").arg(self.path("run.json"));
        command.args(flags).env_remove("KAGERO_LOG").stdin(Stdio::null());
        for (flag, value) in [("--memory", "64M"), ("--timeout", "60s")] {
            if !flags.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command
    }

    /// Runs the firmware guest `name` on a [`disk`](Self::disk) to its end.
    pub(crate) fn guest(&self, name: &str, flags: &[&str]) -> Ended {
        let firmware = self.firmware(name, &[]);
        let mut command = self.run(&self.disk(), flags);
        command.arg("--firmware").arg(firmware);
        self.ended(command)
    }

    /// Runs a command to its end.
    pub(crate) fn ended(&self, mut command: Command) -> Ended {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            report: self.report(),
        }
    }

    /// Starts the firmware guest `name` with a [`disk`](Self::disk), to type to it and watch it.
    pub(crate) fn start(&self, name: &str, flags: &[&str]) -> Process {
        let firmware = self.firmware(name, &[]);
        let mut command = self.run(&self.disk(), flags);
        command.arg("--firmware").arg(firmware);
        Process::start(command, &self.path("console.log")).unwrap()
    }

    /// What `--report` says; nothing when it is not there.
    pub(crate) fn report(&self) -> Value {
        let bytes = fs::read(self.path("run.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

/// Past the test harness, which shows nothing of tests that pass.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

impl Ended {
    /// Asserts that the guest switched itself off after it had said this.
    #[track_caller]
    pub(crate) fn said(&self, text: &str) {
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), (text, ""));
        assert_eq!((self.code, self.report["end"]["how"].as_str()), (Some(0), Some("power-off")));
    }
}
