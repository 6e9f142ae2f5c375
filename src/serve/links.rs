//! The interfaces of a server, opened for as many threads as serve them.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::available_parallelism;

use kagero_link::packet::Options;
use kagero_link::{AnyLink, Interface, PacketLink};

use crate::config::{ServeConfig, numbered};
use crate::error::{Error, UserError};

/// For each thread its links, each with its interface's place among those that are served.
pub(super) type Shares = Vec<Vec<(usize, AnyLink)>>;

/// Receive slots for each client: what it may have outstanding, as far as all of them send at once.
const SLOTS_PER_CLIENT: usize = 16;

/// Receive slots of a thread: a few batches.
const LEAST_SLOTS: usize = 256;

/// Clients that a disk with overlays is expected to have.
const CLIENTS_OF_OVERLAYS: usize = 64;

/// Threads that serve when nobody says how many, at most. The kernel needs processors too, to deliver the frames.
const MOST_UNASKED: usize = 4;

/// Opens the interfaces.
pub(super) fn open(config: &ServeConfig) -> Result<Shares, Error> {
    differ(&config.interfaces)?;
    let threads = match config.threads {
        Some(threads) => threads.get(),
        None if config.pcap.is_some() => 1,
        None => available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, MOST_UNASKED)),
    };
    let receive_slots = (receive_slots(config) / threads).max(LEAST_SLOTS);
    let options = Options { receive_slots, ..Options::default() };
    let mut shares: Shares = (0..threads).map(|_| Vec::new()).collect();
    for (number, name) in config.interfaces.iter().enumerate() {
        if name.starts_with("tap:") {
            // Has one end only, the first thread's.
            shares[0].push((number, kagero_link::open(name)?));
        } else {
            let links = PacketLink::open_shared(name, options, threads)?;
            for (share, link) in shares.iter_mut().zip(links) {
                share.push((number, link.into()));
            }
        }
    }
    Ok(shares)
}

/// Also writes every frame to a capture file, one for each interface. Only one thread serves then.
pub(super) fn captured(shares: Shares, path: &Path) -> Result<Shares, Error> {
    let capture = |(number, link): (usize, AnyLink)| Ok((number, link.captured(&numbered(path, number))?));
    shares.into_iter().map(|share| share.into_iter().map(capture).collect()).collect()
}

/// Receive slots of one interface, for all threads together. At 9 KiB each, all that there may be take 37 MB.
fn receive_slots(config: &ServeConfig) -> usize {
    let clients = |overlays| if overlays { CLIENTS_OF_OVERLAYS } else { 1 };
    let all: usize = config.exports.iter().map(|export| clients(export.overlay.is_some())).sum();
    (all * SLOTS_PER_CLIENT).clamp(1_024, 4_096)
}

/// Checks that no two names are one interface's, by the kernel's numbers: an interface may have several names.
fn differ(names: &[String]) -> Result<(), Error> {
    let mut numbers = BTreeMap::new();
    for name in names.iter().filter(|name| !name.starts_with("tap:")) {
        if let Some(other) = numbers.insert(Interface::find(name)?.index, name) {
            let problem = format!("{other} and {name} are the same interface");
            return Err(UserError::new("--interface", problem, "name it once").into());
        }
    }
    Ok(())
}
