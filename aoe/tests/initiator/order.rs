//! What may not pass what.

use crate::model::*;
use crate::world::World;
use kagero_aoe::wire::*;
use kagero_devices::storage::{Operation, Outcome, Tag};
use std::time::Duration;

fn world() -> World {
    World::new("delay=100us", 1, Target::new(100), |_| {}).attach()
}

/// Gives a frame to the target, and its answer to the initiator.
fn carry(world: &mut World, frame: &[u8]) {
    let answer = world.target.handle(frame).unwrap();
    world.deliver(&answer);
}

/// Lets time pass in which nothing is carried, until there is something to send.
fn wait(world: &mut World) -> Vec<u8> {
    loop {
        if let Some(frame) = world.transmit() {
            return frame;
        }
        world.now = world.initiator.poll_timeout().expect("something to wait for");
    }
}

/// A write of 1 to sector 7 that was sent twice and answered once: its first copy is still somewhere.
fn write_with_a_late_copy(world: &mut World) -> Vec<u8> {
    let tag = world.write(7, 1, 1);
    let late = world.transmit().unwrap();
    let mut again = wait(world);
    while again[19] == 1 {
        // After a long silence the target is asked first whether it is alive.
        carry(world, &again);
        again = wait(world);
    }
    assert_eq!(late[24..], again[24..]);
    assert_ne!(late[20..24], again[20..24], "each transmission has its own tag");
    carry(world, &again);
    assert_eq!(world.outcome(tag), Some(Outcome::Done));
    late
}

#[test]
fn a_late_copy_of_a_write_does_not_land_on_newer_data() {
    let mut world = world();
    let late = write_with_a_late_copy(&mut world);
    let newer = world.write(6, 3, 2);
    assert_eq!(world.transmit(), None, "held back");
    assert_eq!(world.initiator.statistics().held_back, 1);
    // Its neighbours are not.
    let other = world.write(8, 1, 3);
    assert_eq!(world.transmit(), None, "and what must come after the held one is not either");
    carry(&mut world, &late);
    assert_eq!(world.finish(newer), Outcome::Done);
    assert_eq!(world.finish(other), Outcome::Done);
    let bytes: Vec<u8> = world.target.disk[6..9].iter().map(|sector| sector[0]).collect();
    assert_eq!(bytes, [2, 2, 3]);
}

/// The newer data is written as soon as the initiator allows it; the late copy arrives 500 ms after it was sent.
fn newer_data_with_frame_lifetime(lifetime: Duration) -> u8 {
    let mut world = World::new("", 1, Target::new(100), |config| config.frame_lifetime = lifetime).attach();
    let sent = world.now;
    let late = write_with_a_late_copy(&mut world);
    let arrives = sent + Duration::from_millis(500);
    let newer = world.write(7, 1, 2);
    let mut on_its_way = Some(late);
    while world.outcome(newer).is_none() || on_its_way.is_some() {
        if world.now >= arrives
            && let Some(late) = on_its_way.take()
        {
            carry(&mut world, &late);
        }
        while let Some(frame) = world.transmit() {
            carry(&mut world, &frame);
        }
        let next = world.initiator.poll_timeout().into_iter().chain(on_its_way.is_some().then_some(arrives));
        world.now = next.min().unwrap_or(world.now).max(world.now);
    }
    world.target.disk[7][0]
}

#[test]
fn it_would_without_holding_back() {
    assert_eq!(newer_data_with_frame_lifetime(Duration::from_secs(1)), 2);
    // The network is slower than was promised: the older data wins.
    assert_eq!(newer_data_with_frame_lifetime(Duration::from_millis(20)), 1);
}

#[test]
fn a_copy_that_never_arrives_holds_back_for_its_lifetime() {
    let mut world = world();
    write_with_a_late_copy(&mut world);
    let done = world.now;
    let read = world.read(7, 1);
    assert_eq!(world.finish(read), Outcome::Done, "an acknowledged write can be read");
    let newer = world.write(7, 1, 2);
    assert_eq!(world.finish(newer), Outcome::Done);
    let held = world.now - done;
    assert!(held >= Duration::from_secs(1) && held < Duration::from_millis(1_010), "{held:?}");
}

/// Nothing is carried until the target is lost, and then for 5 s.
fn lose(world: &mut World) {
    while world.initiator.is_attached() {
        wait(world);
    }
    world.now = world.now + Duration::from_secs(5);
}

/// Everything is carried until the target is attached again.
fn come_back(world: &mut World) {
    while !world.initiator.is_attached() {
        let frame = wait(world);
        carry(world, &frame);
    }
}

#[test]
fn while_the_target_is_silent_its_late_copies_do_not_age() {
    let mut world = world();
    let late = write_with_a_late_copy(&mut world);
    let read = world.read(50, 1);
    lose(&mut world);
    come_back(&mut world);
    let newer = world.write(7, 1, 2);
    let frame = world.transmit().unwrap();
    carry(&mut world, &frame);
    assert!(world.outcome(read).is_some());
    assert_eq!(world.transmit(), None, "the target may only now come to the late copy");
    carry(&mut world, &late);
    assert_eq!(world.finish(newer), Outcome::Done);
    assert_eq!(world.target.disk[7], [2; 512]);
}

#[test]
fn a_late_copy_is_gone_only_when_the_target_says_something_after_its_time() {
    let mut world = world();
    let late = write_with_a_late_copy(&mut world);
    // Nobody notices that it hangs.
    world.now = world.now + Duration::from_secs(60);
    let newer = world.write(7, 1, 2);
    let asks = world.transmit().unwrap();
    assert_eq!(asks[19], 1, "a config query");
    assert_eq!(world.transmit(), None);
    // It goes on, and comes to the late copy first.
    carry(&mut world, &late);
    carry(&mut world, &asks);
    assert_eq!(world.finish(newer), Outcome::Done);
    assert_eq!(world.target.disk[7], [2; 512]);
}

#[test]
fn copies_from_before_a_loss_are_late_copies_too() {
    let mut world = world();
    let older = world.write(7, 1, 1);
    let late = world.transmit().unwrap();
    lose(&mut world);
    come_back(&mut world);
    let again = world.transmit().unwrap();
    carry(&mut world, &again);
    assert_eq!(world.outcome(older), Some(Outcome::Done));
    let newer = world.write(7, 1, 2);
    assert_eq!(world.transmit(), None);
    carry(&mut world, &late);
    assert_eq!(world.finish(newer), Outcome::Done);
    assert_eq!(world.target.disk[7], [2; 512]);
}

#[test]
fn a_write_cancelled_while_the_target_is_lost() {
    let mut world = world();
    let write = world.write(7, 1, 1);
    let late = world.transmit().unwrap();
    lose(&mut world);
    world.cancel(write);
    come_back(&mut world);
    let read = world.read(7, 1);
    assert_eq!(world.transmit(), None, "what it would read might change afterwards");
    carry(&mut world, &late);
    assert_eq!(world.finish(read), Outcome::Done);
    assert_eq!(world.payloads.data[&read], [1; 512]);
}

#[test]
fn a_late_copy_of_a_trim_does_not_land_on_newer_data() {
    let mut world = world();
    let mut ranges = vec![0; 512];
    ranges[..8].copy_from_slice(&(50 | 5u64 << 48).to_le_bytes());
    let trim = world.submit(Operation::Trim { blocks: 1 }, ranges);
    let late = world.transmit().unwrap();
    let again = wait(&mut world);
    carry(&mut world, &again);
    assert_eq!(world.outcome(trim), Some(Outcome::Done));
    let newer = world.write(50, 1, 2);
    assert_eq!(world.transmit(), None);
    carry(&mut world, &late);
    assert_eq!(world.finish(newer), Outcome::Done);
    assert_eq!(world.target.disk[50], [2; 512]);
}

#[test]
fn copies_beyond_counting_hold_back_for_their_lifetime() {
    let mut world = world();
    let older = world.write(7, 1, 1);
    let mut copies = vec![world.transmit().unwrap()];
    // The target answers everything else, so it is not lost.
    while copies.len() < 20 {
        let frame = wait(&mut world);
        if frame[19] == 0 { copies.push(frame) } else { carry(&mut world, &frame) }
    }
    let last = copies.pop().unwrap();
    carry(&mut world, &last);
    assert_eq!(world.outcome(older), Some(Outcome::Done));
    let newer = world.write(7, 1, 2);
    let done = world.now;
    // All copies but the first are answered.
    for frame in &copies[1..] {
        carry(&mut world, frame);
    }
    assert_eq!(world.finish(newer), Outcome::Done);
    assert!(world.now - done >= Duration::from_secs(1));
}

#[test]
fn a_pause_of_our_own_does_not_lengthen_that_for_minutes() {
    let mut world = world();
    let read = world.read(0, 1);
    let frame = world.transmit().unwrap();
    // The process was stopped meanwhile: the answer seems to have taken as long.
    world.now = world.now + Duration::from_secs(60);
    carry(&mut world, &frame);
    assert_eq!(world.outcome(read), Some(Outcome::Done));
    write_with_a_late_copy(&mut world);
    let begin = world.now;
    let newer = world.write(7, 1, 2);
    assert_eq!(world.finish(newer), Outcome::Done);
    assert!(world.now - begin < Duration::from_secs(10), "{:?}", world.now - begin);
}

#[test]
fn a_write_sent_once_holds_back_nothing() {
    let mut world = world();
    for byte in 1..100 {
        let tag = world.write(7, 1, byte);
        assert_eq!(world.finish(tag), Outcome::Done);
    }
    assert_eq!(world.initiator.statistics().held_back, 0);
    assert!(world.now < kagero_aoe::Instant::from_nanos(1_100_000_000));
}

#[test]
fn a_cancelled_write_may_arrive_later() {
    let mut world = world();
    let tag = world.write(7, 2, 1);
    let late = world.transmit().unwrap();
    world.cancel(tag);
    // Nobody knows yet what sector 7 holds.
    let read = world.read(7, 1);
    let elsewhere = world.read(9, 1);
    for _ in 0..2 {
        let frame = world.transmit().unwrap();
        // One of them asks whether the target is alive.
        let ata = Ata::parse(&frame[24..]).unwrap().0;
        assert!(frame[19] == 1 || ata.address() == 9);
        carry(&mut world, &frame);
    }
    assert_eq!(world.outcome(elsewhere), Some(Outcome::Done));
    assert_eq!(world.transmit(), None);
    carry(&mut world, &late);
    assert_eq!(world.finish(read), Outcome::Done);
    assert_eq!(world.payloads.data[&read], [1; 512]);
}

#[test]
fn a_cancelled_write_that_never_arrives() {
    let mut world = world();
    let tag = world.write(7, 2, 1);
    world.transmit().unwrap();
    world.cancel(tag);
    let cancelled = world.now;
    // The only command waits for a sign of life, which has to be asked for.
    let newer = world.write(7, 2, 2);
    assert_eq!(world.finish(newer), Outcome::Done);
    let held = world.now - cancelled;
    assert!(held >= Duration::from_secs(1) && held < Duration::from_millis(1_100), "{held:?}");
    assert_eq!(world.target.disk[7..9], [[2; 512]; 2]);
}

#[test]
fn a_cancelled_command_is_not_touched_any_more() {
    let mut world = world();
    // `Payloads` fails the test when data is delivered to or fetched from a command that isn't there.
    let write = world.write(0, 60, 1);
    let read = world.read(60, 20);
    let frames: Vec<_> = std::iter::from_fn(|| world.transmit()).collect();
    assert_eq!(frames.len(), 16);
    world.cancel(write);
    world.cancel(read);
    world.cancel(Tag(999));
    for frame in &frames {
        carry(&mut world, frame);
    }
    world.run_for(Duration::from_secs(5));
    assert_eq!((world.initiator.commands(), world.payloads.completed.len()), (0, 0));
    assert_eq!(world.initiator.statistics().stale, 16);
}

#[test]
fn conflicting_commands_are_carried_out_in_order() {
    let mut world = world();
    let first = world.read(0, 4);
    let second = world.write(2, 4, 5);
    let third = world.read(5, 1);
    let apart = world.read(50, 1);
    let frames: Vec<_> = std::iter::from_fn(|| world.transmit()).collect();
    assert_eq!(frames.len(), 3, "the first read and the one apart");
    for frame in &frames {
        carry(&mut world, frame);
    }
    assert!(world.outcome(first).is_some() && world.outcome(apart).is_some());
    let frames: Vec<_> = std::iter::from_fn(|| world.transmit()).collect();
    assert_eq!(frames.len(), 2, "the write");
    for frame in &frames {
        carry(&mut world, frame);
    }
    assert!(world.outcome(second).is_some());
    assert_eq!(world.finish(third), Outcome::Done);
    assert_eq!(world.payloads.data[&third], [5; 512]);
}

#[test]
fn a_flush_waits_for_the_writes_before_it_and_for_nothing_else() {
    let mut world = world();
    let write = world.write(0, 1, 1);
    let flush = world.submit(Operation::Flush, Vec::new());
    let later = world.write(1, 1, 2);
    let read = world.read(2, 1);
    let frames: Vec<_> = std::iter::from_fn(|| world.transmit()).collect();
    let commands: Vec<u8> = frames.iter().map(|frame| Ata::parse(&frame[24..]).unwrap().0.command).collect();
    assert_eq!(commands, [0x34, 0x34, 0x24]);
    carry(&mut world, &frames[1]);
    carry(&mut world, &frames[2]);
    assert!(world.outcome(later).is_some() && world.outcome(read).is_some());
    assert_eq!(world.transmit(), None);
    carry(&mut world, &frames[0]);
    assert!(world.outcome(write).is_some());
    let frame = world.transmit().unwrap();
    assert_eq!(Ata::parse(&frame[24..]).unwrap().0.command, 0xe7);
    carry(&mut world, &frame);
    assert_eq!(world.outcome(flush), Some(Outcome::Done));
    assert_eq!(world.target.durable[0], [1; 512]);
}

#[test]
fn a_trim_is_a_barrier() {
    let mut world = world();
    let read = world.read(0, 1);
    let trim = world.submit(Operation::Trim { blocks: 1 }, vec![0; 512]);
    let later = world.read(1, 1);
    let commands = |frames: &[Vec<u8>]| -> Vec<u8> {
        frames.iter().map(|frame| Ata::parse(&frame[24..]).unwrap().0.command).collect()
    };
    for (expected, tag) in [(0x24, read), (0x06, trim), (0x24, later)] {
        let frames: Vec<_> = std::iter::from_fn(|| world.transmit()).collect();
        assert_eq!(commands(&frames), [expected]);
        carry(&mut world, &frames[0]);
        assert_eq!(world.outcome(tag), Some(Outcome::Done));
    }
}

#[test]
fn an_ata_answer_to_a_question_for_life_does_not_end_the_asking() {
    let mut world = world();
    let tag = world.write(7, 2, 1);
    let late = world.transmit().unwrap();
    world.cancel(tag);
    let read = world.read(7, 1);
    let question = wait(&mut world);
    assert_eq!(question[19], 1, "the read waits for a sign of life");
    // An answer with the question's tag, but of the wrong kind.
    let mut wrong = world.target.handle(&late).unwrap();
    wrong[20..24].copy_from_slice(&question[20..24]);
    world.deliver(&wrong);
    assert_eq!(world.outcome(read), None);
    assert_eq!(world.finish(read), Outcome::Done);
}
