//! `kagero serve` at one end of a cable, and raw frames from the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use kagero_aoe::link::Link;
use kagero_aoe::wire::{self, Address, Ata, Command, Config, Frame, Header, MacAddress};
use kagero_integration::process::Process;
use kagero_link::{PacketLink, packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const DISK: Address = Address { shelf: 7, slot: 1 };

/// Sectors of a disk.
pub(crate) const SECTORS: u32 = 2_048;

/// The server's end of the cable; ours is `kgv1`.
pub(crate) const SERVER: &str = "kgv0";

pub(crate) struct Bed {
    pub(crate) server: Process,
    link: PacketLink,
    /// The server's address, as its first answer says it.
    mac: MacAddress,
    next_tag: u32,
    folder: tempfile::TempDir,
}

/// An answer's frame.
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame::parse(&self.0).unwrap()
    }

    /// The ATA registers and what follows.
    pub(crate) fn ata(&self) -> (Ata, &[u8]) {
        let frame = self.frame();
        assert_eq!((frame.header.command, frame.header.error), (Command::Ata, None));
        Ata::parse(frame.argument).unwrap()
    }

    /// Whether an ATA command went well.
    pub(crate) fn is_done(&self) -> bool {
        self.ata().0.command & 0xa9 == 0
    }
}

impl Bed {
    /// Serves `count` disks, 7.1 and so on. Their sectors begin with the number of the disk and their own.
    pub(crate) fn new(count: u8) -> Bed {
        Self::with(count, "")
    }

    /// As [`Self::new`], with these options for each disk.
    pub(crate) fn with(count: u8, options: &str) -> Bed {
        // Not in /tmp, which may be a file system in memory: its pages are never written anywhere.
        let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
        for slot in 1..=count {
            let sector = |number: u32| [&[slot, 0, 0, 0][..], &number.to_le_bytes(), &[0xaa; 504]].concat();
            // Of many disks, a beginning: the rest is a hole.
            let written = if count == 1 { SECTORS } else { 8 };
            let path = folder.path().join(format!("{slot}.img"));
            fs::write(&path, (0..written).flat_map(sector).collect::<Vec<u8>>()).unwrap();
            File::options().write(true).open(path).unwrap().set_len(u64::from(SECTORS) * 512).unwrap();
        }
        let server = start(folder.path(), count, options);
        let link = PacketLink::open("kgv1", packet::Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let mut bed = Bed { server, link, mac: MacAddress::BROADCAST, next_tag: 0, folder };
        bed.mac = bed.ask(Command::Config, &config(Config::query())).frame().header.source;
        bed
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder.path().join("1.img")
    }

    pub(crate) fn own_mac(&self) -> MacAddress {
        MacAddress(self.link.mac())
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.server.kill().unwrap();
    }

    /// The header of the next request to the first disk.
    pub(crate) fn header(&mut self, command: Command) -> Header {
        self.next_tag += 1;
        Header::request(self.own_mac(), self.mac, DISK, command, self.next_tag)
    }

    pub(crate) fn send(&mut self, header: &Header, argument: &[u8]) {
        let sent = self.link.transmit(|out| {
            wire::encode(out, header, |out| {
                out.get_mut(..argument.len())?.copy_from_slice(argument);
                Some(argument.len())
            })
        });
        assert!(sent, "room for a request");
    }

    /// The next answer to one of these requests, which are by their tags; others are passed over.
    pub(crate) fn answer(&mut self, tags: RangeInclusive<u32>) -> Answer {
        let begin = Instant::now();
        loop {
            if let Some(answer) = self.received(tags.clone()) {
                return answer;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "no answer; the server says: {}",
                self.server.log().last_lines()
            );
            self.waits_for_frame();
        }
    }

    /// The next of these answers, if it has come.
    fn received(&mut self, tags: RangeInclusive<u32>) -> Option<Answer> {
        let mut found = None;
        while found.is_none()
            && self.link.receive(|bytes| {
                let header = Frame::parse(bytes).unwrap().header;
                found = (header.response && tags.contains(&header.tag)).then(|| Answer(bytes.to_vec()));
            })
        {}
        found
    }

    /// Waits a little for a frame; whether there is one.
    pub(crate) fn waits_for_frame(&self) -> bool {
        let a_little = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let mut ready = [PollFd::new(&self.link, PollFlags::IN)];
        poll(&mut ready, Some(&a_little)).unwrap();
        ready[0].revents().contains(PollFlags::IN)
    }

    /// Sends an ATA command again and again until one of them is answered.
    pub(crate) fn ask_until_answered(&mut self, argument: &[u8]) {
        let (begin, first) = (Instant::now(), self.next_tag + 1);
        loop {
            let header = self.header(Command::Ata);
            self.send(&header, argument);
            if self.waits_for_frame() && self.received(first..=header.tag).is_some() {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "no answer; the server says: {}",
                self.server.log().last_lines()
            );
        }
    }

    /// The answer to this.
    pub(crate) fn ask_with(&mut self, header: &Header, argument: &[u8]) -> Answer {
        self.send(header, argument);
        self.answer(header.tag..=header.tag)
    }

    /// The first disk's answer to this.
    pub(crate) fn ask(&mut self, command: Command, argument: &[u8]) -> Answer {
        let header = self.header(command);
        self.ask_with(&header, argument)
    }

    /// The first disk's answer to an ATA command.
    pub(crate) fn ata(&mut self, registers: Ata, data: &[u8]) -> Answer {
        self.ask(Command::Ata, &ata(registers, data))
    }

    /// Asks the first disk for so much that all of it waits when the server looks; the answers, in the order of the requests.
    pub(crate) fn ask_together(&mut self, count: u32, argument: impl Fn(u32) -> Vec<u8>) -> Vec<Answer> {
        self.server.signal(Signal::STOP).unwrap();
        let first = self.next_tag + 1;
        for number in 0..count {
            let header = self.header(Command::Ata);
            self.send(&header, &argument(number));
        }
        self.server.signal(Signal::CONT).unwrap();
        let mut answers = BTreeMap::new();
        while answers.len() < count as usize {
            let answer = self.answer(first..=self.next_tag);
            let tag = answer.frame().header.tag;
            assert!(answers.insert(tag, answer).is_none(), "answered twice");
        }
        answers.into_values().collect()
    }

    /// How often the server's threads have called the kernel to read or to write, since it began (`proc_pid_io`(5)).
    pub(crate) fn reads_and_writes(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.server.pid())).unwrap();
        let of = |name| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        of("syscr:").unwrap() + of("syscw:").unwrap()
    }

    /// Whether the server has an io_uring.
    pub(crate) fn has_ring(&self) -> bool {
        let files = fs::read_dir(format!("/proc/{}/fd", self.server.pid())).unwrap();
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .any(|file| file.ends_with("anon_inode:[io_uring]"))
    }

    /// Reads one sector of the first disk.
    pub(crate) fn read(&mut self, sector: u32) -> Vec<u8> {
        let answer = self.ata(command(0x24, sector, 1), &[]);
        assert!(answer.is_done());
        Ata::data(answer.ata().1, 1).unwrap().to_vec()
    }

    pub(crate) fn write(&mut self, sector: u32, data: &[u8]) {
        let registers = Ata { write: true, ..command(0x34, sector, (data.len() / 512) as u8) };
        assert!(self.ata(registers, data).is_done());
    }

    /// That it is there and serves.
    pub(crate) fn assert_serves(&mut self) {
        assert_eq!(self.read(77)[4..8], 77u32.to_le_bytes());
        assert!(self.server.is_running());
    }
}

fn start(folder: &Path, count: u8, options: &str) -> Process {
    let mut kagero = Program::new(env!("CARGO_BIN_EXE_kagero"));
    kagero.args(["serve", "--interface", SERVER]).env_remove("KAGERO_LOG").current_dir(folder);
    kagero.args((1..=count).map(|slot| format!("7.{slot}={slot}.img{options}")));
    let mut server = Process::start(kagero, &folder.join("log")).unwrap();
    server.expect("serving on", PATIENCE).unwrap();
    server
}

/// Registers of an LBA48 command.
pub(crate) fn command(command: u8, sector: u32, count: u8) -> Ata {
    Ata { extended: true, command, count, lba: Ata::registers(sector.into()), ..Ata::default() }
}

/// The argument of an ATA command.
pub(crate) fn ata(registers: Ata, data: &[u8]) -> Vec<u8> {
    let mut argument = vec![0; wire::ATA_LENGTH];
    registers.encode(&mut argument).unwrap();
    argument.extend(data);
    argument
}

/// The argument of a config query.
pub(crate) fn config(config: Config<'_>) -> Vec<u8> {
    let mut argument = vec![0; wire::CONFIG_LENGTH + config.string.len()];
    config.encode(&mut argument).unwrap();
    argument
}
