//! A target that goes away and comes back.

use crate::model::*;
use crate::world::World;
use kagero_aoe::initiator::{Event, OnLoss};
use kagero_aoe::wire::{ErrorCode, MacAddress};
use kagero_devices::storage::{Operation, Outcome};
use std::time::Duration;

const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

fn world() -> World {
    let mut world = World::new("delay=100us", 1, Target::new(1000), |_| {}).attach();
    world.events.clear();
    world
}

#[test]
fn commands_are_held_until_the_target_is_back_at_another_address() {
    let mut world = world();
    let write = world.write(0, 100, 1);
    let read = world.read(500, 100);
    let flush = world.submit(Operation::Flush, Vec::new());
    world.run_for(Duration::from_micros(350));
    world.dead = true;
    world.run_for(Duration::from_secs(100));
    let [Event::TargetLost { silent }] = world.events[..] else { panic!("{:?}", world.events) };
    assert!(silent >= Duration::from_secs(1) && silent < Duration::from_secs(3), "{silent:?}");
    assert!(!world.initiator.is_attached());
    assert_eq!((world.initiator.commands(), world.payloads.completed.len()), (3, 0));
    world.dead = false;
    world.target.mac = OTHER;
    for tag in [write, read, flush] {
        assert_eq!(world.finish(tag), Outcome::Done);
    }
    world.run_for(Duration::from_secs(5));
    let Event::TargetBack { mac, silent } = world.events[1] else { panic!("{:?}", world.events) };
    assert_eq!((mac, world.events.len()), (OTHER, 2));
    assert!(silent > Duration::from_secs(99));
    assert_eq!(world.target.durable[..100], [[1; 512]; 100]);
    assert_eq!(world.initiator.statistics().losses, 1);
    assert_eq!(world.initiator.target_mac(), Some(OTHER));
}

#[test]
fn frames_may_be_shorter_afterwards() {
    let target = Target { sectors_per_frame: 17, ..Target::new(1000) };
    let mut world = World::new("delay=100us", 1, target, |config| config.mtu = 9000).attach();
    let payload: Vec<u8> = (0..400 * 512).map(|n: u32| (n / 7) as u8).collect();
    let write = world.submit(Operation::Write { lba: 0, sectors: 400, durable: true }, payload.clone());
    world.run_for(Duration::from_micros(350));
    world.dead = true;
    world.run_for(Duration::from_secs(5));
    world.dead = false;
    // Whoever has taken over sits behind a switch without jumbo frames.
    (world.target.sectors_per_frame, world.target.mtu) = (3, 1500);
    assert_eq!(world.finish(write), Outcome::Done);
    assert_eq!(world.initiator.sectors_per_frame(), Some(2));
    assert_eq!(world.target.durable[..400].concat(), payload);
}

#[test]
fn a_disk_that_has_changed_is_told() {
    let mut world = world();
    world.dead = true;
    let tag = world.read(0, 1);
    world.run_for(Duration::from_secs(5));
    world.dead = false;
    world.target.identify(2000, "MODEL1");
    world.finish(tag);
    world.run_for(Duration::from_secs(1));
    let [Event::TargetLost { .. }, Event::TargetBack { .. }, Event::Changed(disk)] = &world.events[..] else {
        panic!("{:?}", world.events)
    };
    assert_eq!(disk.sectors, 2000);
    assert_eq!(world.initiator.disk().unwrap().sectors, 2000);
}

#[test]
fn by_policy_commands_fail() {
    let patience = Duration::from_secs(30);
    let mut world = World::new("delay=100us", 1, Target::new(1000), |config| {
        config.on_loss = OnLoss::FailAfter(patience)
    })
    .attach();
    let begin = world.now;
    world.dead = true;
    let write = world.write(0, 100, 1);
    let read = world.read(500, 1);
    assert_eq!(world.finish(write), Outcome::Failed { error: 0x04, done: 0 });
    let waited = world.now - begin;
    assert!(waited >= patience - Duration::from_millis(1) && waited < patience + Duration::from_secs(1));
    assert_eq!(world.outcome(read), Some(Outcome::Failed { error: 0x04, done: 0 }));
    let begin = world.now;
    let late = world.read(0, 1);
    assert_eq!(world.finish(late), Outcome::Failed { error: 0x04, done: 0 });
    assert!(world.now - begin < Duration::from_millis(1));
    world.dead = false;
    world.run_until(|world| world.initiator.is_attached());
    let tag = world.read(0, 1);
    assert_eq!(world.finish(tag), Outcome::Done);
    assert_eq!(world.initiator.statistics().failed, 3);
}

#[test]
fn a_target_that_only_stalls_gets_no_newer_data_too_early() {
    // Everything sent meanwhile lies in its queue and is carried out when it goes on.
    for stall in [50, 500, 900, 1_500, 5_000, 20_000] {
        let mut world = world();
        world.stalled = true;
        let old = world.write(0, 4, 1);
        world.run_for(Duration::from_millis(stall));
        world.cancel(old);
        let new = world.write(0, 4, 2);
        world.run_for(Duration::from_millis(stall));
        world.stalled = false;
        assert_eq!(world.finish(new), Outcome::Done);
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.target.disk[..4], [[2; 512]; 4], "{stall}");
    }
}

#[test]
fn a_disk_that_becomes_unavailable_is_lost_and_found() {
    let mut world = world();
    world.target.refuse = Some(ErrorCode::DeviceUnavailable);
    let tag = world.read(0, 8);
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.outcome(tag), None);
    assert!(matches!(world.events[..], [Event::TargetLost { .. }]));
    world.target.refuse = None;
    assert_eq!(world.finish(tag), Outcome::Done);
    assert!(matches!(world.events[1], Event::TargetBack { .. }));
}

#[test]
fn a_disk_that_hangs_behind_a_live_target_is_waited_for() {
    let target = Target { sectors_per_frame: 17, ..Target::new(1000) };
    let mut world = World::new("delay=100us", 1, target, |config| config.mtu = 9000).attach();
    world.events.clear();
    // Such as one that spins up.
    world.target.hung = true;
    let tag = world.read(0, 100);
    let before = world.initiator.statistics().frames_sent;
    world.run_for(Duration::from_secs(30));
    let sent = world.initiator.statistics().frames_sent - before;
    assert!(world.initiator.is_attached() && world.events.is_empty() && sent < 300, "{sent}");
    world.target.hung = false;
    assert_eq!(world.finish(tag), Outcome::Done);
    assert_eq!(world.initiator.sectors_per_frame(), Some(17));
}

#[test]
fn one_slow_request_is_not_the_loss_of_the_target() {
    let mut world = world();
    let slow = world.read(900, 1);
    let kept = world.transmit().unwrap();
    let begin = world.now;
    let (mut resent, mut longest) = (0, Duration::ZERO);
    while world.now - begin < Duration::from_secs(20) {
        let submitted = world.now;
        let tag = world.read(0, 1);
        while world.outcome(tag).is_none() {
            world.now = world.now + Duration::from_micros(100);
            while let Some(frame) = world.transmit() {
                if frame[28..34] == kept[28..34] {
                    resent += 1;
                    continue;
                }
                let answer = world.target.handle(&frame).unwrap();
                world.deliver(&answer);
            }
        }
        longest = longest.max(world.now - submitted);
        world.now = world.now + Duration::from_millis(10);
    }
    assert!(world.initiator.is_attached());
    assert!((10..30).contains(&resent), "{resent}: less and less often");
    assert!(longest < Duration::from_millis(10), "{longest:?}: the others don't suffer");
    // An answer to an early copy still counts, if it is still known.
    assert_eq!(world.finish(slow), Outcome::Done);
}

#[test]
fn an_idle_initiator_sends_nothing() {
    let mut world = world();
    let sent = world.initiator.statistics().frames_sent;
    world.run_for(Duration::from_secs(3600));
    assert_eq!(world.initiator.statistics().frames_sent, sent);
    assert_eq!(world.initiator.poll_timeout(), None);
}
