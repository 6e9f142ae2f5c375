//! Disks that are taken away, or lose their end, while requests are under way.

mod client;

use std::fs::{self, File};

use client::Client;
use kagero_aoe::wire::Address;
use kagero_devices::storage::{Operation, Tag};
use kagero_link::{MemoryLink, memory};
use kagero_target::{Access, Image, Overlays, Running, Server};

const DISK: Address = Address { shelf: 7, slot: 1 };
const SECTORS: u64 = 8_192;
const WRITES: u64 = 48;

fn image(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let path = folder.path().join("a.img");
    File::create(&path).unwrap().set_len(SECTORS * 512).unwrap();
    path
}

/// A client with many durable writes under way, which take a thread each, and some that have ended.
fn busy(server: Server, content: u8) -> (Running, Client<MemoryLink>, Vec<Tag>) {
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let running = Running::start(server, vec![there]).unwrap();
    let (mut client, _) = Client::attach(here, DISK);
    let tags = begin(&mut client, content);
    (running, client, tags)
}

fn begin(client: &mut Client<MemoryLink>, content: u8) -> Vec<Tag> {
    let write = |client: &mut Client<MemoryLink>, i: u64| {
        let operation = Operation::Write { lba: i * 8, sectors: 8, durable: true };
        client.submit(operation, vec![content; 4096])
    };
    let tags: Vec<_> = (0..WRITES).map(|i| write(client, i)).collect();
    client.finish(tags[0]).unwrap();
    tags[1..].to_vec()
}

#[test]
fn a_disk_that_is_removed_finishes_what_it_has_begun() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(&folder);
    let server = Server::new();
    server.export(DISK, &path, Access::ReadWrite).unwrap();
    let (running, mut client, mut tags) = busy(server, 1);
    for round in 1..12u8 {
        running.server().remove(DISK).unwrap();
        // The image is free, holds what was answered, and nobody writes to it any more.
        let image = Image::open(&path, Access::ReadWrite).unwrap();
        let now = fs::read(&path).unwrap();
        for (i, tag) in (1..).zip(&tags) {
            if client.has_ended(*tag) {
                assert_eq!(now[i * 4096..][..4096], [round; 4096], "write {i} was answered");
            }
        }
        assert!(fs::read(&path).unwrap() == now);
        drop(image);
        // It comes back, and the client, who was not told, asks again.
        running.server().export(DISK, &path, Access::ReadWrite).unwrap();
        tags.iter().for_each(|tag| drop(client.finish(*tag).unwrap()));
        assert_eq!(fs::read(&path).unwrap()[..WRITES as usize * 4096], [round; WRITES as usize * 4096]);
        tags = begin(&mut client, round + 1);
    }
    running.stop().unwrap();
}

#[test]
fn an_overlay_that_is_removed_holds_what_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(&folder);
    fs::create_dir(folder.path().join("overlays")).unwrap();
    let overlays = || {
        Overlays::open(Image::open(&path, Access::ReadOnly).unwrap(), folder.path().join("overlays")).unwrap()
    };
    let server = Server::new();
    server.export_overlays(DISK, overlays()).unwrap();
    let (running, mut client, tags) = busy(server, 1);
    running.server().remove(DISK).unwrap();
    let answered: Vec<_> = (1..).zip(tags).filter(|(_, tag)| client.has_ended(*tag)).collect();
    running.server().export_overlays(DISK, overlays()).unwrap();
    for lba in [0].into_iter().chain(answered.iter().map(|(i, _)| *i)).map(|i: u64| i * 8) {
        assert_eq!(client.read(lba, 8).unwrap(), [1; 4096]);
    }
    running.stop().unwrap();
}

#[test]
fn a_disk_that_shrinks_under_writes_loses_its_end_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(&folder);
    let server = Server::new();
    server.export(DISK, &path, Access::ReadWrite).unwrap();
    let (running, mut client, mut tags) = busy(server, 1);
    for round in 2..12u8 {
        let size = if round % 2 == 0 { SECTORS / 2 } else { SECTORS } * 512;
        assert_eq!(running.server().resize(DISK, Some(size), true).unwrap(), size);
        assert_eq!(fs::metadata(&path).unwrap().len(), size);
        tags.iter().for_each(|tag| drop(client.finish(*tag).unwrap()));
        assert_eq!(fs::metadata(&path).unwrap().len(), size);
        assert_eq!(fs::read(&path).unwrap()[4096..WRITES as usize * 4096], [round - 1; 47 * 4096]);
        tags = begin(&mut client, round);
    }
    running.stop().unwrap();
}
