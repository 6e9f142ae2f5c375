//! Finding the AoE targets on a network.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use kagero_aoe::link::Link;
use kagero_aoe::wire::{self, Address, Ata, Command, Config, Frame, Header, MacAddress};
use kagero_devices::ata::{Opcode, identify};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::config::{DiscoverConfig, grouped};
use crate::error::Error;
use crate::progress::Waiting;

/// Questions go out this often, since any of them may be lost.
const AGAIN: Duration = Duration::from_millis(500);

/// Our tags. Answers without one of them are somebody else's.
const ASK_ALL: u32 = 0x6b61_0001;
const IDENTIFY: u32 = 0x6b61_0002;

/// More targets than this are not collected: the network decides how many answer.
const MOST: usize = 4096;

/// What answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Ordered by address.
    pub targets: Vec<FoundTarget>,
}

/// One target, as it presents itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FoundTarget {
    /// `shelf.slot`
    pub address: String,
    /// The station that serves it.
    pub mac: String,
    /// Requests it can hold at once.
    pub buffer_count: u16,
    /// The most sectors it takes in a frame.
    pub sectors_per_frame: u8,
    /// Its firmware version.
    pub firmware: u16,
    /// Its configuration string, where that is text.
    pub config: String,
    /// Its size in sectors of 512 bytes; none when it did not say in time.
    pub sectors: Option<u64>,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// Asks by broadcast, and collects answers until the time is over.
///
/// # Errors
/// When the interface can't be used.
pub fn discover(config: &DiscoverConfig) -> Result<Found, Error> {
    let mut link = kagero_link::open(&config.interface)?;
    let _waiting = Waiting::new(format!("collecting answers on {}", config.interface));
    collect(&mut link, config.timeout).context("waiting for frames").map_err(Error::from)
}

/// The search on an open link.
fn collect(link: &mut (impl Link + AsFd), time: Duration) -> std::io::Result<Found> {
    let start = Instant::now();
    let mut search = Search::new(MacAddress(link.mac()));
    let mut next = Duration::ZERO;
    loop {
        while link.receive(|frame| search.handle_frame(frame)) {}
        let now = start.elapsed();
        if now >= time {
            return Ok(search.finish());
        }
        if now >= next {
            next = now + AGAIN;
            search.ask_again();
        }
        while link.transmit(|out| search.poll_transmit(out)) {}
        let wait = next.min(time).saturating_sub(now);
        let timeout = Timespec::try_from(wait).unwrap_or_default();
        match poll(&mut [PollFd::new(&*link, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The search without its link: frames in, frames out.
///
/// Order: [`ask_again`](Self::ask_again) whenever it is time, and [`poll_transmit`](Self::poll_transmit) after it and after each
/// [`handle_frame`](Self::handle_frame).
#[derive(Debug)]
struct Search {
    mac: MacAddress,
    ask_all: bool,
    /// Two machines may serve one address by mistake: both are shown.
    found: BTreeMap<(Address, [u8; 6]), Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    target: FoundTarget,
    ask: bool,
}

impl Search {
    fn new(mac: MacAddress) -> Self {
        Self { mac, ask_all: false, found: BTreeMap::new() }
    }

    fn ask_again(&mut self) {
        self.ask_all = true;
        for answers in self.found.values_mut() {
            answers.ask = answers.target.sectors.is_none();
        }
    }

    fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        if std::mem::take(&mut self.ask_all) {
            let header = Header::request(
                self.mac,
                MacAddress::BROADCAST,
                Address::BROADCAST,
                Command::Config,
                ASK_ALL,
            );
            return wire::encode(out, &header, |out| Config::query().encode(out));
        }
        let (&(address, mac), answers) = self.found.iter_mut().find(|(_, answers)| answers.ask)?;
        answers.ask = false;
        let header = Header::request(self.mac, MacAddress(mac), address, Command::Ata, IDENTIFY);
        let ata = Ata { count: 1, command: Opcode::Identify.code(), ..Ata::default() };
        wire::encode(out, &header, |out| ata.encode(out))
    }

    fn handle_frame(&mut self, frame: &[u8]) {
        let Ok(Frame { header, argument }) = Frame::parse(frame) else { return };
        if !header.response || header.error.is_some() || header.destination != self.mac {
            return;
        }
        let key = (header.address, header.source.0);
        match (header.command, header.tag) {
            (Command::Config, ASK_ALL) => {
                let Ok(config) = Config::parse(argument) else { return };
                if self.found.len() >= MOST || header.address.is_broadcast() || self.found.contains_key(&key)
                {
                    return;
                }
                let target = FoundTarget {
                    address: header.address.to_string(),
                    mac: header.source.to_string(),
                    buffer_count: config.buffer_count,
                    sectors_per_frame: config.sectors_per_frame(),
                    firmware: config.firmware,
                    config: printable(config.string),
                    ..FoundTarget::default()
                };
                self.found.insert(key, Answers { target, ask: true });
            }
            (Command::Ata, IDENTIFY) => {
                let Some(answers) = self.found.get_mut(&key) else { return };
                let data = Ata::parse(argument).and_then(|(_, rest)| Ata::data(rest, 1));
                let Some(data) = data.ok().and_then(|data| data.first_chunk()) else { return };
                // Whatever is no disk stays in the list, without a size.
                if let Ok(identity) = identify::parse(data) {
                    answers.target.sectors = Some(identity.disk.sectors);
                    answers.target.model = Some(printable(identity.disk.model.as_bytes()));
                    answers.target.serial = Some(printable(identity.disk.serial.as_bytes()));
                }
            }
            _ => {}
        }
    }

    fn finish(self) -> Found {
        Found { targets: self.found.into_values().map(|answers| answers.target).collect() }
    }
}

impl Found {
    /// As a JSON document, an object with the list `targets`.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and numbers alone can't fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        if self.targets.is_empty() {
            return "no targets found\n".into();
        }
        let size =
            |target: &FoundTarget| target.sectors.map_or("?".into(), |n| grouped(n.saturating_mul(512)));
        let mut out = String::new();
        let mut line = |address: &str, bytes: &str, mac: &str, model: &str| {
            let _ = writeln!(out, "{}", format!("{address:<10} {bytes:>20}  {mac:<17}  {model}").trim_end());
        };
        line("address", "bytes", "server", "model");
        for target in &self.targets {
            line(&target.address, &size(target), &target.mac, target.model.as_deref().unwrap_or("?"));
        }
        out
    }
}

/// What came from the network, safe to print on a terminal.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use kagero_link::{MemoryLink, memory};
    use kagero_target::{Access, Running, Server};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_served_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("a.img");
        std::fs::write(&image, [0; 1024]).unwrap();
        let mut server = Server::new();
        server.export("7.2".parse().unwrap(), &image, Access::ReadOnly).unwrap();
        server.export("7.1".parse().unwrap(), &image, Access::ReadOnly).unwrap();
        let (mut ours, theirs) = MemoryLink::pair(memory::Options::default()).unwrap();
        let _running = Running::start(server, vec![theirs]).unwrap();

        let mut search = Search::new(MacAddress(ours.mac()));
        search.ask_again();
        // Without a clock: the target is asked until it has said everything.
        while search.found.len() < 2 || search.found.values().any(|answers| answers.target.sectors.is_none())
        {
            while ours.transmit(|out| search.poll_transmit(out)) {}
            poll(&mut [PollFd::new(&ours, PollFlags::IN)], None).unwrap();
            while ours.receive(|frame| search.handle_frame(frame)) {}
        }
        let found = search.finish();
        assert_eq!(found.targets.iter().map(|target| &*target.address).collect::<Vec<_>>(), ["7.1", "7.2"]);
        assert_eq!((found.targets[0].sectors, &*found.targets[0].mac), (Some(2), "02:6b:67:72:00:02"));
        assert_eq!(
            found.table(),
            "address                   bytes  server             model\n\
             7.1                       1,024  02:6b:67:72:00:02  Kagero Disk\n\
             7.2                       1,024  02:6b:67:72:00:02  Kagero Disk\n"
        );
        let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
        assert_eq!(json["targets"][0]["sectors"], 2);
    }

    #[test]
    fn nothing_is_found_on_a_silent_link() {
        let (mut ours, _theirs) = MemoryLink::pair(memory::Options::default()).unwrap();
        let found = collect(&mut ours, Duration::from_millis(1)).unwrap();
        assert_eq!(found.table(), "no targets found\n");
    }

    proptest! {
        #[test]
        fn no_frame_is_too_odd(mut frame in proptest::collection::vec(any::<u8>(), 0..700), command in 0u8..2) {
            let mac = MacAddress([2, 0, 0, 0, 0, 1]);
            let mut search = Search::new(mac);
            search.handle_frame(&frame);
            // Near enough to an answer that the argument is looked at.
            if frame.len() >= 24 {
                frame[0..6].copy_from_slice(&mac.0);
                frame[12..16].copy_from_slice(&[0x88, 0xa2, 0x18, 0]);
                frame[19] = command;
                frame[20..24].copy_from_slice(&if command == 0 { IDENTIFY } else { ASK_ALL }.to_be_bytes());
                search.handle_frame(&frame);
            }
            let _ = search.finish().table();
        }
    }
}
