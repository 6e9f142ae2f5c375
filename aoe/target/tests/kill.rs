//! SIGKILL at random moments under a load of writes, 200 times: what was answered is there, in a raw image and in an overlay, and both
//! open again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use kagero_target::{Access, Backend, Identity, Image, Overlay};

/// No whole number of clusters.
const SIZE: usize = (2 << 20) + 3 * 512;
const PLACES: usize = 40;
const ROUNDS: usize = 200;

/// The child's folder, and the number of its first write.
const FOLDER: &str = "KAGERO_TEST_FOLDER";
const FIRST: &str = "KAGERO_TEST_FIRST";

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Which place write `i` goes to, where that begins, and how many sectors are written.
fn target(i: usize) -> (usize, u64, usize) {
    let place = i * 7 % PLACES;
    (place, (place * 73 * 512) as u64, 1 + i * 31 % 72)
}

struct Disks {
    raw: Image,
    overlay: Overlay,
}

impl Disks {
    fn open(folder: &Path) -> Self {
        let raw = Image::open(&folder.join("raw.img"), Access::ReadWrite).unwrap();
        let base = Arc::new(Image::open(&folder.join("base.img"), Access::ReadOnly).unwrap());
        let identity = Identity::of(&base).unwrap();
        let path = folder.join("one.overlay");
        let overlay = if path.exists() { Overlay::open } else { Overlay::create };
        Disks { raw, overlay: overlay(&path, base, &identity).unwrap() }
    }

    /// The numbers of the writes that these sectors come from.
    fn numbers(&self, offset: u64) -> [usize; 2] {
        let read = |read: &dyn Fn(&mut [u8])| {
            let mut sector = [0; 512];
            read(&mut sector);
            let number: [u8; 4] = sector[..4].try_into().unwrap();
            assert!(sector[..] == number.repeat(128), "a torn sector at {offset}");
            u32::from_le_bytes(number) as usize
        };
        [
            read(&|out| self.raw.read(offset, out).unwrap()),
            read(&|out| self.overlay.read(offset, out).unwrap()),
        ]
    }
}

#[test]
fn what_was_answered_outlives_the_process() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    // The last write to each place that was answered, and that was flushed; of the raw image and of the overlay.
    let (mut answered, mut flushed) = ([[0; 2]; PLACES], [[0; 2]; PLACES]);
    let (mut next, mut writes) = (1, 0);
    // Writes that were never answered, or not flushed before a loss of power: parts of them may be there.
    let mut partial = BTreeSet::new();
    for round in 0..ROUNDS {
        if round % 20 == 0 {
            // Anew, so that making an overlay is interrupted too.
            fs::write(folder.path().join("base.img"), vec![0; SIZE]).unwrap();
            fs::write(folder.path().join("raw.img"), vec![0; SIZE]).unwrap();
            let _ = fs::remove_file(folder.path().join("one.overlay"));
            (answered, flushed) = ([[0; 2]; PLACES], [[0; 2]; PLACES]);
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_writes", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(FIRST, next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The test harness talks too, before the first write.
        let mut enough = random.below(if round % 20 == 0 { 6 } else { 60 });
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            match (words.next(), words.next().and_then(|i| i.parse::<usize>().ok())) {
                (Some("wrote"), Some(i)) => {
                    answered[target(i).0] = [i; 2];
                    (next, writes) = (i + 1, writes + 1);
                }
                (Some("flushed"), _) => flushed = answered,
                _ => {}
            }
            if enough == 0 {
                child.kill().unwrap();
            }
            enough = enough.saturating_sub(1);
        }
        let status = child.wait().unwrap();
        assert!(!status.success() && status.code().is_none(), "the child ended by itself: {status}");

        let power_lost = round % 3 == 2 && folder.path().join("one.overlay").exists();
        if power_lost {
            // As after a new start of the machine: the journal counts for nothing.
            let file = File::options().write(true).open(folder.path().join("one.overlay")).unwrap();
            file.write_all_at(&[0; 1_024], 4_096).unwrap();
        }
        let disks = Disks::open(folder.path());
        partial.insert(next);
        for place in 0..PLACES {
            let offset = (place * 73 * 512) as u64;
            let found = disks.numbers(offset);
            let in_flight = target(next).0 == place;
            for (which, found) in found.into_iter().enumerate() {
                let (answered, flushed) = (answered[place][which], flushed[place][which]);
                let lost = power_lost && which == 1;
                assert!(
                    found == answered
                        || found == next && in_flight
                        || lost && (flushed..answered).contains(&found),
                    "round {round}, disk {which}: {found} at {place}, answered {answered}, flushed {flushed}"
                );
                if lost && found != flushed {
                    // Each cluster is whole, but a write may be about two.
                    partial.insert(found);
                }
                if found != 0 && !partial.contains(&found) {
                    let (_, offset, sectors) = target(found);
                    let last = disks.numbers(offset + (sectors as u64 - 1) * 512)[which];
                    assert!(
                        last == found || last == next && in_flight,
                        "round {round}, disk {which}: half of write {found}, {last}"
                    );
                }
            }
            answered[place] = found;
        }
        flushed = answered;
        next += 1;
    }
    println!("{writes} writes, {ROUNDS} kills");
    assert!(writes > 1_000, "too little was written: {writes}");
}

#[test]
fn the_child_writes() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let disks = Disks::open(&folder);
    let first: usize = std::env::var(FIRST).unwrap().parse().unwrap();
    let mut out = io::stdout();
    writeln!(out, "\nopen").unwrap();
    for i in first.. {
        let (_, offset, sectors) = target(i);
        let data = (i as u32).to_le_bytes().repeat(128 * sectors);
        disks.raw.write(offset, &data, false).unwrap();
        disks.overlay.write(offset, &data, false).unwrap();
        writeln!(out, "wrote {i}").unwrap();
        if i % 11 == 0 {
            disks.raw.flush().unwrap();
            disks.overlay.flush().unwrap();
            writeln!(out, "flushed").unwrap();
        }
    }
}
