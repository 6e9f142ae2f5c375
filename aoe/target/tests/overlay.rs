//! Overlays: each client's own view of one base, which survives what a machine may do to a process.

mod client;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::Client;
use kagero_aoe::target::Range;
use kagero_aoe::wire::Address;
use kagero_devices::storage::Operation;
use kagero_link::{MemoryLink, memory};
use kagero_target::{Access, Backend, Identity, Image, Overlay, Overlays, Running, Server};

/// No whole number of clusters.
const SIZE: usize = (2 << 20) + 3 * 512;
const MAP: u64 = 2 << 20;
const DATA: u64 = MAP + (64 << 10);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

fn base_in(folder: &Path) -> (PathBuf, Vec<u8>) {
    let mut random = Random(1);
    let data: Vec<u8> = (0..SIZE).map(|_| random.below(256) as u8).collect();
    let path = folder.join("base.img");
    fs::write(&path, &data).unwrap();
    (path, data)
}

fn image(path: &Path) -> Arc<Image> {
    Arc::new(Image::open(path, Access::ReadOnly).unwrap())
}

fn open(path: &Path, base: &Path) -> Result<Overlay, String> {
    let base = image(base);
    let identity = Identity::of(&base).unwrap();
    let opened = if path.exists() {
        Overlay::open(path, base, &identity)
    } else {
        Overlay::create(path, base, &identity)
    };
    opened.map_err(|error| error.to_string())
}

fn all(overlay: &Overlay) -> Vec<u8> {
    let mut data = vec![0; SIZE];
    overlay.read(0, &mut data).unwrap();
    data
}

#[test]
fn it_reads_as_a_disk_would() {
    let folder = tempfile::tempdir().unwrap();
    let (base, original) = base_in(folder.path());
    let path = folder.path().join("one.overlay");
    let mut model = original.clone();
    let mut random = Random(7);
    let mut overlay = open(&path, &base).unwrap();
    assert!(all(&overlay) == model);
    for step in 0..600 {
        let at = random.below(SIZE / 512) * 512;
        let length = ((1 + random.below(300)) * 512).min(SIZE - at);
        match random.below(20) {
            0 => {
                drop(overlay);
                overlay = open(&path, &base).unwrap();
            }
            1 => overlay.flush().unwrap(),
            2..8 => {
                let mut back = vec![0; length];
                overlay.read(at as u64, &mut back).unwrap();
                assert!(back == model[at..at + length], "step {step}");
            }
            other => {
                let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                overlay.write(at as u64, &data, other == 8).unwrap();
                model[at..at + length].copy_from_slice(&data);
            }
        }
    }
    overlay.verify(0, SIZE).unwrap();
    drop(overlay);
    assert!(all(&open(&path, &base).unwrap()) == model);
    assert!(fs::read(&base).unwrap() == original);
}

#[test]
fn many_threads_may_use_one() {
    const THREADS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let (base, original) = base_in(folder.path());
    let path = folder.path().join("one.overlay");
    let overlay = open(&path, &base).unwrap();
    // Each has sectors of its own in every cluster.
    let models: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (overlay, mut model) = (&overlay, original.clone());
                scope.spawn(move || {
                    let mut random = Random(thread as u64);
                    for step in 0..400 {
                        let sector = random.below(SIZE / 512 / THREADS) * THREADS + thread;
                        let mine = &mut model[sector * 512..][..512];
                        match random.below(10) {
                            0 => overlay.flush().unwrap(),
                            1..5 => {
                                let mut back = [0; 512];
                                overlay.read(sector as u64 * 512, &mut back).unwrap();
                                assert!(back == mine, "step {step} of {thread}");
                            }
                            other => {
                                mine.fill(random.below(256) as u8);
                                overlay.write(sector as u64 * 512, mine, other == 5).unwrap();
                            }
                        }
                    }
                    model
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected: Vec<u8> = (0..SIZE).map(|at| models[at / 512 % THREADS][at]).collect();
    assert!(all(&overlay) == expected);
    drop(overlay);
    assert!(all(&open(&path, &base).unwrap()) == expected);
}

#[test]
fn space_grows_with_what_was_written() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let base = folder.path().join("base.img");
    File::create(&base).unwrap().set_len(100 << 30).unwrap();
    let path = folder.path().join("one.overlay");
    let overlay = open(&path, &base).unwrap();
    for i in 0..10u64 {
        overlay.write(i * (10 << 30), &[1; 512], false).unwrap();
        overlay.write(i * (10 << 30) + 4_096, &[1; 512], false).unwrap();
    }
    overlay.flush().unwrap();
    let bytes = fs::metadata(&path).unwrap().blocks() * 512;
    assert!(bytes < 10 * ((64 << 10) + 4_096) + (128 << 10), "{bytes}");
    overlay.trim(Range { offset: 0, length: 64 << 10 }).unwrap();
    let mut back = [9; 512];
    overlay.read(0, &mut back).unwrap();
    assert!(back == [0; 512] || back == [1; 512]);
}

#[test]
fn another_base_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (base, mut data) = base_in(folder.path());
    let path = folder.path().join("one.overlay");
    open(&path, &base).unwrap().write(0, &[1; 512], false).unwrap();
    let modified = fs::metadata(&base).unwrap().modified().unwrap();
    let refused = |what: &str| {
        assert_eq!(
            open(&path, &base).unwrap_err(),
            format!(
                "overlay {} was made over another state of {} ({what} differs): bring that back, or take the overlay away",
                path.display(),
                base.display()
            )
        );
    };
    data[5] ^= 1;
    fs::write(&base, &data).unwrap();
    File::options().write(true).open(&base).unwrap().set_modified(modified).unwrap();
    refused("its contents");
    data[5] ^= 1;
    fs::write(&base, &data[..SIZE - 512]).unwrap();
    refused("its size");
    fs::write(&base, &data).unwrap();
    let file = File::options().write(true).open(&base).unwrap();
    file.set_modified(modified + std::time::Duration::from_secs(1)).unwrap();
    refused("when it was written");
    file.set_modified(modified).unwrap();
    let overlay = open(&path, &base).unwrap();
    assert!(open(&path, &base).unwrap_err().contains(" is in use by "));
    assert!(Image::open(&base, Access::ReadWrite).unwrap_err().to_string().contains(" is in use by "));
    drop(overlay);
    assert!(Image::open(&path, Access::ReadOnly).unwrap_err().to_string().contains(" is an overlay: "));
}

#[test]
fn damage_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (base, _) = base_in(folder.path());
    let path = folder.path().join("one.overlay");
    let overlay = open(&path, &base).unwrap();
    for i in 0..20 {
        overlay.write(i * 65_536, &[1; 512], false).unwrap();
    }
    drop(overlay);
    let whole = fs::read(&path).unwrap();
    let bad = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let text = open(&path, &base).unwrap_err();
        assert!(text.starts_with(&format!("overlay {} is damaged: ", path.display())), "{text}");
        assert!(!text.contains('\n'));
    };
    for length in [0, 1, 63, DATA as usize, whole.len() - 65_536, whole.len() - 1] {
        bad(&whole[..length]);
    }
    for at in 0..64 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bad(&bytes);
    }
    for (entry, place) in [(0, 2), (40, 1), (0, 4_096), (3, DATA + 65_536), (3, u64::MAX), (40, DATA)] {
        let mut bytes = whole.clone();
        bytes[MAP as usize + entry * 8..][..8].copy_from_slice(&u64::to_le_bytes(place));
        bad(&bytes);
    }
    let mut random = Random(3);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.below(4) {
            let at = [0, 4_096, 8_192, MAP as usize][random.below(4)] + random.below(300);
            bytes[at] = random.below(256) as u8;
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(overlay) = open(&path, &base) {
            all(&overlay);
        }
    }
}

/// A server's clients by a cable each; their station addresses end with 1, 2, and so on.
fn serve(overlays: Overlays, clients: u8) -> (Running, Vec<Client<MemoryLink>>) {
    let address = Address { shelf: 7, slot: 1 };
    let server = Server::new();
    server.export_overlays(address, overlays).unwrap();
    let (mut ends, mut links) = (Vec::new(), Vec::new());
    for mac in 1..=clients {
        let macs = [[2, 0, 0, 0, 1, mac], [2, 0, 0, 0, 2, mac]];
        let (here, there) = MemoryLink::pair(memory::Options { macs, ..Default::default() }).unwrap();
        ends.push(there);
        links.push(here);
    }
    let running = Running::start(server, ends).unwrap();
    (running, links.into_iter().map(|link| Client::attach(link, address).0).collect())
}

#[test]
fn a_damaged_overlay_stops_its_client_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (base, data) = base_in(folder.path());
    let overlays = folder.path().join("overlays");
    fs::create_dir(&overlays).unwrap();
    let path = |client: u8| overlays.join(format!("02:00:00:00:01:{client:02}.overlay"));
    for client in 1..=3 {
        open(&path(client), &base).unwrap().write(512, &[client; 512], false).unwrap();
    }
    let mut bad = fs::read(path(2)).unwrap();
    bad[MAP as usize] = 77;
    fs::write(path(2), &bad).unwrap();
    fs::remove_file(path(3)).unwrap();
    // What is no file is no reason to serve the base either.
    fs::create_dir(path(3)).unwrap();
    fs::write(overlays.join("somebody.overlay"), "").unwrap();

    let opened = Overlays::open(Image::open(&base, Access::ReadOnly).unwrap(), overlays.clone()).unwrap();
    let mut refused: Vec<_> = opened.refused().iter().map(|(mac, error)| format!("{mac} {error}")).collect();
    refused.sort();
    assert_eq!(
        refused,
        [
            format!(
                "02:00:00:00:01:02 overlay {} is damaged: cluster 0 can't lie at byte {}; \
                 take it away, and the client begins anew from the base",
                path(2).display(),
                DATA + 77
            ),
            format!(
                "02:00:00:00:01:03 disk image {} is a directory: name a file or a block device",
                path(3).display()
            ),
        ]
    );
    let (running, mut clients) = serve(opened, 4);
    for (i, client) in (1..).zip(&mut clients) {
        let range = (8u64 | 8 << 48).to_le_bytes().into_iter().chain([0; 504]).collect();
        let all = [
            client.read(1, 1).map(drop),
            client.write(9, &[i; 512], false),
            client.carry_out(Operation::Flush, vec![]),
            client.carry_out(Operation::Verify { lba: 9, sectors: 1 }, vec![]),
            client.carry_out(Operation::Trim { blocks: 1 }, range),
        ];
        match i {
            2 | 3 => assert!(all.iter().all(Result::is_err), "client {i}: {all:?}"),
            _ => {
                assert!(all.iter().all(Result::is_ok), "client {i}: {all:?}");
                let expected = if i == 1 { vec![1; 512] } else { data[512..1_024].to_vec() };
                assert_eq!(client.read(1, 1).unwrap(), expected);
            }
        }
    }
    running.stop().unwrap();
    assert!(fs::read(path(2)).unwrap() == bad);
    assert!(fs::read(&base).unwrap() == data);

    // A changed base concerns all of them.
    fs::write(&base, &data[512..]).unwrap();
    let refused = Overlays::open(Image::open(&base, Access::ReadOnly).unwrap(), overlays.clone());
    assert!(refused.unwrap_err().to_string().contains(" was made over another state of "));
}

#[test]
fn each_client_has_its_own_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (base, data) = base_in(folder.path());
    let overlays = folder.path().join("overlays");
    let open = || Overlays::open(Image::open(&base, Access::ReadOnly).unwrap(), overlays.clone());
    let text = open().unwrap_err().to_string();
    assert_eq!(text, format!("no folder {} for overlays: make it with `mkdir`", overlays.display()));
    fs::create_dir(&overlays).unwrap();
    for round in 0..2u8 {
        let (running, mut clients) = serve(open().unwrap(), 3);
        for (i, client) in clients.iter_mut().enumerate() {
            let was = if round == 0 || i == 2 { data[..512].to_vec() } else { vec![i as u8 + 1; 512] };
            assert!(client.read(0, 1).unwrap() == was, "client {i}");
            assert!(client.read(1, 1).unwrap() == data[512..1_024]);
            if i < 2 {
                client.write(0, &[i as u8 + 1; 512], true).unwrap();
            }
        }
        running.stop().unwrap();
        assert_eq!(fs::read_dir(&overlays).unwrap().count(), 2);
    }
    assert!(fs::read(&base).unwrap() == data);
}
