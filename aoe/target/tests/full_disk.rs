//! A disk that is full: errors in ATA's terms for whoever needs room, nothing lost, and all goes on when there is room again.

mod client;
mod small_disk;

use std::fs::{self, File};
use std::path::Path;

use client::Client;
use kagero_aoe::wire::Address;
use kagero_devices::ata::bits::error::ABRT;
use kagero_devices::storage::{Operation, Outcome};
use kagero_link::{MemoryLink, memory};
use kagero_target::{Access, Image, Overlays, Running, Server};
use small_disk::with_small_disk;

const DISK: Address = Address { shelf: 7, slot: 1 };
const CLUSTER: usize = 64 << 10;
const CLUSTERS: usize = 64;
const SECTORS: u32 = (CLUSTER / 512) as u32;

/// Clients of a server, by a cable each; their station addresses end with 1, 2, and so on.
fn serve<const N: usize>(server: Server) -> (Running, [Client<MemoryLink>; N]) {
    let (mut ends, mut links) = (Vec::new(), Vec::new());
    for mac in 1..=N as u8 {
        let macs = [[2, 0, 0, 0, 1, mac], [2, 0, 0, 0, 2, mac]];
        let (here, there) = MemoryLink::pair(memory::Options { macs, ..Default::default() }).unwrap();
        ends.push(there);
        links.push(here);
    }
    let running = Running::start(server, ends).unwrap();
    let clients: Vec<_> = links.into_iter().map(|link| Client::attach(link, DISK).0).collect();
    (running, clients.try_into().unwrap_or_else(|_| panic!("as many clients as links")))
}

/// A disk whose every cluster is of one byte, as far as we know it.
struct Model {
    bytes: [u8; CLUSTERS],
    /// A write to it failed: some of it may be there.
    half: [Option<u8>; CLUSTERS],
}

impl Model {
    fn new() -> Self {
        Model { bytes: [0; CLUSTERS], half: [None; CLUSTERS] }
    }

    /// Whether it could be written.
    fn write(&mut self, client: &mut Client<MemoryLink>, cluster: usize, byte: u8) -> bool {
        match client.write((cluster * CLUSTER / 512) as u64, &vec![byte; CLUSTER], false) {
            Ok(()) => {
                (self.bytes[cluster], self.half[cluster]) = (byte, None);
                true
            }
            Err(Outcome::Failed { error: ABRT, .. }) => {
                self.half[cluster] = Some(byte);
                false
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check(&self, client: &mut Client<MemoryLink>) {
        for cluster in 0..CLUSTERS {
            let data = client.read((cluster * CLUSTER / 512) as u64, SECTORS).unwrap();
            let may = [Some(self.bytes[cluster]), self.half[cluster]];
            for sector in data.chunks(512) {
                assert!(may.contains(&Some(sector[0])) && sector == [sector[0]; 512], "cluster {cluster}");
            }
        }
    }

    /// Writes until there is no room; gives how many clusters there was room for.
    fn fill(&mut self, client: &mut Client<MemoryLink>, byte: u8) -> usize {
        (0..CLUSTERS).filter(|&cluster| self.write(client, cluster, byte)).count()
    }
}

fn flush(client: &mut Client<MemoryLink>) {
    client.carry_out(Operation::Flush, vec![]).unwrap();
}

/// Takes room from whoever comes after.
fn ballast(folder: &Path, bytes: usize) {
    fs::write(folder.join("ballast"), vec![1; bytes]).unwrap();
}

#[test]
fn a_raw_image() {
    with_small_disk(2_048, |folder| {
        let path = folder.join("disk.img");
        File::create(&path).unwrap().set_len((CLUSTERS * CLUSTER) as u64).unwrap();
        ballast(folder, 1 << 20);
        let mut model = Model::new();
        for round in 1..3 {
            let server = Server::new();
            server.export(DISK, &path, Access::ReadWrite).unwrap();
            let (running, [mut client]) = serve(server);
            model.check(&mut client);
            let there_was_room = model.fill(&mut client, round);
            assert!((8..CLUSTERS).contains(&there_was_room), "{there_was_room}");
            model.check(&mut client);
            flush(&mut client);
            // What has its room can be written to.
            assert!(model.write(&mut client, 0, 100 + round));
            if round == 1 {
                fs::remove_file(folder.join("ballast")).unwrap();
                let more = model.fill(&mut client, 50);
                assert!(more > there_was_room, "{more} after {there_was_room}");
                flush(&mut client);
            }
            model.check(&mut client);
            running.stop().unwrap();
        }
    });
}

#[test]
fn a_folder_of_overlays() {
    let elsewhere = tempfile::tempdir().unwrap();
    let base = elsewhere.path().join("base.img");
    fs::write(&base, vec![0; CLUSTERS * CLUSTER]).unwrap();
    with_small_disk(2_048, |folder| {
        ballast(folder, 1 << 20);
        let (mut one, mut other) = (Model::new(), Model::new());
        for round in 1..3 {
            let server = Server::new();
            let image = Image::open(&base, Access::ReadOnly).unwrap();
            let overlays = Overlays::open(image, folder.into()).unwrap();
            assert_eq!(overlays.refused().len(), 0);
            server.export_overlays(DISK, overlays).unwrap();
            let (running, [mut first, mut second]) = serve(server);
            one.check(&mut first);
            other.check(&mut second);
            let there_was_room = one.fill(&mut first, round);
            assert!((8..CLUSTERS).contains(&there_was_room), "{there_was_room}");
            // The second has no overlay yet, and now there is no room for one. Its disk is the base.
            if round == 1 {
                // The few KiB that are left are no cluster, but an overlay without one.
                let left = (0..64).map(|i| fs::write(folder.join(format!("rest-{i}")), [1; 4_096]));
                assert!(left.filter(Result::is_err).count() > 0);
                assert!(!other.write(&mut second, 5, round));
                other.check(&mut second);
                assert!(!folder.join("02:00:00:00:01:02.overlay").exists());
            }
            flush(&mut first);
            flush(&mut second);
            one.check(&mut first);
            assert!(one.write(&mut first, 0, 100 + round));
            flush(&mut first);
            if round == 1 {
                fs::remove_file(folder.join("ballast")).unwrap();
                for cluster in 5..8 {
                    assert!(other.write(&mut second, cluster, round));
                }
                assert!(one.fill(&mut first, 50) > there_was_room);
                flush(&mut second);
            }
            one.check(&mut first);
            other.check(&mut second);
            // A clean end, and then none: nothing is flushed, and the journal tells.
            if round == 1 { running.stop().unwrap() } else { std::mem::forget(running) }
        }
        // The overlays of the last round are still open in its thread: look at copies.
        let copies = tempfile::tempdir().unwrap();
        for client in 1..=2 {
            let name = format!("02:00:00:00:01:{client:02}.overlay");
            fs::copy(folder.join(&name), copies.path().join(&name)).unwrap();
        }
        let image = Image::open(&base, Access::ReadOnly).unwrap();
        let server = Server::new();
        server.export_overlays(DISK, Overlays::open(image, copies.path().into()).unwrap()).unwrap();
        let (running, [mut first, mut second]) = serve(server);
        one.check(&mut first);
        other.check(&mut second);
        running.stop().unwrap();
    });
}
