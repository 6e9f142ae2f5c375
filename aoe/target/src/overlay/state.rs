//! What keeps an overlay's file in order: its journal, its map on the medium, and room for new clusters.

use std::collections::BTreeSet;
use std::io;

use kagero_aoe::target::Fault;

use super::contents::Contents;
use super::layout::{self, CLUSTER, Half, PAGE, RECORDS, Record};
use super::map::Place;
use super::{Overlay, lock};

/// What the writers of an overlay share.
///
/// The journal has two halves. A flush begins the other one, for what comes after it, and with its end the records of the first are of no
/// use any more, since the map on the medium has what they say.
#[derive(Debug)]
pub(super) struct State {
    /// Pages of the map that are unlike on the medium.
    pub(super) dirty: BTreeSet<usize>,
    /// Where the next cluster goes if there is no room in between.
    next: u64,
    free: Vec<u64>,
    boot: [u8; 16],
    generation: u64,
    /// The half that takes records.
    half: usize,
    /// Records in it.
    records: u64,
    /// The other half has nothing that the map on the medium lacks.
    other_is_free: bool,
}

impl State {
    pub(super) fn new(boot: [u8; 16], contents: &Contents) -> io::Result<Self> {
        let mut generation = [0; 8];
        // No record that lies in the file can belong to it.
        rustix::rand::getrandom(&mut generation, rustix::rand::GetRandomFlags::empty())?;
        Ok(State {
            dirty: BTreeSet::new(),
            next: contents.next,
            free: contents.free.clone(),
            boot,
            generation: u64::from_le_bytes(generation),
            half: 0,
            records: 0,
            other_is_free: true,
        })
    }

    /// Room for a cluster, which nobody else gets.
    pub(super) fn take_room(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            let at = self.next;
            self.next += CLUSTER;
            at
        })
    }

    /// Gives room back that nothing refers to.
    pub(super) fn give_room(&mut self, at: u64) {
        self.free.push(at);
    }
}

impl Overlay {
    /// Notes in map and journal that a cluster lies here now.
    pub(super) fn record(&self, cluster: u64, at: u64) -> Result<(), Fault> {
        // A half is full again after one flush only if others have filled it meanwhile.
        for _ in 0..4 {
            let mut state = lock(&self.state);
            if state.records < RECORDS {
                // Before the record: a record may not say what the map has no room for.
                self.make_room_for_page(cluster)?;
                let record = Record { cluster, place: at }.encode(state.generation);
                self.store.write(layout::record(state.half, state.records), &record, false)?;
                state.records += 1;
                state.dirty.insert(self.map.set(cluster, Place::Here(at)));
                return Ok(());
            }
            drop(state);
            self.checkpoint()?;
        }
        Err(Fault::Aborted)
    }

    /// Sets a cluster's place in the map in memory; the next flush writes it.
    pub(super) fn set(&self, state: &mut State, cluster: u64, place: Place) -> Result<(), Fault> {
        self.make_room_for_page(cluster)?;
        state.dirty.insert(self.map.set(cluster, place));
        Ok(())
    }

    /// Takes room on the disk for a new page of the map, under the lock of `state`: so a full disk refuses the write, and not a flush.
    fn make_room_for_page(&self, cluster: u64) -> Result<(), Fault> {
        match self.map.missing_page(cluster) {
            Some(page) => self.store.write(place_of(page), &[0; PAGE as usize], false),
            None => Ok(()),
        }
    }

    /// Whether the map on the medium has the cluster's place.
    pub(super) fn is_mapped(&self, cluster: u64) -> bool {
        !lock(&self.state).dirty.contains(&layout::page_of(cluster))
    }

    /// Makes all that was written survive a loss of power: first the data, then the map that points to it.
    pub(super) fn checkpoint(&self) -> Result<(), Fault> {
        let _flushing = lock(&self.flushing);
        let pages: Vec<_> = {
            let mut state = lock(&self.state);
            if state.other_is_free && state.records > 0 {
                self.begin_half(&mut state)?;
            }
            state.dirty.iter().map(|&page| (page, self.map.page(page))).collect()
        };
        self.store.flush()?;
        if !pages.is_empty() {
            for (page, bytes) in &pages {
                self.store.write(place_of(*page), bytes, false)?;
            }
            self.store.flush()?;
        }
        let mut state = lock(&self.state);
        for (page, bytes) in &pages {
            // Unless something was copied meanwhile.
            if self.map.page(*page) == *bytes {
                state.dirty.remove(page);
            }
        }
        state.other_is_free = true;
        Ok(())
    }

    /// Goes on with the other half of the journal.
    fn begin_half(&self, state: &mut State) -> Result<(), Fault> {
        let (half, generation) = (1 - state.half, state.generation.wrapping_add(1));
        let header = Half { boot: state.boot, generation }.encode();
        self.store.write(layout::half_header(half), &header, false)?;
        (state.half, state.generation, state.records) = (half, generation, 0);
        state.other_is_free = false;
        Ok(())
    }

    /// Begins an empty journal. What an old one says must be in the map, on the medium.
    pub(super) fn start_journal(&self) -> Result<(), Fault> {
        let mut state = lock(&self.state);
        for _ in 0..2 {
            self.begin_half(&mut state)?;
        }
        state.other_is_free = true;
        Ok(())
    }

    /// Notes that all is in the map, and nobody has the overlay open.
    pub(super) fn end_journal(&self) {
        for half in 0..2 {
            let closed = Half { boot: layout::CLOSED, generation: 0 };
            // Otherwise it looks as after a crash, and loses nothing either.
            let _ = self.store.write(layout::half_header(half), &closed.encode(), false);
        }
    }
}

/// Where a page of the map lies.
fn place_of(page: usize) -> u64 {
    layout::MAP + page as u64 * PAGE
}
