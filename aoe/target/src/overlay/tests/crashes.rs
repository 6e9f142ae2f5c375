//! What overlays are like after a loss of power, or of their process.

use std::fs;

use super::super::{Identity, Overlay};
use super::recording::{Event, Tape, after_power_loss};
use super::{Random, SECTOR, SIZE, Was, World, everything, numbers, sector};
use crate::Backend;

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
