//! Who is there: every disk on the link that answers a config query.

use crate::Instant;
use crate::wire::{self, Address, Command, Config, Frame, Header, MacAddress};
use alloc::vec::Vec;
use core::time::Duration;

/// Pauses between the queries: a lost answer should cost a moment, and many servers answer each.
const PAUSE: Duration = Duration::from_millis(200);

/// Disks that are remembered; anyone on the link can make some up.
const MAX_DISKS: usize = 4096;

/// A disk that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its shelf and slot.
    pub address: Address,
    /// Its server's Ethernet address. One shelf and slot with two of these is served twice, on purpose or not.
    pub mac: MacAddress,
    /// The server's firmware version.
    pub firmware: u16,
    /// How many requests the server can hold.
    pub buffer_count: u16,
    /// The most sectors it takes in one frame.
    pub sectors_per_frame: u8,
    /// The AoE version that it speaks.
    pub version: u8,
    /// Its configuration string.
    pub string: Vec<u8>,
}

/// Asks the whole link, a few times, and collects the answers.
///
/// Call [`poll_transmit`](Self::poll_transmit) until it gives `None`, then again at [`poll_timeout`](Self::poll_timeout), and
/// [`handle_frame`](Self::handle_frame) for what comes in; when to stop is up to the caller.
#[derive(Clone, Debug)]
pub struct Discovery {
    mac: MacAddress,
    address: Address,
    queries: u32,
    next: Option<Instant>,
    found: Vec<Found>,
}

impl Discovery {
    /// Looks for the disks that `address` reaches, [`Address::BROADCAST`] for all, with `queries` queries.
    #[must_use]
    pub fn new(mac: MacAddress, address: Address, queries: u32) -> Self {
        Discovery { mac, address, queries, next: Some(Instant::ZERO), found: Vec::new() }
    }

    /// Writes the next query, if it is due, and returns its length.
    pub fn poll_transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize> {
        if self.queries == 0 || self.next.is_some_and(|next| now < next) {
            return None;
        }
        let header =
            Header::request(self.mac, MacAddress::BROADCAST, self.address, Command::Config, self.queries);
        let length = wire::encode(frame, &header, |out| Config::query().encode(out))?;
        self.queries -= 1;
        self.next = (self.queries > 0).then_some(now + PAUSE);
        Some(length)
    }

    /// When the next query is due; `None` when all were sent.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next.filter(|_| self.queries > 0)
    }

    /// Takes a received frame; true when it was the first answer of a disk.
    pub fn handle_frame(&mut self, frame: &[u8]) -> bool {
        let Ok(Frame { header, argument }) = Frame::parse(frame) else { return false };
        let ours = header.destination == self.mac || header.destination == MacAddress::BROADCAST;
        let answer = header.response && header.error.is_none() && header.command == Command::Config;
        if !ours || !answer || !self.address.reaches(header.address) || header.address.is_broadcast() {
            return false;
        }
        let Ok(config) = Config::parse(argument) else { return false };
        let key = (header.address, header.source);
        let place = match self.found.binary_search_by_key(&key, |found| (found.address, found.mac)) {
            Err(place) if self.found.len() < MAX_DISKS => place,
            _ => return false,
        };
        let found = Found {
            address: header.address,
            mac: header.source,
            firmware: config.firmware,
            buffer_count: config.buffer_count,
            sectors_per_frame: config.sectors_per_frame(),
            version: config.version,
            string: config.string.into(),
        };
        self.found.insert(place, found);
        true
    }

    /// Who answered so far, by shelf and slot.
    #[must_use]
    pub fn found(&self) -> &[Found] {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn answer(to: MacAddress, shelf: u16, mac: u8, string: &[u8]) -> Vec<u8> {
        let query = Header::request(to, MacAddress::BROADCAST, Address::BROADCAST, Command::Config, 1);
        let header = query.answer(MacAddress([mac; 6]), Address { shelf, slot: 0 });
        let config = Config { buffer_count: 16, firmware: 0x4019, string, ..Config::query() };
        let mut frame = alloc::vec![0; 1514];
        let length = wire::encode(&mut frame, &header, |out| config.encode(out)).unwrap();
        frame.truncate(length);
        frame
    }

    #[test]
    fn asks_some_times_and_collects_each_once() {
        let mut discovery = Discovery::new(US, Address::BROADCAST, 3);
        let mut now = Instant::from_nanos(5);
        let mut frame = [0; 60];
        let mut sent = 0;
        loop {
            while let Some(length) = discovery.poll_transmit(now, &mut frame) {
                assert!(Frame::parse(&frame[..length]).unwrap().header.destination == MacAddress::BROADCAST);
                sent += 1;
            }
            let Some(next) = discovery.poll_timeout() else { break };
            now = next;
        }
        assert_eq!(sent, 3);
        assert!(discovery.handle_frame(&answer(US, 9, 4, b"")));
        assert!(discovery.handle_frame(&answer(US, 7, 4, b"hello")));
        assert!(!discovery.handle_frame(&answer(US, 9, 4, b"")));
        assert!(discovery.handle_frame(&answer(US, 9, 6, b"")));
        assert!(!discovery.handle_frame(&answer(MacAddress([2; 6]), 1, 4, b"")));
        assert!(!discovery.handle_frame(&frame));
        let found = discovery.found();
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].address.shelf, &found[0].string[..]), (7, &b"hello"[..]));
        assert_eq!((found[0].buffer_count, found[0].firmware, found[0].sectors_per_frame), (16, 0x4019, 2));
        assert!(found[1].mac < found[2].mac);
    }
}
