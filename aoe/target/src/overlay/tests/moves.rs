//! Rebase and commit, interrupted at any moment.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kagero_aoe::target::{Fault, Range};

use super::super::layout::CLUSTER;
use super::super::{Identity, Opening, Overlay, commit};
use super::recording::{Tape, after_power_loss};
use super::{Random, SECTOR, World, everything, sector};
use crate::{Access, Backend, Error, Image};

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
        let refused = commit(&world.path(), &wrong, None, false, &mut |_, _| {});
        assert!(matches!(refused, Err(Error::OverlayBase { .. })), "{refused:?}");
        assert!(fs::read(&wrong).unwrap() == other);

        let done = commit(&world.path(), &world.base, None, false, &mut |_, _| {}).unwrap();
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
