//! Exports of an NBD server, QEMU's, as images.

mod client;
mod qemu_nbd;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use client::Client;
use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::Address;
use kagero_link::{MemoryLink, memory};
use kagero_target::{Access, Image, NbdUri, Overlays, Running, Server, Why};
use qemu_nbd::QemuNbd;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// A folder with `disk.img`. Not in /tmp, which may be a file system in memory.
fn image(size: usize) -> (TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk.img");
    let data = Random(1).bytes(size);
    fs::write(&path, &data).unwrap();
    (folder, path, data)
}

/// The same by a path that is short enough for a socket's.
fn short(size: usize) -> (TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let data = Random(1).bytes(size);
    fs::write(&path, &data).unwrap();
    (folder, path, data)
}

#[test]
fn it_reads_and_writes_as_a_file_does() {
    let (_folder, path, mut model) = short(2 * MIB + 3 * 512);
    for server in [QemuNbd::on_socket, QemuNbd::on_port] {
        let server = server(&path);
        let disk = server.open(Access::ReadWrite);
        assert_eq!(disk.size(), model.len() as u64);
        let mut random = Random(2);
        for step in 0..400 {
            let at = random.below(model.len() / 512) * 512;
            let length = ((1 + random.below(300)) * 512).min(model.len() - at);
            match random.below(10) {
                0 => disk.flush().unwrap(),
                1 => disk.verify(at as u64, length).unwrap(),
                2..6 => {
                    let mut back = vec![0; length];
                    disk.read(at as u64, &mut back).unwrap();
                    assert!(back == model[at..at + length], "step {step}");
                }
                other => {
                    let data = random.bytes(length);
                    disk.write(at as u64, &data, other == 6).unwrap();
                    model[at..at + length].copy_from_slice(&data);
                }
            }
        }
        disk.flush().unwrap();
        assert!(fs::read(&path).unwrap() == model);
    }
}

#[test]
fn a_trim_gives_space_back() {
    let (_folder, path, data) = image(4 * MIB);
    File::open(&path).unwrap().sync_all().unwrap();
    let before = fs::metadata(&path).unwrap().blocks();
    let server = QemuNbd::on_port(&path);
    let disk = server.open(Access::ReadWrite);
    disk.trim(Range { offset: MIB as u64, length: 2 * MIB as u64 }).unwrap();
    disk.flush().unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() <= before - 2 * MIB as u64 / 512);
    let mut back = vec![0; 4 * MIB];
    disk.read(0, &mut back).unwrap();
    assert!(back[..MIB] == data[..MIB] && back[3 * MIB..] == data[3 * MIB..]);
    assert!(back[MIB..3 * MIB].iter().all(|&byte| byte == 0));
}

#[test]
fn what_is_refused() {
    let (_folder, path, data) = short(MIB);
    let mut server = QemuNbd::on_socket(&path);
    let uri = server.uri().to_string();
    let other: NbdUri = uri.replace("/disk?", "/other?").parse().unwrap();
    assert_eq!(
        Image::open_nbd(&other, Access::ReadOnly).unwrap_err().to_string(),
        format!(
            "NBD export {other}: the server has no export \"other\": `qemu-nbd --list` shows what it has"
        )
    );
    let disk = server.open(Access::ReadOnly);
    assert_eq!(disk.write(0, &[1; 512], true), Err(Fault::Aborted));
    assert_eq!(disk.trim(Range { offset: 0, length: 512 }), Err(Fault::Aborted));
    assert_eq!(disk.flush(), Ok(()));
    drop(disk);
    server.kill();
    let text = Image::open_nbd(server.uri(), Access::ReadOnly).unwrap_err().to_string();
    assert!(text.starts_with(&format!("NBD export {uri}: no server answers (")), "{text}");
    assert!(fs::read(&path).unwrap() == data);
}

#[test]
fn many_threads_share_a_connection() {
    const THREADS: usize = 16;
    let (_folder, path, mut model) = image(THREADS * MIB / 4);
    let server = QemuNbd::on_port(&path);
    let disk = &server.open(Access::ReadWrite);
    std::thread::scope(|scope| {
        for (thread, own) in model.chunks_mut(MIB / 4).enumerate() {
            scope.spawn(move || {
                let mut random = Random(thread as u64);
                let begin = thread * MIB / 4;
                for _ in 0..150 {
                    let at = random.below(own.len() / 512) * 512;
                    let length = ((1 + random.below(32)) * 512).min(own.len() - at);
                    if random.below(2) == 0 {
                        let data = random.bytes(length);
                        disk.write((begin + at) as u64, &data, random.below(8) == 0).unwrap();
                        own[at..at + length].copy_from_slice(&data);
                    } else {
                        let mut back = vec![0; length];
                        disk.read((begin + at) as u64, &mut back).unwrap();
                        assert!(back == own[at..at + length]);
                    }
                }
                disk.flush().unwrap();
            });
        }
    });
    assert!(fs::read(&path).unwrap() == model);
}

fn is_killed_under_load_and_returns(server: impl Fn(&Path) -> QemuNbd) {
    const THREADS: usize = 8;
    const CYCLES: usize = 6;
    let (_folder, path, mut model) = short(THREADS * MIB / 4);
    let mut server = server(&path);
    let disk = &server.open(Access::ReadWrite);
    let (cycles, writes) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (thread, own) in model.chunks_mut(MIB / 4).enumerate() {
            scope.spawn(move || {
                let mut random = Random(thread as u64);
                let begin = thread * MIB / 4;
                while cycles.load(Ordering::Relaxed) < CYCLES {
                    let at = random.below(own.len() / 512) * 512;
                    let length = ((1 + random.below(64)) * 512).min(own.len() - at);
                    let data = vec![random.below(256) as u8; length];
                    disk.write((begin + at) as u64, &data, random.below(20) == 0).unwrap();
                    own[at..at + length].copy_from_slice(&data);
                    writes.fetch_add(1, Ordering::Relaxed);
                    let mut back = vec![0; length];
                    disk.read((begin + at) as u64, &mut back).unwrap();
                    assert!(back == data);
                    if random.below(50) == 0 {
                        disk.flush().unwrap();
                    }
                }
            });
        }
        let mut random = Random(7);
        for _ in 0..CYCLES {
            let until = writes.load(Ordering::Relaxed) + 20 + random.below(100);
            while writes.load(Ordering::Relaxed) < until {
                std::thread::yield_now();
            }
            server.kill();
            server.start_again();
            cycles.fetch_add(1, Ordering::Relaxed);
        }
    });
    server.wait();
    disk.flush().unwrap();
    assert!(fs::read(&path).unwrap() == model);
}

#[test]
fn a_server_on_a_socket_is_killed_under_load_and_returns() {
    is_killed_under_load_and_returns(QemuNbd::on_socket);
}

#[test]
fn a_server_on_a_port_is_killed_under_load_and_returns() {
    is_killed_under_load_and_returns(QemuNbd::on_port);
}

#[test]
fn a_target_serves_it_to_its_clients() {
    let (_folder, path, data) = short(MIB);
    let mut server = QemuNbd::on_socket(&path);
    let address = Address { shelf: 7, slot: 1 };
    let target = Server::new();
    target.export_image(address, server.open(Access::ReadWrite)).unwrap();
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let running = Running::start(target, vec![there]).unwrap();
    let (mut client, disk) = Client::attach(here, address);
    assert_eq!(disk.sectors, (MIB / 512) as u64);
    assert!(client.read(0, 2_048).unwrap() == data);
    server.kill();
    server.start_again();
    client.write(5, &[7; 4_096], true).unwrap();
    assert!(fs::read(&path).unwrap()[5 * 512..][..4_096] == [7; 4_096]);
    assert!(client.read(5, 8).unwrap() == [7; 4_096]);
    running.stop().unwrap();
}

#[test]
fn overlays_over_it() {
    let (folder, path, mut data) = short(MIB);
    let mut server = QemuNbd::on_socket(&path);
    let overlays = folder.path().join("overlays");
    fs::create_dir(&overlays).unwrap();
    let address = Address { shelf: 7, slot: 1 };
    for round in 0..2 {
        let base = server.open(Access::ReadOnly);
        let target = Server::new();
        target.export_overlays(address, Overlays::open(base, overlays.clone()).unwrap()).unwrap();
        let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
        let running = Running::start(target, vec![there]).unwrap();
        let (mut client, _) = Client::attach(here, address);
        let mut now = data.clone();
        if round == 0 {
            assert!(client.read(0, 2_048).unwrap() == now);
            client.write(9, &[9; 512], true).unwrap();
        }
        now[9 * 512..10 * 512].fill(9);
        assert!(client.read(0, 2_048).unwrap() == now);
        running.stop().unwrap();
    }
    assert!(fs::read(&path).unwrap() == data);
    let overlay = overlays.read_dir().unwrap().next().unwrap().unwrap().path();
    let below = kagero_target::info(&overlay).unwrap().below;
    assert_eq!(below[0].path.to_str().unwrap(), server.uri().to_string());
    assert_eq!(below[0].format, Err(Why::Elsewhere));
    // The samples tell another base.
    server.kill();
    data[5] ^= 1;
    fs::write(&path, &data).unwrap();
    server.start_again();
    server.wait();
    let text = Overlays::open(server.open(Access::ReadOnly), overlays.clone()).unwrap_err().to_string();
    let line = format!("over another state of {} (its contents differs): ", server.uri());
    assert!(text.contains(&line), "{text}");
}
