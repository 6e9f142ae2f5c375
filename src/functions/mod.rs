//! The functions in the slots of PCI bus 0 that are passed through to the guest.

mod hardware;
mod map;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use kagero_devices::pci::Bar;
use kagero_devices::platform::pirq_of;
pub use kagero_vfio::{Decode, Space};
use kagero_vfio::{Error, Region};

pub use self::map::Found;
use self::map::Map;

/// The slots for them; those before are the board's.
pub const SLOTS: RangeInclusive<u8> = 3..=31;

/// What a function has to say by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has failed beyond repair.
    Failed,
    /// The host wants it back.
    Wanted,
}

/// A function as the bus needs it.
pub trait Slotted: Send {
    /// Fills `out` from configuration space. An access stays inside four aligned bytes.
    fn read_config(&mut self, offset: u16, out: &mut [u8]);

    /// Writes configuration space. Returns whether [`decodes`](Self::decodes) says something else now.
    fn write_config(&mut self, offset: u16, data: &[u8]) -> bool;

    /// What BAR `index` asks for, if there is one.
    fn bar(&self, index: u8) -> Option<Bar>;

    /// All that it decodes now. What it has mapped into the guest needs no answer from it any more; the rest comes to [`read`](Self::read) and
    /// [`write`](Self::write).
    fn decodes(&self) -> Vec<Decode>;

    /// Fills `out` with registers. All of them are in `region`, unless that has just moved.
    fn read(&mut self, region: Region, offset: u64, out: &mut [u8]);

    /// Writes registers, as with [`read`](Self::read).
    fn write(&mut self, region: Region, offset: u64, data: &[u8]);

    /// Its interrupt pin, 0 for INTA.
    fn pin(&self) -> Option<u8>;

    /// The pin leads to this interrupt from now on, or to none.
    fn route_line(&mut self, irq: Option<u8>);

    /// The machine is reset. It decodes nothing, and gives back what it has of the machine.
    fn reset(&mut self);

    /// What went wrong, the oldest first.
    fn take_error(&mut self) -> Option<Error> {
        None
    }

    /// Events that ring when it has something to say by itself.
    fn signs(&self) -> Vec<(Sign, OwnedFd)> {
        Vec::new()
    }

    /// What people call it.
    fn name(&self) -> String;
}

/// A place on PCI bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// One of [`SLOTS`].
    pub slot: u8,
    /// 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}", self.slot, self.function)
    }
}

/// Why functions can't be where they were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// No such slot, or one of the board's.
    #[error("there is no place for a function at {0}")]
    Nowhere(Address),
    /// Two at one place.
    #[error("two functions are at {0}")]
    Twice(Address),
    /// Guests look no further when there is no function 0.
    #[error("the function at {0} is not found, as its slot has no function 0")]
    Headless(Address),
}

/// The functions, each behind a lock of its own.
///
/// Lock order: the routing, under which the chipset may be asked, then a function; each may be skipped. The map is a leaf, and what a
/// function locks are leaves too.
pub struct Functions {
    seats: Vec<Seat>,
    map: RwLock<Map>,
    /// Where PIRQA to PIRQD lead.
    routing: Mutex<[Option<u8>; 4]>,
    /// What rings, and what it says of whom.
    signs: Vec<(Sign, String, OwnedFd)>,
    /// Why the guest can't go on.
    lost: OnceLock<String>,
}

struct Seat {
    address: Address,
    name: String,
    seated: Mutex<Seated>,
    reads: AtomicU64,
    writes: AtomicU64,
}

struct Seated {
    function: Box<dyn Slotted>,
    irq: Option<u8>,
}

impl Functions {
    /// Puts functions into slots. They have been reset.
    ///
    /// # Errors
    /// When one can't be where it was put.
    pub fn new(mut functions: Vec<(Address, Box<dyn Slotted>)>) -> Result<Self, Misplaced> {
        functions.sort_by_key(|(address, _)| *address);
        let places: Vec<Address> = functions.iter().map(|(address, _)| *address).collect();
        for (index, &address) in places.iter().enumerate() {
            if !SLOTS.contains(&address.slot) || address.function > 7 {
                return Err(Misplaced::Nowhere(address));
            }
            if places[..index].last() == Some(&address) {
                return Err(Misplaced::Twice(address));
            }
            if !places.contains(&Address { function: 0, ..address }) {
                return Err(Misplaced::Headless(address));
            }
        }
        let seat = |(address, function)| Seat {
            address,
            name: format!("pci-{address}"),
            seated: Mutex::new(Seated { function, irq: None }),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        };
        let named = |function: &dyn Slotted| {
            let name = function.name();
            function
                .signs()
                .into_iter()
                .map(move |(sign, event)| (sign, name.clone(), event))
                .collect::<Vec<_>>()
        };
        let signs = functions.iter().flat_map(|(_, function)| named(&**function)).collect();
        let seats: Vec<Seat> = functions.into_iter().map(seat).collect();
        let map = RwLock::new(Map::new(seats.len()));
        Ok(Functions { map, seats, routing: Mutex::default(), signs, lost: OnceLock::new() })
    }

    /// An empty bus.
    #[must_use]
    pub fn none() -> Self {
        let (map, routing) = Default::default();
        Functions { seats: Vec::new(), map, routing, signs: Vec::new(), lost: OnceLock::new() }
    }

    /// Where there are functions, in order.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.seats.iter().map(|seat| seat.address)
    }

    /// Fills `out` from a function's configuration space; with ones, which is how guests find out, when there is no such function.
    pub fn read_config(&self, address: Address, offset: u16, out: &mut [u8]) {
        match self.seat(address) {
            Some((_, seat)) => {
                let mut seated = seat.lock();
                seated.function.read_config(offset, out);
                self.look_for_trouble(&mut seated);
            }
            None => out.fill(0xff),
        }
    }

    /// Writes a function's configuration space.
    pub fn write_config(&self, address: Address, offset: u16, data: &[u8]) {
        let Some((owner, seat)) = self.seat(address) else { return };
        let mut seated = seat.lock();
        if seated.function.write_config(offset, data) {
            self.place(owner, &seated);
        }
        self.look_for_trouble(&mut seated);
    }

    /// What BAR `index` of a function asks for, if there is one.
    pub(crate) fn bar(&self, address: Address, index: u8) -> Option<Bar> {
        self.seat(address)?.1.lock().function.bar(index)
    }

    /// Where an access to `width` bytes leads, if one function answers all of them.
    pub fn find(&self, space: Space, address: u64, width: usize) -> Option<Found> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).find(space, address, width)
    }

    /// Fills `out` from what was [found](Self::find): several accesses, of `width` bytes each, of the same register.
    pub fn read(&self, found: Found, width: usize, out: &mut [u8]) {
        let Some(seat) = self.seats.get(found.owner) else { return out.fill(0xff) };
        seat.reads.fetch_add(1, Ordering::Relaxed);
        let mut seated = seat.lock();
        out.chunks_mut(width).for_each(|out| seated.function.read(found.region, found.offset, out));
        self.look_for_trouble(&mut seated);
    }

    /// Writes what was [found](Self::find), as with [`read`](Self::read).
    pub fn write(&self, found: Found, width: usize, data: &[u8]) {
        let Some(seat) = self.seats.get(found.owner) else { return };
        seat.writes.fetch_add(1, Ordering::Relaxed);
        let mut seated = seat.lock();
        data.chunks(width).for_each(|data| seated.function.write(found.region, found.offset, data));
        self.look_for_trouble(&mut seated);
    }

    /// PIRQA to PIRQD may lead elsewhere now: to where `routes` says. That is asked when no other change is under way, so that the last one is
    /// what stays.
    pub(crate) fn route(&self, routes: impl FnOnce() -> [Option<u8>; 4]) {
        let mut routing = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
        *routing = routes();
        for seat in &self.seats {
            let mut seated = seat.lock();
            let pirq = seated.function.pin().map(|pin| pirq_of(seat.address.slot, pin));
            let irq = pirq.and_then(|pirq| *routing.get(usize::from(pirq))?);
            seated.route(irq);
        }
    }

    /// The machine is reset, or ends.
    pub(crate) fn reset(&self) {
        let mut routing = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
        *routing = [None; 4];
        for (owner, seat) in self.seats.iter().enumerate() {
            let mut seated = seat.lock();
            seated.route(None);
            seated.function.reset();
            self.place(owner, &seated);
        }
    }

    /// Why the guest can't go on: a function of its own is gone.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// What rings when a function has something to say by itself.
    pub(crate) fn signs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.signs.iter().map(|(_, _, event)| event.as_fd())
    }

    /// One of the [signs](Self::signs) has rung.
    pub(crate) fn heed(&self, event: RawFd) {
        let Some((sign, name, event)) = self.signs.iter().find(|(_, _, own)| own.as_raw_fd() == event) else {
            return;
        };
        // It rings no more until the next time.
        let _ = rustix::io::read(event, &mut [0; 8]);
        let line = match sign {
            Sign::Failed => Error::Failed { device: name.clone() }.to_string(),
            Sign::Wanted => {
                format!("{name}: the host wants it back; the guest can't be without it, and ends")
            }
        };
        let _ = self.lost.set(line);
    }

    /// Says what went wrong with a function. Most of it a guest survives, as with hardware that is broken.
    fn look_for_trouble(&self, seated: &mut Seated) {
        while let Some(error) = seated.function.take_error() {
            match error {
                Error::Vanished { .. } | Error::Failed { .. } => {
                    let _ = self.lost.set(error.to_string());
                }
                other => tracing::warn!("{other}"),
            }
        }
    }

    /// How often the guest came to each function's registers since this was asked last: name, reads, writes.
    pub fn take_accesses(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.seats.iter().map(|seat| {
            let (reads, writes) = (&seat.reads, &seat.writes);
            (seat.name.as_str(), reads.swap(0, Ordering::Relaxed), writes.swap(0, Ordering::Relaxed))
        })
    }

    /// Where an access leads, for people: `03.0/bar0+14`.
    pub(crate) fn describe(&self, found: Found) -> String {
        let address = self.seats.get(found.owner).map(|seat| seat.address.to_string()).unwrap_or_default();
        let region = match found.region {
            Region::Config => "config".into(),
            Region::Bar(bar) => format!("bar{bar}"),
            Region::Rom => "rom".into(),
        };
        format!("{address}/{region}+{:x}", found.offset)
    }

    /// Asks a function what it decodes now. It stays locked, so that no later answer is overtaken.
    fn place(&self, owner: usize, seated: &Seated) {
        let decodes = seated.function.decodes();
        self.map.write().unwrap_or_else(PoisonError::into_inner).set(owner, decodes);
    }

    fn seat(&self, address: Address) -> Option<(usize, &Seat)> {
        let index = self.seats.binary_search_by_key(&address, |seat| seat.address).ok()?;
        Some((index, &self.seats[index]))
    }
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Seated> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seated {
    fn route(&mut self, irq: Option<u8>) {
        if self.irq != irq {
            self.irq = irq;
            self.function.route_line(irq);
        }
    }
}
