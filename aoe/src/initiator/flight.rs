//! Requests under way: each packet until it is answered, and the tag of each of its transmissions.

use super::ghost::Range;
use super::window::MAX_WINDOW;
use crate::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

/// Transmissions of one packet whose answers are told apart; older ones only count as possible ghosts.
const MAX_COPIES: usize = 8;

/// Places in the tag table: twice what can be taken, so that a free one is soon found.
const TABLE: usize = 2 * MAX_WINDOW * MAX_COPIES;

/// The Linux aoe driver leaves tags with this bit to user space: it ignores answers to ours when both run on one host.
const USER_SPACE: u32 = 1 << 31;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// IDENTIFY DEVICE, while attaching.
    Identify,
    /// A read that is as long as frames may become, in both directions: does the path carry them?
    Probe {
        /// Sectors.
        sectors: u8,
    },
    /// A config query to the target: is it there?
    Alive,
    /// A part of a command.
    Piece(Piece),
}

/// A part of a command that fits a frame: `count` sectors (or blocks, or the one flush) from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) slot: usize,
    pub(crate) offset: u32,
    pub(crate) count: u32,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) work: Work,
    /// What a copy of it overwrites on the disk.
    pub(crate) lands: Option<Range>,
    /// How often it was sent.
    pub(crate) attempts: u32,
    pub(crate) first_sent: Instant,
    pub(crate) sent: Instant,
    /// The number of its latest transmission.
    pub(crate) number: u64,
    /// When to look at it again.
    pub(crate) check: Instant,
    /// Believed to be in the network or at the target: it counts against the window.
    in_network: bool,
    copies: [u32; MAX_COPIES],
    /// How many of `copies` count.
    tracked: usize,
    /// More copies were sent than `copies` holds.
    pub(crate) untracked: bool,
}

impl Packet {
    /// The tags under which it was sent.
    pub(crate) fn copies(&self) -> &[u32] {
        &self.copies[..self.tracked]
    }
}

/// One transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transmission {
    tag: u32,
    /// The packet's index.
    pub(crate) packet: u16,
    pub(crate) sent: Instant,
    /// Counts all transmissions.
    pub(crate) number: u64,
}

/// The packets and the tag table.
///
/// Tags count up from a random start; a transmission stands in the table at its tag modulo the table's size, and a tag whose place is
/// taken is skipped. So no tag comes back before two thousand million transmissions, and finding one takes one look.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    packets: Vec<Option<Packet>>,
    /// Indexes of `packets` that are free.
    free: Vec<u16>,
    table: Vec<Option<Transmission>>,
    next_tag: u32,
    transmissions: u64,
    /// Packets to be sent, first or again.
    queue: VecDeque<u16>,
    in_network: usize,
    /// Not later than any packet's `check`.
    earliest: Option<Instant>,
}

impl Flight {
    pub(crate) fn new(first_tag: u32) -> Self {
        Flight {
            packets: Vec::new(),
            free: Vec::new(),
            table: alloc::vec![None; TABLE],
            next_tag: first_tag,
            transmissions: 0,
            queue: VecDeque::new(),
            in_network: 0,
            earliest: None,
        }
    }

    /// A new packet, to be sent; false when there are too many.
    pub(crate) fn add(&mut self, work: Work, lands: Option<Range>) -> bool {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.packets.len() < MAX_WINDOW => {
                self.packets.push(None);
                (self.packets.len() - 1) as u16
            }
            None => return false,
        };
        self.packets[usize::from(index)] = Some(Packet {
            work,
            lands,
            attempts: 0,
            first_sent: Instant::ZERO,
            sent: Instant::ZERO,
            number: 0,
            check: Instant::ZERO,
            in_network: false,
            copies: [0; MAX_COPIES],
            tracked: 0,
            untracked: false,
        });
        self.enqueue(index, work);
        true
    }

    pub(crate) fn get(&self, index: u16) -> Option<&Packet> {
        self.packets.get(usize::from(index))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u16) -> Option<&mut Packet> {
        self.packets.get_mut(usize::from(index))?.as_mut()
    }

    /// The packet to send next.
    pub(crate) fn front(&self) -> Option<u16> {
        self.queue.front().copied()
    }

    /// Packets that count against the window.
    pub(crate) fn in_network(&self) -> usize {
        self.in_network
    }

    /// The indexes of all packets.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u16> + use<> {
        0..self.packets.len() as u16
    }

    /// A tag that no transmission in the table has.
    pub(crate) fn fresh_tag(&mut self) -> u32 {
        loop {
            let tag = self.next_tag | USER_SPACE;
            if self.table[tag as usize % TABLE].is_none() {
                return tag;
            }
            self.next_tag = self.next_tag.wrapping_add(1);
        }
    }

    /// The first packet of the queue was sent with a [`fresh_tag`](Self::fresh_tag); look at it again after `check`.
    pub(crate) fn sent(&mut self, now: Instant, tag: u32, check: Duration) {
        let Some(index) = self.queue.pop_front() else { return };
        let Some(packet) = self.packets.get_mut(usize::from(index)).and_then(Option::as_mut) else { return };
        if packet.tracked == MAX_COPIES {
            self.table[packet.copies[0] as usize % TABLE] = None;
            packet.copies.rotate_left(1);
            packet.tracked -= 1;
            packet.untracked = true;
        }
        packet.copies[packet.tracked] = tag;
        packet.tracked += 1;
        if packet.attempts == 0 {
            packet.first_sent = now;
        }
        packet.attempts += 1;
        packet.sent = now;
        self.transmissions += 1;
        packet.number = self.transmissions;
        packet.check = now + check;
        packet.in_network = true;
        let check = packet.check;
        self.table[tag as usize % TABLE] =
            Some(Transmission { tag, packet: index, sent: now, number: self.transmissions });
        self.next_tag = self.next_tag.wrapping_add(1);
        self.in_network += 1;
        self.look_at(check);
    }

    /// The transmission under this tag, if its packet is not answered yet.
    pub(crate) fn find(&self, tag: u32) -> Option<Transmission> {
        self.table[tag as usize % TABLE].filter(|transmission| transmission.tag == tag)
    }

    /// The packet is believed lost: to be sent again.
    pub(crate) fn requeue(&mut self, index: u16) {
        if let Some(packet) = self.get_mut(index)
            && packet.in_network
        {
            packet.in_network = false;
            let work = packet.work;
            self.in_network -= 1;
            self.enqueue(index, work);
        }
    }

    /// A question for a sign of life comes before anything else.
    fn enqueue(&mut self, index: u16, work: Work) {
        if work == Work::Alive { self.queue.push_front(index) } else { self.queue.push_back(index) }
    }

    /// Takes a packet out, answered or not; none of its tags is known afterwards.
    pub(crate) fn remove(&mut self, index: u16) -> Option<Packet> {
        let packet = self.packets.get_mut(usize::from(index))?.take()?;
        for &tag in packet.copies() {
            self.table[tag as usize % TABLE] = None;
        }
        if packet.in_network {
            self.in_network -= 1;
        } else {
            self.queue.retain(|&queued| queued != index);
        }
        self.free.push(index);
        Some(packet)
    }

    /// When packets have to be looked at again; may be too early, never too late.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// A packet has to be looked at then.
    pub(crate) fn look_at(&mut self, check: Instant) {
        self.earliest = Some(self.earliest.map_or(check, |earliest| earliest.min(check)));
    }

    /// Works out anew when packets have to be looked at again.
    pub(crate) fn settle(&mut self) {
        self.earliest =
            self.packets.iter().flatten().filter(|packet| packet.in_network).map(|packet| packet.check).min();
    }

    /// The packets that have to be looked at now: by index, since looking changes them.
    pub(crate) fn due(&self, index: u16, now: Instant) -> bool {
        self.get(index).is_some_and(|packet| packet.in_network && packet.check <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn send(flight: &mut Flight) -> u32 {
        let tag = flight.fresh_tag();
        flight.sent(NOW, tag, Duration::ZERO);
        tag
    }

    #[test]
    fn every_transmission_has_a_tag_of_its_own() {
        let mut flight = Flight::new(u32::MAX - 1);
        assert!(flight.add(Work::Identify, None));
        let first = send(&mut flight);
        flight.requeue(0);
        assert_eq!(flight.in_network(), 0);
        let second = send(&mut flight);
        assert_ne!(first, second);
        assert!(first & second & USER_SPACE != 0);
        assert_eq!(flight.find(first).map(|found| (found.packet, found.number)), Some((0, 1)));
        assert_eq!(flight.find(second).map(|found| (found.packet, found.number)), Some((0, 2)));
        assert_eq!(flight.remove(0).unwrap().copies(), [first, second]);
        assert_eq!((flight.find(first), flight.find(second)), (None, None));
        assert_eq!(flight.in_network(), 0);
    }

    #[test]
    fn a_taken_place_is_skipped() {
        let mut flight = Flight::new(0);
        assert!(flight.add(Work::Identify, None) && flight.add(Work::Alive, None));
        let first = send(&mut flight);
        flight.next_tag = first.wrapping_add(TABLE as u32);
        let second = send(&mut flight);
        assert_eq!(second, first + TABLE as u32 + 1);
        assert!(flight.find(first).is_some() && flight.find(second).is_some());
        assert_eq!(flight.find(first + TABLE as u32), None);
    }

    #[test]
    fn the_tables_are_bounded() {
        let mut flight = Flight::new(7);
        for _ in 0..MAX_WINDOW {
            assert!(flight.add(Work::Alive, None));
        }
        assert!(!flight.add(Work::Alive, None));
        for _ in 0..3 * MAX_COPIES {
            for _ in 0..MAX_WINDOW {
                send(&mut flight);
            }
            for index in flight.indexes() {
                flight.requeue(index);
            }
        }
        assert_eq!(flight.table.iter().flatten().count(), MAX_WINDOW * MAX_COPIES);
        let packet = flight.remove(3).unwrap();
        assert!(packet.untracked && packet.copies().len() == MAX_COPIES);
        assert!(flight.add(Work::Alive, None));
    }
}
