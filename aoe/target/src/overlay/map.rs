//! Where the clusters of a disk lie, for any thread to look up without a lock.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{Layout, PAGE, PAGE_ENTRIES};

/// Where one cluster lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the base: it was never written to.
    Base,
    /// Nowhere: it was trimmed, and reads as zeros.
    Zeros,
    /// At this byte of the overlay.
    Here(u64),
}

impl Place {
    pub(super) fn decode(word: u64) -> Self {
        match word {
            0 => Place::Base,
            1 => Place::Zeros,
            at => Place::Here(at),
        }
    }

    pub(super) fn encode(self) -> u64 {
        match self {
            Place::Base => 0,
            Place::Zeros => 1,
            Place::Here(at) => at,
        }
    }
}

type Page = [AtomicU64; PAGE_ENTRIES];

/// The place of every cluster.
///
/// While clients use the disk, a place changes from the base to zeros to here at most, skipping one or not, and then never again: so what a
/// reader or writer looked up stays good without a lock.
pub(super) struct Map {
    /// Only those with a cluster that isn't the base's.
    pages: Box<[OnceLock<Box<Page>>]>,
}

fn split(cluster: u64) -> (usize, usize) {
    let entries = PAGE_ENTRIES as u64;
    (usize::try_from(cluster / entries).unwrap_or(usize::MAX), (cluster % entries) as usize)
}

impl Map {
    pub(super) fn new(layout: &Layout) -> Self {
        let pages = layout.clusters.div_ceil(PAGE_ENTRIES as u64);
        Map { pages: (0..pages).map(|_| OnceLock::new()).collect() }
    }

    pub(super) fn get(&self, cluster: u64) -> Place {
        let (page, entry) = split(cluster);
        match self.pages.get(page).and_then(OnceLock::get) {
            Some(page) => Place::decode(page[entry].load(Ordering::Acquire)),
            None => Place::Base,
        }
    }

    /// One thread at a time, and no later than what the place refers to. Gives the page that it is in.
    pub(super) fn set(&self, cluster: u64, place: Place) -> usize {
        let (page, entry) = split(cluster);
        if let Some(slot) = self.pages.get(page) {
            let page = slot.get_or_init(|| Box::new([const { AtomicU64::new(0) }; PAGE_ENTRIES]));
            page[entry].store(place.encode(), Ordering::Release);
        }
        page
    }

    /// The page of a cluster, if it is the base's as a whole: then the file has no room for it yet.
    pub(super) fn missing_page(&self, cluster: u64) -> Option<usize> {
        let (page, _) = split(cluster);
        self.pages.get(page).is_some_and(|page| page.get().is_none()).then_some(page)
    }

    /// A page as it lies in the file.
    pub(super) fn page(&self, page: usize) -> Vec<u8> {
        match self.pages.get(page).and_then(OnceLock::get) {
            Some(page) => page.iter().flat_map(|entry| entry.load(Ordering::Acquire).to_le_bytes()).collect(),
            None => vec![0; PAGE as usize],
        }
    }

    /// All clusters that are not the base's.
    pub(super) fn held(&self) -> impl Iterator<Item = (u64, Place)> {
        let pages = (0u64..).zip(&self.pages).filter_map(|(number, page)| Some((number, page.get()?)));
        let places = pages.flat_map(|(number, page)| {
            let first = number * PAGE_ENTRIES as u64;
            (first..).zip(page.iter().map(|entry| Place::decode(entry.load(Ordering::Acquire))))
        });
        places.filter(|(_, place)| *place != Place::Base)
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("held", &self.held().count()).finish_non_exhaustive()
    }
}
