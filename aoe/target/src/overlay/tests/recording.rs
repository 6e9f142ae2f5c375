//! All that an overlay does to its file, recorded, and played back as far, and as incompletely, as a disk may have had it.
//!
//! What was written before a flush that ended is there. Of what came later, each sector has any of the states that it went through, and the
//! file any of its lengths.

use std::sync::{Arc, Mutex};

use kagero_aoe::target::{Fault, Range};

use super::super::layout::CLUSTER;
use super::{Random, SECTOR};
use crate::Backend;

#[derive(Debug)]
pub(super) enum Event {
    Write(usize, Vec<u8>),
    /// A flush that ended.
    Flush,
    /// What the client did after this is not in the events before.
    Mark(usize),
}

pub(super) type Tape = Arc<Mutex<Vec<Event>>>;

/// Writes down what passes.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) below: Box<dyn Backend>,
    pub(super) tape: Tape,
    /// Now and then nothing passes, as on a full disk.
    pub(super) faults: Option<Mutex<Random>>,
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
pub(super) const DURABLE: usize = 1 << 62;

/// A file as the medium has it when the power goes after the first `end` events.
pub(super) fn after_power_loss(before: &[u8], events: &[Event], random: &mut Random) -> Vec<u8> {
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
