//! Frames from anyone at a whole server, with images below it: it lives, answers whom it should, and keeps nothing of them.
//!
//! `cargo xtask fuzz-frames` sends ten million.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kagero_aoe::link::Link;
use kagero_aoe::wire::{Address, Command, Frame, MIN_FRAME, MacAddress};
use kagero_devices::toy::Rng;
use kagero_fuzz::{SERVER, target_frame};
use kagero_link::{MemoryLink, memory};
use kagero_target::{Access, Image, Overlays, Running, Server};

const RAW: Address = Address { shelf: 7, slot: 0 };
const READ_ONLY: Address = Address { shelf: 7, slot: 1 };
const OVERLAYS: Address = Address { shelf: 7, slot: 2 };

/// Stations that send. Each gets an overlay.
const CLIENTS: u8 = 4;

fn client(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// Frames that are sent before we look whether they have come.
const BATCH: u64 = 16;

/// Frames after which the clients let each other in again: sooner or later every list of stations keeps them all out.
const RELEASE: u64 = 64;

/// What a process has grown to. Memory that was freed comes back to it sooner or later, and so it is never quite the same.
const SLACK: u64 = 2 << 20;

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn now() -> Held {
        let pages: u64 =
            fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let entries = |folder| fs::read_dir(folder).unwrap().count();
        Held {
            memory: pages * rustix::param::page_size() as u64,
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
        }
    }
}

/// Files below a server. In memory: a flush of a disk takes longer than a thousand frames.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let files = Files(tempfile::Builder::new().prefix("kagero-fuzz-").tempdir_in(folder).unwrap());
        for (name, sectors) in [("raw", 1_000), ("read-only", 20), ("base", 1_200)] {
            fs::write(files.path(name), vec![0x5a; sectors * 512]).unwrap();
        }
        fs::create_dir(files.path("overlays")).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn server(&self) -> Server {
        let mut server = Server::new();
        server.export(RAW, &self.path("raw"), Access::ReadWrite).unwrap();
        server.export(READ_ONLY, &self.path("read-only"), Access::ReadOnly).unwrap();
        let base = Image::open(&self.path("base"), Access::ReadOnly).unwrap();
        server.export_overlays(OVERLAYS, Overlays::open(base, self.path("overlays")).unwrap()).unwrap();
        server
    }
}

/// A network's end, and what was asked there lately.
struct Flood {
    link: MemoryLink,
    running: Running,
    rng: Rng,
    sent: u64,
    answers: u64,
    /// Sender and tag of the frames of this batch and of the last.
    asked: [HashSet<(MacAddress, u32)>; 2],
}

impl Flood {
    fn start(files: &Files, mtu: usize, seed: u64) -> Flood {
        let options = memory::Options { mtu, macs: [client(0), SERVER.0], ..Default::default() };
        let (link, end) = MemoryLink::pair(options).unwrap();
        let running = Running::start(files.server(), vec![end]).unwrap();
        Flood { link, running, rng: Rng::new(seed), sent: 0, answers: 0, asked: Default::default() }
    }

    fn send(&mut self, frame: &[u8]) {
        if let Ok(Frame { header, .. }) = Frame::parse(frame) {
            self.asked[0].insert((header.source, header.tag));
        }
        let sent = self.link.transmit(|out| {
            let length = frame.len().min(out.len());
            out[..length].copy_from_slice(&frame[..length]);
            Some(length)
        });
        assert!(sent);
        self.sent += 1;
    }

    /// One that is made up. It is from one of so many senders only, since each further one would have a file of its own; and lists of
    /// stations name no others, since nobody could let these clients in again.
    fn send_any(&mut self) {
        let mut frame = loop {
            let length = 40 + self.rng.below(200) as usize;
            let frame = target_frame(&self.rng.bytes(length));
            // Most of these do nothing but keep the others' requests from the disk.
            let is_list = matches!(frame.get(19), Some(2 | 3));
            if !is_list || self.rng.below(16) == 0 {
                break frame;
            }
        };
        if let Some(source) = frame.get_mut(6..12) {
            source.copy_from_slice(&client(self.rng.below(CLIENTS.into()) as u8));
        }
        // A broadcast reaches no disk, and most of the others are not there.
        if let Some(address) = frame.get_mut(16..19)
            && self.rng.below(4) > 0
        {
            address.copy_from_slice(&[0, 7, [RAW, OVERLAYS][self.rng.below(2) as usize].slot]);
        }
        if let Some((2, directives)) = frame.split_at_mut_checked(28).map(|(head, rest)| (head[19], rest)) {
            for directive in directives.chunks_exact_mut(8) {
                let mac = client(directive[7] % CLIENTS);
                directive[2..].copy_from_slice(&mac);
            }
        }
        self.send(&frame);
    }

    /// Takes every station off the mask lists, and ends reservations.
    fn release(&mut self) {
        for own in 0..CLIENTS {
            let request = |command, argument: &[u8]| {
                let header = [0x88, 0xa2, 0x10, 0, 0xff, 0xff, 0xff, command, 0, 0, 0, own];
                [&SERVER.0, &client(own), &header[..], argument].concat()
            };
            // Only who is on the list may change it, and so takes itself off last.
            let others_first = (0..CLIENTS).filter(|&other| other != own).chain([own]);
            let directives = others_first.flat_map(|other| [&[0, 2], &client(other)[..]].concat());
            let edit = [0, 1, 0, CLIENTS].into_iter().chain(directives);
            self.send(&request(2, &edit.collect::<Vec<u8>>()));
            self.send(&request(3, &[2, 0]));
        }
    }

    /// Waits until all frames have come, and looks at the answers.
    fn settle(&mut self) {
        let begin = Instant::now();
        while self.running.counters().frames < self.sent {
            assert!(begin.elapsed() < Duration::from_secs(60), "it is stuck: {:?}", self.running.counters());
            self.take_answers();
            std::thread::yield_now();
        }
        self.take_answers();
        self.asked.swap(0, 1);
        self.asked[0].clear();
    }

    fn take_answers(&mut self) {
        let Flood { link, asked, answers, .. } = self;
        let longest = link.mtu() + 14;
        while link.receive(|bytes| {
            let Frame { header, .. } = Frame::parse(bytes).expect("an AoE frame");
            assert!((MIN_FRAME..=longest).contains(&bytes.len()));
            assert!(header.response && header.version == 1 && header.source == SERVER, "{header:?}");
            assert!([RAW, READ_ONLY, OVERLAYS].contains(&header.address), "{header:?}");
            if header.destination == MacAddress::BROADCAST {
                assert_eq!(
                    (header.command, header.tag, header.error),
                    (Command::Config, 0, None),
                    "told at the start"
                );
            } else {
                let asker = (header.destination, header.tag);
                assert!(asked.iter().any(|asked| asked.contains(&asker)), "nobody asked: {header:?}");
                *answers += 1;
            }
        }) {}
    }

    /// Sends so many frames.
    fn run(&mut self, frames: u64) {
        let end = self.sent + frames;
        let mut release = self.sent;
        while self.sent < end {
            if self.sent >= release {
                self.release();
                self.settle();
                release += RELEASE;
            }
            for _ in 0..BATCH {
                self.send_any();
            }
            self.settle();
        }
    }
}

/// Sends `count` frames, a fifth of them to warm up.
fn fuzz(count: u64) {
    let files = Files::new();
    let begin = Instant::now();
    let (mut sent, mut answers, mut jobs, mut warm) = (0, 0, 0, None);
    for (round, mtu) in (0..10).zip([1500, 9000].into_iter().cycle()) {
        let mut flood = Flood::start(&files, mtu, round);
        flood.run(count.div_ceil(10));
        (sent, answers) = (sent + flood.sent, answers + flood.answers);
        let counters = flood.running.counters();

        jobs += counters.reads + counters.writes + counters.flushes;
        assert!(counters.reads > 0 && counters.writes > 0 && counters.flushes > 0 && counters.errors > 0);
        let Flood { link, running, .. } = flood;
        running.stop().unwrap();
        drop(link);
        // Once both MTUs have been there.
        if round == 1 {
            warm = Some(Held::now());
        }
    }
    let (warm, after) = (warm.unwrap(), Held::now());
    println!(
        "{sent} frames, {answers} answers, {jobs} reads, writes and flushes, {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    println!("after a fifth: {warm:?}; at the end: {after:?}");
    assert!(answers > sent / 4, "{answers} answers to {sent} frames: they are hardly looked at");
    assert!(after.memory <= warm.memory + SLACK, "{warm:?} became {after:?}");
    assert_eq!((after.descriptors, after.threads), (warm.descriptors, warm.threads));
    for name in ["read-only", "base"] {
        assert!(
            fs::read(files.path(name)).unwrap().iter().all(|&byte| byte == 0x5a),
            "{name} was written to"
        );
    }
    assert_eq!(fs::read_dir(files.path("overlays")).unwrap().count(), usize::from(CLIENTS));
}

#[test]
fn a_hundred_thousand_frames_do_no_harm() {
    fuzz(100_000);
}

#[test]
#[ignore = "for `cargo xtask fuzz-frames`: takes minutes"]
fn as_many_frames_as_asked_for_do_no_harm() {
    let count = std::env::var("KAGERO_FUZZ_FRAMES").ok().and_then(|count| count.parse().ok());
    fuzz(count.expect("KAGERO_FUZZ_FRAMES: a number of frames"));
}
