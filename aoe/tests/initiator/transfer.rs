//! Commands, and the frames that they become.

use crate::model::*;
use crate::world::World;
use kagero_aoe::wire::*;
use kagero_devices::storage::{Command as Request, Operation, Outcome, Tag};
use std::time::Duration;

fn world(target: Target) -> World {
    World::new("delay=100us", 1, target, |_| {}).attach()
}

#[test]
fn a_command_is_split_and_put_together() {
    let mut world = world(Target::new(1000));
    let payload: Vec<u8> = (0..101 * 512).map(|n: u32| (n / 3) as u8).collect();
    let write = world.submit(Operation::Write { lba: 13, sectors: 101, durable: false }, payload.clone());
    assert_eq!(world.finish(write), Outcome::Done);
    assert_eq!(world.target.log.len(), 1 + 51);
    let read = world.read(13, 101);
    assert_eq!(world.finish(read), Outcome::Done);
    assert_eq!(world.payloads.data[&read], payload);
    let registers = world.target.log.last().unwrap();
    assert_eq!((registers.command, registers.extended, registers.count), (0x24, true, 1));
    assert_eq!(registers.address(), 13 + 100);
    let statistics = world.initiator.statistics();
    assert_eq!((statistics.resends, statistics.stale, statistics.malformed), (0, 0, 0));
    assert_eq!(statistics.round_trip.max(), Duration::from_micros(200));
}

#[test]
fn a_disk_without_48_bit_addresses() {
    let mut target = Target::new(1000);
    target.identity[83 * 2 + 1] &= !4; // word 83, bit 10
    target.identity[510..].fill(0);
    let mut world = world(target);
    let write = world.write(300, 3, 7);
    assert_eq!(world.finish(write), Outcome::Done);
    let read = world.read(299, 5);
    assert_eq!(world.finish(read), Outcome::Done);
    assert_eq!(world.payloads.data[&read][512..4 * 512], [7; 3 * 512]);
    let log = &world.target.log;
    assert!(log.iter().all(|ata| !ata.extended));
    assert_eq!((log[1].command, log.last().unwrap().command), (0x30, 0x20));
    assert_eq!(log[1].lba[3] & 0x40, 0x40);
}

#[test]
fn the_whole_of_a_large_command_goes_through_the_window() {
    let mut world = world(Target::new(70_000));
    let tag = world.read(1, 65_536);
    assert_eq!(world.finish(tag), Outcome::Done);
    assert_eq!(world.payloads.data[&tag], vec![0; 65_536 * 512]);
    assert_eq!(world.initiator.commands(), 0);
}

#[test]
fn verify_reads_and_delivers_nothing() {
    let mut target = Target::new(100);
    target.bad_sector = Some(50);
    let mut world = world(target);
    let good = world.submit(Operation::Verify { lba: 0, sectors: 50 }, Vec::new());
    assert_eq!(world.finish(good), Outcome::Done);
    let bad = world.submit(Operation::Verify { lba: 40, sectors: 20 }, Vec::new());
    assert_eq!(world.finish(bad), Outcome::Failed { error: 0x40, done: 10 });
}

#[test]
fn an_error_says_how_far_it_came() {
    let mut target = Target::new(1000);
    target.bad_sector = Some(333);
    let mut world = world(target);
    for lba in [300, 301] {
        let tag = world.read(lba, 100);
        assert_eq!(world.finish(tag), Outcome::Failed { error: 0x40, done: 333 - lba as u32 });
    }
    let tag = world.write(990, 20, 1);
    assert_eq!(world.finish(tag), Outcome::Failed { error: 0x10, done: 10 });
    assert_eq!(world.initiator.statistics().failed, 3);
    // And the initiator is none the worse for it.
    let tag = world.read(0, 100);
    assert_eq!(world.finish(tag), Outcome::Done);
    assert_eq!(world.initiator.commands(), 0);
}

#[test]
fn a_flush_takes_the_form_that_the_target_knows() {
    for (unknown, expected, log) in [
        (vec![], Outcome::Done, vec![0xe7, 0xe7]),
        (vec![0xea], Outcome::Done, vec![0xe7, 0xe7]),
        (vec![0xe7], Outcome::Done, vec![0xe7, 0xea, 0xea]),
    ] {
        let mut world = world(Target { unknown, ..Target::new(100) });
        for _ in 0..2 {
            let tag = world.submit(Operation::Flush, Vec::new());
            assert_eq!(world.finish(tag), expected);
        }
        assert_eq!(world.target.log[1..].iter().map(|ata| ata.command).collect::<Vec<_>>(), log);
    }
    let mut world = world(Target { unknown: vec![0xe7, 0xea], ..Target::new(100) });
    let tag = world.submit(Operation::Flush, Vec::new());
    assert_eq!(world.finish(tag), Outcome::Failed { error: 0x04, done: 0 });
}

#[test]
fn a_durable_write_is_flushed_before_it_is_done() {
    let mut world = world(Target::new(100));
    let operation = Operation::Write { lba: 5, sectors: 9, durable: true };
    let tag = world.submit(operation, vec![3; 9 * 512]);
    assert_eq!(world.finish(tag), Outcome::Done);
    assert_eq!(world.target.durable[5..14], [[3; 512]; 9]);
    let plain = world.write(5, 9, 4);
    assert_eq!(world.finish(plain), Outcome::Done);
    assert_eq!(world.target.durable[5..14], [[3; 512]; 9]);
}

#[test]
fn a_trim_carries_its_ranges() {
    let mut world = world(Target::new(100));
    let write = world.write(0, 100, 9);
    let mut ranges = vec![0; 3 * 512];
    ranges[..8].copy_from_slice(&(10 | 5u64 << 48).to_le_bytes());
    ranges[2 * 512 + 504..].copy_from_slice(&(90 | 10u64 << 48).to_le_bytes());
    let trim = world.submit(Operation::Trim { blocks: 3 }, ranges);
    assert_eq!(world.finish(trim), Outcome::Done);
    assert_eq!(world.outcome(write), Some(Outcome::Done));
    for (lba, sector) in world.target.disk.iter().enumerate() {
        let gone = (10..15).contains(&lba) || lba >= 90;
        assert_eq!(sector, &[if gone { 0 } else { 9 }; 512], "{lba}");
    }
}

#[test]
fn a_payload_outside_guest_memory_ends_the_command() {
    let mut world = world(Target::new(100));
    let tag = world.write(0, 10, 1);
    world.payloads.faulty.push(tag);
    assert_eq!(world.transmit(), None);
    assert_eq!(world.outcome(tag), Some(Outcome::DmaFault));
    // Later too, when a part has been sent and has to be sent again.
    let tag = world.write(0, 10, 1);
    let sent = std::iter::from_fn(|| world.transmit()).count();
    assert_eq!(sent, 5);
    world.payloads.faulty.push(tag);
    assert_eq!(world.finish(tag), Outcome::DmaFault);
    let read = world.read(0, 10);
    assert_eq!(world.finish(read), Outcome::Done);
}

#[test]
fn a_full_queue_gives_the_command_back() {
    let mut world = world(Target::new(100));
    for lba in 0..64 {
        world.read(lba, 1);
    }
    let command = Request { tag: Tag(1000), disk: 0, operation: Operation::Flush };
    assert_eq!(world.initiator.submit(world.now, command), Err(command));
    world.run_until(|world| world.initiator.commands() == 0);
    assert_eq!(world.payloads.completed.len(), 64);
}

#[test]
fn a_short_buffer_sends_nothing_and_loses_nothing() {
    let mut world = world(Target::new(100));
    let tag = world.write(0, 2, 1);
    let mut short = [0; 1059];
    let sent = world.initiator.poll_transmit(world.now, &mut world.payloads, &NoMemory, &mut short);
    assert_eq!(sent, None);
    assert_eq!(world.finish(tag), Outcome::Done);
}

#[test]
fn short_and_late_answers_are_dropped() {
    let mut world = world(Target::new(100));
    let tag = world.read(0, 2);
    let request = world.transmit().unwrap();
    let answer = world.target.handle(&request).unwrap();
    world.deliver(&answer[..answer.len() - 1]);
    assert_eq!((world.outcome(tag), world.initiator.statistics().malformed), (None, 1));
    world.deliver(&answer);
    assert_eq!(world.outcome(tag), Some(Outcome::Done));
    world.deliver(&answer);
    assert_eq!(world.initiator.statistics().stale, 1);
    let mut other = answer;
    other[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    world.deliver(&other);
    assert_eq!(world.initiator.statistics().ignored, 1);
}

#[test]
fn a_slow_sector_does_not_cost_the_window() {
    let mut world = world(Target::new(100));
    let slow = world.read(50, 1);
    let kept = world.transmit().unwrap();
    let quick = world.read(0, 1);
    world.finish(quick);
    // Overtaken, it is sent again, which the network loses; then its first copy is answered after all.
    while world.initiator.statistics().resends == 0 {
        world.now = world.initiator.poll_timeout().unwrap();
        world.transmit();
    }
    assert_eq!(world.initiator.statistics().window, 8);
    let answer = world.target.handle(&kept).unwrap();
    world.deliver(&answer);
    assert_eq!(world.outcome(slow), Some(Outcome::Done));
    let statistics = world.initiator.statistics();
    assert_eq!((statistics.window, statistics.needless), (16, 1));
}

#[test]
fn reads_of_one_window_are_resent_when_overtaken() {
    let mut world = world(Target::new(100));
    // Round trips of 200 us are known: a whole millisecond is the granularity.
    for _ in 0..50 {
        let tag = world.read(0, 1);
        world.finish(tag);
    }
    let tag = world.read(0, 8);
    let frames: Vec<_> = std::iter::from_fn(|| world.transmit()).collect();
    assert_eq!(frames.len(), 4);
    for frame in &frames[1..] {
        let answer = world.target.handle(frame).unwrap();
        world.deliver(&answer);
    }
    let sent = world.now;
    assert_eq!(world.finish(tag), Outcome::Done);
    assert!(world.now - sent < Duration::from_millis(2), "{:?}", world.now - sent);
    assert_eq!(world.initiator.statistics().resends, 1);
    let frame = Frame::parse(&frames[0]).unwrap();
    assert!(frame.header.tag & 1 << 31 != 0);
}
