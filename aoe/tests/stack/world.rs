//! Guests, controller, initiators, network and target on a virtual clock.

use std::time::Duration;

use kagero_aoe::Instant;
use kagero_aoe::initiator::{Config, Initiator, Statistics};
use kagero_aoe::simulation::{End, Faults, Network, Share};
use kagero_aoe::wire::MacAddress;
use kagero_devices::ide::{Channel, Ide};
use kagero_devices::storage::{Controller, Request};
use kagero_devices::toy::{Memory, Rng};

use crate::contents::Model;
use crate::guest::Guest;
use crate::server::{Medium, Server, address};

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// The sizes of the disks, two on each channel. Small ones, so that commands meet.
const SECTORS: [u64; 4] = [8_192, 300, 3_000, 77];

/// The one sector, of the last disk, that can be neither read nor written.
const BAD_SECTOR: u64 = 50;

/// What a run is made with.
pub(crate) struct Setting {
    pub(crate) faults: &'static str,
    pub(crate) mtu: usize,
    pub(crate) seed: u64,
    /// Whether resets, outages, and a target that hangs or is killed come on top.
    pub(crate) disasters: bool,
}

/// What happened, beside what the guests count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disasters {
    pub(crate) resets: u64,
    pub(crate) outages: u64,
    pub(crate) hangs: u64,
    pub(crate) crashes: u64,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    ide: Ide,
    mem: Memory,
    pub(crate) guests: [Guest; 2],
    pub(crate) initiators: Vec<Initiator>,
    pub(crate) network: Network,
    pub(crate) server: Server,
    frame: Vec<u8>,
    faults: Faults,
    rng: Rng,
    /// The next disaster, or the end of an outage.
    next_disaster: Option<Instant>,
    in_outage: bool,
    pub(crate) disasters: Disasters,
}

impl World {
    /// A machine whose disks are attached.
    pub(crate) fn new(setting: &Setting) -> Self {
        let &Setting { faults, mtu, seed, disasters } = setting;
        let faults: Faults = faults.parse().expect("faults");
        let models = [0, 1, 2, 3].map(|disk| Model::new(disk, SECTORS[usize::from(disk)]));
        let bad = [None, None, None, Some(BAD_SECTOR)];
        let media = models.iter().zip(bad).map(|(model, bad)| Medium::new(model.at_first(), bad));
        let server = Server::new(media.collect(), mtu, seed);
        let initiators = (0..4).map(|disk| {
            let config = Config::new(MAC, address(disk), mtu);
            Initiator::new(Config { disk, seed: seed ^ u64::from(disk) << 32, ..config })
        });
        let [a, b, c, d] = models;
        let mut world = World {
            now: Instant::from_nanos(1_000_000_000),
            ide: Ide::new([None, None, None, None]),
            mem: Memory::new(17 << 20),
            guests: [
                Guest::new(Channel::Primary, vec![a, b], 0x10_0000, seed),
                Guest::new(Channel::Secondary, vec![c, d], 0x90_0000, !seed),
            ],
            initiators: initiators.collect(),
            network: Network::new(&faults, seed),
            server,
            frame: vec![0; mtu + 14],
            faults,
            rng: Rng::new(seed),
            next_disaster: None,
            in_outage: false,
            disasters: Disasters::default(),
        };
        world.run(|world| world.initiators.iter().all(Initiator::is_attached));
        let disks: Vec<_> = world.initiators.iter().map(|initiator| initiator.disk().cloned()).collect();
        world.ide = Ide::new(disks.try_into().expect("four disks"));
        world.power_on();
        world.next_disaster = disasters.then_some(world.now);
        world
    }

    /// The guests carry out so many commands, together.
    pub(crate) fn commands(&mut self, count: u64) {
        let [primary, secondary] = &mut self.guests;
        (primary.left, secondary.left) = (count.div_ceil(2), count / 2);
        self.run(|world| world.guests.iter().all(Guest::is_idle));
    }

    /// Lets all that is on its way arrive.
    pub(crate) fn settle(&mut self) {
        self.next_disaster = None;
        let until = self.now + Duration::from_secs(10);
        self.run(|world| world.now >= until);
    }

    /// The sum of what the initiators counted.
    pub(crate) fn total(&self, count: impl Fn(&Statistics) -> u64) -> u64 {
        self.initiators.iter().map(|initiator| count(initiator.statistics())).sum()
    }

    fn run(&mut self, end: impl Fn(&World) -> bool) {
        let begun = self.now;
        while !end(self) {
            if !self.step() {
                self.advance();
                let ended = self.guests.iter().map(|guest| guest.ended).max().unwrap_or_default();
                assert!(self.now - ended.max(begun) < Duration::from_secs(60), "nothing goes on any more");
            }
        }
    }

    /// Does what can be done at this time; false when there is nothing.
    fn step(&mut self) -> bool {
        if self.next_disaster.is_some_and(|at| at <= self.now) {
            self.disaster();
        }
        let World { now, ide, mem, guests, initiators, network, server, frame, .. } = self;
        let now = *now;
        let mut moved = false;
        for guest in guests {
            moved |= guest.step(now, ide, mem, server);
        }
        while let Some(request) = ide.poll_request() {
            moved = true;
            match request {
                Request::Start(command) => {
                    initiators[usize::from(command.disk)].submit(now, command).expect("room");
                }
                Request::Cancel(tag) => {
                    initiators.iter_mut().for_each(|initiator| initiator.cancel(now, tag))
                }
            }
        }
        for initiator in &mut *initiators {
            while let Some(length) = initiator.poll_transmit(now, ide, mem, frame) {
                network.send(now, End::A, &frame[..length]);
            }
            while initiator.poll().is_some() {}
        }
        while let Some(frame) = network.receive(now, End::B) {
            server.receive(now, &frame);
            network.forth.recycle(frame);
        }
        server.poll(now, |frame| network.send(now, End::B, frame));
        while let Some(frame) = network.receive(now, End::A) {
            moved = true;
            // All of them listen on the one link.
            initiators.iter_mut().for_each(|initiator| initiator.handle_frame(now, &frame, ide, mem));
            network.back.recycle(frame);
        }
        assert_eq!(ide.irq() & !3, 0, "there are two interrupt lines");
        moved
    }

    /// On to where something happens.
    fn advance(&mut self) {
        let timeouts = self.initiators.iter().filter_map(Initiator::poll_timeout);
        let guests = self.guests.iter().filter_map(Guest::next);
        let others = [self.network.next_arrival(), self.server.next(), self.next_disaster];
        let next = timeouts.chain(guests).chain(others.into_iter().flatten()).min();
        let next = next.unwrap_or(self.now + Duration::from_secs(1));
        assert!(next > self.now, "a time that has passed: a caller would spin");
        self.now = next;
    }

    fn power_on(&mut self) {
        assert!(self.ide.reset().count() <= 1);
        assert_eq!(self.ide.write_config(4, &[5, 0]).count(), 0, "bus master, without a base for its ports");
    }

    fn disaster(&mut self) {
        let mut next = self.after(500, 5_000);
        if std::mem::take(&mut self.in_outage) {
            self.set_faults(&self.faults.clone());
        } else {
            match self.rng.below(8) {
                0..3 => {
                    // Mostly too short to be noticed, sometimes long enough for the target to be lost.
                    next = if self.rng.below(3) == 0 { self.after(1_000, 4_000) } else { self.after(1, 100) };
                    self.in_outage = true;
                    self.set_faults(&Faults { loss: Share::percent(100), ..self.faults.clone() });
                    self.disasters.outages += 1;
                }
                3..5 => {
                    let until =
                        if self.rng.below(3) == 0 { self.after(1_000, 4_000) } else { self.after(1, 500) };
                    self.server.hang(until);
                    self.disasters.hangs += 1;
                }
                5..7 => {
                    let until = self.after(50, 3_000);
                    self.server.crash(until);
                    self.disasters.crashes += 1;
                }
                _ => {
                    self.power_on();
                    self.guests.iter_mut().for_each(|guest| guest.machine_reset(&mut self.ide, &self.mem));
                    self.disasters.resets += 1;
                }
            }
        }
        self.next_disaster = Some(next);
    }

    /// So many milliseconds from now, at least and at most.
    fn after(&mut self, least: u64, most: u64) -> Instant {
        self.now + Duration::from_millis(least + self.rng.below(most - least))
    }

    fn set_faults(&mut self, faults: &Faults) {
        self.network.forth.set_faults(faults);
        self.network.back.set_faults(faults);
    }
}
