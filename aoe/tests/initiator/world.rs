//! An initiator, a network and a target on a virtual clock.

use crate::model::*;
use kagero_aoe::Instant;
use kagero_aoe::initiator::{Config, Event, Initiator};
use kagero_aoe::simulation::{End, Network};
use kagero_devices::storage::{Command, Operation, Outcome, Tag};
use std::collections::VecDeque;
use std::time::Duration;

pub struct World {
    pub now: Instant,
    pub initiator: Initiator,
    pub network: Network,
    pub target: Target,
    pub payloads: Payloads,
    /// The target's process is gone: what arrives is lost.
    pub dead: bool,
    /// The target's process hangs: what arrives waits.
    pub stalled: bool,
    backlog: VecDeque<Vec<u8>>,
    pub events: Vec<Event>,
    tags: u32,
    mtu: usize,
}

impl World {
    pub fn new(faults: &str, seed: u64, target: Target, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(CLIENT, ADDRESS, 1500);
        config.seed = seed;
        change(&mut config);
        let faults = faults.parse().unwrap();
        let network = Network::new(&faults, seed);
        assert!(faults.longest() * 2 < config.frame_lifetime, "else nothing can be promised");
        World {
            now: Instant::from_nanos(1_000_000_000),
            mtu: config.mtu,
            initiator: Initiator::new(config),
            network,
            target,
            payloads: Payloads::default(),
            dead: false,
            stalled: false,
            backlog: VecDeque::new(),
            events: Vec::new(),
            tags: 0,
        }
    }

    /// Submits an operation with this payload; reads get a buffer.
    pub fn submit(&mut self, operation: Operation, payload: Vec<u8>) -> Tag {
        self.tags += 1;
        let tag = Tag(self.tags);
        let payload = if payload.is_empty() { vec![0xee; operation.bytes_in() as usize] } else { payload };
        self.payloads.data.insert(tag, payload);
        self.initiator.submit(self.now, Command { tag, disk: 0, operation }).expect("room");
        tag
    }

    pub fn read(&mut self, lba: u64, sectors: u32) -> Tag {
        self.submit(Operation::Read { lba, sectors }, Vec::new())
    }

    /// Writes sectors full of `byte`.
    pub fn write(&mut self, lba: u64, sectors: u32, byte: u8) -> Tag {
        let payload = vec![byte; sectors as usize * 512];
        self.submit(Operation::Write { lba, sectors, durable: false }, payload)
    }

    pub fn cancel(&mut self, tag: Tag) {
        self.initiator.cancel(self.now, tag);
        self.payloads.data.remove(&tag);
    }

    /// How a command has ended, if it has.
    pub fn outcome(&self, tag: Tag) -> Option<Outcome> {
        self.payloads.completed.iter().find(|completed| completed.0 == tag).map(|completed| completed.1)
    }

    /// The next frame that the initiator sends now.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0xaa; self.mtu + 14];
        let length = self.initiator.poll_transmit(self.now, &mut self.payloads, &NoMemory, &mut frame)?;
        assert!(length >= 60);
        frame.truncate(length);
        Some(frame)
    }

    pub fn deliver(&mut self, frame: &[u8]) {
        self.initiator.handle_frame(self.now, frame, &mut self.payloads, &NoMemory);
    }

    /// What can be done at this time; then, if `end` isn't met, time goes on to where something happens, but not past `until`.
    fn step(&mut self, until: Instant, end: impl Fn(&World) -> bool) {
        while let Some(frame) = self.transmit() {
            self.network.send(self.now, End::A, &frame);
        }
        self.events.extend(std::iter::from_fn(|| self.initiator.poll()));
        while let Some(frame) = self.network.receive(self.now, End::B) {
            if !self.dead {
                self.backlog.push_back(frame);
            }
        }
        while !self.stalled
            && let Some(frame) = self.backlog.pop_front()
        {
            if let Some(answer) = self.target.handle(&frame) {
                self.network.send(self.now, End::B, &answer);
            }
        }
        let mut any = false;
        while let Some(frame) = self.network.receive(self.now, End::A) {
            self.deliver(&frame);
            any = true;
        }
        if any || end(self) {
            return;
        }
        let timeout = self.initiator.poll_timeout();
        assert!(
            timeout.is_none_or(|timeout| timeout > self.now),
            "a time that has passed: a caller would spin"
        );
        let next = [self.network.next_arrival(), timeout].into_iter().flatten().min();
        self.now = next.map_or(until, |next| next.min(until)).max(self.now);
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(until, |_| false);
        }
    }

    /// Runs until `condition`; fails when that takes more than 10 minutes of virtual time.
    pub fn run_until(&mut self, condition: impl Fn(&World) -> bool) {
        let until = self.now + Duration::from_secs(600);
        while !condition(self) {
            assert!(self.now < until, "does not come to an end: {:?}", self.initiator.statistics());
            self.step(until, &condition);
        }
    }

    /// Runs until a command has ended, and says how.
    pub fn finish(&mut self, tag: Tag) -> Outcome {
        self.run_until(|world| world.outcome(tag).is_some());
        self.outcome(tag).unwrap()
    }

    /// Runs until the target is attached.
    pub fn attach(mut self) -> Self {
        self.run_until(|world| world.initiator.is_attached());
        self.events.extend(self.initiator.poll());
        self
    }
}
