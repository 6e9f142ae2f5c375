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

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Bytes that are its own, and not a file's.
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn now() -> Held {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB"));
        let entries = |folder| fs::read_dir(folder).unwrap().count();
        Held {
            memory: memory.unwrap().trim().parse::<u64>().unwrap() << 10,
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
        let server = Server::new();
        server.export(RAW, &self.path("raw"), Access::ReadWrite).unwrap();
        server.export(READ_ONLY, &self.path("read-only"), Access::ReadOnly).unwrap();
        let base = Image::open(&self.path("base"), Access::ReadOnly).unwrap();
        server.export_overlays(OVERLAYS, Overlays::open(base, self.path("overlays")).unwrap()).unwrap();
        server
    }
}

/// Two networks' ends, for small frames and for large ones, and what was asked there.
struct Flood {
    links: [MemoryLink; 2],
    running: Running,
    rng: Rng,
    sent: u64,
    answers: u64,
    /// Tags of requests without whose answers it does not go on.
    awaited: HashSet<u32>,
}

impl Flood {
    fn start(files: &Files) -> Flood {
        let cable = |mtu| {
            let options = memory::Options { mtu, macs: [client(0), SERVER.0], ..Default::default() };
            MemoryLink::pair(options).unwrap()
        };
        let ((small, there), (large, there_too)) = (cable(1500), cable(9000));
        let running = Running::start(files.server(), vec![there, there_too]).unwrap();
        let (links, rng) = ([small, large], Rng::new(7));
        Flood { links, running, rng, sent: 0, answers: 0, awaited: HashSet::new() }
    }

    /// Sends a frame as this client's. The tag it gets, if it has one, says when and from whom it was sent.
    fn send(&mut self, link: usize, number: u8, frame: &mut [u8]) -> u32 {
        let tag = (self.sent as u32 * u32::from(CLIENTS) + u32::from(number)).reverse_bits();
        if let Some(source) = frame.get_mut(6..12) {
            source.copy_from_slice(&client(number));
        }
        if let Some(place) = frame.get_mut(20..24) {
            place.copy_from_slice(&tag.to_be_bytes());
        }
        let sent = self.links[link].transmit(|out| {
            let length = frame.len().min(out.len());
            out[..length].copy_from_slice(&frame[..length]);
            Some(length)
        });
        assert!(sent);
        self.sent += 1;
        tag
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
        let (link, number) = (self.rng.below(2) as usize, self.rng.below(CLIENTS.into()) as u8);
        self.send(link, number, &mut frame);
    }

    /// Takes every station off the mask lists, ends reservations, and waits until the disks have done all that they were asked for: what they
    /// have under way is no leak.
    fn release(&mut self) {
        let request = |disk: Address, command: u8, argument: &[u8]| {
            let [shelf, low] = disk.shelf.to_be_bytes();
            let header = [0x88, 0xa2, 0x10, 0, shelf, low, disk.slot, command, 0, 0, 0, 0];
            [&SERVER.0, &[0; 6], &header[..], argument].concat()
        };
        for own in 0..CLIENTS {
            // Only who is on the list may change it, and so takes itself off last.
            let others_first = (0..CLIENTS).filter(|&other| other != own).chain([own]);
            let directives = others_first.flat_map(|other| [&[0, 2], &client(other)[..]].concat());
            let edit: Vec<u8> = [0, 1, 0, CLIENTS].into_iter().chain(directives).collect();
            self.send(0, own, &mut request(Address::BROADCAST, 2, &edit));
            self.send(0, own, &mut request(Address::BROADCAST, 3, &[2, 0]));
        }
        // A TRIM, here of sector 1, comes after all else.
        let mut trim = [&[0x41, 1, 1, 0x06][..], &[0; 8], &[1, 0, 0, 0, 0, 0, 1, 0]].concat();
        trim.resize(12 + 512, 0);
        for disk in [RAW, OVERLAYS] {
            let tag = self.send(0, 0, &mut request(disk, 0, &trim));
            self.awaited.insert(tag);
        }
        self.settle();
    }

    /// Waits until all frames have come, and looks at the answers.
    fn settle(&mut self) {
        let begin = Instant::now();
        while self.running.counters().frames < self.sent || !self.awaited.is_empty() {
            assert!(
                begin.elapsed() < PATIENCE,
                "it is stuck: {:?} of {}, {:x?}",
                self.running.counters(),
                self.sent,
                self.awaited
            );
            self.take_answers();
            std::thread::yield_now();
        }
        self.take_answers();
    }

    fn take_answers(&mut self) {
        for link in &mut self.links {
            let longest = link.mtu() + 14;
            while link.receive(|bytes| {
                let Frame { header, .. } = Frame::parse(bytes).expect("an AoE frame");
                assert!((MIN_FRAME..=longest).contains(&bytes.len()));
                assert!(header.response && header.version == 1 && header.source == SERVER, "{header:?}");
                assert!([RAW, READ_ONLY, OVERLAYS].contains(&header.address), "{header:?}");
                if header.destination == MacAddress::BROADCAST {
                    let said = (header.command, header.tag, header.error);
                    assert_eq!(said, (Command::Config, 0, None), "told at the start");
                } else {
                    let number = header.tag.reverse_bits();
                    let (frame, asker) = (number / u32::from(CLIENTS), (number % u32::from(CLIENTS)) as u8);
                    assert!(u64::from(frame) < self.sent, "nobody asked: {header:?}");
                    assert_eq!(header.destination.0, client(asker), "another asked: {header:?}");
                    self.awaited.remove(&header.tag);
                    self.answers += 1;
                }
            }) {}
        }
    }

    /// Sends so many frames.
    fn run(&mut self, frames: u64) {
        let end = self.sent + frames;
        let mut release = self.sent;
        while self.sent < end {
            if self.sent >= release {
                self.release();
                release = self.sent + RELEASE;
            }
            for _ in 0..BATCH {
                self.send_any();
            }
            self.settle();
        }
        self.release();
    }
}

/// Sends `count` frames, a fifth of them to warm up.
fn fuzz(count: u64) {
    let (files, before, begin) = (Files::new(), Held::now(), Instant::now());
    let mut flood = Flood::start(&files);
    flood.run(count / 5);
    let warm = Held::now();
    flood.run(count - count / 5);
    let after = Held::now();
    let Flood { links, running, sent, answers, .. } = flood;
    let counters = running.counters();
    running.stop().unwrap();
    drop(links);
    let jobs = counters.reads + counters.writes + counters.flushes;
    println!(
        "{sent} frames, {answers} answers, {jobs} reads, writes and flushes, {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    println!("{before:?}; after a fifth: {warm:?}; at the end: {after:?}");
    assert!(answers > sent / 4, "{answers} answers to {sent} frames: they are hardly looked at");
    assert!(counters.reads > 0 && counters.writes > 0 && counters.flushes > 0 && counters.errors > 0);
    assert!(after.memory <= warm.memory + SLACK, "{warm:?} became {after:?}");
    assert_eq!(after.descriptors, warm.descriptors);
    // Its threads end by themselves.
    while Held::now().threads > before.threads {
        assert!(begin.elapsed() < PATIENCE, "threads are left: {before:?} became {:?}", Held::now());
        std::thread::yield_now();
    }
    assert_eq!(Held::now().descriptors, before.descriptors);
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
