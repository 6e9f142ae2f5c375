//! Overlays: each client's own view of one base, which survives what a machine may do to a process.

mod client;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use client::Client;
use kagero_aoe::target::Range;
use kagero_aoe::wire::Address;
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
    for (entry, place) in [(0, 1), (0, 4_096), (3, DATA + 65_536), (3, u64::MAX), (40, DATA)] {
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

const PLACES: usize = 40;

/// Where write `i` goes. Several places lie in one cluster.
fn place(i: usize) -> usize {
    (i * 7 % PLACES) * (9 * 4_096 + 512)
}

fn index_at(overlay: &Overlay, place: usize) -> usize {
    let mut sector = [0; 512];
    overlay.read(place as u64, &mut sector).unwrap();
    u32::from_le_bytes(sector[..4].try_into().unwrap()) as usize
}

#[test]
fn what_was_flushed_outlives_everything() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let base = folder.path().join("base.img");
    // Whatever is not written later reads as this.
    fs::write(&base, vec![0; SIZE]).unwrap();
    let path = folder.path().join("one.overlay");
    let mut random = Random(u64::from(std::process::id()));
    // The last write to each place that was answered, and that was flushed.
    let (mut answered, mut flushed) = ([0; PLACES], [0; PLACES]);
    let mut next = 1;
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_when_told", "--nocapture"])
            .env("KAGERO_TEST_OVERLAY", folder.path())
            .env("KAGERO_TEST_NEXT", next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut enough = random.below(120);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            // The test harness talks too.
            if let Some(i) = line.rsplit_once("wrote ").and_then(|(_, i)| i.parse::<usize>().ok()) {
                answered[i * 7 % PLACES] = i;
                next = i + 1;
            } else if line.contains("flushed") {
                flushed = answered;
            }
            if enough == 0 {
                child.kill().unwrap();
            }
            enough = enough.saturating_sub(1);
        }
        child.wait().unwrap();
        let power_lost = round % 3 == 2;
        if power_lost {
            // As after a new start of the machine: the journal counts for nothing.
            File::options().write(true).open(&path).unwrap().write_all_at(&[0; 32], 4_096).unwrap();
        }
        let overlay = open(&path, &base).unwrap();
        for i in 1..=PLACES {
            let which = i * 7 % PLACES;
            let found = index_at(&overlay, place(i));
            let in_flight = found == next && next * 7 % PLACES == which;
            if power_lost {
                let later = found <= answered[which] || in_flight;
                assert!(found >= flushed[which] && later, "round {round}: {found} at {which}");
            } else {
                assert!(found == answered[which] || in_flight, "round {round}: {found} at {which}");
            }
            answered[which] = found;
            // The neighbour is never written to.
            assert_eq!(index_at(&overlay, place(i) + 4_096), 0);
        }
        flushed = answered;
        next += 1;
    }
    assert!(next > 100, "too little was written: {next}");
}

#[test]
fn writes_when_told() {
    let Some(folder) = std::env::var_os("KAGERO_TEST_OVERLAY").map(PathBuf::from) else { return };
    let overlay = open(&folder.join("one.overlay"), &folder.join("base.img")).unwrap();
    let first: usize = std::env::var("KAGERO_TEST_NEXT").unwrap().parse().unwrap();
    for i in first.. {
        overlay.write(place(i) as u64, &(i as u32).to_le_bytes().repeat(128 * 2), false).unwrap();
        println!("wrote {i}");
        if i % 11 == 0 {
            overlay.flush().unwrap();
            println!("flushed");
        }
        std::io::stdout().flush().unwrap();
    }
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
    let address = Address { shelf: 7, slot: 1 };
    for round in 0..2u8 {
        let server = Server::new();
        server.export_overlays(address, open().unwrap()).unwrap();
        let (mut ends, mut clients) = (Vec::new(), Vec::new());
        for mac in 1..=3 {
            let options = |mac| memory::Options {
                macs: [[2, 0, 0, 0, 1, mac], [2, 0, 0, 0, 2, mac]],
                ..Default::default()
            };
            let (here, there) = MemoryLink::pair(options(mac)).unwrap();
            ends.push(there);
            clients.push(here);
        }
        let running = Running::start(server, ends).unwrap();
        let mut clients: Vec<_> = clients.into_iter().map(|link| Client::attach(link, address).0).collect();
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
