//! A client on its overlay, and what may come over both.

mod crashes;
mod moves;
mod recording;
mod waiting;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kagero_aoe::target::Range;

use super::layout::{self, CLUSTER, Half};
use super::{Identity, Opening, Overlay};
use crate::{Access, Backend, Error, Image};
use recording::{Event, Recorder, Tape};

const SECTOR: usize = 512;
/// Eight clusters, the last of them short.
const SIZE: usize = 7 * CLUSTER as usize + 3 * SECTOR;

#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// What a sector was.
#[derive(Clone, Copy, Debug)]
struct Was {
    /// The step that made it so.
    step: usize,
    /// What it held; 0 for trimmed.
    number: u32,
    /// It was to be on the medium when that step ended.
    durable: bool,
}

/// A folder with a base, and what a client did over it.
struct World {
    folder: tempfile::TempDir,
    base: PathBuf,
    /// Every state that each sector of the disk went through.
    history: Vec<Vec<Was>>,
    step: usize,
}

/// The sector that holds this number.
fn sector(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(SECTOR / 4)
}

fn numbers(disk: &[u8]) -> Vec<u32> {
    let number = |sector: &[u8]| {
        let number = u32::from_le_bytes(sector[..4].try_into().unwrap());
        assert!(sector == self::sector(number), "a torn sector");
        number
    };
    disk.chunks(SECTOR).map(number).collect()
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base.img");
        let first: Vec<u32> = (0..SIZE / SECTOR).map(|i| 1_000_000 + i as u32).collect();
        fs::write(&base, first.iter().flat_map(|&number| sector(number)).collect::<Vec<_>>()).unwrap();
        let history = first.iter().map(|&number| vec![Was { step: 0, number, durable: true }]).collect();
        World { folder, base, history, step: 0 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("one.overlay")
    }

    fn image(&self, path: &Path) -> Arc<Image> {
        Arc::new(Image::open(path, Access::ReadOnly).unwrap())
    }

    /// The overlay, recorded.
    fn open(&self, base: &Path, tape: &Tape) -> Overlay {
        self.open_with(base, tape, None).unwrap()
    }

    fn open_with(&self, base: &Path, tape: &Tape, faults: Option<Random>) -> Result<Overlay, Error> {
        let base = self.image(base);
        let opening = Opening::new(&self.path()).unwrap();
        opening.check(&base, &Identity::of(&base).unwrap()).unwrap();
        let (tape, faults) = (Arc::clone(tape), faults.map(Mutex::new));
        opening.over_with(base, |raw| Box::new(Recorder { below: Box::new(raw), tape, faults }))
    }

    /// Something that a client may do.
    fn act(&mut self, overlay: &Overlay, tape: &Tape, random: &mut Random) {
        self.step += 1;
        tape.lock().unwrap().push(Event::Mark(self.step));
        let sectors = SIZE / SECTOR;
        let first = random.below(sectors);
        let count = match random.below(3) {
            0 => 1 + random.below(16),
            _ => 1 + random.below(300),
        };
        let count = count.min(sectors - first);
        match random.below(12) {
            0 | 1 => {
                overlay.flush().unwrap();
            }
            2 => {
                let (offset, length) = ((first * SECTOR) as u64, (count * SECTOR) as u64);
                overlay.trim(Range { offset, length }).unwrap();
                // As it was, or zeros. After a loss of power it may be either again.
                for history in &mut self.history[first..first + count] {
                    history.push(Was { step: self.step, number: 0, durable: false });
                }
            }
            other => {
                let number = self.step as u32;
                let durable = other == 3;
                overlay.write((first * SECTOR) as u64, &sector(number).repeat(count), durable).unwrap();
                for history in &mut self.history[first..first + count] {
                    history.push(Was { step: self.step, number, durable });
                }
            }
        }
    }

    /// Checks what a client sees after a loss of power at step `now`, when `flushed` was the last flush to have ended.
    fn check(&self, disk: &[u8], flushed: usize, now: usize) {
        for (at, (found, history)) in numbers(disk).into_iter().zip(&self.history).enumerate() {
            // Trims promise nothing, but that there is something of the sector's own.
            let certain =
                |was: &Was| was.number != 0 && (was.step <= flushed || was.durable && was.step < now);
            let certain = history.iter().rposition(certain).unwrap_or(0);
            let allowed = |was: &Was| was.number == found && was.step <= now;
            assert!(
                history[certain..].iter().any(allowed),
                "sector {at} has {found}, of {:?}; flushed {flushed}, now {now}",
                &history[certain..]
            );
        }
    }

    /// Puts the file there as it is after a new start of the machine.
    fn install(&self, file: &[u8]) {
        let mut file = file.to_vec();
        for half in 0..2 {
            let at = layout::half_header(half) as usize;
            let Some(bytes) = file.get_mut(at..at + layout::HALF_HEADER) else { continue };
            if let Some(old) = Half::decode((&*bytes).try_into().unwrap())
                && old.boot != layout::CLOSED
            {
                bytes.copy_from_slice(&Half { boot: [7; 16], ..old }.encode());
            }
        }
        fs::write(self.path(), file).unwrap();
    }
}

fn everything(overlay: &Overlay) -> Vec<u8> {
    let mut disk = vec![0; SIZE];
    overlay.read(0, &mut disk).unwrap();
    disk
}
