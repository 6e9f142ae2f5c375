//! Requests that wait for their disk don't wait for each other.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::Address;
use kagero_devices::storage::{Operation, Tag};
use kagero_link::{MemoryLink, memory};

use super::client::Client;
use crate::{Access, Backend, Image, Running, Server};

const DISK: Address = Address { shelf: 7, slot: 1 };

/// Reads that are answered together.
const READS: usize = 16;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that answers no read before there are enough of them, and no flush before these were asked for.
#[derive(Debug, Default)]
struct Slow {
    /// Those that were asked for, by their offsets: a client asks again when it has to wait.
    reads: Mutex<BTreeSet<u64>>,
    changed: Condvar,
}

impl Slow {
    fn wait(&self, read: Option<u64>) -> Result<(), Fault> {
        let mut reads = self.reads.lock().unwrap();
        reads.extend(read);
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(reads, PATIENCE, |reads| reads.len() < READS);
        if waited.unwrap().1.timed_out() { Err(Fault::Aborted) } else { Ok(()) }
    }
}

impl Backend for Slow {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        out.fill((offset / 512) as u8);
        self.wait(Some(offset))
    }

    fn write(&self, _: u64, _: &[u8], _: bool) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }

    fn flush(&self) -> Result<(), Fault> {
        self.wait(None)
    }

    fn trim(&self, _: Range) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }
}

#[test]
fn requests_wait_for_their_disk_side_by_side() {
    let server = Server::new();
    server.export_image(DISK, Image::of(Slow::default(), Access::ReadWrite)).unwrap();
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let _running = Running::start(server, vec![there]).unwrap();
    let (mut client, _) = Client::attach(here, DISK);
    let flush = client.submit(Operation::Flush, vec![]);
    let reads: Vec<Tag> = (0..READS as u64)
        .map(|lba| client.submit(Operation::Read { lba, sectors: 1 }, vec![0; 512]))
        .collect();
    for (lba, tag) in reads.into_iter().enumerate() {
        assert_eq!(client.finish(tag).unwrap(), [lba as u8; 512]);
    }
    client.finish(flush).unwrap();
}
