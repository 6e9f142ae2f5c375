//! Random commands over bad networks, checked against what the disk must hold.

use crate::model::*;
use crate::world::World;
use kagero_devices::storage::{Operation, Outcome, Tag};
use proptest::prelude::*;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use std::time::Duration;

const SECTORS: u64 = 48;

/// A sector that says which write it comes from, and where to.
fn sector(version: u64, lba: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    if version != 0 {
        let words = [version, lba, version ^ lba];
        bytes.as_chunks_mut().0.iter_mut().enumerate().for_each(|(n, to)| *to = words[n % 3].to_le_bytes());
    }
    bytes
}

fn version(bytes: &[u8], lba: u64) -> u64 {
    let version = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    assert_eq!(bytes, sector(version, lba), "torn or misplaced: sector {lba}");
    version
}

struct Pending {
    tag: Tag,
    operation: Operation,
    version: u64,
    /// For a flush: what was acknowledged when it was submitted.
    acknowledged: Vec<u64>,
}

/// What each sector may hold: one version, or several after a reset.
struct Checker {
    possible: Vec<Vec<u64>>,
    pending: Vec<Pending>,
    version: u64,
}

impl Checker {
    fn new() -> Self {
        Checker { possible: vec![vec![0]; SECTORS as usize], pending: Vec::new(), version: 0 }
    }

    fn submit(&mut self, world: &mut World, operation: Operation) {
        self.version += 1;
        let version = self.version;
        let payload = match operation {
            Operation::Write { lba, sectors, .. } => {
                (lba..lba + u64::from(sectors)).flat_map(|lba| sector(version, lba)).collect()
            }
            _ => Vec::new(),
        };
        let acknowledged = self.possible.iter().map(|versions| *versions.iter().min().unwrap()).collect();
        let tag = world.submit(operation, payload);
        self.pending.push(Pending { tag, operation, version, acknowledged });
    }

    /// Takes what has ended since the last call.
    fn check(&mut self, world: &mut World) {
        for (tag, outcome) in std::mem::take(&mut world.payloads.completed) {
            assert_eq!(outcome, Outcome::Done);
            let index = self.pending.iter().position(|pending| pending.tag == tag).unwrap();
            let Pending { operation, version: written, acknowledged, .. } = self.pending.remove(index);
            let data = world.payloads.data.remove(&tag).unwrap();
            match operation {
                Operation::Read { lba, .. } => {
                    // Conflicting commands are ordered: nothing newer can have been written yet.
                    for (lba, bytes) in (lba..).zip(data.chunks(512)) {
                        let found = version(bytes, lba);
                        let possible = &mut self.possible[lba as usize];
                        assert!(possible.contains(&found), "sector {lba}: {found}, not of {possible:?}");
                        *possible = vec![found];
                    }
                }
                Operation::Write { lba, sectors, durable } => {
                    for lba in lba..lba + u64::from(sectors) {
                        self.possible[lba as usize] = vec![written];
                        let kept = version(&world.target.durable[lba as usize], lba);
                        assert!(!durable || kept >= written);
                    }
                }
                Operation::Flush => {
                    for (lba, acknowledged) in (0..).zip(acknowledged) {
                        let kept = version(&world.target.durable[lba as usize], lba);
                        assert!(kept >= acknowledged, "sector {lba}: {kept} is durable, not {acknowledged}");
                    }
                }
                Operation::Verify { .. } | Operation::Trim { .. } => {}
            }
        }
    }

    /// A reset: everything under way is cancelled.
    fn reset(&mut self, world: &mut World) {
        for pending in self.pending.drain(..) {
            world.cancel(pending.tag);
            if let Operation::Write { lba, sectors, .. } = pending.operation {
                for lba in lba..lba + u64::from(sectors) {
                    self.possible[lba as usize].push(pending.version);
                }
            }
        }
    }

    /// At the end, when nothing is on its way any more.
    fn check_disk(&self, world: &World) {
        for (lba, possible) in (0..).zip(&self.possible) {
            let found = version(&world.target.disk[lba as usize], lba);
            assert!(possible.contains(&found), "sector {lba}: {found}, not of {possible:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Operation),
    Wait(Duration),
    Reset,
    /// The target is gone for this long, and comes back with this address.
    Gone(Duration, u8),
    /// The target hangs for this long.
    Stall(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..SECTORS).prop_flat_map(|lba| (Just(lba), 1..=(SECTORS - lba).min(12) as u32));
    let operation = (range, 0..12).prop_map(|((lba, sectors), kind)| match kind {
        0..=4 => Operation::Read { lba, sectors },
        5..=8 => Operation::Write { lba, sectors, durable: false },
        9 => Operation::Write { lba, sectors, durable: true },
        10 => Operation::Verify { lba, sectors },
        _ => Operation::Flush,
    });
    let micros = |range: std::ops::Range<u64>| range.prop_map(Duration::from_micros);
    prop_oneof![
        200 => operation.prop_map(Step::Submit),
        100 => micros(1..3_000).prop_map(Step::Wait),
        4 => Just(Step::Reset),
        1 => (micros(1_000..8_000_000), 2..6u8).prop_map(|(time, mac)| Step::Gone(time, mac)),
        1 => micros(1_000..8_000_000).prop_map(Step::Stall),
    ]
}

fn run(faults: &str, mtu: usize, seed: u64, steps: &[Step]) -> World {
    let target = Target { sectors_per_frame: 17, ..Target::new(SECTORS as usize) };
    let mut world = World::new(faults, seed, target, |config| config.mtu = mtu).attach();
    let mut checker = Checker::new();
    for step in steps {
        match *step {
            Step::Submit(operation) => {
                while world.initiator.commands() >= 32 {
                    world.run_for(Duration::from_micros(100));
                }
                checker.submit(&mut world, operation);
            }
            Step::Wait(time) => world.run_for(time),
            Step::Reset => {
                checker.check(&mut world);
                checker.reset(&mut world);
            }
            Step::Gone(time, mac) => {
                world.dead = true;
                world.run_for(time);
                world.dead = false;
                world.target.mac.0[5] = mac;
            }
            Step::Stall(time) => {
                world.stalled = true;
                world.run_for(time);
                world.stalled = false;
            }
        }
        checker.check(&mut world);
    }
    world.run_until(|world| world.initiator.commands() == 0);
    checker.check(&mut world);
    assert!(checker.pending.is_empty());
    world.run_for(Duration::from_secs(10));
    checker.check_disk(&world);
    world
}

/// The same cases each time, so that a failure is a failure tomorrow.
fn cases(seed: u8, cases: u32, faults: &str, mtu: usize, length: usize) {
    let config =
        RunnerConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..Default::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (any::<u64>(), proptest::collection::vec(step(), length..=length));
    let result = runner.run(&strategy, |(seed, steps)| {
        run(faults, mtu, seed, &steps);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn over_a_perfect_network() {
    cases(1, 20, "delay=50us", 1500, 300);
}

#[test]
fn over_the_usual_bad_network() {
    cases(2, 40, "loss=5%,duplicate=1%,reorder=2%,delay=100us", 1500, 300);
}

#[test]
fn over_a_very_bad_network() {
    cases(3, 15, "loss=20%,duplicate=10%,reorder=30%,corrupt=2%,delay=1ms,jitter=3ms", 1500, 300);
}

#[test]
fn over_a_network_with_jumbo_frames() {
    cases(4, 40, "loss=10%,duplicate=2%,reorder=30%,delay=200us,jitter=1ms", 9000, 300);
}
