//! What overlays are like after a loss of power: everything they did to their file is recorded, and played back as far, and as incompletely,
//! as a disk may have had it.
//!
//! What was written before a flush that ended is there. Of what came later, each sector has any of the states that it went through, and the
//! file any of its lengths.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kagero_aoe::target::{Fault, Range};

use super::layout::{self, CLUSTER, Half};
use super::{Identity, Opening, Overlay};
use crate::{Access, Backend, Error, Image};

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

#[derive(Debug)]
enum Event {
    Write(usize, Vec<u8>),
    /// A flush that ended.
    Flush,
    /// What the client did after this is not in the events before.
    Mark(usize),
}

type Tape = Arc<Mutex<Vec<Event>>>;

/// Writes down what passes.
#[derive(Debug)]
struct Recorder {
    below: Box<dyn Backend>,
    tape: Tape,
    /// Now and then nothing passes, as on a full disk.
    faults: Option<Mutex<Random>>,
}

impl Recorder {
    fn pass(&self) -> Result<(), Fault> {
        let fails = self.faults.as_ref().is_some_and(|random| random.lock().unwrap().below(8) == 0);
        if fails { Err(Fault::Aborted) } else { Ok(()) }
    }

    fn note(&self, event: Event) {
        self.tape.lock().unwrap().push(event);
    }
}

impl Backend for Recorder {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.below.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        self.pass()?;
        self.below.write(offset, data, false)?;
        // One durable write is less than a flush: it says nothing of others. Its sectors alone are certain.
        assert!(!durable || data.len() <= CLUSTER as usize);
        self.note(Event::Write(offset as usize, data.to_vec()));
        if durable {
            self.note(Event::Write(offset as usize | DURABLE, data.to_vec()));
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        self.pass()?;
        self.note(Event::Flush);
        Ok(())
    }

    fn trim(&self, range: Range) -> Result<(), Fault> {
        self.below.trim(range)?;
        self.note(Event::Write(range.offset as usize, vec![0; range.length as usize]));
        Ok(())
    }
}

/// In the offset of a write: it is on the medium.
const DURABLE: usize = 1 << 62;

/// A file as the medium has it when the power goes after the first `end` events.
fn after_power_loss(before: &[u8], events: &[Event], random: &mut Random) -> Vec<u8> {
    // What a sector went through since it was certain last, oldest first.
    let mut states: Vec<Vec<&[u8]>> = before.chunks(SECTOR).map(|sector| vec![sector]).collect();
    let mut lengths = vec![before.len()];
    for event in events {
        match event {
            Event::Write(offset, data) => {
                let (first, certain) = ((offset & !DURABLE) / SECTOR, offset & DURABLE != 0);
                let (within, parts) = ((offset & !DURABLE) % SECTOR, data.chunks(SECTOR));
                let end = (offset & !DURABLE) + data.len();
                if end.div_ceil(SECTOR) > states.len() {
                    states.resize(end.div_ceil(SECTOR), vec![&[]]);
                }
                lengths.push(end.max(*lengths.last().unwrap()));
                // Small writes stay within a sector; large ones are whole sectors.
                assert!(within + data.len() <= SECTOR || within == 0);
                for (sector, part) in states[first..].iter_mut().zip(parts) {
                    if certain {
                        sector.drain(..sector.len() - 1);
                    } else if within == 0 && part.len() == SECTOR {
                        sector.push(part);
                    } else {
                        let mut whole = sector.last().unwrap().to_vec();
                        whole.resize(SECTOR, 0);
                        whole[within..within + part.len()].copy_from_slice(part);
                        // A test may leak.
                        sector.push(whole.leak());
                    }
                }
                if certain {
                    lengths.drain(..lengths.len() - 1);
                }
            }
            Event::Flush => {
                states.iter_mut().for_each(|sector| drop(sector.drain(..sector.len() - 1)));
                lengths.drain(..lengths.len() - 1);
            }
            Event::Mark(_) => {}
        }
    }
    let mut file = Vec::with_capacity(states.len() * SECTOR);
    // Sometimes all of one kind, since chance alone seldom makes the extremes.
    let kind = random.below(4);
    for (end, sector) in (1..).zip(&states) {
        let which = match kind {
            0 => 0,
            1 => sector.len() - 1,
            _ => random.below(sector.len()),
        };
        file.extend_from_slice(sector[which]);
        file.resize(end * SECTOR, 0);
    }
    file.resize(lengths[random.below(lengths.len())], 0);
    file
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

/// The power goes at every moment of what a client does, again and again.
#[test]
fn what_was_flushed_survives() {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let mut losses = 0;
    for _ in 0..4 {
        let mut world = World::new();
        let identity = Identity::of(&world.image(&world.base)).unwrap();
        drop(Overlay::create(&world.path(), world.image(&world.base), &identity).unwrap());
        for _ in 0..4 {
            let before = fs::read(world.path()).unwrap();
            let base_step = world.step;
            let tape = Tape::default();
            let overlay = world.open(&world.base, &tape);
            for _ in 0..25 {
                world.act(&overlay, &tape, &mut random);
            }
            drop(overlay);
            let events = std::mem::take(&mut *tape.lock().unwrap());
            let flushes = flushes(&events, base_step);
            let mut last = None;
            for end in 0..=events.len() {
                if random.below(6) > 0 && end != events.len() {
                    continue;
                }
                let (now, flushed) = flushes[end];
                drop(last.take());
                let file = after_power_loss(&before, &events[..end], &mut random);
                world.install(&file);
                let overlay = world.open(&world.base, &Tape::default());
                world.check(&everything(&overlay), flushed, now);
                last = Some(overlay);
                losses += 1;
            }
            // Life goes on after one of them: what is there now is all there was.
            let overlay = last.unwrap();
            for (history, number) in world.history.iter_mut().zip(numbers(&everything(&overlay))) {
                *history = vec![Was { step: world.step, number, durable: true }];
            }
            drop(overlay);
        }
    }
    assert!(losses > 120, "{losses}");
}

/// For each number of events: which step was begun by then, and up to which step all was flushed.
fn flushes(events: &[Event], begin: usize) -> Vec<(usize, usize)> {
    let (mut now, mut flushed) = (begin, begin);
    let mut out = vec![(now, flushed)];
    let mut pending = false;
    for event in events {
        match event {
            Event::Mark(step) => {
                // The step before has ended; if it was a flush, its last event was one.
                if pending {
                    flushed = now;
                }
                now = *step;
                pending = false;
            }
            Event::Flush => pending = true,
            Event::Write(..) => pending = false,
        }
        out.push((now, flushed));
    }
    out
}

/// The process is killed at every moment, and the disk is full now and then: what was answered is there, flushed or not.
#[test]
fn what_was_answered_survives_a_kill() {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let (mut kills, mut failures) = (0, 0);
    for round in 0..8 {
        let world = World::new();
        let identity = Identity::of(&world.image(&world.base)).unwrap();
        drop(Overlay::create(&world.path(), world.image(&world.base), &identity).unwrap());
        let before = fs::read(world.path()).unwrap();
        let tape = Tape::default();
        let Ok(overlay) = world.open_with(&world.base, &tape, Some(Random(seed + round))) else { continue };
        // What each sector may hold after so many events.
        let mut may: Vec<Vec<u32>> = world.history.iter().map(|history| vec![history[0].number]).collect();
        let mut after = Vec::new();
        for number in 1..30 {
            let first = random.below(SIZE / SECTOR);
            let last = (first + 1 + random.below(300)).min(SIZE / SECTOR);
            if random.below(5) == 0 {
                failures += usize::from(overlay.flush().is_err());
                continue;
            }
            may[first..last].iter_mut().for_each(|sector| sector.push(number));
            // While it goes on, and if it fails.
            after.push((tape.lock().unwrap().len(), may.clone()));
            match overlay.write((first * SECTOR) as u64, &sector(number).repeat(last - first), false) {
                Ok(()) => may[first..last].iter_mut().for_each(|sector| *sector = vec![number]),
                Err(_) => failures += 1,
            }
            after.push((tape.lock().unwrap().len(), may.clone()));
        }
        let events = std::mem::take(&mut *tape.lock().unwrap());
        drop(overlay);
        for end in (0..=events.len()).filter(|_| random.below(3) == 0) {
            let Some((_, may)) = after.iter().rfind(|(begin, _)| *begin <= end) else { continue };
            let mut file = before.clone();
            for event in &events[..end] {
                if let Event::Write(offset, data) = event {
                    file.resize(file.len().max(offset + data.len()), 0);
                    file[*offset..offset + data.len()].copy_from_slice(data);
                }
            }
            fs::write(world.path(), file).unwrap();
            let disk = everything(&world.open(&world.base, &Tape::default()));
            for (at, (found, may)) in numbers(&disk).into_iter().zip(may).enumerate() {
                assert!(may.contains(&found), "{end} events, sector {at} has {found}, not of {may:?}");
            }
            kills += 1;
        }
    }
    assert!(kills > 90 && failures > 20, "{kills} {failures}");
}

/// Whenever the power goes during a rebase, the overlay is over one of the bases, and its client sees the same disk.
#[test]
fn a_rebase_never_changes_the_disk() {
    let mut random = Random(5);
    let mut world = World::new();
    let identity = Identity::of(&world.image(&world.base)).unwrap();
    let overlay = Overlay::create(&world.path(), world.image(&world.base), &identity).unwrap();
    for _ in 0..6 {
        world.act(&overlay, &Tape::default(), &mut random);
    }
    overlay.trim(Range { offset: 6 * CLUSTER, length: CLUSTER }).unwrap();
    let disk = everything(&overlay);
    drop(overlay);
    // Some clusters as the client has them, some as the base, some as neither.
    let new = world.folder.path().join("new.img");
    let mut mixed = fs::read(&world.base).unwrap();
    for (i, cluster) in mixed.chunks_mut(CLUSTER as usize).enumerate() {
        match i % 3 {
            0 => cluster.copy_from_slice(&disk[i * CLUSTER as usize..][..cluster.len()]),
            1 => cluster.fill(7),
            _ => {}
        }
    }
    fs::write(&new, &mixed).unwrap();
    let over_new = Identity::of(&world.image(&new)).unwrap();

    let before = fs::read(world.path()).unwrap();
    let tape = Tape::default();
    let overlay = world.open(&world.base, &tape);
    let copied = overlay.copy_differences(&world.image(&new), &mut |_, _| {}).unwrap();
    overlay.take_base(&over_new, &new).unwrap();
    drop(overlay);
    let mut overlay = world.open(&new, &tape);
    let dropped = overlay.drop_what_the_base_has(&mut |_, _| {}).unwrap();
    assert!(everything(&overlay) == disk);
    drop(overlay);
    assert!(copied > 0 && dropped > 0, "{copied} {dropped}");

    let events = std::mem::take(&mut *tape.lock().unwrap());
    let mut seen = [0; 2];
    for end in 0..=events.len() {
        for _ in 0..6 {
            world.install(&after_power_loss(&before, &events[..end], &mut random));
            let over =
                |base: &Path, identity: &Identity| Overlay::open(&world.path(), world.image(base), identity);
            let overlay = match over(&world.base, &identity) {
                Ok(overlay) => {
                    seen[0] += 1;
                    overlay
                }
                Err(Error::OverlayBase { .. }) => {
                    seen[1] += 1;
                    over(&new, &over_new).unwrap()
                }
                Err(error) => panic!("{error}"),
            };
            assert!(everything(&overlay) == disk, "after {end} events");
        }
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
}

/// A base that is written to no more after so many writes, as when the process is killed there.
#[derive(Debug)]
struct Dying {
    below: Arc<Image>,
    left: Mutex<usize>,
}

impl Dying {
    fn once(&self) -> Result<(), Fault> {
        let mut left = self.left.lock().unwrap();
        *left = left.checked_sub(1).ok_or(Fault::Aborted)?;
        Ok(())
    }
}

impl Backend for Dying {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.below.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        // Half of it, and then no more.
        if let Err(fault) = self.once() {
            self.below.write(offset, &data[..data.len() / 2 / SECTOR * SECTOR], durable)?;
            return Err(fault);
        }
        self.below.write(offset, data, durable)
    }

    fn flush(&self) -> Result<(), Fault> {
        self.once()?;
        self.below.flush()
    }

    fn trim(&self, range: Range) -> Result<(), Fault> {
        self.once()?;
        self.below.trim(range)
    }
}

#[test]
fn an_interrupted_commit_can_be_done_again() {
    let mut random = Random(9);
    let mut world = World::new();
    let original = fs::read(&world.base).unwrap();
    let identity = Identity::of(&world.image(&world.base)).unwrap();
    let overlay = Overlay::create(&world.path(), world.image(&world.base), &identity).unwrap();
    for _ in 0..5 {
        world.act(&overlay, &Tape::default(), &mut random);
    }
    overlay.write(CLUSTER + 512, &sector(77), false).unwrap();
    overlay.trim(Range { offset: 6 * CLUSTER, length: CLUSTER + 3 * SECTOR as u64 }).unwrap();
    let disk = everything(&overlay);
    drop(overlay);
    let whole = fs::read(world.path()).unwrap();

    let mut moment = 0;
    loop {
        fs::write(world.path(), &whole).unwrap();
        fs::write(&world.base, &original).unwrap();
        let image = Arc::new(Image::open(&world.base, Access::ReadWrite).unwrap());
        let opening = Opening::new(&world.path()).unwrap();
        let over = opening.contents.header.over;
        let overlay = opening.over(Arc::clone(&image)).unwrap();
        let dying = Dying { below: Arc::clone(&image), left: Mutex::new(moment) };
        let ended = overlay.commit(over, false, false, &dying, &mut |_, _| {}).is_ok();
        drop((overlay, dying, image));

        // Nobody is served half of it, and no other base is taken for this one.
        let image = world.image(&world.base);
        let served = Overlay::open(&world.path(), Arc::clone(&image), &Identity::of(&image).unwrap());
        assert!(matches!(served, Err(Error::OverlayCommitting(_))), "{served:?}");
        drop((served, image));
        let mut other = fs::read(&world.base).unwrap();
        // A sample that the overlay holds no cluster of decides.
        let held = Opening::new(&world.path()).unwrap().contents.places;
        let free = (0..7).find(|cluster| !held.contains_key(cluster)).unwrap();
        other[(free * CLUSTER) as usize..][..CLUSTER as usize].fill(9);
        let wrong = world.folder.path().join("wrong.img");
        fs::write(&wrong, &other).unwrap();
        let refused = super::commit(&world.path(), &wrong, None, false, &mut |_, _| {});
        assert!(matches!(refused, Err(Error::OverlayBase { .. })), "{refused:?}");
        assert!(fs::read(&wrong).unwrap() == other);

        let done = super::commit(&world.path(), &world.base, None, false, &mut |_, _| {}).unwrap();
        assert!(done.resumed && done.clusters == held.len() as u64);
        assert!(fs::read(&world.base).unwrap() == disk, "moment {moment}");
        assert!(!world.path().exists());
        if ended {
            break;
        }
        moment += 1;
    }
    assert!(moment > 4, "{moment}");
}
