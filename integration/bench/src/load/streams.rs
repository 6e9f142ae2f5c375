//! Who reads what: the disks, the clients, and how far each client has come in each disk.

use anyhow::{Result, ensure};
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Address, Ata, Command, Config, Frame, Header, MacAddress, SECTOR, encode};
use std::time::{Duration, Instant};

use super::{FAILED, Load, Pattern, wait};

/// WRITE SECTORS EXT.
const WRITE_EXT: u8 = 0x34;
/// How long a server has to answer for the first time, and to carry out a write.
const PATIENCE: Duration = Duration::from_secs(20);

/// The address of the disk of this number.
pub(crate) fn address(index: usize) -> Address {
    Address { shelf: 7, slot: index as u8 }
}

/// One client's reads of one disk.
struct Stream {
    client: MacAddress,
    disk: Address,
    /// Where the disk is.
    server: MacAddress,
    /// Where its next sequential read begins.
    position: u64,
}

pub(super) struct Streams {
    streams: Vec<Stream>,
    /// Whose turn it is.
    turn: usize,
    random: u64,
    /// Of each disk.
    sectors: u64,
}

impl Streams {
    /// A stream for each disk or each client, whichever are more. Clients beyond the first have invented addresses.
    pub(super) fn new(mac: [u8; 6], exports: usize, stations: usize, sectors: u64) -> Self {
        let count = exports.max(stations);
        let stream = |index: usize| {
            let client = match (index % stations) as u8 {
                0 => MacAddress(mac),
                // Locally administered (IEEE 802, bit 1 of the first byte).
                number => MacAddress([2, 0, 0, 0, 1, number]),
            };
            // Clients of one disk are at different places in it, as machines that were not started at the same instant.
            let position = sectors / count as u64 * (index / exports) as u64;
            Stream { client, disk: address(index % exports), server: MacAddress::BROADCAST, position }
        };
        let streams = (0..count).map(stream).collect();
        Streams { streams, turn: 0, random: 0x9E37_79B9_7F4A_7C15, sectors }
    }

    /// The next read of so many sectors: its stream, and where it begins.
    pub(super) fn next(&mut self, pattern: Pattern, sectors: u64) -> (usize, u64) {
        let index = self.turn;
        self.turn = (self.turn + 1) % self.streams.len();
        let lba = match pattern {
            Pattern::Sequential => {
                let position = &mut self.streams[index].position;
                if *position + sectors > self.sectors {
                    *position = 0;
                }
                let at = *position;
                *position += sectors;
                at
            }
            Pattern::Random => {
                // xorshift64: any sequence without a pattern will do.
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.random % (self.sectors / sectors) * sectors
            }
        };
        (index, lba)
    }

    pub(super) fn request(&self, stream: usize, command: Command, tag: u32) -> Header {
        let Stream { client, disk, server, .. } = self.streams[stream];
        Header::request(client, server, disk, command, tag)
    }
}

impl Load {
    /// Asks each disk where it is, for each of its clients.
    pub(super) fn find_disks(&mut self) -> Result<()> {
        for index in 0..self.streams.streams.len() {
            let header = self.streams.request(index, Command::Config, 1);
            let answer = self.ask(&header, |load| {
                load.link.transmit(|out| encode(out, &header, |out| Config::query().encode(out)));
                Ok(())
            })?;
            self.streams.streams[index].server = answer.0.source;
        }
        Ok(())
    }

    /// Every second client writes so many frames, spread over the disk.
    pub(super) fn write_some(&mut self, writes: u64) -> Result<()> {
        let count = self.per_frame.min(8);
        let data = vec![0x5A; count as usize * SECTOR];
        for index in (1..self.streams.streams.len()).step_by(2) {
            for number in 0..writes {
                let lba = self.streams.sectors / writes * number / 8 * 8;
                let tag = self.next_tag(0);
                let header = self.streams.request(index, Command::Ata, tag);
                let lba = Ata::registers(lba);
                let (count, command) = (count as u8, WRITE_EXT);
                let ata = Ata { extended: true, write: true, count, command, lba, ..Ata::default() };
                let (_, status) = self.ask(&header, |load| load.transmit(&header, &ata, &data))?;
                ensure!(status.is_some_and(|status| status & FAILED == 0), "a write failed");
            }
        }
        Ok(())
    }

    /// Sends until there is an answer: its header, and its status if it is one to an ATA command.
    fn ask(
        &mut self,
        header: &Header,
        mut send: impl FnMut(&mut Load) -> Result<()>,
    ) -> Result<(Header, Option<u8>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < deadline, "no answer from {}", header.address);
            send(self)?;
            let resend = Instant::now() + Duration::from_millis(50);
            while Instant::now() < resend {
                let mut found = None;
                while found.is_none() && self.link.receive(|frame| found = answer_to(frame, header)) {}
                if let Some(found) = found {
                    return Ok(found);
                }
                wait(&self.link, Duration::from_millis(50))?;
            }
        }
    }
}

fn answer_to(frame: &[u8], request: &Header) -> Option<(Header, Option<u8>)> {
    let Frame { header, argument } = Frame::parse(frame).ok()?;
    let fits = header.response
        && (header.destination, header.address, header.tag) == (request.source, request.address, request.tag);
    let status = match header.command {
        Command::Ata => Ata::parse(argument).ok().map(|(ata, _)| ata.command),
        _ => None,
    };
    fits.then_some((header, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_disks_take_turns_and_begin_at_their_start() {
        let mut streams = Streams::new([2; 6], 3, 1, 100);
        let reads: Vec<_> = (0..4).map(|_| streams.next(Pattern::Sequential, 8)).collect();
        assert_eq!(reads, [(0, 0), (1, 0), (2, 0), (0, 8)]);
        assert_eq!(streams.request(2, Command::Ata, 0).address, address(2));
        assert_eq!(streams.request(2, Command::Ata, 0).source, MacAddress([2; 6]));
    }

    #[test]
    fn many_clients_have_an_address_and_a_place_each() {
        let mut streams = Streams::new([2; 6], 1, 4, 100);
        let reads: Vec<_> = (0..5).map(|_| streams.next(Pattern::Sequential, 8)).collect();
        assert_eq!(reads, [(0, 0), (1, 25), (2, 50), (3, 75), (0, 8)]);
        let clients: std::collections::BTreeSet<_> =
            (0..4).map(|index| streams.request(index, Command::Ata, 0).source).collect();
        assert_eq!(clients.len(), 4);
    }

    #[test]
    fn reads_stay_within_the_disk() {
        let mut streams = Streams::new([2; 6], 1, 1, 20);
        let reads: Vec<_> = (0..3).map(|_| streams.next(Pattern::Sequential, 8).1).collect();
        assert_eq!(reads, [0, 8, 0]);
        assert!((0..100).all(|_| streams.next(Pattern::Random, 8).1 <= 12));
    }
}
