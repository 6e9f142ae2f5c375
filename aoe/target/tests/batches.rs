//! Frames that wait together are answered together: the link is asked to send once for many of them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kagero_aoe::link::Link;
use kagero_aoe::wire::{self, Address, Ata, Command, Header, MacAddress};
use kagero_link::{MemoryLink, ServerLink, memory};
use kagero_target::{Access, Running, Server};

const DISK: Address = Address { shelf: 7, slot: 1 };

const FRAMES: u32 = 256;

/// A link that counts how often it is told to send, as a packet socket does with a system call.
struct Counted {
    link: MemoryLink,
    sends: Arc<AtomicU32>,
    held: bool,
}

impl Link for Counted {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        self.link.receive(take)
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        self.sends.fetch_add(u32::from(!self.held), Ordering::Relaxed);
        self.link.transmit(fill)
    }

    fn hold(&mut self) {
        self.held = true;
        self.link.hold();
    }

    fn flush(&mut self) -> bool {
        self.held = false;
        self.sends.fetch_add(1, Ordering::Relaxed);
        self.link.flush()
    }

    fn mtu(&self) -> usize {
        self.link.mtu()
    }

    fn mac(&self) -> [u8; 6] {
        self.link.mac()
    }
}

impl ServerLink for Counted {}

impl AsFd for Counted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

#[test]
fn frames_that_wait_together_are_answered_together() {
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let image = dir.path().join("disk.img");
    std::fs::write(&image, vec![0x5a; 1 << 20]).unwrap();
    let server = Server::new();
    server.export(DISK, &image, Access::ReadWrite).unwrap();
    // Room for every answer and the announcement, whoever runs first.
    let options = memory::Options { queue: 2 * FRAMES as usize, ..memory::Options::default() };
    let (mut client, link) = MemoryLink::pair(options).unwrap();
    let from = MacAddress(client.mac());
    for tag in 1..=FRAMES {
        let header = Header::request(from, MacAddress::BROADCAST, DISK, Command::Ata, tag);
        let lba = Ata::registers(u64::from(tag) % 2_000);
        let read = Ata { extended: true, command: 0x24, count: 2, lba, ..Ata::default() };
        assert!(client.transmit(|out| wire::encode(out, &header, |out| read.encode(out))));
    }
    let sends = Arc::new(AtomicU32::new(0));
    let counted = Counted { link, sends: Arc::clone(&sends), held: false };
    let running = Running::start(server, vec![counted]).unwrap();
    let (begin, mut answers) = (Instant::now(), 0);
    while answers < FRAMES {
        assert!(begin.elapsed() < Duration::from_secs(30), "{answers} answers");
        while client.receive(|frame| {
            let header = wire::Frame::parse(frame).unwrap().header;
            answers += u32::from(header.response && header.tag > 0);
        }) {}
        std::thread::yield_now();
    }
    running.stop().unwrap();
    let sends = sends.load(Ordering::Relaxed);
    assert!(sends <= FRAMES / 8, "{sends} for {FRAMES} frames");
}
