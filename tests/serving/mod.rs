//! `kagero serve` and `kagero target` in a folder and on a cable of a test's own.
#![allow(dead_code)] // Not all of it in every test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kagero_aoe::link::Link;
use kagero_aoe::wire::{self, Address, Config, ConfigCommand, Frame, Header, MacAddress};
use kagero_link::{PacketLink, packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const DISK: Address = Address { shelf: 7, slot: 1 };

/// Nothing here may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with two images of 1 MiB, a place for settings, and a control socket once somebody serves.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self::on(&std::env::temp_dir())
    }

    /// One in a folder.
    pub(crate) fn on(folder: &Path) -> Self {
        let place = Self(tempfile::tempdir_in(folder).unwrap());
        for image in ["a.img", "b.img"] {
            File::create(place.path(image)).unwrap().set_len(1 << 20).unwrap();
        }
        fs::create_dir(place.path("state")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kagero"));
        command.args(words.split(' ')).current_dir(self.0.path()).env_remove("KAGERO_LOG");
        command.stdin(Stdio::null());
        command
    }

    /// `kagero serve` of `a.img`, once it serves.
    pub(crate) fn serve(&self, more: &str) -> Serving {
        let words = "serve --interface kgv0 --state state --control c.sock 7.1=a.img";
        self.start(self.command(format!("{words} {more}").trim_end()))
    }

    pub(crate) fn start(&self, mut command: Command) -> Serving {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let serves = lines.any(|line| line.starts_with("serving on "));
        let mut serving = Serving(child);
        assert!(serves, "{}", serving.said());
        serving
    }

    /// `kagero target`, which does what it is told; its standard output.
    #[track_caller]
    pub(crate) fn target(&self, words: &str) -> String {
        let Output { status, stdout, stderr } = self.asked(words);
        assert_eq!((String::from_utf8_lossy(&stderr), status.code()), ("".into(), Some(0)), "{words}");
        String::from_utf8(stdout).unwrap()
    }

    pub(crate) fn asked(&self, words: &str) -> Output {
        self.command(&format!("target --control c.sock {words}")).output().unwrap()
    }

    /// `kagero` with these words says this line and exits with 2.
    #[track_caller]
    pub(crate) fn refused(&self, words: &str, line: &str) {
        // A server that doesn't mind would serve for ever.
        let mut command = Command::new("timeout");
        command.arg("30").arg(env!("CARGO_BIN_EXE_kagero")).args(words.split(' '));
        command.current_dir(self.0.path()).env_remove("KAGERO_LOG").stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().unwrap();
        let line = format!("kagero: {}\n", line.replace('@', self.0.path().to_str().unwrap()));
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!((&*said, &*stdout, status.code()), (&*line, &b""[..], Some(2)), "{words}");
    }

    pub(crate) fn json(&self, words: &str) -> serde_json::Value {
        serde_json::from_str(&self.target(words)).unwrap()
    }
}

pub(crate) struct Serving(pub(crate) Child);

impl Serving {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Ends by SIGTERM; its exit code and what it said on standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        self.signal(Signal::TERM);
        let said = self.said();
        (self.0.wait().unwrap().code(), said)
    }

    /// What it says on standard error until it ends.
    pub(crate) fn said(&mut self) -> String {
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn link() -> PacketLink {
    PacketLink::open("kgv1", packet::Options::default()).unwrap()
}

/// Sets the configuration string, as often as it takes to be told that it is set.
pub(crate) fn set_config(link: &mut PacketLink, string: &[u8]) {
    let mac = MacAddress(link.mac());
    for tag in 0x6b00_0000..0x6b00_0064 {
        let header = Header::request(mac, MacAddress::BROADCAST, DISK, wire::Command::Config, tag);
        let query = Config { command: ConfigCommand::ForceSet, string, ..Config::query() };
        link.transmit(|out| wire::encode(out, &header, |out| query.encode(out)));
        let mut answered = false;
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        while !answered && poll(&mut [PollFd::new(&*link, PollFlags::IN)], Some(&patience)).unwrap() > 0 {
            while link.receive(|frame| {
                let Frame { header, argument } = Frame::parse(frame).unwrap();
                if header.response && header.tag == tag {
                    assert_eq!(Config::parse(argument).unwrap().string, string);
                    answered = true;
                }
            }) {}
        }
        if answered {
            return;
        }
    }
    panic!("no answer");
}
