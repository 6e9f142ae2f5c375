//! Finding the AoE targets on a network.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use kagero_aoe::Instant;
use kagero_aoe::discovery::Discovery;
use kagero_aoe::link::Link;
use kagero_aoe::wire::{self, Address, Ata, Command, Frame, Header, MacAddress};
use kagero_devices::ata::{Opcode, identify};
use kagero_devices::storage::Disk;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::clock;
use crate::config::{DiscoverConfig, grouped};
use crate::error::Error;
use crate::progress::Waiting;

/// Config queries to all, since any of them or of their answers may be lost.
const QUERIES: u32 = 4;

/// A target that has not yet said what it is gets asked this often.
const AGAIN: Duration = Duration::from_millis(300);

/// The tag of our IDENTIFY requests.
const IDENTIFY: u32 = 0x6b61_0001;

/// What answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Ordered by address.
    pub targets: Vec<FoundTarget>,
}

/// One target, as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    let end = clock::now() + time;
    let mut search = Search::new(MacAddress(link.mac()));
    loop {
        while link.receive(|frame| search.handle_frame(frame)) {}
        let now = clock::now();
        if now >= end {
            return Ok(search.finish());
        }
        while link.transmit(|out| search.poll_transmit(now, out)) {}
        let next = search.poll_timeout().map_or(end, |next| next.min(end));
        let timeout = Timespec::try_from(next - now).unwrap_or_default();
        match poll(&mut [PollFd::new(&*link, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The search without its link: who is there, and what kind of disk each one is. In the order of [`Discovery`].
#[derive(Debug)]
struct Search {
    mac: MacAddress,
    discovery: Discovery,
    /// Two machines may serve one address by mistake: both are shown.
    identities: BTreeMap<(Address, MacAddress), Identity>,
    again: Instant,
}

#[derive(Debug, Default)]
struct Identity {
    ask: bool,
    disk: Option<Disk>,
}

impl Search {
    fn new(mac: MacAddress) -> Self {
        let discovery = Discovery::new(mac, Address::BROADCAST, QUERIES);
        Self { mac, discovery, identities: BTreeMap::new(), again: Instant::ZERO }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.discovery.poll_timeout().into_iter().chain([self.again]).min()
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if let Some(length) = self.discovery.poll_transmit(now, out) {
            return Some(length);
        }
        if now >= self.again {
            self.again = now + AGAIN;
            self.identities.values_mut().for_each(|identity| identity.ask = identity.disk.is_none());
        }
        let (&(address, mac), identity) = self.identities.iter_mut().find(|(_, identity)| identity.ask)?;
        identity.ask = false;
        let header = Header::request(self.mac, mac, address, Command::Ata, IDENTIFY);
        let ata = Ata { count: 1, command: Opcode::Identify.code(), ..Ata::default() };
        wire::encode(out, &header, |out| ata.encode(out))
    }

    fn handle_frame(&mut self, frame: &[u8]) {
        let Ok(Frame { header, argument }) = Frame::parse(frame) else { return };
        let key = (header.address, header.source);
        if self.discovery.handle_frame(frame) {
            self.identities.insert(key, Identity { ask: true, disk: None });
        } else if header.response && header.command == Command::Ata && header.tag == IDENTIFY {
            let Some(identity) = self.identities.get_mut(&key) else { return };
            let data = Ata::parse(argument).and_then(|(_, rest)| Ata::data(rest, 1));
            let Some(data) = data.ok().and_then(|data| data.first_chunk()) else { return };
            // Whatever is no disk stays in the list, without a size.
            identity.disk = identify::parse(data).ok().map(|identity| identity.disk);
        }
    }

    fn finish(mut self) -> Found {
        let targets = self.discovery.found().iter().map(|found| {
            let disk = self.identities.remove(&(found.address, found.mac)).and_then(|identity| identity.disk);
            FoundTarget {
                address: found.address.to_string(),
                mac: found.mac.to_string(),
                buffer_count: found.buffer_count,
                sectors_per_frame: found.sectors_per_frame,
                firmware: found.firmware,
                config: printable(&found.string),
                sectors: disk.as_ref().map(|disk| disk.sectors),
                model: disk.as_ref().map(|disk| printable(disk.model.as_bytes())),
                serial: disk.as_ref().map(|disk| printable(disk.serial.as_bytes())),
            }
        });
        Found { targets: targets.collect() }
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
        let server = Server::new();
        server.export("7.2".parse().unwrap(), &image, Access::ReadOnly).unwrap();
        server.export("7.1".parse().unwrap(), &image, Access::ReadOnly).unwrap();
        let (mut ours, theirs) = MemoryLink::pair(memory::Options::default()).unwrap();
        let _running = Running::start(server, vec![theirs]).unwrap();

        let mut search = Search::new(MacAddress(ours.mac()));
        // On a clock of its own: the target is asked until it has said everything.
        let mut now = Instant::ZERO;
        let known =
            |search: &Search| search.identities.values().filter(|identity| identity.disk.is_some()).count();
        while known(&search) < 2 {
            now = now + AGAIN;
            while ours.transmit(|out| search.poll_transmit(now, out)) {}
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
                frame[20..24].copy_from_slice(&IDENTIFY.to_be_bytes());
                search.handle_frame(&frame);
            }
            let _ = search.finish().table();
        }
    }
}
