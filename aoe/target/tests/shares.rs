//! Several threads that serve one interface.

mod broken;
mod client;
#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use broken::Broken;
use client::Client;
use kagero_aoe::link::Link;
use kagero_aoe::target::Admission;
use kagero_aoe::wire::Address;
use kagero_devices::storage::Operation;
use kagero_link::{MemoryLink, PacketLink, memory, packet::Options};
use kagero_target::{Access, Image, Server, Stop};
use namespace::with_cable;

const DISK: Address = Address { shelf: 7, slot: 1 };

/// One of many stations on one interface.
struct Station {
    link: PacketLink,
    mac: [u8; 6],
}

impl Station {
    fn new(number: u8) -> Self {
        let options = Options { receive_slots: 256, promiscuous: true, ..Options::default() };
        Station { link: PacketLink::open("kgv1", options).unwrap(), mac: [2, 0, 0, 0, 9, number] }
    }
}

impl Link for Station {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        let mac = self.mac;
        let is_ours = |frame: &[u8]| frame[..6] == mac || frame[..6] == [0xFF; 6];
        self.link.receive(|frame| {
            if is_ours(frame) {
                take(frame)
            }
        })
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        self.link.transmit(fill)
    }

    fn mtu(&self) -> usize {
        self.link.mtu()
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

impl AsFd for Station {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

#[test]
fn every_station_is_served_by_one_of_the_threads() {
    const STATIONS: u8 = 12;
    const PART: u32 = 256;
    with_cable(|| {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        File::create(&image).unwrap().set_len(u64::from(STATIONS) * u64::from(PART) * 512).unwrap();
        let server = Server::new();
        server.export(DISK, &image, Access::ReadWrite).unwrap();
        let members = PacketLink::open_shared("kgv0", Options::default(), 4).unwrap();
        let mut shares: Vec<_> = members.into_iter().map(|link| vec![(0, link)]).collect();
        let stop = Stop::new().unwrap();
        thread::scope(|scope| {
            let serving = scope.spawn(|| server.serve_shared(&mut shares, &stop));
            let station = |number: u8| {
                let (mut client, disk) = Client::attach(Station::new(number), DISK);
                assert_eq!(disk.sectors, u64::from(STATIONS) * u64::from(PART));
                let begin = u64::from(number) * u64::from(PART);
                for round in 1..=4u8 {
                    let data = vec![number * 4 + round; PART as usize * 512];
                    client.write(begin, &data, round == 4).unwrap();
                    assert!(client.read(begin, PART).unwrap() == data);
                }
                client.carry_out(Operation::Flush, vec![]).unwrap();
                let statistics = client.initiator.statistics();
                assert_eq!((statistics.refused, statistics.malformed), (0, 0));
            };
            let stations: Vec<_> = (0..STATIONS).map(|number| scope.spawn(move || station(number))).collect();
            for station in stations {
                station.join().unwrap();
            }
            stop.stop();
            serving.join().unwrap().unwrap();
        });
        for (number, part) in (0..STATIONS).zip(fs::read(&image).unwrap().chunks(PART as usize * 512)) {
            assert!(part.iter().all(|byte| *byte == number * 4 + 4), "station {number}");
        }
        let frames: Vec<_> = shares.iter_mut().map(|share| share[0].1.counters().received).collect();
        assert!(
            frames.iter().filter(|frames| **frames > 100).count() >= 3,
            "frames of each thread: {frames:?}"
        );
    });
}

#[test]
fn a_disk_knows_the_links_of_every_thread_by_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let server = Server::new();
    let hidden = Address { slot: 2, ..DISK };
    server.export(DISK, &image, Access::ReadOnly).unwrap();
    let second_link = Admission::default().only_ports([1]);
    server.export_image_to(second_link, hidden, Image::open(&image, Access::ReadOnly).unwrap()).unwrap();
    let cable = || MemoryLink::pair(memory::Options::default()).unwrap();
    let ((first, first_end), (second, second_end)) = (cable(), cable());
    let mut shares = [vec![(0, first_end)], vec![(1, second_end)]];
    let stop = Stop::new().unwrap();
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_shared(&mut shares, &stop));
        for (link, disk) in [(first, DISK), (second, hidden)] {
            assert_eq!(Client::attach(link, disk).0.read(0, 1).unwrap(), [0; 512]);
        }
        stop.stop();
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn what_ends_one_thread_ends_all() {
    for broken in 0..3 {
        let cable = || MemoryLink::pair(memory::Options::default()).unwrap();
        let (mut ends, links): (Vec<_>, Vec<_>) = (0..3).map(|_| cable()).unzip();
        let mut shares: Vec<_> = links.into_iter().map(|link| vec![(0, Broken(link))]).collect();
        let (server, stop) = (Server::new(), Stop::new().unwrap());
        let ended = thread::scope(|scope| {
            let serving = scope.spawn(|| server.serve_shared(&mut shares, &stop));
            ends[broken].transmit(|_| Some(99));
            serving.join()
        });
        match broken {
            // The calling thread's own panic is the caller's.
            0 => assert!(ended.is_err()),
            _ => assert_eq!(ended.unwrap().unwrap_err().to_string(), "a serving thread panicked"),
        }
    }
}
