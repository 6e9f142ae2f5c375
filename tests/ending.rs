//! How a run ends: keys, signals, time. On the host's own /dev/kvm, as far as the firmware; without one, these tests say so and pass.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use common::pty;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::tcgetattr;

/// What SeaBIOS says once it has nothing left to boot from; then it waits for ever.
const NOTHING_TO_BOOT: &str = "No bootable device";

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// `None` where there is no KVM or no firmware.
    fn new() -> Option<Self> {
        let kvm = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if !kvm || kagero::config::default_firmware().is_err() {
            eprintln!("skipped: this takes /dev/kvm and the package seabios");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("empty.img"), vec![0; 1 << 20]).unwrap();
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kagero run` with an empty disk and a report, begun by `starter` if there is one. Nothing runs for more than two minutes.
    fn run(&self, starter: &[&str], flags: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_kagero");
        let words: Vec<&str> = starter.iter().copied().chain([program]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["run", "--memory", "64M", "--disk"]).arg(self.path("empty.img"));
        command.arg("--report").arg(self.path("run.json")).args(flags).env_remove("KAGERO_LOG");
        if !flags.contains(&"--timeout") {
            command.args(["--timeout", "120s"]);
        }
        command
    }

    fn report(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path("run.json")).unwrap()).unwrap()
    }
}

/// What a program shows, piece by piece.
struct Screen<R> {
    from: R,
    /// Shown, and not yet looked for.
    shown: String,
}

impl<R: Read> Screen<R> {
    fn new(from: R) -> Self {
        Self { from, shown: String::new() }
    }

    /// Waits until `text` is shown, after what was waited for before.
    #[track_caller]
    fn see(&mut self, text: &str) {
        while !self.shown.contains(text) {
            assert!(self.more(), "{text:?} is not in {:?}", self.shown);
        }
        let at = self.shown.find(text).unwrap();
        self.shown.drain(..at + text.len());
    }

    /// Waits until the program has ended; gives what it showed meanwhile.
    fn rest(mut self) -> String {
        while self.more() {}
        self.shown
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // A pseudo-terminal whose program has gone gives EIO.
        let count = self.from.read(&mut buffer).unwrap_or(0);
        self.shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
        count > 0
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A run on a terminal: what one types, what one sees.
struct OnTerminal {
    screen: Screen<File>,
    keys: File,
    terminal: OwnedFd,
    child: Child,
}

impl OnTerminal {
    fn start(lab: &Lab) -> Self {
        let (master, terminal) = pty();
        let side = || Stdio::from(terminal.try_clone().unwrap());
        // In a session of its own, with the terminal as its controlling one.
        let mut command = lab.run(&["setsid", "--ctty"], &[]);
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let keys = File::from(master);
        Self { screen: Screen::new(keys.try_clone().unwrap()), keys, terminal, child }
    }

    fn end(mut self) -> (ExitStatus, String) {
        drop(self.terminal);
        let rest = self.screen.rest();
        (self.child.wait().unwrap(), rest)
    }
}

#[test]
fn keys_on_a_terminal() {
    let Some(lab) = Lab::new() else { return };
    let (_master, fresh) = pty();
    let fresh = tcgetattr(&fresh).unwrap();
    let mut run = OnTerminal::start(&lab);
    run.screen.see("SeaBIOS");
    assert_ne!(tcgetattr(&run.terminal).unwrap().local_modes, fresh.local_modes);

    // Ctrl-C is the guest's key, which goes on; help is ours.
    run.keys.write_all(b"\x03\x01h").unwrap();
    run.screen.see("end Kagero");
    run.screen.see(NOTHING_TO_BOOT);
    run.keys.write_all(b"\x01x").unwrap();
    run.screen.see("phase");
    let modes = tcgetattr(&run.terminal).unwrap();
    assert_eq!(modes.local_modes, fresh.local_modes, "the terminal is given back");
    let (status, table) = run.end();
    assert_eq!(status.code(), Some(0));
    assert!(table.contains("firmware"), "{table}");
    assert_eq!(lab.report()["end"]["how"], "quit");
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let Some(lab) = Lab::new() else { return };
    let mut run = OnTerminal::start(&lab);
    run.screen.see("SeaBIOS");
    signal(&run.child, Signal::TERM);
    run.screen.see("phase");
    let (_master, fresh) = pty();
    assert_eq!(tcgetattr(&run.terminal).unwrap().local_modes, tcgetattr(&fresh).unwrap().local_modes);
    assert_eq!(run.end().0.code(), Some(143));
    assert_eq!(lab.report()["end"]["signal"], 15);
}

#[test]
fn ctrl_c_ends_a_run_without_a_terminal() {
    let Some(lab) = Lab::new() else { return };
    let mut command = lab.run(&[], &["--quiet"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    Screen::new(child.stdout.as_mut().unwrap()).see("SeaBIOS");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let report = lab.report();
    assert_eq!(
        (report["end"]["how"].as_str(), report["end"]["exit_code"].as_u64()),
        (Some("signal"), Some(130))
    );
    assert_eq!(report["phases"][0]["name"], "target found");
}

#[test]
fn what_is_expected_ends_a_run_and_the_console_is_in_a_file() {
    let Some(lab) = Lab::new() else { return };
    let console = lab.path("console.log");
    let flags = ["--expect", NOTHING_TO_BOOT, "--quiet", "--console", console.to_str().unwrap()];
    let output = lab.run(&[], &flags).output().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
    assert!(output.stdout.is_empty());
    assert!(read(&console).contains("SeaBIOS"));
    assert_eq!(lab.report()["end"]["how"], "expected");
}

#[test]
fn the_time_out_has_an_exit_code_of_its_own() {
    let Some(lab) = Lab::new() else { return };
    let output =
        lab.run(&[], &["--expect", "never", "--timeout", "500ms", "--console", "none"]).output().unwrap();
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(lab.report()["end"]["how"], "timed-out");
}

#[test]
fn traces_and_logs_are_written() {
    let Some(lab) = Lab::new() else { return };
    let (trace, pcap, log) = (lab.path("trace.txt"), lab.path("run.pcap"), lab.path("bios.log"));
    let mut command =
        lab.run(&[], &["--expect", NOTHING_TO_BOOT, "--console", "none", "--trace-device", "ide-command"]);
    command.arg("--trace").arg(&trace).arg("--pcap").arg(&pcap).arg("--firmware-log").arg(&log);
    assert_eq!(command.output().unwrap().status.code(), Some(0));

    let trace = read(&trace);
    let mut lines = trace.lines().skip(1).peekable();
    assert!(lines.peek().is_some());
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        assert!(words.len() == 7 && words[2] == "ide-command" && words[6].starts_with("0x"), "{line}");
    }
    assert!(std::fs::metadata(pcap).unwrap().len() > 24, "more than a header");
    assert!(read(&log).contains("SeaBIOS"));
}

#[test]
fn a_device_to_trace_that_is_not_there_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let output = lab.run(&[], &["--console", "none", "--trace-device", "uarts"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("--trace-device: there is no device \"uarts\": did you mean \"uart\"?"), "{line}");
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}
