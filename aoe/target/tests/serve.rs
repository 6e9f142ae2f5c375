//! The serving loop on real links, with our own initiator as the client.

mod broken;
mod client;
#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use broken::Broken;
use client::Client;
use kagero_aoe::link::Link;
use kagero_aoe::wire::{self, Address, Command, Frame, Header, MacAddress};
use kagero_devices::storage::{Operation, Outcome};
use kagero_link::{AnyLink, MemoryLink, PacketLink, memory, packet};
use kagero_target::{Access, Image, Running, Server};
use namespace::{ip, with_cable};
use tempfile::TempDir;

const DISK: Address = Address { shelf: 7, slot: 1 };
const SECTORS: u64 = 8_192;

struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        Files { dir: tempfile::tempdir().unwrap() }
    }

    fn image(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        File::create(&path).unwrap().set_len(SECTORS * 512).unwrap();
        path
    }

    /// A server of one disk.
    fn server(&self, access: Access) -> Server {
        let server = Server::new();
        server.export(DISK, &self.image("disk.img"), access).unwrap();
        server
    }

    fn contents(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("disk.img")).unwrap()
    }
}

fn pattern(seed: u32, sectors: usize) -> Vec<u8> {
    let mut state = seed;
    (0..sectors * 512)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn packet(name: &str) -> PacketLink {
    PacketLink::open(name, packet::Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Everything that a client does, over any link.
fn exercise<L: Link + std::os::fd::AsFd>(link: L, files: &Files) -> Client<L> {
    let (mut client, disk) = Client::attach(link, DISK);
    assert_eq!((disk.sectors, disk.serial.as_str(), disk.trim), (SECTORS, "KAGERO-00007-001", true));

    let data = pattern(1, 2_048);
    client.write(100, &data, false).unwrap();
    assert_eq!(client.read(100, 2_048).unwrap(), data);
    assert_eq!(files.contents()[100 * 512..][..data.len()], data);

    // Many at once, in all sizes.
    let writes: Vec<_> = (0..32u32)
        .map(|i| {
            let data = pattern(i, 1 + i as usize * 3);
            let operation =
                Operation::Write { lba: u64::from(i) * 128, sectors: 1 + i * 3, durable: i % 8 == 0 };
            client.submit(operation, data)
        })
        .collect();
    for tag in writes {
        client.finish(tag).unwrap();
    }
    client.carry_out(Operation::Flush, vec![]).unwrap();
    for i in 0..32u32 {
        let data = pattern(i, 1 + i as usize * 3);
        assert_eq!(files.contents()[i as usize * 128 * 512..][..data.len()], data);
        assert_eq!(client.read(u64::from(i) * 128, 1 + i * 3).unwrap(), data);
    }

    client.carry_out(Operation::Verify { lba: 0, sectors: SECTORS as u32 }, vec![]).unwrap();
    let mut ranges = (1_000u64 | 64 << 48).to_le_bytes().to_vec();
    ranges.resize(512, 0);
    client.carry_out(Operation::Trim { blocks: 1 }, ranges).unwrap();
    let statistics = client.initiator.statistics();
    assert_eq!((statistics.refused, statistics.malformed), (0, 0));
    client
}

#[test]
fn over_a_cable_in_memory() {
    let files = Files::new();
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let running = Running::start(files.server(Access::ReadWrite), vec![AnyLink::from(there)]).unwrap();
    exercise(AnyLink::from(here), &files);
    let counters = running.counters();
    assert!(counters.flushes >= 1 && counters.bytes_written >= 2_048 * 512 && counters.errors == 0);
    assert_eq!(counters.unsent, 0);
    running.stop().unwrap();
}

#[test]
fn over_a_network_with_jumbo_frames() {
    with_cable(|| {
        let files = Files::new();
        let server = files.server(Access::ReadWrite);
        let _running = Running::start(server, vec![packet("kgv0")]).unwrap();
        exercise(packet("kgv1"), &files);
    });
}

/// Faults at both ends, so that each frame meets them twice.
#[test]
fn over_an_unreliable_network() {
    let faults = "loss=2.5%,duplicate=1%,reorder=2%,corrupt=0.5%,delay=100us,jitter=100us".parse().unwrap();
    let files = Files::new();
    let options = memory::Options { mtu: 1_500, ..Default::default() };
    let (here, there) = MemoryLink::pair(options).unwrap();
    let here = AnyLink::from(here).with_faults(&faults, 1).unwrap();
    let there = AnyLink::from(there).with_faults(&faults, 2).unwrap();
    let running = Running::start(files.server(Access::ReadWrite), vec![there]).unwrap();
    let client = exercise(here, &files);
    let (sent, received) = client.link.fault_tally().unwrap();
    assert!(sent.lost > 0 && received.lost > 0 && received.duplicated > 0 && sent.reordered > 0);
    assert!(client.initiator.statistics().resends > 0);
    running.stop().unwrap();
}

#[test]
fn over_a_network_with_the_least_mtu() {
    with_cable(|| {
        for end in ["kgv0", "kgv1"] {
            ip(&format!("link set dev {end} mtu 1100"));
        }
        let files = Files::new();
        let server = files.server(Access::ReadWrite);
        let _running = Running::start(server, vec![packet("kgv0")]).unwrap();
        exercise(packet("kgv1"), &files);
    });
}

#[test]
fn goes_on_after_the_interface_was_down() {
    with_cable(|| {
        let files = Files::new();
        let running = Running::start(files.server(Access::ReadWrite), vec![packet("kgv0")]).unwrap();
        let (mut client, _) = Client::attach(packet("kgv1"), DISK);
        client.write(0, &pattern(1, 64), false).unwrap();
        for _ in 0..3 {
            ip("link set dev kgv0 down");
            let tag = client.submit(Operation::Read { lba: 0, sectors: 64 }, vec![0; 64 * 512]);
            let sent = client.initiator.statistics().frames_sent;
            client.run(|client| client.initiator.statistics().frames_sent > sent + 2);
            ip("link set dev kgv0 up");
            assert_eq!(client.finish(tag).unwrap(), pattern(1, 64));
        }
        running.stop().unwrap();
    });
}

#[test]
fn goes_on_after_the_interface_was_down_with_requests_in_its_ring() {
    with_cable(|| {
        let files = Files::new();
        let (server, mut client) = (packet("kgv0"), packet("kgv1"));
        let from = MacAddress(client.mac());
        for tag in 0..64 {
            let header = Header::request(from, MacAddress::BROADCAST, DISK, Command::Config, tag);
            client.transmit(|out| wire::encode(out, &header, |out| wire::Config::query().encode(out)));
        }
        ip("link set dev kgv0 down");
        let running = Running::start(files.server(Access::ReadWrite), vec![server]).unwrap();
        // It has looked at them, and so at the link's error.
        let begin = std::time::Instant::now();
        while running.counters().frames < 64 {
            assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", running.counters());
            std::thread::yield_now();
        }
        ip("link set dev kgv0 up");
        drop(client);
        let (mut client, _) = Client::attach(packet("kgv1"), DISK);
        client.write(0, &pattern(1, 64), false).unwrap();
        running.stop().unwrap();
    });
}

#[test]
fn one_server_on_two_links() {
    let files = Files::new();
    let cable = || MemoryLink::pair(memory::Options::default()).unwrap();
    let ((a, a_end), (b, b_end)) = (cable(), cable());
    let _running = Running::start(files.server(Access::ReadWrite), vec![a_end, b_end]).unwrap();
    let ((mut a, _), (mut b, _)) = (Client::attach(a, DISK), Client::attach(b, DISK));
    a.write(7, &pattern(1, 9), false).unwrap();
    assert_eq!(b.read(7, 9).unwrap(), pattern(1, 9));
}

#[test]
fn a_read_only_disk_is_not_written_to() {
    let files = Files::new();
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let running = Running::start(files.server(Access::ReadOnly), vec![there]).unwrap();
    let (mut client, disk) = Client::attach(here, DISK);
    assert!(!disk.trim);
    assert!(matches!(client.write(0, &[1; 512], false), Err(Outcome::Failed { error: 4, .. })));
    assert_eq!(client.read(0, 1).unwrap(), [0; 512]);
    assert!(running.counters().errors >= 1);
}

#[test]
fn a_failing_image_is_the_clients_error_and_the_server_lives() {
    let files = Files::new();
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let _running = Running::start(files.server(Access::ReadWrite), vec![there]).unwrap();
    let (mut client, _) = Client::attach(here, DISK);
    let path = files.dir.path().join("disk.img");
    File::options().write(true).open(path).unwrap().set_len(16 * 512).unwrap();
    assert!(matches!(client.read(0, 64), Err(Outcome::Failed { error: 0x40, .. })));
    assert_eq!(client.read(0, 16).unwrap(), vec![0; 16 * 512]);
}

#[test]
fn three_hundred_disks_answer_one_broadcast() {
    with_cable(|| {
        let files = Files::new();
        let server = Server::new();
        let path = files.image("shared.img");
        for i in 0..300u16 {
            let address = Address { shelf: i / 250, slot: (i % 250) as u8 };
            server.export(address, &path, Access::ReadOnly).unwrap();
        }
        let mut client = packet("kgv1");
        let _running = Running::start(server, vec![packet("kgv0")]).unwrap();
        // Told at the start, and again when asked.
        let query = |mac| {
            Header::request(MacAddress(mac), MacAddress::BROADCAST, Address::BROADCAST, Command::Config, 9)
        };
        let mac = client.mac();
        assert!(
            client
                .transmit(|out| { wire::encode(out, &query(mac), |out| wire::Config::query().encode(out)) })
        );
        let mut found = [0, 0];
        while found != [300, 300] {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
            assert!(
                poll(&mut [PollFd::new(&client, PollFlags::IN)], Some(&patience)).unwrap() > 0,
                "{found:?}"
            );
            while client.receive(|frame| {
                let header = Frame::parse(frame).unwrap().header;
                found[usize::from(header.tag == 9)] += 1;
            }) {}
        }
    });
}

#[test]
fn garbage_and_floods_do_no_harm() {
    with_cable(|| {
        let files = Files::new();
        let running = Running::start(files.server(Access::ReadWrite), vec![packet("kgv0")]).unwrap();
        let mut flood = packet("kgv1");
        let from = MacAddress(flood.mac());
        let noise = pattern(5, 64);
        for (i, bytes) in noise.chunks_exact(8).cycle().take(5_000).enumerate() {
            // Good headers, so that some of it gets far; reads whose answers nobody takes. No mask and no reservation: these would
            // rightly keep the client out that comes after.
            let command = [0, 1, 4, 0xf0][i % 4];
            let header = Header::request(from, MacAddress::BROADCAST, DISK, command.into(), i as u32);
            flood.transmit(|out| {
                let length = wire::encode(out, &header, |out| {
                    out[..8].copy_from_slice(bytes);
                    out[8..60].fill(i as u8);
                    Some(60)
                });
                length.map(|length| length - i % 60)
            });
        }
        // Add one's own address to the mask list and take it off again: two frames that end vblade 25.
        for directive in [1, 2] {
            let header = Header::request(from, MacAddress::BROADCAST, DISK, Command::Mask, 1);
            let [a, b, c, d, e, f] = from.0;
            let argument = [0, 1, 0, 1, 0, directive, a, b, c, d, e, f];
            flood.transmit(|out| {
                wire::encode(out, &header, |out| {
                    out[..12].copy_from_slice(&argument);
                    Some(12)
                })
            });
        }
        drop(flood);
        let (mut client, _) = Client::attach(packet("kgv1"), DISK);
        client.write(5, &pattern(1, 50), false).unwrap();
        assert_eq!(client.read(5, 50).unwrap(), pattern(1, 50));
        assert!(running.counters().frames > 0);
        running.stop().unwrap();
    });
}

#[test]
fn a_server_that_ends_by_itself_says_so() {
    let files = Files::new();
    let (mut here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let ended = move |why: &std::io::Error| tell.send(why.to_string()).unwrap();
    let running =
        Running::start_watched(files.server(Access::ReadWrite), vec![Broken(there)], ended).unwrap();
    here.transmit(|_| Some(60));
    assert_eq!(told.recv().unwrap(), "its thread panicked");
    assert_eq!(running.stop().unwrap_err().to_string(), "its thread panicked");
    // And one that is asked to end says nothing.
    let (_here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let ended = move |why: &std::io::Error| tell.send(why.to_string()).unwrap();
    let server = Files::new().server(Access::ReadWrite);
    Running::start_watched(server, vec![there], ended).unwrap().stop().unwrap();
    assert!(told.recv().is_err());
}

#[test]
fn past_the_page_cache() {
    // Not on tmpfs, whose cache is all there is.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = Files { dir };
    let image = Image::open_direct(&files.image("disk.img"), Access::ReadWrite, None).unwrap();
    let server = Server::new();
    server.export_image(DISK, image).unwrap();
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let running = Running::start(server, vec![AnyLink::from(there)]).unwrap();
    let mut client = exercise(AnyLink::from(here), &files);

    // The same sectors again and again, without waiting for answers: the initiator keeps what overlaps in order, and so must the target when frames
    // of one write are many.
    for round in 0..50u32 {
        let data = pattern(round, 255);
        let tag =
            client.submit(Operation::Write { lba: 7, sectors: 255, durable: round % 5 == 0 }, data.clone());
        client.finish(tag).unwrap();
        assert_eq!(client.read(7, 255).unwrap(), data);
    }
    let counters = running.counters();
    assert_eq!((counters.errors, counters.unsent), (0, 0));
}

/// On tmpfs, where a look at a hole through a mapping would fill it.
#[test]
fn reading_holes_takes_no_memory() {
    with_cable(|| {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let image = dir.path().join("disk.img");
        let blocks = || fs::metadata(&image).unwrap().blocks();
        for data in [vec![0; SECTORS as usize * 512], pattern(1, SECTORS as usize)] {
            let is_whole = data[0] != 0;
            fs::write(&image, if is_whole { &data[..] } else { b"" }).unwrap();
            File::options().write(true).open(&image).unwrap().set_len(SECTORS * 512).unwrap();
            let server = Server::new();
            server.export(DISK, &image, Access::ReadWrite).unwrap();
            let running = Running::start(server, vec![packet("kgv0")]).unwrap();
            let (mut client, _) = Client::attach(packet("kgv1"), DISK);
            let read_all = |client: &mut Client<PacketLink>| {
                (0..SECTORS as usize)
                    .step_by(512)
                    .flat_map(|lba| client.read(lba as u64, 512).unwrap())
                    .collect()
            };
            let before = blocks();
            for _ in 0..4 {
                let read: Vec<u8> = read_all(&mut client);
                assert!(read == data);
            }
            assert_eq!(blocks(), before);
            if is_whole {
                let mut ranges = (1_024u64 | 2_048 << 48).to_le_bytes().to_vec();
                ranges.resize(512, 0);
                client.carry_out(Operation::Trim { blocks: 1 }, ranges).unwrap();
                let after = blocks();
                assert!(after <= before - 2_048, "{before} {after}");
                assert!(read_all(&mut client)[1_024 * 512..][..2_048 * 512].iter().all(|byte| *byte == 0));
                assert_eq!(blocks(), after, "it was filled again");
            }
            running.stop().unwrap();
        }
    });
}
