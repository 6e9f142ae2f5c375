//! A client on a real link: our own initiator with the simplest of controllers.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use kagero_aoe::Instant;
use kagero_aoe::initiator::{Config, Event, Initiator};
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Address, MacAddress};
use kagero_devices::memory::{DmaFault, DmaMemory};
use kagero_devices::storage::{Command, Controller, Disk, Operation, Outcome, Request, Tag};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Payloads by tag, and how commands ended.
#[derive(Default)]
struct Toy {
    payload: BTreeMap<Tag, Vec<u8>>,
    ended: BTreeMap<Tag, Outcome>,
}

impl Controller for Toy {
    fn poll_request(&mut self) -> Option<Request> {
        None
    }

    fn data_in(&mut self, _: &impl DmaMemory, tag: Tag, at: u32, data: &[u8]) {
        self.payload.get_mut(&tag).unwrap()[at as usize..][..data.len()].copy_from_slice(data);
    }

    fn data_out(&mut self, _: &impl DmaMemory, tag: Tag, at: u32, out: &mut [u8]) -> Result<(), DmaFault> {
        out.copy_from_slice(&self.payload[&tag][at as usize..][..out.len()]);
        Ok(())
    }

    fn complete(&mut self, _: &impl DmaMemory, tag: Tag, outcome: Outcome) {
        assert_eq!(self.ended.insert(tag, outcome), None, "completed twice");
    }

    fn irq(&self) -> u32 {
        0
    }
}

struct NoMemory;

impl DmaMemory for NoMemory {
    fn read(&self, gpa: u64, _: &mut [u8]) -> Result<(), DmaFault> {
        Err(DmaFault { gpa })
    }

    fn write(&self, gpa: u64, _: &[u8]) -> Result<(), DmaFault> {
        Err(DmaFault { gpa })
    }
}

pub(crate) struct Client<L> {
    pub(crate) link: L,
    pub(crate) initiator: Initiator,
    toy: Toy,
    next_tag: u32,
    start: std::time::Instant,
    disk: Option<Disk>,
}

impl<L: Link + AsFd> Client<L> {
    /// Attaches to the target.
    pub(crate) fn attach(link: L, target: Address) -> (Self, Disk) {
        let config = Config::new(MacAddress(link.mac()), target, link.mtu());
        let mut client = Client {
            link,
            initiator: Initiator::new(config),
            toy: Toy::default(),
            next_tag: 0,
            start: std::time::Instant::now(),
            disk: None,
        };
        client.run(|client| client.disk.is_some());
        let disk = client.disk.clone().unwrap();
        (client, disk)
    }

    pub(crate) fn read(&mut self, lba: u64, sectors: u32) -> Result<Vec<u8>, Outcome> {
        let tag = self.submit(Operation::Read { lba, sectors }, vec![0; sectors as usize * 512]);
        self.finish(tag)
    }

    #[allow(dead_code)] // Not in every test.
    pub(crate) fn write(&mut self, lba: u64, data: &[u8], durable: bool) -> Result<(), Outcome> {
        let sectors = (data.len() / 512) as u32;
        let tag = self.submit(Operation::Write { lba, sectors, durable }, data.to_vec());
        self.finish(tag).map(|_| ())
    }

    #[allow(dead_code)] // Not in every test.
    pub(crate) fn carry_out(&mut self, operation: Operation, payload: Vec<u8>) -> Result<(), Outcome> {
        let tag = self.submit(operation, payload);
        self.finish(tag).map(|_| ())
    }

    pub(crate) fn submit(&mut self, operation: Operation, payload: Vec<u8>) -> Tag {
        self.next_tag += 1;
        let tag = Tag(self.next_tag);
        self.toy.payload.insert(tag, payload);
        self.initiator.submit(self.now(), Command { tag, disk: 0, operation }).expect("room for a command");
        tag
    }

    /// Waits for the end of a command; its payload.
    pub(crate) fn finish(&mut self, tag: Tag) -> Result<Vec<u8>, Outcome> {
        self.run(|client| client.toy.ended.contains_key(&tag));
        let payload = self.toy.payload.remove(&tag).unwrap();
        match self.toy.ended[&tag] {
            Outcome::Done => Ok(payload),
            other => Err(other),
        }
    }

    /// Whether a command has ended, by all that has come in.
    #[allow(dead_code)] // Not in every test.
    pub(crate) fn has_ended(&mut self, tag: Tag) -> bool {
        let now = self.now();
        let Client { link, initiator, toy, .. } = self;
        while link.receive(|frame| initiator.handle_frame(now, frame, toy, &NoMemory)) {}
        self.toy.ended.contains_key(&tag)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    /// Works until `done`.
    pub(crate) fn run(&mut self, done: impl Fn(&Self) -> bool) {
        let begin = std::time::Instant::now();
        loop {
            let now = self.now();
            let Client { link, initiator, toy, .. } = self;
            while link.transmit(|out| initiator.poll_transmit(now, toy, &NoMemory, out)) {}
            let mut received = false;
            while link.receive(|frame| initiator.handle_frame(now, frame, toy, &NoMemory)) {
                received = true;
            }
            while let Some(event) = self.initiator.poll() {
                if let Event::Ready(disk) = event {
                    self.disk = Some(disk);
                }
            }
            if done(self) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "gave up waiting: {:?}", self.initiator.statistics());
            // What was received may have something to be sent at once.
            if !received {
                self.wait();
            }
        }
    }

    fn wait(&self) {
        let until = self.initiator.poll_timeout().map_or(Duration::from_secs(1), |at| at - self.now());
        let until = Timespec { tv_sec: until.as_secs() as i64, tv_nsec: until.subsec_nanos().into() };
        poll(&mut [PollFd::new(&self.link, PollFlags::IN)], Some(&until)).unwrap();
    }
}
